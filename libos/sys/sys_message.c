/* Sending and receiving on sockets, with and without ancillary data. What the host answers is bounded before it is used. */
#include <asm/unistd.h>
#include <linux/fcntl.h>

#include "net.h"
#include "sys.h"
#include "vector.h"

struct header { u64 name; u32 name_size, pad; u64 vector, count, control, control_size; u32 flags, pad2; }; /* struct msghdr */
struct control { u64 size; int level, type; };                                                             /* struct cmsghdr */
_Static_assert(sizeof(struct header) == 56 && sizeof(struct control) == 16, "msghdr");
enum { RIGHTS = 1, CREDENTIALS = 2, SOCKET_LEVEL = 1 };
enum { PEEK_ = 2, WAITALL_ = 0x100 };
enum { CTRUNC = 8, TRUNC = 0x20, NOSIGNAL = 0x4000, CMSG_CLOEXEC = 0x40000000, ERRQUEUE = 0x2000 };
/* The block's data: address and its size, struct msghdr, its vector, ancillary data, bytes. */
#define HEADER_AT 256u
#define VECTOR_AT 320u
#define CONTROL_AT 512u
#define CONTROL_MOST 8192u
#define PAYLOAD_AT (CONTROL_AT + CONTROL_MOST)
#define PAYLOAD_MOST (DATA_MAX - PAYLOAD_AT)
#define TOGETHER_MOST 0x100000u

static u64 next_control(u64 size) { return (size + 7) & ~7ull; }

/* ---- ancillary data of AF_UNIX ---- */
static long rights_in(const struct header *h, struct unix_extra *extra)
{
    for (u64 at = 0; at + sizeof(struct control) <= h->control_size;) {
        struct control c = *(const struct control *)(h->control + at);
        if (c.size < sizeof c || c.size > h->control_size - at)
            return -EINVAL;
        if (c.level == SOCKET_LEVEL && c.type == RIGHTS) {
            const int *fd = (const void *)(h->control + at + sizeof c);
            for (u64 i = 0; i < (c.size - sizeof c) / 4; i++) {
                struct file *f = file_get(fd[i]);
                if (!f)
                    return -EBADF;
                if (extra->file_count == UNIX_FILES)
                    return -EINVAL;
                f->refs++;
                extra->files[extra->file_count++] = f;
            }
        } else if (c.level == SOCKET_LEVEL && c.type == CREDENTIALS) {
            if (c.size != sizeof c + 12)
                return -EINVAL;
            if (((const u32 *)(h->control + at + sizeof c))[0] != PID)
                return -EPERM;
        } else if (c.level == SOCKET_LEVEL)
            return -EINVAL;
        at += next_control(c.size);
    }
    return 0;
}

static bool control_put(struct header *h, u64 *used, int type, const void *data, u64 size)
{
    u64 whole = sizeof(struct control) + size;
    if (h->control_size - *used < whole)
        return false;
    struct control c = {whole, SOCKET_LEVEL, type};
    memcpy((void *)(h->control + *used), &c, sizeof c);
    memcpy((void *)(h->control + *used + sizeof c), data, size);
    *used = min64(h->control_size, *used + next_control(whole));
    return true;
}

/* As many descriptors as there is room for; the rest is closed, and MSG_CTRUNC says so. */
static void rights_out(struct header *h, struct unix_extra *extra, bool cloexec, u32 *flags)
{
    u64 used = 0;
    int numbers[UNIX_FILES];
    u32 count = 0, room;
    if (extra->credentials) {
        u32 who[3] = {extra->pid, extra->uid, extra->gid};
        if (!control_put(h, &used, CREDENTIALS, who, sizeof who))
            *flags |= CTRUNC;
    }
    room = h->control_size - used >= sizeof(struct control) + 4 ? (u32)min64(UNIX_FILES, (h->control_size - used - sizeof(struct control)) / 4) : 0;
    for (u32 i = 0; i < extra->file_count; i++) {
        long fd = i < room && count == i ? file_install(extra->files[i], 0, cloexec) : (file_drop(extra->files[i]), -1);
        if (fd >= 0)
            numbers[count++] = (int)fd;
    }
    if (count < extra->file_count)
        *flags |= CTRUNC;
    if (count)
        control_put(h, &used, RIGHTS, numbers, 4ull * count);
    extra->file_count = 0;
    h->control_size = used;
}

