/* Sockets of the host, where the measured manifest allows the network. Everything that goes through them is the host's to read. */
#include <asm/unistd.h>
#include <linux/fcntl.h>

#include "libos.h"
#include "sys.h"

#define ADDRESS_MOST 128u
struct message { u64 name; u32 name_size, pad; u64 vector, count, control, control_size; u32 flags, pad2; };

static long sock(long fd, struct file **f)
{
    *f = file_get((int)fd);
    if (!*f)
        return -EBADF;
    return (*f)->type == FILE_HOST && (*f)->socket ? 0 : -ENOTSOCK;
}
#define SOCK(fd) struct file *f; long bad_ = sock(fd, &f); if (bad_) return bad_
static long restart(long n) { return n == -EINTR ? -ERESTARTSYS : n; }

static long socket_file(long fd, u32 flags)
{
    if (fd < 0)
        return fd;
    struct file *f = file_new(FILE_HOST, O_RDWR | (flags & O_NONBLOCK));
    if (!f)
        return -ENOMEM;
    f->host_fd = (int)fd;
    f->socket = true;
    return file_install(f, 0, flags & O_CLOEXEC);
}
long sys_socket(const long *a)
{
    if (!(boot()->flags & BOOT_NETWORK) || (a[0] != 1 && a[0] != 2 && a[0] != 10))
        return a[0] == 1 || a[0] == 2 || a[0] == 10 ? -EACCES : -EAFNOSUPPORT;
    return socket_file(fd_fresh(bounded(host(__NR_socket, a[0], (u32)a[1] | O_CLOEXEC, a[2]), 1 << 20)), (u32)a[1]);
}

static long address_in(long at, long size)
{
    if ((u64)size > ADDRESS_MOST)
        return -EINVAL;
    if (!user_read_ok((u64)at, (u64)size))
        return -EFAULT;
    memcpy(ocall_data(), (void *)at, (u64)size);
    return 0;
}
/* Address at data[0], its size at data[ADDRESS_MOST]. */
static long address_out(long at, long size_at)
{
    if (!at)
        return 0;
    if (!user_write_ok((u64)size_at, 4))
        return -EFAULT;
    u32 room = *(u32 *)size_at, size = *(volatile u32 *)(ocall_data() + ADDRESS_MOST);
    if (size > ADDRESS_MOST)
        return -EIO;
    if (!user_write_ok((u64)at, min64(room, size)))
        return -EFAULT;
    memcpy((void *)at, ocall_data(), min64(room, size));
    *(u32 *)size_at = size;
    return 0;
}
static void address_room(void) { *(volatile u32 *)(ocall_data() + ADDRESS_MOST) = ADDRESS_MOST; }

static long with_address(long nr, const long *a)
{
    SOCK(a[0]);
    long bad = address_in(a[1], a[2]);
    if (bad)
        return bad;
    f->refs++;
    long ret = host_wait((u64)nr, (u64)f->host_fd, host_data_address(), (u64)a[2], 0, 0, 0, 0);
    file_drop(f);
    return ret;
}
long sys_connect(const long *a) { return with_address(__NR_connect, a); }
long sys_bind(const long *a) { return with_address(__NR_bind, a); }
long sys_listen(const long *a) { SOCK(a[0]); return host(__NR_listen, f->host_fd, a[1]); }
long sys_shutdown(const long *a)
{
    struct file *p = file_get((int)a[0]);
    if (p && p->type == FILE_PIPE && p->socket) {
        if (a[1] != 0 && p->out) {
            p->out->writers--;
            if (!p->out->readers && !p->out->writers) {
                kpages_free((u64)p->out->data, p->out->size);
                kfree(p->out);
            }
            p->out = NULL;
            poll_wake();
        }
        return 0;
    }
    SOCK(a[0]);
    return host(__NR_shutdown, f->host_fd, a[1]);
}
long sys_accept4(const long *a)
{
    SOCK(a[0]);
    address_room();
    f->refs++;
    long fd = host_wait(__NR_accept4, (u64)f->host_fd, host_data_address(), host_data_address() + ADDRESS_MOST,
                        (u32)a[3] | O_CLOEXEC, 0, 0, 1 << 20);
    file_drop(f);
    fd = fd_fresh(fd);
    if (fd < 0)
        return restart(fd);
    long bad = address_out(a[1], a[2]);
    if (bad) {
        host(__NR_close, fd);
        return bad;
    }
    return socket_file(fd, (u32)a[3]);
}
long sys_accept(const long *a) { return sys_accept4((long[]){a[0], a[1], a[2], 0}); }
static bool is_pair(long fd)
{
    struct file *f = file_get((int)fd);
    return f && f->type == FILE_PIPE && f->socket;
}
static long name_of(long nr, const long *a)
{
    if (is_pair(a[0])) { /* an unnamed AF_UNIX address */
        *(volatile u32 *)ocall_data() = 1;
        *(volatile u32 *)(ocall_data() + ADDRESS_MOST) = 2;
        return address_out(a[1], a[2]);
    }
    SOCK(a[0]);
    address_room();
    long ret = host_wait((u64)nr, (u64)f->host_fd, host_data_address(), host_data_address() + ADDRESS_MOST, 0, 0, 0, 0);
    return ret ? ret : address_out(a[1], a[2]);
}
long sys_getsockname(const long *a) { return name_of(__NR_getsockname, a); }
long sys_getpeername(const long *a) { return name_of(__NR_getpeername, a); }

