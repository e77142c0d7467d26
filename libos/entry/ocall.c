/* OCALLs: what goes out, and how answers are distrusted. One block a thread, in the host's memory. */
#include <asm/unistd.h>

#include "libos.h"

static _Atomic u32 g_lock;

bool outside(u64 address, u64 size)
{
    return address >= boot()->elrange_size && address + size >= address && address + size <= 0x7fffffffffffull;
}

struct ocall_block *ocall_block(void) { return (struct ocall_block *)self()->block; }
u8 *ocall_data(void) { return ocall_block()->data; }
u64 host_data_address(void) { return (u64)ocall_data(); }

long ocall(u64 op, u64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    volatile struct ocall_block *block = ocall_block();
    block->op = op;
    block->number = number;
    block->arg[0] = a;
    block->arg[1] = b;
    block->arg[2] = c;
    block->arg[3] = d;
    block->arg[4] = e;
    block->arg[5] = f;
    libos_ocall_exit();
    long ret = block->ret;
    take_host_signals(self());
    return ret;
}

/* Errors end at EHWPOISON: what the kernel keeps to itself (ERESTARTSYS) would steer the restart of calls here. */
long bounded(long ret, u64 limit)
{
    if (ret >= 0 && (u64)ret <= limit)
        return ret;
    return ret < 0 && ret >= -EHWPOISON ? ret : -EIO;
}

long host_syscall(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
    long ret = -EINTR; /* a signal of the host came first: it is taken, and the call made again */
    /* close is made once: it gives the number up even so, and that may be another thread's by now */
    for (int i = 0; i < (nr == __NR_close ? 1 : 1000) && ret == -EINTR; i++)
        ret = bounded(ocall(OCALL_SYSCALL, nr, a, b, c, d, e, f), 0x7fffffffffffull);
    return ret;
}

/* A call that may wait: data in the block is this thread's own, so that it outlasts the lock. */
long host_wait(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 limit)
{
    if (signal_due(self()))
        return -EINTR;
    unlock();
    long ret = bounded(ocall(OCALL_SYSCALL, nr, a, b, c, d, e, f), limit);
    lock();
    return ret >= 0 && self()->held_write && !user_held_ok() ? -EFAULT : ret;
}

long host_slow(u64 nr, u64 a)
{
    unlock();
    long ret = bounded(host(nr, a), 0);
    lock();
    return ret;
}

long park(long timeout_ns, u32 count)
{
    struct thread *t = self();
    if (signal_due(t))
        return -EINTR;
    unlock();
    long ret = bounded(ocall(OCALL_PARK, 0, (u64)timeout_ns, count, 0, 0, 0, 0), 0x7fffffff);
    lock();
    if (signal_due(t))
        return -EINTR;
    if (!user_held_ok())
        return -EFAULT;
    return ret < 0 ? 0 : ret;
}

void unpark(struct thread *t) { ocall(OCALL_UNPARK, 0, t->number, 0, 0, 0, 0, 0); }
void kick(struct thread *t) { ocall(OCALL_KICK, 0, t->number, 0, 0, 0, 0, 0); }

void die(int status)
{
    for (;;)
        ocall(OCALL_SYSCALL, __NR_exit_group, (u64)status & 0xff, 0, 0, 0, 0, 0);
}

void cannot_start(const char *what)
{
    say("strongroom: %s", what);
    die(125);
}

void libos_bug(const char *what)
{
    say("strongroom: LibOS: %s", what);
    die(134);
}

void lock(void)
{
    u32 spins = 0;
    for (;;) {
        u32 free = 0;
        if (__atomic_compare_exchange_n((u32 *)&g_lock, &free, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return;
        if (++spins % 256)
            __builtin_ia32_pause();
        else
            ocall(OCALL_SYSCALL, __NR_sched_yield, 0, 0, 0, 0, 0, 0);
    }
}

void unlock(void) { __atomic_store_n((u32 *)&g_lock, 0, __ATOMIC_RELEASE); }