static void files_drop(struct unix_extra *extra)
{
    for (u32 i = 0; i < extra->file_count; i++)
        file_drop(extra->files[i]);
    extra->file_count = 0;
}

/* Whether what is about to be written for recvmsg is the program's memory: asked when all waiting is done. */
static bool answer_ok(const struct header *h, const struct vector *v)
{
    return user_write_ok(h->control, h->control_size) && user_write_ok(h->name, h->name_size) && vector_ok(v, true);
}

static long unix_message(struct file *f, struct header *h, const struct vector *v, u32 flags, bool send)
{
    struct unix_name name;
    struct unix_extra *extra = kmalloc(sizeof *extra);
    u64 total = v->total;
    long n = extra ? 0 : -ENOMEM;
    u8 *bytes = NULL;
    if (!n && total > TOGETHER_MOST) {
        if (send && unix_type(f) != 1)
            n = -EMSGSIZE;
        total = TOGETHER_MOST;
    }
    if (!n && !(bytes = kmalloc(total + 1)))
        n = -ENOBUFS;
    if (!n && send) {
        if (!vector_copy(v, bytes, total, false, 0))
            n = -EFAULT;
        if (!n && h->name_size && (n = unix_name_in((long)h->name, h->name_size, &name)))
            n = n == -EAFNOSUPPORT ? -EINVAL : n;
        if (!n)
            n = rights_in(h, extra);
        if (!n)
            n = unix_send(f, bytes, total, flags, extra, h->name_size ? &name : NULL);
        files_drop(extra); /* not taken over: it failed */
    } else if (!n) {
        n = unix_receive(f, bytes, total, flags, extra);
        if (n >= 0 && !answer_ok(h, v)) {
            files_drop(extra);
            n = -EFAULT;
        }
        if (n >= 0) {
            vector_copy(v, bytes, min64((u64)n, total), true, 0);
            h->flags = extra->flags;
            rights_out(h, extra, flags & CMSG_CLOEXEC, &h->flags);
            u32 size = extra->from.size > 2 ? extra->from.size : 0;
            if (h->name)
                memcpy((void *)h->name, &extra->from, min64(size, h->name_size));
            h->name_size = size;
        }
    }
    kfree(bytes);
    kfree(extra);
    return n;
}

/* ---- the host's sockets ---- */
/* Its ancillary data must be records within what it says to have written; descriptors would be the host's own: taken out. */
static long control_check(u8 *control, u64 size)
{
    u64 kept = 0;
    for (u64 at = 0; at + sizeof(struct control) <= size;) {
        struct control c;
        memcpy(&c, control + at, sizeof c);
        if (c.size < sizeof c || c.size > size - at)
            return -EIO;
        u64 whole = min64(next_control(c.size), size - at);
        if (c.level != SOCKET_LEVEL || c.type != RIGHTS) {
            memmove(control + kept, control + at, whole);
            kept += whole;
        }
        at += next_control(c.size);
        if (at > size)
            break;
    }
    return (long)kept;
}

/* The program's ancillary data for the host, without what it has in the gaps: a descriptor inside means nothing out there. */
static long control_in(const struct header *h, u8 *control, u64 size)
{
    u64 at = 0;
    memcpy(control, (const void *)h->control, size);
    while (at + sizeof(struct control) <= size) {
        struct control c;
        memcpy(&c, control + at, sizeof c);
        if (c.size < sizeof c || c.size > size - at || (c.level == SOCKET_LEVEL && c.type == RIGHTS))
            return -EINVAL;
        u64 next = min64(size, at + next_control(c.size));
        memset(control + at + c.size, 0, next - at - c.size);
        at = next;
    }
    memset(control + at, 0, size - at);
    return 0;
}

/* A stream takes all of it, as far as it goes without waiting where waiting is not wanted. `done` bytes have gone. */
static long stream_rest(struct file *f, const struct vector *v, u32 flags, u64 done)
{
    while (done < v->total) {
        u64 part = min64(v->total - done, PAYLOAD_MOST);
        if (!vector_copy(v, ocall_data() + PAYLOAD_AT, part, false, done)) /* gone, while the last part was sent */
            break;
        long n = host_wait(__NR_sendto, (u64)f->host_fd, host_data_address() + PAYLOAD_AT, part, flags, 0, 0, part);
        if (n <= 0)
            break;
        done += (u64)n;
    }
    return (long)done;
}