#define PAYLOAD 256u
long sys_sendto(const long *a)
{
    struct file *pair = file_get((int)a[0]);
    if (pair && pair->type == FILE_PIPE && pair->socket)
        return sys_write(a);
    SOCK(a[0]);
    u64 size = min64((u64)a[2], DATA_MAX - PAYLOAD);
    if (!user_read_ok((u64)a[1], size))
        return -EFAULT;
    if (a[4]) {
        long bad = address_in(a[4], a[5]);
        if (bad)
            return bad;
    }
    memcpy(ocall_data() + PAYLOAD, (void *)a[1], size);
    f->refs++;
    long n = host_wait(__NR_sendto, (u64)f->host_fd, host_data_address() + PAYLOAD, size, (u64)(a[3] | 0x4000), a[4] ? host_data_address() : 0,
                       a[4] ? (u64)a[5] : 0, size);
    file_drop(f);
    if (n == -EPIPE && !(a[3] & 0x4000))
        signal_send(self(), 13, 0, 0);
    return restart(n);
}
long sys_recvfrom(const long *a)
{
    struct file *pair = file_get((int)a[0]);
    if (pair && pair->type == FILE_PIPE && pair->socket)
        return sys_read(a);
    SOCK(a[0]);
    u64 size = min64((u64)a[2], DATA_MAX - PAYLOAD);
    if (!user_write_ok((u64)a[1], size))
        return -EFAULT;
    address_room();
    f->refs++;
    long n = host_wait(__NR_recvfrom, (u64)f->host_fd, host_data_address() + PAYLOAD, size, (u64)a[3], a[4] ? host_data_address() : 0,
                       a[4] ? host_data_address() + ADDRESS_MOST : 0, a[3] & 0x20 ? 1 << 30 : size);
    file_drop(f);
    if (n < 0)
        return restart(n);
    memcpy((void *)a[1], ocall_data() + PAYLOAD, min64((u64)n, size));
    long bad = a[4] ? address_out(a[4], a[5]) : 0;
    return bad ? bad : n;
}
static long message(const long *a, bool send)
{
    if (!user_write_ok((u64)a[1], sizeof(struct message)))
        return -EFAULT;
    struct message *m = (void *)a[1];
    const struct { u64 base, size; } *v = (const void *)m->vector;
    if (m->count > 1024 || !user_read_ok(m->vector, m->count * 16))
        return -EFAULT;
    u64 total = 0;
    for (u64 i = 0; i < m->count; i++)
        total = min64(total + min64(v[i].size, DATA_MAX), DATA_MAX - PAYLOAD);
    if (send && m->control_size)
        return -EOPNOTSUPP;
    u8 *copy = kmalloc(total + 1);
    if (!copy)
        return -ENOMEM;
    long n = 0;
    if (send) {
        u64 at = 0;
        for (u64 i = 0; i < m->count && at < total; i++) {
            u64 part = min64(v[i].size, total - at);
            if (!user_read_ok(v[i].base, part)) {
                kfree(copy);
                return -EFAULT;
            }
            memcpy(copy + at, (void *)v[i].base, part);
            at += part;
        }
    }
    struct file *f = file_get((int)a[0]);
    long bad = f && f->type == FILE_PIPE && f->socket ? 0 : sock(a[0], &f);
    if (bad || !f) {
        kfree(copy);
        return bad ? bad : -EBADF;
    }
    f->refs++;
    if (f->type == FILE_PIPE)
        n = send ? file_write(f, copy, total, -1) : file_read(f, copy, total, -1);
    else if (send) {
        if (m->name && (bad = address_in((long)m->name, m->name_size)))
            n = bad;
        else {
            memcpy(ocall_data() + PAYLOAD, copy, total);
            n = restart(host_wait(__NR_sendto, (u64)f->host_fd, host_data_address() + PAYLOAD, total, (u64)a[2] | 0x4000,
                                  m->name ? host_data_address() : 0, m->name ? m->name_size : 0, total));
        }
    } else {
        address_room();
        n = restart(host_wait(__NR_recvfrom, (u64)f->host_fd, host_data_address() + PAYLOAD, total, (u64)a[2],
                              m->name ? host_data_address() : 0, m->name ? host_data_address() + ADDRESS_MOST : 0, total));
        if (n > 0)
            memcpy(copy, ocall_data() + PAYLOAD, (u64)n);
        if (n >= 0 && m->name && (bad = address_out((long)m->name, (long)&m->name_size)))
            n = bad;
    }
    file_drop(f);
    if (!send && n >= 0) {
        u64 at = 0;
        for (u64 i = 0; i < m->count && at < (u64)n; i++) {
            u64 part = min64(v[i].size, (u64)n - at);
            if (!user_write_ok(v[i].base, part)) {
                kfree(copy);
                return -EFAULT;
            }
            memcpy((void *)v[i].base, copy + at, part);
            at += part;
        }
        m->control_size = 0;
        m->flags = 0;
    }
    kfree(copy);
    return n;
}
long sys_sendmsg(const long *a) { return message(a, true); }
long sys_recvmsg(const long *a) { return message(a, false); }

