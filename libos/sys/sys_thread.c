/* Threads and futexes. A thread is a TCS of the image, entered by a new thread of the host. */
#include <linux/futex.h>
#include <linux/sched.h>

#include "libos.h"
#include "sys.h"

struct thread *thread_of(long tid)
{
    for (u32 i = 0; i < thread_count(); i++)
        if (thread_at(i)->state != THREAD_FREE && thread_at(i)->tid == tid)
            return thread_at(i);
    return NULL;
}

static int next_tid(void)
{
    static int last = PID;
    do
        last = last >= 0x3fffffff ? PID + 1 : last + 1;
    while (thread_of(last));
    return last;
}

long sys_clone(const long *a)
{
    u64 flags = (u64)a[0];
    struct thread *me = self();
    if (!(flags & CLONE_VM) || !(flags & CLONE_THREAD)) {
        say_refused("fork");
        return -ENOSYS;
    }
    if (!a[1])
        return -EINVAL;
    if ((flags & CLONE_PARENT_SETTID && !user_write_ok((u64)a[2], 4)) ||
        (flags & (CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID) && !user_write_ok((u64)a[3], 4)))
        return -EFAULT;
    for (u32 i = 1; i < thread_count(); i++) {
        struct thread *t = thread_at(i);
        if (__atomic_load_n(&t->state, __ATOMIC_ACQUIRE) != THREAD_FREE)
            continue;
        memset(&t->signal_work, 0, sizeof *t - offsetof(struct thread, signal_work));
        t->ocall_rsp = 0;
        t->tid = next_tid();
        t->start = *sys_regs();
        t->start.rsp = (u64)a[1];
        t->start.rax = 0;
        t->fs_base = flags & CLONE_SETTLS ? (u64)a[4] : me->fs_base;
        t->mask = me->mask;
        t->altstack.flags = 2; /* SS_DISABLE */
        t->clear_tid = flags & CLONE_CHILD_CLEARTID ? (u64)a[3] : 0;
        memcpy(t->name, me->name, sizeof t->name);
        if (flags & CLONE_PARENT_SETTID)
            *(int *)a[2] = tid_of(t);
        if (flags & CLONE_CHILD_SETTID)
            *(int *)a[3] = tid_of(t);
        __atomic_store_n(&t->state, THREAD_STARTING, __ATOMIC_RELEASE);
        long ret = ocall(OCALL_THREAD, 0, i, 0, 0, 0, 0, 0);
        u32 starting = THREAD_STARTING;
        /* Only a thread that has not been entered is taken back: the host may say no and start it all the same. */
        if (ret && __atomic_compare_exchange_n(&t->state, &starting, THREAD_FREE, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return -EAGAIN;
        return tid_of(t);
    }
    static bool said;
    if (!said)
        say("strongroom: a thread is refused: threads = %u in enclave.toml are all in use: raise it", thread_count());
    said = true;
    return -EAGAIN;
}

/* ---- futex ---- */
static struct thread *g_waiting;

static void unlink_waiter(struct thread *t)
{
    for (struct thread **at = &g_waiting; *at; at = &(*at)->next_waiter)
        if (*at == t) {
            *at = t->next_waiter;
            break;
        }
    t->futex = 0;
}

long futex_wake(u64 address, int count, u32 bits)
{
    long woken = 0;
    while (woken < count) {
        struct thread *oldest = NULL; /* the list's last: first come, first served */
        for (struct thread *t = g_waiting; t; t = t->next_waiter)
            if (t->futex == address && t->futex_bits & bits)
                oldest = t;
        if (!oldest)
            break;
        unlink_waiter(oldest);
        oldest->woken = true;
        unpark(oldest);
        woken++;
    }
    return woken;
}

static long futex_wait(u64 address, u32 value, u32 bits, long timeout_ns, int clock, bool absolute)
{
    struct thread *t = self();
    u64 end = 0;
    if (*(volatile u32 *)address != value)
        return -EAGAIN;
    if (timeout_ns >= 0)
        end = absolute ? (u64)timeout_ns : now_ns(clock) + (u64)timeout_ns;
    t->futex = address;
    t->futex_bits = bits;
    t->woken = false;
    t->next_waiter = g_waiting;
    g_waiting = t;
    for (;;) {
        long left = -1;
        if (timeout_ns >= 0) {
            u64 now = now_ns(clock);
            left = now >= end ? 0 : (long)(end - now);
        }
        long ret = left == 0 ? 0 : park(left, 0);
        if (t->woken)
            return 0;
        if (ret == -EINTR || left == 0) {
            unlink_waiter(t);
            return ret == -EINTR ? (timeout_ns < 0 ? -ERESTARTSYS : -EINTR) : -ETIMEDOUT;
        }
    }
}

long sys_futex(const long *a)
{
    u64 address = (u64)a[0];
    int op = (int)a[1] & 0x7f, clock = a[1] & FUTEX_CLOCK_REALTIME ? 0 : 1;
    u32 bits = FUTEX_BITSET_MATCH_ANY;
    long timeout = -1, bad = 0;
    if (address & 3)
        return -EINVAL;
    if (!user_read_ok(address, 4))
        return -EFAULT;
    switch (op) {
    case FUTEX_WAIT_BITSET:
        bits = (u32)a[5];
        /* fall through */
    case FUTEX_WAIT:
        if (!bits)
            return -EINVAL;
        if (a[3]) {
            timeout = (long)timespec_ns((u64)a[3], &bad);
            if (bad)
                return bad;
        }
        return futex_wait(address, (u32)a[2], bits, timeout, op == FUTEX_WAIT ? 1 : clock, op == FUTEX_WAIT_BITSET);
    case FUTEX_WAKE:
        return futex_wake(address, (int)a[2], bits);
    case FUTEX_WAKE_BITSET:
        return a[5] ? futex_wake(address, (int)a[2], (u32)a[5]) : -EINVAL;
    case FUTEX_CMP_REQUEUE:
        if (*(volatile u32 *)address != (u32)a[5])
            return -EAGAIN;
        /* fall through */
    case FUTEX_REQUEUE: {
        long woken = futex_wake(address, (int)a[2], bits);
        if (!user_read_ok((u64)a[4], 4))
            return -EFAULT;
        long moved = 0;
        for (struct thread *t = g_waiting; t && moved < a[3]; t = t->next_waiter)
            if (t->futex == address) {
                t->futex = (u64)a[4];
                moved++;
            }
        return op == FUTEX_REQUEUE ? woken : woken + moved;
    }
    }
    return -ENOSYS;
}

/* Locks that a finished thread still held (Linux: kernel/futex, struct robust_list_head). */
void robust_exit(struct thread *t)
{
    u64 head = t->robust_list;
    if (!head || !user_read_ok(head, 24))
        return;
    long offset = *(long *)(head + 8);
    u64 entry = *(u64 *)head;
    for (int i = 0; i < 2048 && entry != head && user_read_ok(entry & ~1ull, 8); i++) {
        u64 next = *(u64 *)(entry & ~1ull), word = (entry & ~1ull) + (u64)offset;
        if (!(word & 3) && user_write_ok(word, 4)) {
            u32 was = __atomic_load_n((u32 *)word, __ATOMIC_SEQ_CST); /* other threads write it meanwhile */
            bool mine;
            while ((mine = (was & FUTEX_TID_MASK) == (u32)tid_of(t)) &&
                   !__atomic_compare_exchange_n((u32 *)word, &was, (was & FUTEX_WAITERS) | FUTEX_OWNER_DIED, false, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST))
                ;
            if (mine)
                futex_wake(word, 1, ~0u);
        }
        entry = next;
    }
}

long sys_exit(const long *a)
{
    struct thread *t = self();
    u32 others = 0;
    robust_exit(t);
    for (u32 i = 0; i < thread_count(); i++)
        others += thread_at(i) != t && thread_at(i)->state != THREAD_FREE;
    if (!others) {
        enc_commit_all(NULL, false);
        die((int)a[0]);
    }
    if (t->clear_tid && user_write_ok(t->clear_tid, 4)) {
        *(volatile u32 *)t->clear_tid = 0;
        futex_wake(t->clear_tid, 1, ~0u);
    }
    ocall_block()->op = OCALL_LEAVE;
    unlock();
    libos_leave(&t->state);
}
long sys_exit_group(const long *a)
{
    enc_commit_all(NULL, false);
    die((int)a[0]);
}
long sys_gettid(const long *a) { (void)a; return tid_of(self()); }
long sys_getpid(const long *a) { (void)a; return PID; }
long sys_set_tid_address(const long *a)
{
    self()->clear_tid = (u64)a[0];
    return tid_of(self());
}
long sys_set_robust_list(const long *a)
{
    self()->robust_list = (u64)a[0];
    return a[1] == 24 ? 0 : -EINVAL;
}
long sys_arch_prctl(const long *a)
{
    if (a[0] == 0x1002) { /* ARCH_SET_FS */
        if ((u64)a[1] >= boot()->elrange_size)
            return -EPERM;
        self()->fs_base = (u64)a[1];
        __asm__ volatile("wrfsbase %0" : : "r"(a[1]));
        return 0;
    }
    if (a[0] == 0x1003 && user_write_ok((u64)a[1], 8)) {
        *(u64 *)a[1] = self()->fs_base;
        return 0;
    }
    return -EINVAL;
}
