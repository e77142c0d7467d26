/* What a process asks about itself and the machine. */
#include <asm/unistd.h>

#include "libos.h"
#include "sys.h"

long sys_uname(const long *a)
{
    const char *const fields[6] = {"Linux", machine_name(0), "6.1.0-strongroom", "#1 Strongroom LibOS", "x86_64", machine_name(1)};
    if (!user_write_ok((u64)a[0], 6 * 65))
        return -EFAULT;
    memset((void *)a[0], 0, 6 * 65);
    for (int i = 0; i < 6; i++)
        memcpy((char *)a[0] + 65 * i, fields[i], strlen(fields[i]));
    return 0;
}
/* A thread's stack by default: glibc takes it from RLIMIT_STACK, and all threads' must fit the heap. */
static u64 thread_stack(void)
{
    u64 share = page_down(boot()->heap_size / (4ull * thread_count())), most = mm_stack_size();
    return share > most ? most : share < 256 << 10 ? 256 << 10 : share;
}

/* Limits are kept as they are set; those of memory and open files are the enclave's own, and not more is to be had. */
static u64 g_limit[16][2];
long sys_prlimit64(const long *a)
{
    static bool ready;
    u32 which = (u32)a[1];
    if ((int)a[0] != 0 && (int)a[0] != PID)
        return -ESRCH;
    if (which > 15)
        return -EINVAL;
    if ((a[3] && !user_write_ok((u64)a[3], 16)) || (a[2] && !user_read_ok((u64)a[2], 16)))
        return -EFAULT;
    if (!ready) {
        memset(g_limit, 0xff, sizeof g_limit);
        g_limit[3][0] = thread_stack();
        g_limit[4][0] = g_limit[4][1] = 0; /* RLIMIT_CORE */
        g_limit[7][0] = g_limit[7][1] = FILES_MAX;
        ready = true;
    }
    u64 new[2] = {0, 0};
    if (a[2]) {
        memcpy(new, (void *)a[2], 16);
        if (new[0] > new[1])
            return -EINVAL;
        if (which == 7 && new[1] > FILES_MAX)
            return -EPERM;
    }
    if (a[3])
        memcpy((void *)a[3], g_limit[which], 16);
    if (a[2])
        memcpy(g_limit[which], new, 16);
    return 0;
}
u64 files_limit(void) { return min64(g_limit[7][1] ? g_limit[7][0] : FILES_MAX, FILES_MAX); }
long sys_getrlimit(const long *a) { return sys_prlimit64((long[]){0, a[0], 0, a[1]}); }
long sys_setrlimit(const long *a) { return sys_prlimit64((long[]){0, a[0], a[1], 0}); }
long sys_sysinfo(const long *a)
{
    if (!user_write_ok((u64)a[0], 112))
        return -EFAULT;
    u64 *w = (u64 *)a[0];
    memset(w, 0, 112);
    w[0] = now_ns(1) / 1000000000;
    w[4] = boot()->heap_size;
    w[5] = boot()->heap_size - mm_used();
    ((uint16_t *)w)[40] = 1;
    ((u32 *)w)[26] = 1;
    return 0;
}
long sys_prctl(const long *a)
{
    struct thread *t = self();
    if (a[0] == 15) {
        char name[16] = {0};
        long n = user_string((u64)a[1], name, 16);
        if (n == -EFAULT)
            return n;
        name[15] = 0;
        memcpy(t->name, name, 16);
        return 0;
    }
    if (a[0] == 16) {
        if (!user_write_ok((u64)a[1], 16))
            return -EFAULT;
        memcpy((void *)a[1], t->name, 16);
        return 0;
    }
    return a[0] == 4 || a[0] == 36 || a[0] == 38 ? 0 : -EINVAL;
}
long sys_getrandom(const long *a)
{
    if (!user_write_ok((u64)a[0], (u64)a[1]))
        return -EFAULT;
    return random_bytes((void *)a[0], (u64)a[1]) ? a[1] : -EIO;
}
long sys_sched_yield(const long *a)
{
    (void)a;
    return host_wait(__NR_sched_yield, 0, 0, 0, 0, 0, 0, 0) ? 0 : 0;
}
long sys_getcpu(const long *a)
{
    for (int i = 0; i < 2; i++)
        if (a[i]) {
            if (!user_write_ok((u64)a[i], 4))
                return -EFAULT;
            *(u32 *)a[i] = 0;
        }
    return 0;
}
long sys_membarrier(const long *a) { (void)a; return -ENOSYS; }
long sys_wait4(const long *a) { (void)a; return -ECHILD; }
long sys_waitid(const long *a) { (void)a; return -ECHILD; }
