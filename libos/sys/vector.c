/* The program's vectors of memory (struct iovec): copied once, and checked and used from the copy only. */
#include <linux/uio.h>

#include "sys.h"
#include "unix.h"
#include "vector.h"

#define COUNT_MOST 1024u /* UIO_MAXIOV */

long vector_in(struct vector *v, u64 at, u64 count, long too_many)
{
    v->part = v->few;
    v->count = v->total = 0;
    if (count > COUNT_MOST)
        return too_many;
    if (!user_read_ok(at, count * sizeof *v->part))
        return -EFAULT;
    if (count > VECTOR_FEW && !(v->part = kmalloc(count * sizeof *v->part)))
        return -ENOMEM;
    memcpy(v->part, (const void *)at, count * sizeof *v->part);
    v->count = count;
    for (u64 i = 0; i < count; i++)
        if ((long)v->part[i].iov_len < 0 || (long)(v->total += v->part[i].iov_len) < 0) {
            vector_drop(v);
            return -EINVAL;
        }
    return 0;
}

void vector_drop(struct vector *v)
{
    if (v->part != v->few)
        kfree(v->part);
    v->part = v->few;
    v->count = 0;
}

bool vector_ok(const struct vector *v, bool write)
{
    for (u64 i = 0; i < v->count; i++) {
        u64 base = (u64)v->part[i].iov_base, size = v->part[i].iov_len;
        if (!(write ? user_write_ok(base, size) : user_read_ok(base, size)))
            return false;
    }
    return true;
}

bool vector_copy(const struct vector *v, u8 *bytes, u64 size, bool out, u64 skip)
{
    u64 at = 0;
    for (u64 i = 0; i < v->count && at < size; i++) {
        u64 over = min64(skip, v->part[i].iov_len), part = min64(v->part[i].iov_len - over, size - at);
        u8 *there = (u8 *)v->part[i].iov_base + over;
        if (!(out ? user_write_ok((u64)there, part) : user_read_ok((u64)there, part)))
            return false;
        if (out)
            memcpy(there, bytes + at, part);
        else
            memcpy(bytes + at, there, part);
        skip -= over;
        at += part;
    }
    return true;
}

/* ---- reading and writing by a vector, at the file's offset (at -1) or elsewhere ---- */
static bool waits(const struct file *f) { return f->type == FILE_PIPE || f->type == FILE_UNIX || f->type == FILE_HOST; }
static bool packets(struct file *f) { return f->type == FILE_UNIX ? unix_type(f) != 1 : f->socket && f->socket_type != 1; }

static long parts(struct file *f, const struct vector *v, bool write, long at)
{
    long done = 0;
    for (u64 i = 0; i < v->count; i++) {
        u64 base = (u64)v->part[i].iov_base, size = v->part[i].iov_len;
        if (!size)
            continue;
        if (!user_hold(base, size, !write))
            return done ? done : -EFAULT;
        long n = write ? file_write(f, (void *)base, size, at < 0 ? -1 : at + done) : file_read(f, (void *)base, size, at < 0 ? -1 : at + done);
        if (n < 0)
            return done ? done : n;
        done += n;
        if ((u64)n < size)
            break;
    }
    return done;
}

#define TOGETHER_MOST 0x40000u /* more than any packet */

/* Packets, and what a pipe or a stream has or takes at once, go in one piece: no packet is two, and no call waits that has something. */
static long together(struct file *f, const struct vector *v, u8 *whole, u64 size, bool write, long at)
{
    long n;
    if (write)
        n = vector_copy(v, whole, size, false, 0) ? file_write(f, whole, size, at) : -EFAULT;
    else if (!vector_ok(v, true))
        n = -EFAULT;
    else if ((n = file_read(f, whole, size, at)) > 0 && !vector_copy(v, whole, (u64)n, true, 0)) /* it has waited */
        n = -EFAULT;
    kfree(whole);
    return n;
}

static long vector_io(const long *a, bool write, long at)
{
    struct vector v;
    struct file *f = file_get((int)a[0]);
    if (!f || (write ? !writable(f) : !readable(f)))
        return -EBADF;
    if (at >= 0 && !seekable(f))
        return -ESPIPE;
    long n = vector_in(&v, (u64)a[1], (u64)a[2], -EINVAL);
    if (n)
        return n;
    f->refs++; /* each part may wait */
    bool one = v.count > 1 && v.total && waits(f) && (write ? v.total <= TOGETHER_MOST : at < 0);
    u64 size = min64(v.total, TOGETHER_MOST);
    u8 *whole = one ? kmalloc(size) : NULL;
    if (write && v.total > TOGETHER_MOST && packets(f))
        n = -EMSGSIZE;
    else
        n = whole ? together(f, &v, whole, size, write, at) : one ? -ENOMEM : parts(f, &v, write, at);
    file_drop(f);
    vector_drop(&v);
    return n;
}
long sys_readv(const long *a) { return vector_io(a, false, -1); }
long sys_writev(const long *a) { return vector_io(a, true, -1); }
long sys_preadv(const long *a) { return a[3] < 0 ? -EINVAL : vector_io(a, false, a[3]); }
long sys_pwritev(const long *a) { return a[3] < 0 ? -EINVAL : vector_io(a, true, a[3]); }
/* Flags that only hint at speed or durability are as good as met; RWF_APPEND (16) and RWF_NOWAIT (8) are not served. */
long sys_preadv2(const long *a) { return a[5] & ~3l ? -EOPNOTSUPP : a[3] == -1 ? vector_io(a, false, -1) : sys_preadv(a); }
long sys_pwritev2(const long *a) { return a[5] & ~7l ? -EOPNOTSUPP : a[3] == -1 ? vector_io(a, true, -1) : sys_pwritev(a); }
