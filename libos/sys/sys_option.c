/*
 * Options of sockets (socket(7), ip(7), tcp(7)). Those of AF_UNIX are kept inside; the host's get the fields that an option
 * has, never what the program has between or behind them.
 */
#include <asm/unistd.h>

#include "net.h"
#include "sys.h"

enum { SO_TYPE_ = 3, SO_ERROR_ = 4, SO_SNDBUF_ = 7, SO_RCVBUF_ = 8, SO_PASSCRED_ = 16, SO_PEERCRED_ = 17, SO_RCVTIMEO_ = 20, SO_SNDTIMEO_ = 21,
       SO_ACCEPTCONN_ = 30, SO_PROTOCOL_ = 38, SO_DOMAIN_ = 39, SO_RCVTIMEO_NEW_ = 66, SO_SNDTIMEO_NEW_ = 67 };

static bool is_sending(int option) { return option == SO_SNDTIMEO_ || option == SO_SNDTIMEO_NEW_; }
static bool is_timeout(int option) { return is_sending(option) || option == SO_RCVTIMEO_ || option == SO_RCVTIMEO_NEW_; }

/* ---- what leaves to the host: an option's own fields, and of what is not known here an int ---- */
enum kind { BYTES, NAME, GROUP, GROUP_SOURCE, FILTER, EXTENSION };
static const struct option { int level, first, last; enum kind kind; u32 most; } g_options[] = {
    {1, 13, 13, BYTES, 8},                                          /* SO_LINGER */
    {1, SO_RCVTIMEO_, SO_SNDTIMEO_, BYTES, 16}, {1, SO_RCVTIMEO_NEW_, SO_SNDTIMEO_NEW_, BYTES, 16},
    {1, 25, 25, NAME, 16},                                          /* SO_BINDTODEVICE */
    {1, 37, 37, BYTES, 8}, {1, 65, 65, BYTES, 8},                   /* SO_TIMESTAMPING, old and new */
    {1, 47, 47, BYTES, 8}, {1, 61, 61, BYTES, 8},                   /* SO_MAX_PACING_RATE, SO_TXTIME */
    {0, 4, 4, BYTES, 41},                                           /* IP_OPTIONS: 40, and one more for Linux to refuse */
    {0, 32, 32, BYTES, 12}, {0, 35, 40, BYTES, 12},                 /* IP_MULTICAST_IF, memberships: ip_mreqn, ip_mreq_source */
    {0, 41, 41, FILTER, OPTION_MOST},                               /* IP_MSFILTER */
    {0, 42, 42, GROUP, 136}, {0, 45, 45, GROUP, 136}, {0, 43, 47, GROUP_SOURCE, 264}, /* MCAST_* */
    {41, 42, 42, GROUP, 136}, {41, 45, 45, GROUP, 136}, {41, 43, 47, GROUP_SOURCE, 264},
    {41, 20, 21, BYTES, 20}, {41, 27, 28, BYTES, 20}, {41, 50, 50, BYTES, 20}, /* ipv6_mreq, IPV6_PKTINFO */
    {41, 54, 55, EXTENSION, OPTION_MOST}, {41, 57, 57, EXTENSION, OPTION_MOST}, {41, 59, 59, EXTENSION, OPTION_MOST},
    {58, 1, 1, BYTES, 32},                                          /* ICMP6_FILTER */
    {6, 13, 13, NAME, 16}, {6, 31, 31, NAME, 16}, {6, 33, 33, BYTES, 33}, /* TCP_CONGESTION, TCP_ULP, TCP_FASTOPEN_KEY */
};

/* group_req and group_source_req: a number, a gap of four bytes, one or two addresses of 128 bytes. */
static void group_in(u8 *to, const u8 *from, u32 addresses)
{
    memcpy(to, from, 4);
    memset(to + 4, 0, 4);
    for (u32 at = 8; at < 8 + addresses * ADDRESS_MOST; at += ADDRESS_MOST) {
        memcpy(to + at, from + at, ADDRESS_MOST);
        address_trim(to + at, ADDRESS_MOST);
    }
}

/* `to` has OPTION_MOST bytes; how many leave. */
static u64 option_in(int level, int option, const u8 *from, u64 size, u8 *to)
{
    const struct option *o = g_options, *end = g_options + sizeof g_options / sizeof *g_options;
    while (o < end && (o->level != level || option < o->first || option > o->last))
        o++;
    u64 used = min64(size, o < end ? o->most : sizeof(int));
    if (o < end && o->kind == NAME)
        used = strnlen((const char *)from, used);
    if (o < end && o->kind == FILTER && used >= 16) /* its header ends with how many addresses follow */
        used = min64(used, 16 + 4ull * (from[12] | (u32)from[13] << 8 | (u32)from[14] << 16 | (u32)from[15] << 24));
    if (o < end && o->kind == EXTENSION && used >= 2) /* a header as it is on the wire */
        used = min64(used, (from[1] + 1u) * 8);
    if (o < end && (o->kind == GROUP || o->kind == GROUP_SOURCE)) {
        if (used < o->most)
            return 0; /* Linux refuses a part of it */
        group_in(to, from, o->kind == GROUP ? 1 : 2);
    } else
        memcpy(to, from, used);
    return used;
}

