/*
 * Sockets. AF_INET and AF_INET6 are the host's, where the measured manifest allows the network: everything that goes
 * through them is the host's to read, and so are its answers about its interfaces (NETLINK_ROUTE).
 * AF_UNIX stays inside: fs/unix.c. Messages: sys_message.c; options: sys_option.c.
 */
#include <asm/unistd.h>
#include <linux/fcntl.h>

#include "net.h"
#include "sys.h"
#include "unix.h"


long socket_of(long fd, struct file **f)
{
    *f = file_get((int)fd);
    if (!*f)
        return -EBADF;
    return (*f)->socket ? 0 : -ENOTSOCK;
}

static void socket_become(struct file *f, long fd, int type)
{
    f->host_fd = (int)fd;
    f->socket = true;
    f->socket_type = type;
}
static long socket_file(long fd, u32 flags, int type, struct file **file)
{
    if (fd < 0)
        return fd;
    struct file *f = file_new(FILE_HOST, O_RDWR | (flags & O_NONBLOCK));
    if (!f) {
        host(__NR_close, fd);
        return -ENOMEM;
    }
    socket_become(f, fd, type);
    *file = f;
    return 0;
}
long sys_socket(const long *a)
{
    u32 type = (u32)a[1] & 0xf, flags = (u32)a[1] & ~0xfu;
    if (flags & ~(u32)(O_NONBLOCK | O_CLOEXEC))
        return -EINVAL;
    if (a[0] == UNIX_) {
        if (a[2] != 0 && a[2] != 1)
            return -EPROTONOSUPPORT;
        if (type == 3) /* SOCK_RAW is SOCK_DGRAM here, as in Linux */
            type = 2;
        return type == 1 || type == 2 || type == 5 ? file_install(unix_new((int)type, flags), 0, flags & O_CLOEXEC) : -ESOCKTNOSUPPORT;
    }
    if (a[0] != INET && a[0] != INET6 && (a[0] != NETLINK || a[2] != 0 /* NETLINK_ROUTE: names of interfaces */))
        return -EAFNOSUPPORT;
    if (!(boot()->flags & BOOT_NETWORK)) {
        static bool said;
        if (a[0] != NETLINK && !said) {
            said = true;
            say("strongroom: a socket is refused: it needs network = true in enclave.toml");
        }
        return -EACCES;
    }
    struct file *f;
    long bad = socket_file(fd_fresh(bounded(host(__NR_socket, (int)a[0], (u32)a[1] | O_CLOEXEC, (int)a[2]), 1 << 20)), flags, (int)type, &f);
    return bad ? bad : file_install(f, 0, flags & O_CLOEXEC);
}
long sys_socketpair(const long *a)
{
    u32 type = (u32)a[1] & 0xf, flags = (u32)a[1] & ~0xfu;
    struct file *one, *two;
    if (!user_write_ok((u64)a[3], 8))
        return -EFAULT;
    if (a[0] != UNIX_)
        return a[0] == INET || a[0] == INET6 ? -EOPNOTSUPP : -EAFNOSUPPORT;
    if (a[2] != 0 && a[2] != 1)
        return -EPROTONOSUPPORT;
    if (type == 3)
        type = 2;
    if (type != 1 && type != 2 && type != 5)
        return -ESOCKTNOSUPPORT;
    long bad = unix_pair((int)type, flags, &one, &two);
    return bad ? bad : pair_out(one, two, a[3], flags & O_CLOEXEC);
}

/* ---- addresses ---- */
/* Programs give whole `struct sockaddr_storage`s, of which they have filled in a part: the rest of their memory stays inside. */
u32 address_trim(u8 *address, u32 room)
{
    u32 family = address[0] | (u32)address[1] << 8;
    u32 has = family == INET ? 8 : family == INET6 ? 28 : family == NETLINK ? 12 : 2, whole = family == INET6 ? 28 : family == NETLINK ? 12 : 16;
    memset(address + has, 0, room - has);
    if (family == NETLINK)
        memset(address + 2, 0, 2);
    return whole;
}
long address_in(long at, long size, struct host_address *to)
{
    memset(to, 0, sizeof *to);
    if (!at)
        return 0;
    if ((u64)size > ADDRESS_MOST)
        return -EINVAL;
    if (!user_read_ok((u64)at, (u64)size))
        return -EFAULT;
    memcpy(to->bytes, (void *)at, (u64)size);
    to->size = (u32)min64((u64)size, address_trim(to->bytes, ADDRESS_MOST));
    return 0;
}
u32 address_put(const struct host_address *a)
{
    memcpy(ocall_data(), a->bytes, a->size);
    return a->size;
}
/* A host's address: at data[0], its size at data[ADDRESS_MOST]. */
long address_out(long at, long size_at)
{
    u8 address[ADDRESS_MOST];
    if (!at)
        return 0;
    u32 size = *(volatile u32 *)(ocall_data() + ADDRESS_MOST);
    if (size > ADDRESS_MOST)
        return -EIO;
    memcpy(address, ocall_data(), size);
    return address_give(address, size, at, size_at);
}
long address_give(const void *address, u32 size, long at, long size_at)
{
    if (!at)
        return 0;
    if (!user_write_ok((u64)size_at, 4))
        return -EFAULT;
    u32 room = *(u32 *)size_at;
    if ((int)room < 0)
        return -EINVAL;
    if (!user_write_ok((u64)at, min64(room, size)))
        return -EFAULT;
    memcpy((void *)at, address, min64(room, size));
    *(u32 *)size_at = size;
    return 0;
}
void address_room(void) { *(volatile u32 *)(ocall_data() + ADDRESS_MOST) = ADDRESS_MOST; }