static long host_message(struct file *f, struct header *h, const struct vector *v, u32 flags, bool send)
{
    u64 total = v->total, name_size = h->name ? h->name_size : 0, control_size = min64(h->control_size, CONTROL_MOST);
    u8 control[CONTROL_MOST];
    struct host_address address;
    long n;
    if (name_size > ADDRESS_MOST)
        name_size = ADDRESS_MOST;
    if (send && h->control_size > CONTROL_MOST)
        return -ENOBUFS;
    if (total > PAYLOAD_MOST) {
        if (send && f->socket_type != 1)
            return -EMSGSIZE;
        total = PAYLOAD_MOST;
    }
    u8 *data = ocall_data();
    u64 at = host_data_address();
    if (send) {
        if ((n = address_in(name_size ? (long)h->name : 0, (long)name_size, &address)))
            return n;
        name_size = address_put(&address);
        if ((n = control_in(h, control, control_size)))
            return n;
        memcpy(data + CONTROL_AT, control, control_size);
        if (!vector_copy(v, data + PAYLOAD_AT, total, false, 0))
            return -EFAULT;
        flags |= NOSIGNAL;
    }
    struct header out = {name_size ? at : 0, (u32)name_size, 0, at + VECTOR_AT, 1, control_size ? at + CONTROL_AT : 0, control_size, 0, 0};
    struct iovec vector = {(void *)(at + PAYLOAD_AT), total};
    memcpy(data + HEADER_AT, &out, sizeof out);
    memcpy(data + VECTOR_AT, &vector, sizeof vector);
    n = host_wait(send ? __NR_sendmsg : __NR_recvmsg, (u64)f->host_fd, at + HEADER_AT, flags & ~(u32)CMSG_CLOEXEC, 0, 0, 0,
                  send ? total : flags & TRUNC ? 1 << 30 : total);
    if (send && n > 0 && f->socket_type == 1)
        return stream_rest(f, v, flags, (u64)n);
    if (send || n < 0)
        return restart(f, send, n);
    memcpy(&out, data + HEADER_AT, sizeof out);
    if (out.name_size > ADDRESS_MOST || out.control_size > control_size)
        return -EIO;
    memcpy(control, data + CONTROL_AT, out.control_size);
    long kept = control_check(control, out.control_size);
    if (kept < 0)
        return kept;
    if (!answer_ok(h, v))
        return -EFAULT;
    vector_copy(v, data + PAYLOAD_AT, min64((u64)n, total), true, 0);
    memcpy((void *)h->control, control, (u64)kept);
    h->control_size = (u64)kept;
    if (h->name) {
        memcpy((void *)h->name, data, min64(out.name_size, name_size));
        h->name_size = out.name_size;
    }
    h->flags = out.flags;
    return n;
}

static long message(const long *a, bool send)
{
    struct file *f;
    struct header h;
    struct vector v;
    long bad = socket_of(a[0], &f);
    if (bad)
        return bad;
    if (!(send ? user_read_ok((u64)a[1], sizeof h) : user_write_ok((u64)a[1], sizeof h)))
        return -EFAULT;
    memcpy(&h, (void *)a[1], sizeof h);
    if ((int)h.name_size < 0)
        return -EINVAL;
    if (!h.name)
        h.name_size = 0;
    if (!h.control)
        h.control_size = 0;
    if (!send ? !user_write_ok(h.control, h.control_size) || !user_write_ok(h.name, h.name_size)
              : !user_read_ok(h.control, h.control_size) || !user_read_ok(h.name, h.name_size))
        return -EFAULT;
    if ((bad = vector_in(&v, h.vector, h.count, -EMSGSIZE)))
        return bad;
    f->refs++;
    long n = v.total > ~0u           ? -EMSGSIZE
             : !vector_ok(&v, !send) ? -EFAULT
             : f->type == FILE_UNIX  ? unix_message(f, &h, &v, (u32)a[2], send)
                                     : host_message(f, &h, &v, (u32)a[2], send);
    file_used(f);
    file_drop(f);
    vector_drop(&v);
    if (n == -EPIPE && send && f->type != FILE_UNIX && !(a[2] & NOSIGNAL))
        signal_send(self(), 13, 0, 0);
    if (send || n < 0)
        return n;
    if (!user_write_ok((u64)a[1], sizeof h)) /* it has waited */
        return -EFAULT;
    memcpy((void *)a[1], &h, sizeof h);
    return n;
}
long sys_sendmsg(const long *a) { return message(a, true); }
long sys_recvmsg(const long *a) { return message(a, false); }