static long timeout_in(u64 *ns, u64 at, u64 size)
{
    long t[2];
    if (size < sizeof t)
        return -EINVAL;
    if (!user_read_ok(at, sizeof t))
        return -EFAULT;
    memcpy(t, (void *)at, sizeof t);
    if (t[1] < 0 || t[1] >= 1000000)
        return -EDOM;
    *ns = t[0] < 0 ? 0 : (!t[0] && !t[1]) || t[0] >= 1l << 32 ? UNIX_FOREVER : (u64)t[0] * 1000000000 + (u64)t[1] * 1000;
    return 0;
}

long sys_setsockopt(const long *a)
{
    SOCK(a[0]);
    u64 size = (u32)a[4];
    if ((int)a[4] < 0)
        return -EINVAL;
    if (f->type == FILE_UNIX) {
        if ((int)a[1] != 1)
            return -EOPNOTSUPP;
        if (size < 4)
            return -EINVAL;
        if (is_timeout((int)a[2]))
            return timeout_in(unix_timeout(f, is_sending((int)a[2])), (u64)a[3], size);
        if (!user_read_ok((u64)a[3], 4))
            return -EFAULT;
        if (a[2] == SO_PASSCRED_)
            *unix_pass_credentials(f) = *(int *)a[3] != 0;
        return 0;
    }
    size = min64(size, OPTION_MOST);
    if (!user_read_ok((u64)a[3], size))
        return -EFAULT;
    bool timeout = (int)a[1] == 1 && is_timeout((int)a[2]) && size >= 16;
    const long *time = (const long *)a[3];
    bool timed = timeout && (time[0] || time[1]) && time[0] < 1l << 53; /* of more seconds Linux makes none: MAX_SCHEDULE_TIMEOUT */
    size = size ? option_in((int)a[1], (int)a[2], (const u8 *)a[3], size, ocall_data()) : 0;
    long ret = host_zero(__NR_setsockopt, f->host_fd, (int)a[1], (int)a[2], host_data_address(), size);
    if (!ret && timeout)
        f->timed[is_sending((int)a[2])] = timed;
    return ret;
}

static long unix_option(struct file *f, long option, long at, long size_at)
{
    u32 value[4] = {0}, size = 4;
    switch (option) {
    case SO_TYPE_: value[0] = (u32)unix_type(f); break;
    case SO_ERROR_: value[0] = unix_error(f); break;
    case SO_SNDBUF_: case SO_RCVBUF_: value[0] = 212992; break;
    case SO_PASSCRED_: value[0] = *unix_pass_credentials(f); break;
    case SO_PEERCRED_:
        value[0] = PID, value[1] = g_identity.uid[1], value[2] = g_identity.gid[1];
        size = 12;
        break;
    case SO_RCVTIMEO_: case SO_SNDTIMEO_: case SO_RCVTIMEO_NEW_: case SO_SNDTIMEO_NEW_: {
        u64 ns = *unix_timeout(f, is_sending((int)option)), t[2] = {ns / 1000000000, ns % 1000000000 / 1000};
        if (ns != UNIX_FOREVER)
            memcpy(value, t, sizeof t);
        size = 16;
        break;
    }
    case SO_ACCEPTCONN_: value[0] = unix_listening(f); break;
    case SO_DOMAIN_: value[0] = UNIX_; break;
    case SO_PROTOCOL_: break;
    default: value[0] = 0;
    }
    u32 room = *(u32 *)size_at;
    if (room < size)
        size = room;
    if (!user_write_ok((u64)at, size))
        return -EFAULT;
    memcpy((void *)at, value, size);
    *(u32 *)size_at = size;
    return 0;
}
long sys_getsockopt(const long *a)
{
    SOCK(a[0]);
    if (!user_write_ok((u64)a[4], 4))
        return -EFAULT;
    u32 room = *(u32 *)a[4];
    if ((int)room < 0)
        return -EINVAL;
    if (f->type == FILE_UNIX)
        return a[1] == 1 ? unix_option(f, a[2], a[3], a[4]) : -EOPNOTSUPP;
    if (room > OPTION_MOST)
        room = OPTION_MOST;
    if (!user_write_ok((u64)a[3], room))
        return -EFAULT;
    *(volatile u32 *)(ocall_data() + OPTION_MOST) = room;
    long ret = host(__NR_getsockopt, f->host_fd, (int)a[1], (int)a[2], host_data_address(), host_data_address() + OPTION_MOST);
    u32 size = *(volatile u32 *)(ocall_data() + OPTION_MOST);
    if (ret || size > room)
        return ret < 0 ? ret : -EIO;
    memcpy((void *)a[3], ocall_data(), size);
    *(u32 *)a[4] = size;
    return 0;
}
