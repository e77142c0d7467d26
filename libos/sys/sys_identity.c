/*
 * Who the program says it is, and how it is scheduled: numbers that it may set and read again. No right and no priority
 * hangs on them inside.
 */
#include "libos.h"
#include "sys.h"

static u32 *ids(long which) { return which ? g_identity.gid : g_identity.uid; }

/* -1 keeps a number. Linux refuses what an ordinary user may not: once no id is 0, only own ones. */
static long set(long which, const long *want)
{
    u32 *own = ids(which), new[3];
    bool root = g_identity.uid[1] == 0;
    for (int i = 0; i < 3; i++) {
        new[i] = (u32)want[i] == ~0u ? own[i] : (u32)want[i];
        if (!root && new[i] != own[0] && new[i] != own[1] && new[i] != own[2])
            return -EPERM;
    }
    memcpy(own, new, sizeof new);
    return 0;
}
static long get(long which, const long *to)
{
    for (int i = 0; i < 3; i++)
        if (!user_write_ok((u64)to[i], 4))
            return -EFAULT;
    for (int i = 0; i < 3; i++)
        *(u32 *)to[i] = ids(which)[i];
    return 0;
}
long sys_getuid(const long *a) { (void)a; return g_identity.uid[0]; }
long sys_geteuid(const long *a) { (void)a; return g_identity.uid[1]; }
long sys_getgid(const long *a) { (void)a; return g_identity.gid[0]; }
long sys_getegid(const long *a) { (void)a; return g_identity.gid[1]; }
long sys_setresuid(const long *a) { return set(0, a); }
long sys_setresgid(const long *a) { return set(1, a); }
long sys_getresuid(const long *a) { return get(0, a); }
long sys_getresgid(const long *a) { return get(1, a); }
long sys_setuid(const long *a)
{
    if ((u32)a[0] == ~0u)
        return -EINVAL;
    return g_identity.uid[1] == 0 ? set(0, (long[]){a[0], a[0], a[0]}) : set(0, (long[]){-1, a[0], -1});
}
long sys_setgid(const long *a)
{
    if ((u32)a[0] == ~0u)
        return -EINVAL;
    return g_identity.uid[1] == 0 ? set(1, (long[]){a[0], a[0], a[0]}) : set(1, (long[]){-1, a[0], -1});
}
long sys_setreuid(const long *a) { return set(0, (long[]){a[0], a[1], (u32)a[0] != ~0u ? a[1] : -1}); }
long sys_setregid(const long *a) { return set(1, (long[]){a[0], a[1], (u32)a[0] != ~0u ? a[1] : -1}); }

long sys_getgroups(const long *a)
{
    if ((int)a[0] < 0 || ((int)a[0] && (u32)a[0] < g_identity.group_count))
        return -EINVAL;
    if ((int)a[0] && !user_write_ok((u64)a[1], 4ull * g_identity.group_count))
        return -EFAULT;
    if ((int)a[0])
        memcpy((void *)a[1], g_identity.groups, 4ull * g_identity.group_count);
    return g_identity.group_count;
}
long sys_setgroups(const long *a)
{
    if ((u32)a[0] > sizeof g_identity.groups / 4)
        return -EINVAL;
    if (g_identity.uid[1])
        return -EPERM;
    if (!user_read_ok((u64)a[1], 4ull * (u32)a[0]))
        return -EFAULT;
    memcpy(g_identity.groups, (void *)a[1], 4ull * (u32)a[0]);
    g_identity.group_count = (u32)a[0];
    return 0;
}
long sys_umask(const long *a)
{
    u32 was = g_identity.umask;
    g_identity.umask = (u32)a[0] & 0777;
    return was;
}
long sys_getpgid(const long *a) { return (int)a[0] == 0 || (int)a[0] == PID ? PID : -ESRCH; }
long sys_setsid(const long *a) { (void)a; return -EPERM; } /* the program leads its session and its group */
long sys_setpgid(const long *a) { return (int)a[0] == 0 || (int)a[0] == PID ? -EPERM : -ESRCH; }