long unix_name_in(long at, long size, struct unix_name *name)
{
    memset(name, 0, sizeof *name);
    if (size < 2 || (u64)size > 2 + UNIX_PATH)
        return -EINVAL;
    if (!user_read_ok((u64)at, (u64)size))
        return -EFAULT;
    memcpy(name, (void *)at, (u64)size);
    name->size = (u32)size;
    if (name->family != UNIX_)
        return name->family ? -EINVAL : -EAFNOSUPPORT;
    if (name->size > 2 && name->path[0]) /* Linux keeps one NUL at a path's end */
        name->size = 2 + (u32)strnlen(name->path, UNIX_PATH) + 1;
    return 0;
}

static long with_address(long nr, const long *a)
{
    SOCK(a[0]);
    if (f->type == FILE_UNIX) {
        struct unix_name name;
        long bad = unix_name_in(a[1], a[2], &name);
        if (bad == -EAFNOSUPPORT && nr == __NR_connect)
            return unix_connect(f, NULL);
        if (bad)
            return bad == -EAFNOSUPPORT ? -EINVAL : bad;
        f->refs++;
        long ret = nr == __NR_connect ? unix_connect(f, &name) : unix_bind(f, &name);
        file_used(f);
        file_drop(f);
        return ret;
    }
    struct host_address address;
    long bad = a[1] ? address_in(a[1], a[2], &address) : -EFAULT;
    if (bad)
        return bad;
    if (nr == __NR_bind && !address.bytes[0] && !address.bytes[1])
        return -EAFNOSUPPORT;
    f->refs++;
    u32 size = address_put(&address);
    long ret = nr == __NR_bind ? host_zero(nr, f->host_fd, host_data_address(), size) /* waits for nothing */
                               : restart(f, true, host_wait((u64)nr, (u64)f->host_fd, host_data_address(), size, 0, 0, 0, 0));
    file_used(f);
    file_drop(f);
    return ret;
}
long sys_connect(const long *a) { return with_address(__NR_connect, a); }
long sys_bind(const long *a) { return with_address(__NR_bind, a); }
long sys_listen(const long *a)
{
    SOCK(a[0]);
    long ret = f->type == FILE_UNIX ? unix_listen(f, a[1]) : host_zero(__NR_listen, f->host_fd, (int)a[1]);
    file_used(f);
    return ret;
}
long sys_shutdown(const long *a)
{
    SOCK(a[0]);
    long ret = f->type == FILE_UNIX ? unix_shutdown(f, a[1]) : host_zero(__NR_shutdown, f->host_fd, (int)a[1]);
    file_used(f);
    return ret;
}
static long accept_unix(struct file *f, const long *a, struct file **new)
{
    struct unix_name name = {.family = UNIX_, .size = 2};
    long bad = unix_accept(f, (u32)a[3], new);
    if (bad)
        return bad;
    unix_peer_name(*new, &name);
    if ((bad = address_give(&name, name.size, a[1], a[2])))
        file_drop(*new);
    return bad;
}
static long accept_host(struct file *f, const long *a, struct file **new)
{
    struct file *ready = file_new(FILE_HOST, O_RDWR | ((u32)a[3] & O_NONBLOCK)); /* first: without memory the connection stays where it is */
    if (!ready)
        return -ENOMEM;
    address_room();
    long fd = fd_fresh(host_wait(__NR_accept4, (u64)f->host_fd, host_data_address(), host_data_address() + ADDRESS_MOST,
                                 (u32)a[3] | O_CLOEXEC, 0, 0, 1 << 20));
    long bad = fd < 0 ? restart(f, false, fd) : 0;
    if (!bad) {
        socket_become(ready, fd, f->socket_type);
        memcpy(ready->timed, f->timed, sizeof ready->timed); /* Linux's accepted ones have them, too */
        bad = address_out(a[1], a[2]);
    }
    if (bad)
        file_drop(ready);
    else
        *new = ready;
    return bad;
}
long sys_accept4(const long *a)
{
    struct file *new = NULL;
    if (a[3] & ~(long)(O_NONBLOCK | O_CLOEXEC))
        return file_get((int)a[0]) ? -EINVAL : -EBADF;
    SOCK(a[0]);
    long fd = fd_reserve(), bad; /* first: without one the connection stays where it is */
    if (fd < 0)
        return fd;
    f->refs++;
    bad = f->type == FILE_UNIX ? accept_unix(f, a, &new) : accept_host(f, a, &new);
    file_used(f);
    file_drop(f);
    return fd_fill(fd, bad, new, a[3] & O_CLOEXEC);
}
long sys_accept(const long *a) { return sys_accept4((long[]){a[0], a[1], a[2], 0}); }

static long name_of(long nr, const long *a)
{
    SOCK(a[0]);
    if (f->type == FILE_UNIX) {
        struct unix_name name;
        if (nr == __NR_getsockname)
            unix_name_of(f, &name);
        else if (!unix_peer_name(f, &name))
            return -ENOTCONN;
        return address_give(&name, name.size, a[1], a[2]);
    }
    address_room();
    long ret = host_zero(nr, f->host_fd, host_data_address(), host_data_address() + ADDRESS_MOST);
    return ret ? ret : address_out(a[1], a[2]);
}
long sys_getsockname(const long *a) { return name_of(__NR_getsockname, a); }
long sys_getpeername(const long *a) { return name_of(__NR_getpeername, a); }
