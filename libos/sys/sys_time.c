/* Clocks (clock.c has the time), sleeping, timers of the host that end in SIGALRM. */
#include <asm/unistd.h>

#include "libos.h"
#include "sys.h"

static long out(u64 to, u64 ns)
{
    if (!user_write_ok(to, 16))
        return -EFAULT;
    ((u64 *)to)[0] = ns / 1000000000;
    ((u64 *)to)[1] = ns % 1000000000;
    return 0;
}
u64 timespec_ns(u64 at, long *bad)
{
    *bad = 0;
    if (!user_read_ok(at, 16))
        return *bad = -EFAULT, 0;
    long seconds = ((long *)at)[0], ns = ((long *)at)[1];
    if (seconds < 0 || ns < 0 || ns >= 1000000000)
        return *bad = -EINVAL, 0;
    return seconds > 1l << 33 ? 1ull << 62 : (u64)seconds * 1000000000 + (u64)ns;
}

static bool known(long clock) { return (clock >= 0 && clock <= 7) || clock == 11 || clock == -6 || clock == -2; }
long sys_clock_gettime(const long *a)
{
    int clock = (int)a[0] < 0 ? ((a[0] & 4) ? 3 : 2) : (int)a[0];
    if (!known((int)a[0]) && (int)a[0] >= 0)
        return -EINVAL;
    return out((u64)a[1], now_ns(clock));
}
long sys_clock_getres(const long *a)
{
    if ((int)a[0] > 11)
        return -EINVAL;
    return a[1] ? out((u64)a[1], 1) : 0;
}
long sys_gettimeofday(const long *a)
{
    u64 now = now_ns(0);
    if (a[0]) {
        if (!user_write_ok((u64)a[0], 16))
            return -EFAULT;
        ((u64 *)a[0])[0] = now / 1000000000;
        ((u64 *)a[0])[1] = now % 1000000000 / 1000;
    }
    return 0;
}
long sys_time(const long *a)
{
    u64 now = now_ns(0) / 1000000000;
    if (a[0]) {
        if (!user_write_ok((u64)a[0], 8))
            return -EFAULT;
        *(u64 *)a[0] = now;
    }
    return (long)now;
}

static long sleep_until(int clock, u64 end, u64 remaining)
{
    for (;;) {
        u64 now = now_ns(clock);
        if (now >= end)
            return 0;
        if (park((long)(end - now), 0) == -EINTR) {
            now = now_ns(clock);
            if (remaining)
                out(remaining, now < end ? end - now : 0);
            return -EINTR;
        }
    }
}
long sys_clock_nanosleep(const long *a)
{
    long bad;
    int clock = a[0] == 0 ? 0 : 1;
    u64 ns = timespec_ns((u64)a[2], &bad);
    if (bad)
        return bad;
    return a[1] & 1 ? sleep_until(clock, ns, 0) : sleep_until(1, now_ns(1) + ns, (u64)a[3]);
}
long sys_nanosleep(const long *a) { return sys_clock_nanosleep((long[]){1, 0, a[0], a[1]}); }

long sys_setitimer(const long *a)
{
    u8 old[32];
    if ((u32)a[0] > 2)
        return -EINVAL;
    if ((a[1] && !user_read_ok((u64)a[1], 32)) || (a[2] && !user_write_ok((u64)a[2], 32)))
        return -EFAULT;
    memset(ocall_data(), 0, 64);
    if (a[1])
        memcpy(ocall_data(), (void *)a[1], 32);
    long ret = host_zero(__NR_setitimer, (u32)a[0], host_data_address(), host_data_address() + 32);
    memcpy(old, ocall_data() + 32, 32);
    if (!ret && a[2])
        memcpy((void *)a[2], old, 32);
    return ret;
}
long sys_getitimer(const long *a)
{
    if ((u32)a[0] > 2)
        return -EINVAL;
    if (!user_write_ok((u64)a[1], 32))
        return -EFAULT;
    long ret = host_zero(__NR_getitimer, (u32)a[0], host_data_address());
    if (!ret)
        memcpy((void *)a[1], ocall_data(), 32);
    return ret;
}
long sys_alarm(const long *a) { return bounded(host(__NR_alarm, (u32)a[0]), ~0u); }

long sys_times(const long *a)
{
    if (a[0]) {
        if (!user_write_ok((u64)a[0], 32))
            return -EFAULT;
        memset((void *)a[0], 0, 32);
        *(u64 *)a[0] = now_ns(2) / 10000000;
    }
    return (long)(now_ns(1) / 10000000);
}
long sys_getrusage(const long *a)
{
    if (!user_write_ok((u64)a[1], 144))
        return -EFAULT;
    memset((void *)a[1], 0, 144);
    u64 used = now_ns(2);
    ((u64 *)a[1])[0] = used / 1000000000;
    ((u64 *)a[1])[1] = used % 1000000000 / 1000;
    ((u64 *)a[1])[4] = mm_used() / 1024;
    return 0;
}
/* The clock is the host's. */
long sys_clock_settime(const long *a) { return (u32)a[0] > 11 ? -EINVAL : user_read_ok((u64)a[1], 16) ? -EPERM : -EFAULT; }
long sys_settimeofday(const long *a) { (void)a; return -EPERM; }
