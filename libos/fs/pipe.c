/* Pipes and FIFOs: data stays inside. */
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "temporary.h"
#include "../sys/sys.h"

#define PIPE_SIZE 65536u
#define PIPE_BUF 4096u

/* The caller holds what it waits for, and looks at it again: another thread may close the descriptor meanwhile. */
long wait_for_change(long timeout_ns)
{
    self()->polling = true;
    long ret = park(timeout_ns, 0);
    self()->polling = false;
    return ret == -EINTR ? -ERESTARTSYS : ret < 0 ? ret : 0;
}

static struct pipe *pipe_new(void)
{
    struct pipe *p = kmalloc(sizeof *p);
    if (p && !(p->data = (u8 *)kpages(PIPE_SIZE))) {
        kfree(p);
        return NULL;
    }
    if (p)
        p->size = PIPE_SIZE;
    return p;
}

void pipe_drop(struct pipe *p, bool writer)
{
    if (writer)
        p->writers--;
    else
        p->readers--;
    if (!p->readers && !p->writers) {
        if (p->inode) {
            p->inode->pipe = NULL;
            tmp_drop(p->inode);
        }
        kpages_free((u64)p->data, p->size);
        kfree(p);
    }
    poll_wake();
}

long pipe_read(struct file *f, void *to, u64 size)
{
    struct pipe *p = f->in;
    if (!p)
        return -EBADF;
    if (!size)
        return 0;
    while (!p->used) {
        if (!p->writers && (p->had_writer || f->flags & O_NONBLOCK))
            return 0;
        if (f->flags & O_NONBLOCK)
            return -EAGAIN;
        long bad = wait_for_change(-1);
        if (bad)
            return bad;
    }
    u64 n = min64(size, p->used);
    for (u64 done = 0; done < n;) {
        u64 part = min64(n - done, p->size - p->start);
        memcpy((u8 *)to + done, p->data + p->start, part);
        p->start = (u32)((p->start + part) % p->size);
        done += part;
    }
    p->used -= (u32)n;
    p->generation++;
    poll_wake();
    return (long)n;
}

void pipe_back(struct pipe *p, const void *from, u64 size)
{
    p->start = (u32)((p->start + p->size - size) % p->size);
    for (u64 done = 0, part; done < size; done += part) {
        u64 at = (p->start + done) % p->size;
        part = min64(size - done, p->size - at);
        memcpy(p->data + at, (const u8 *)from + done, part);
    }
    p->used += (u32)size;
    p->generation++;
    poll_wake();
}

long pipe_write(struct file *f, const void *from, u64 size)
{
    struct pipe *p = f->out;
    u64 done = 0;
    if (!p)
        return -EBADF;
    while (done < size) {
        if (!p->readers) {
            signal_send(self(), 13, 0, 0);
            return done ? (long)done : -EPIPE;
        }
        u64 room = pipe_room(p);
        if (!room || (size <= PIPE_BUF && room < size)) {
            if (f->flags & O_NONBLOCK)
                return done ? (long)done : -EAGAIN;
            long bad = wait_for_change(-1);
            if (bad)
                return done ? (long)done : bad;
            continue;
        }
        u64 at = (p->start + p->used) % p->size, part = min64(min64(size - done, room), p->size - at);
        memcpy(p->data + at, (const u8 *)from + done, part);
        p->used += (u32)part;
        p->generation++;
        done += part;
        poll_wake();
    }
    return (long)done;
}

long pair_out(struct file *one, struct file *two, long to, bool cloexec)
{
    long x = file_install(one, 0, cloexec);
    if (x < 0) {
        file_drop(two);
        return x;
    }
    long y = file_install(two, 0, cloexec);
    if (y < 0) {
        fd_close((int)x);
        return y;
    }
    ((int *)to)[0] = (int)x;
    ((int *)to)[1] = (int)y;
    return 0;
}

long sys_pipe2(const long *a)
{
    if (!user_write_ok((u64)a[0], 8))
        return -EFAULT;
    if (a[1] & ~(long)(O_CLOEXEC | O_NONBLOCK | O_DIRECT))
        return -EINVAL;
    struct pipe *p = pipe_new();
    struct file *in = file_new(FILE_PIPE, O_RDONLY | ((u32)a[1] & O_NONBLOCK)), *out = file_new(FILE_PIPE, O_WRONLY | ((u32)a[1] & O_NONBLOCK));
    if (!p || !in || !out) {
        kfree(in);
        kfree(out);
        if (p)
            kpages_free((u64)p->data, p->size);
        kfree(p);
        return -ENOMEM;
    }
    p->readers = p->writers = 1;
    p->had_writer = true;
    in->in = out->out = p;
    return pair_out(in, out, a[0], a[1] & O_CLOEXEC);
}
long sys_pipe(const long *a) { return sys_pipe2((long[]){a[0], 0}); }

/* Reading waits for a writer and writing for a reader, unless O_NONBLOCK says otherwise (fifo(7)). */
long fifo_open(struct inode *i, const char *path, int flags, struct file **file)
{
    u32 mode = (u32)flags & O_ACCMODE;
    bool reads = mode != O_WRONLY, writes = mode != O_RDONLY;
    if (writes && !reads && flags & O_NONBLOCK && (!i->pipe || !i->pipe->readers))
        return -ENXIO;
    struct file *f = file_named(FILE_PIPE, path, (u32)flags);
    if (!f)
        return -ENOMEM;
    if (!i->pipe) {
        if (!(i->pipe = pipe_new())) {
            file_drop(f);
            return -ENOMEM;
        }
        i->pipe->inode = i;
        i->refs++;
    }
    struct pipe *p = i->pipe;
    if (reads)
        f->in = p, p->readers++;
    if (writes)
        f->out = p, p->writers++, p->had_writer = true;
    f->inode = i;
    i->refs++;
    poll_wake();
    while (!(flags & O_NONBLOCK) && !(reads ? p->had_writer : p->readers)) {
        long bad = wait_for_change(-1);
        if (bad) {
            file_drop(f);
            return bad;
        }
    }
    *file = f;
    return 0;
}