long sys_sendto(const long *a)
{
    struct file *f;
    struct host_address address;
    long bad = socket_of(a[0], &f), n;
    u64 size = (u64)a[2], done = 0;
    if (bad)
        return bad;
    if (!user_hold((u64)a[1], size, false))
        return -EFAULT;
    if (f->type == FILE_UNIX) {
        struct unix_name name;
        if (a[4] && (bad = unix_name_in(a[4], a[5], &name)))
            return bad == -EAFNOSUPPORT ? -EINVAL : bad;
        f->refs++;
        n = unix_send(f, (void *)a[1], size, (u32)a[3], NULL, a[4] ? &name : NULL);
        file_used(f);
        file_drop(f);
        return n;
    }
    if (size > PAYLOAD_MOST && f->socket_type != 1)
        return -EMSGSIZE;
    if ((bad = address_in(a[4], a[5], &address)))
        return bad;
    f->refs++;
    do { /* a stream takes all of it, as far as it goes without waiting where waiting is not wanted */
        u64 part = min64(size - done, PAYLOAD_MOST), to = address_put(&address);
        memcpy(ocall_data() + PAYLOAD_AT, (u8 *)a[1] + done, part);
        n = host_wait(__NR_sendto, (u64)f->host_fd, host_data_address() + PAYLOAD_AT, part, (u32)a[3] | NOSIGNAL,
                      to ? host_data_address() : 0, to, part);
        if (!n && part)
            n = -EIO;
        if (n > 0)
            done += (u64)n;
    } while (n > 0 && done < size && user_held_ok());
    n = restart(f, true, n);
    file_used(f);
    file_drop(f);
    if (n == -EPIPE && !done && !(a[3] & NOSIGNAL))
        signal_send(self(), 13, 0, 0);
    return done ? (long)done : n;
}

long sys_recvfrom(const long *a)
{
    struct file *f;
    long bad = socket_of(a[0], &f);
    u64 size = (u64)a[2];
    if (bad)
        return bad;
    if (!user_hold((u64)a[1], size, true))
        return -EFAULT;
    if (f->type == FILE_UNIX) {
        struct unix_extra *extra = kmalloc(sizeof *extra);
        if (!extra)
            return -ENOMEM;
        f->refs++;
        long n = unix_receive(f, (void *)a[1], size, (u32)a[3], extra);
        file_used(f);
        file_drop(f);
        files_drop(extra); /* nobody asked for them */
        if (n >= 0 && a[4])
            bad = address_give(&extra->from, extra->from.size > 2 ? extra->from.size : 0, a[4], a[5]);
        kfree(extra);
        return bad ? bad : n;
    }
    bool stream = f->socket_type == 1, all = stream && (a[3] & (WAITALL_ | PEEK_ | TRUNC)) == WAITALL_;
    u64 done = 0, part;
    long n;
    f->refs++;
    do { /* MSG_WAITALL of more than the block holds */
        part = min64(size - done, PAYLOAD_MOST);
        address_room();
        n = host_wait(__NR_recvfrom, (u64)f->host_fd, host_data_address() + PAYLOAD_AT, part, (u32)a[3], a[4] ? host_data_address() : 0,
                      a[4] ? host_data_address() + ADDRESS_MOST : 0, a[3] & TRUNC && !stream ? 1 << 30 : part);
        if (n > 0) {
            memcpy((u8 *)a[1] + done, ocall_data() + PAYLOAD_AT, min64((u64)n, part));
            done += (u64)n;
        }
    } while (all && n == (long)part && done < size);
    if (done)
        n = (long)done;
    n = restart(f, false, n);
    file_used(f);
    file_drop(f);
    if (n < 0)
        return n;
    bad = a[4] ? address_out(a[4], a[5]) : 0;
    return bad ? bad : n;
}