long sys_setsockopt(const long *a)
{
    if (is_pair(a[0]))
        return 0;
    SOCK(a[0]);
    if ((u64)a[4] > 256)
        return -EINVAL;
    if (!user_read_ok((u64)a[3], (u64)a[4]))
        return -EFAULT;
    memcpy(ocall_data(), (void *)a[3], (u64)a[4]);
    return host(__NR_setsockopt, f->host_fd, a[1], a[2], host_data_address(), a[4]);
}
long sys_getsockopt(const long *a)
{
    if (is_pair(a[0])) {
        if (!user_write_ok((u64)a[4], 4) || !user_write_ok((u64)a[3], 4) || *(u32 *)a[4] < 4)
            return -EFAULT;
        *(u32 *)a[3] = a[2] == 3 /* SO_TYPE */ || a[2] == 39 /* SO_DOMAIN */ ? 1 : 0;
        *(u32 *)a[4] = 4;
        return 0;
    }
    SOCK(a[0]);
    if (!user_write_ok((u64)a[4], 4))
        return -EFAULT;
    u32 room = *(u32 *)a[4];
    if (room > 256)
        room = 256;
    if (!user_write_ok((u64)a[3], room))
        return -EFAULT;
    *(volatile u32 *)(ocall_data() + 512) = room;
    long ret = host(__NR_getsockopt, f->host_fd, a[1], a[2], host_data_address(), host_data_address() + 512);
    u32 size = *(volatile u32 *)(ocall_data() + 512);
    if (ret || size > room)
        return ret ? ret : -EIO;
    memcpy((void *)a[3], ocall_data(), size);
    *(u32 *)a[4] = size;
    return 0;
}
