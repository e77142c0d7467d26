/* Copying between descriptors without the program's buffer: sendfile, copy_file_range, splice. */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/poll.h>

#include "sys.h"
#include "temporary.h"

#define PIECE 65536u

static long place_in(long at, long *offset)
{
    *offset = -1;
    if (!at)
        return 0;
    if (!user_write_ok((u64)at, 8))
        return -EFAULT;
    *offset = *(long *)at;
    return *offset < 0 ? -EINVAL : 0;
}

/* Where it got to; not when it has moved nothing. False: the place has gone while the call waited. */
static bool place_out(long at, long offset, long moved)
{
    if (!at || moved < 0)
        return true;
    if (!user_write_ok((u64)at, 8))
        return false;
    *(long *)at = offset;
    return true;
}

static bool host_seekable(const struct file *f) { return f->type != FILE_HOST || host(__NR_lseek, f->host_fd, 0, 1 /* SEEK_CUR */) >= 0; }

/*
 * What the target did not take is the source's again: in a pipe's front, or by its offset. A pipe that is written to keeps room for what
 * is being read, one that is read from for what may come back: nothing is lost when another thread comes between.
 */
static void give_back(struct file *from, const u8 *rest, u64 size)
{
    if (from->type == FILE_PIPE && from->in)
        pipe_back(from->in, rest, size);
    else if (from->type == FILE_HOST && !from->socket)
        host(__NR_lseek, from->host_fd, -(long)size, 1 /* SEEK_CUR */);
    else if (seekable(from))
        from->offset -= size;
}

/* Moves up to `size` bytes; *from_at and *to_at (-1: the file's own offset) go on. A short read ends it. */
static long copy(struct file *from, long *from_at, struct file *to, long *to_at, u64 size)
{
    u64 done = 0;
    long n = 0;
    struct pipe *into = to->type == FILE_PIPE ? to->out : NULL, *out_of = from->type == FILE_PIPE ? from->in : NULL;
    u8 *piece = kmalloc(PIECE);
    if (!piece)
        return -ENOMEM;
    from->refs++;
    to->refs++;
    while (done < size) {
        u64 want = min64(size - done, PIECE);
        if (into && pipe_room(into)) /* none: sendfile, whose source can be read again */
            want = min64(want, pipe_room(into));
        u32 promised = into ? (u32)min64(want, pipe_room(into)) : 0;
        if (into)
            into->promised += promised;
        n = file_read(from, piece, want, *from_at);
        if (into && promised) {
            into->promised -= promised;
            if (n < (long)promised)
                poll_wake(); /* others may have waited for it */
        }
        if (n <= 0)
            break;
        u64 got = (u64)n;
        if (out_of)
            out_of->promised += (u32)got;
        n = file_write(to, piece, got, *to_at);
        if (out_of) {
            out_of->promised -= (u32)got;
            poll_wake();
        }
        u64 put = n > 0 ? (u64)n : 0;
        if (put < got && *from_at < 0)
            give_back(from, piece + put, got - put);
        if (*from_at >= 0)
            *from_at += (long)put;
        if (*to_at >= 0)
            *to_at += (long)put;
        done += put;
        if (put < got || got < want)
            break;
    }
    kfree(piece);
    file_drop(from);
    file_drop(to);
    return done ? (long)done : n;
}

long sys_sendfile(const long *a)
{
    struct file *to = file_get((int)a[0]), *from = file_get((int)a[1]);
    long at, here = -1;
    if (!to || !from || !readable(from) || !writable(to))
        return -EBADF;
    long bad = place_in(a[2], &at);
    if (bad)
        return bad;
    if (from->type != FILE_TMP && from->type != FILE_PACK && from->type != FILE_ENCRYPTED && from->type != FILE_BUFFER && (from->type != FILE_HOST || from->socket))
        return -EINVAL;
    if (to->flags & O_APPEND || !host_seekable(from))
        return -EINVAL;
    long n = copy(from, &at, to, &here, min64((u64)a[3], 0x7ffff000));
    return place_out(a[2], at, n) ? n : -EFAULT;
}

static bool plain(const struct file *f) { return f->type == FILE_TMP || f->type == FILE_PACK || f->type == FILE_ENCRYPTED || (f->type == FILE_HOST && !f->socket); }

long sys_copy_file_range(const long *a)
{
    struct file *from = file_get((int)a[0]), *to = file_get((int)a[2]);
    long from_at, to_at;
    if (!from || !to || !readable(from) || !writable(to) || to->flags & O_APPEND)
        return -EBADF;
    if (a[5] || !plain(from) || !plain(to))
        return -EINVAL;
    long bad = place_in(a[1], &from_at);
    if (!bad)
        bad = place_in(a[3], &to_at);
    if (bad)
        return bad;
    u64 size = min64((u64)a[4], 0x7ffff000);
    if ((from->inode && from->inode == to->inode) || (from->encrypted && from->encrypted == to->encrypted)) { /* may not overlap */
        u64 x = from_at < 0 ? from->offset : (u64)from_at, y = to_at < 0 ? to->offset : (u64)to_at;
        if (x < y + size && y < x + size)
            return -EINVAL;
    }
    long n = copy(from, &from_at, to, &to_at, size);
    return place_out(a[1], from_at, n) && place_out(a[3], to_at, n) ? n : -EFAULT;
}

static bool would_wait(const struct file *f)
{
    if (f->type == FILE_PIPE && f->in)
        return !f->in->used && f->in->writers;
    return f->type == FILE_UNIX && !(unix_poll(f->unix_socket) & (POLLIN | POLLHUP | POLLERR));
}

static long splice_held(struct file *from, struct file *to, const long *a)
{
    long from_at, to_at;
    if (a[5] & ~0xfl || (from->type != FILE_PIPE && to->type != FILE_PIPE))
        return -EINVAL;
    if ((a[1] && from->type == FILE_PIPE) || (a[3] && to->type == FILE_PIPE))
        return -ESPIPE;
    if (from->in && from->in == to->out)
        return -EINVAL;
    long bad = place_in(a[1], &from_at);
    if (!bad)
        bad = place_in(a[3], &to_at);
    if (bad)
        return bad;
    u64 size = min64((u64)a[4], PIECE);
    bool wait = !(a[5] & 2);         /* SPLICE_F_NONBLOCK: of this call and the pipe's end; what else there is waits as it is opened */
    if (!wait && would_wait(from))
        return -EAGAIN;
    if (to->type == FILE_PIPE && to->out)
        while (to->out->readers && !pipe_room(to->out)) {
            if (to->flags & O_NONBLOCK || !wait)
                return -EAGAIN;
            if ((bad = wait_for_change(-1)))
                return bad;
        }
    if (to->type == FILE_PIPE && to->out)
        size = min64(size, pipe_room(to->out));
    long n = copy(from, &from_at, to, &to_at, size);
    return place_out(a[1], from_at, n) && place_out(a[3], to_at, n) ? n : -EFAULT;
}

long sys_splice(const long *a)
{
    struct file *from = file_get((int)a[0]), *to = file_get((int)a[2]);
    if (!from || !to || !readable(from) || !writable(to))
        return -EBADF;
    from->refs++;
    to->refs++;
    long n = splice_held(from, to, a);
    file_drop(from);
    file_drop(to);
    return n;
}