/* ---- names of the machine ---- */
static char g_names[2][65] = {"enclave", "(none)"};
const char *machine_name(long which) { return g_names[which]; }
static long rename_machine(long which, const long *a)
{
    if ((int)a[1] < 0 || (int)a[1] > 64)
        return -EINVAL;
    if (g_identity.uid[1])
        return -EPERM;
    if (!user_read_ok((u64)a[0], (u64)a[1]))
        return -EFAULT;
    memset(g_names[which], 0, sizeof g_names[which]);
    memcpy(g_names[which], (void *)a[0], (u64)a[1]);
    return 0;
}
long sys_sethostname(const long *a) { return rename_machine(0, a); }
long sys_setdomainname(const long *a) { return rename_machine(1, a); }

/* ---- scheduling ---- */
static int g_nice, g_policy, g_priority;
static bool ours(long id) { return (int)id == 0 || thread_of((int)id); }
long sys_getpriority(const long *a)
{
    if ((u32)a[0] > 2)
        return -EINVAL;
    return (int)a[0] == 2 || ours(a[1]) ? 20 - g_nice : -ESRCH;
}
long sys_setpriority(const long *a)
{
    if ((u32)a[0] > 2)
        return -EINVAL;
    if ((int)a[0] != 2 && !ours(a[1]))
        return -ESRCH;
    g_nice = (int)a[2] < -20 ? -20 : (int)a[2] > 19 ? 19 : (int)a[2];
    return 0;
}
static bool known(long policy) { return policy == 0 || policy == 1 || policy == 2 || policy == 3 || policy == 5; }
static int most(long policy) { return policy == 1 || policy == 2 ? 99 : 0; }
long sys_sched_getscheduler(const long *a) { return (int)a[0] < 0 ? -EINVAL : ours(a[0]) ? g_policy : -ESRCH; }
long sys_sched_setscheduler(const long *a)
{
    if ((int)a[0] < 0 || !known((int)a[1]))
        return -EINVAL;
    if (!ours(a[0]))
        return -ESRCH;
    if (!user_read_ok((u64)a[2], 4))
        return -EFAULT;
    int priority = *(int *)a[2];
    if (priority < (most((int)a[1]) ? 1 : 0) || priority > most((int)a[1]))
        return -EINVAL;
    g_policy = (int)a[1];
    g_priority = priority;
    return 0;
}
long sys_sched_setparam(const long *a) { return sys_sched_setscheduler((long[]){a[0], g_policy, a[1]}); }
long sys_sched_getparam(const long *a)
{
    if ((int)a[0] < 0)
        return -EINVAL;
    if (!ours(a[0]))
        return -ESRCH;
    if (!user_write_ok((u64)a[1], 4))
        return -EFAULT;
    *(int *)a[1] = g_priority;
    return 0;
}
long sys_sched_get_priority_max(const long *a) { return known((int)a[0]) ? most((int)a[0]) : -EINVAL; }
long sys_sched_get_priority_min(const long *a) { return known((int)a[0]) ? most((int)a[0]) != 0 : -EINVAL; }
long sys_sched_rr_get_interval(const long *a)
{
    if ((int)a[0] < 0)
        return -EINVAL;
    if (!ours(a[0]))
        return -ESRCH;
    if (!user_write_ok((u64)a[1], 16))
        return -EFAULT;
    ((u64 *)a[1])[0] = 0;
    ((u64 *)a[1])[1] = g_policy == 1 ? 0 : 100000000;
    return 0;
}

/* Which of the processors that the enclave may use: kept, and not passed on. */
static u64 g_affinity;
static u64 all_processors(void)
{
    u32 n = g_online_cpus < thread_count() ? g_online_cpus : thread_count();
    return n >= 64 ? ~0ull : (1ull << n) - 1;
}
long sys_sched_getaffinity(const long *a)
{
    if ((u64)a[1] < 8 || a[1] & 7)
        return -EINVAL;
    if (!ours(a[0]))
        return -ESRCH;
    if (!user_write_ok((u64)a[2], 8))
        return -EFAULT;
    *(u64 *)a[2] = g_affinity ? g_affinity : all_processors();
    return 8;
}
long sys_sched_setaffinity(const long *a)
{
    u64 mask = 0;
    if (!ours(a[0]))
        return -ESRCH;
    if (!user_read_ok((u64)a[2], (u64)a[1]))
        return -EFAULT;
    memcpy(&mask, (void *)a[2], min64((u64)a[1], 8));
    if (!(mask & all_processors()))
        return -EINVAL;
    g_affinity = mask & all_processors();
    return 0;
}
