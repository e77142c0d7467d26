/* Signals: actions, masks, delivery with Linux's frame (arch/x86/kernel/signal_64.c, rt_sigframe). */
#include "libos.h"
#include "sys.h"

enum { SIG_BLOCK_, SIG_UNBLOCK_, SIG_SETMASK_ };
#define SIGKILL_ 9
#define SIGSTOP_ 19
#define SA_SIGINFO_ 4u
#define SA_ONSTACK_ 0x08000000u
#define SA_RESTART_ 0x10000000u
#define SA_NODEFER_ 0x40000000u
#define SA_RESETHAND_ 0x80000000u
#define BIT(n) (1ull << ((n) - 1))
/* What the host may send: requests to stop, wake, or look; never faults. */
#define HOST_SIGNALS (BIT(1) | BIT(2) | BIT(3) | BIT(10) | BIT(12) | BIT(14) | BIT(15) | BIT(18) | BIT(26) | BIT(27) | BIT(28))
#define IGNORED_BY_DEFAULT (BIT(17) | BIT(18) | BIT(23) | BIT(28) | BIT(19) | BIT(20) | BIT(21) | BIT(22))
#define XSTATE_SIZE 2752u

struct action { u64 handler, flags, restorer, mask; };
struct context { /* struct sigcontext */
    u64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
    uint16_t cs, gs, fs, ss;
    u64 err, trapno, oldmask, cr2, fpstate, reserved[8];
};
struct frame {
    u64 restorer;
    u64 flags, link;
    struct sigaltstack_k stack;
    struct context context;
    u64 mask;
    struct { int number, error, code, pad; u64 field[14]; } info;
};
_Static_assert(sizeof(struct context) == 256 && offsetof(struct frame, context) == 48 && offsetof(struct frame, mask) == 304 &&
                   offsetof(struct frame, info) == 312 && sizeof(struct frame) == 440, "rt_sigframe");

static struct action g_action[65];
static u64 g_pending; /* of the process */
static int g_pending_code[65]; /* SI_USER, or SI_KERNEL: the host's */

static bool ignored(int n)
{
    u64 h = g_action[n].handler;
    return h == 1 || (h == 0 && IGNORED_BY_DEFAULT & BIT(n));
}

static u64 due(struct thread *t)
{
    return (__atomic_load_n(&t->pending, __ATOMIC_SEQ_CST) | __atomic_load_n(&g_pending, __ATOMIC_SEQ_CST)) & ~t->mask;
}

bool signal_due(struct thread *t)
{
    u64 set = due(t);
    for (int n = 1; n <= 64 && set; n++)
        if (set & BIT(n) && !ignored(n))
            return true;
    return false;
}

void signals_refresh(struct thread *t)
{
    if (due(t) || t->has_fault || t->restore_mask)
        t->signal_work = 1;
}

void take_host_signals(struct thread *t)
{
    if (!g_start->signals)
        return;
    u64 *word = (u64 *)g_start->signals;
    if (*(volatile u64 *)word)
        __atomic_fetch_or(&g_pending, __atomic_exchange_n(word, 0, __ATOMIC_SEQ_CST) & HOST_SIGNALS, __ATOMIC_SEQ_CST);
    signals_refresh(t);
}

void signal_send(struct thread *t, int n, int code, int value)
{
    if (t) {
        t->pending_code[n] = code;
        t->pending_value[n] = value;
        __atomic_fetch_or(&t->pending, BIT(n), __ATOMIC_SEQ_CST);
    } else {
        g_pending_code[n] = code;
        __atomic_fetch_or(&g_pending, BIT(n), __ATOMIC_SEQ_CST);
        if (~self()->mask & BIT(n))
            t = self();
        for (u32 i = 0; !t && i < thread_count(); i++)
            if (thread_at(i)->state == THREAD_RUNNING && ~thread_at(i)->mask & BIT(n))
                t = thread_at(i);
    }
    if (t && ~t->mask & BIT(n)) {
        t->signal_work = 1;
        if (t != self()) {
            unpark(t);
            kick(t);
        }
    }
}

static int process_code(int n)
{
    int code = g_pending_code[n];
    g_pending_code[n] = 0x80; /* SI_KERNEL: unless the program itself says otherwise, it is the host's */
    return code;
}

__attribute__((noreturn)) static void deadly(int n, const struct fault *f)
{
    static const char *const names[] = {[4] = "illegal instruction", [5] = "trap", [6] = "aborted", [7] = "bus error",
                                        [8] = "arithmetic fault", [11] = "segmentation fault"};
    if (f && n < 12 && names[n]) {
        if (boot()->flags & BOOT_DEBUG)
            say("strongroom: %s inside the enclave at 0x%lx (address 0x%lx)", names[n], sys_regs()->rip, f->address);
        else
            say("strongroom: %s inside the enclave", names[n]);
    }
    enc_commit_all(NULL, false); /* what was written stays written, as with any process */
    die(128 + n);
}

static void deliver(struct regs *r, int n, const struct fault *fault, int code, int value)
{
    struct thread *t = self();
    struct action act = g_action[n];
    u64 sp = r->rsp - 128, mask = t->restore_mask ? t->saved_mask : t->mask;
    bool on_alternate = t->altstack.size && r->rsp - t->altstack.sp < t->altstack.size && !(t->altstack.flags & 2);
    if (act.flags & SA_ONSTACK_ && !(t->altstack.flags & 2) && t->altstack.size && !on_alternate)
        sp = t->altstack.sp + t->altstack.size;
    if (r->rax == (u64)-ERESTARTSYS && r->orig_rax != ~0ull) {
        if (act.flags & SA_RESTART_) {
            r->rax = r->orig_rax;
            r->rcx = r->rip;
            r->rip = (u64)libos_syscall_entry;
        } else
            r->rax = (u64)-EINTR;
    }
    u64 fp = (sp - XSTATE_SIZE) & ~63ull;
    u64 at = ((fp - sizeof(struct frame)) & ~15ull) - 8;
    if (!user_write_ok(at, sp - at)) {
        struct fault overflow = {11, 1, 14, 6, at};
        deadly(11, &overflow);
    }
    struct frame *f = (struct frame *)at;
    memset(f, 0, sizeof *f);
    memset((void *)fp, 0, XSTATE_SIZE);
    __asm__ volatile("xsave64 (%0)" : : "r"(fp), "a"(0xe7), "d"(0) : "memory");
    u32 *software = (u32 *)(fp + 464);
    software[0] = 0x46505853; /* FP_XSTATE_MAGIC1 */
    software[1] = XSTATE_SIZE + 4;
    *(u64 *)(software + 2) = 0xe7;
    software[4] = XSTATE_SIZE;
    f->restorer = act.restorer;
    f->flags = 7;
    f->stack = t->altstack;
    f->context = (struct context){r->r8, r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15, r->rdi, r->rsi, r->rbp, r->rbx,
                                  r->rdx, r->rax, r->rcx, r->rsp, r->rip, r->rflags, 0x33, 0, 0, 0x2b,
                                  fault ? fault->error : 0, fault ? (u64)fault->vector : 0, mask, fault ? fault->address : 0, fp, {0}};
    f->mask = mask;
    f->info.number = n;
    f->info.code = fault ? fault->code : code;
    f->info.field[0] = fault ? (fault->vector == 14 || fault->vector == 13 ? fault->address : r->rip)
                             : code <= 0 ? (u64)PID | (u64)g_identity.uid[0] << 32 : 0;
    (void)value;
    t->restore_mask = false;
    t->mask |= act.mask | (act.flags & SA_NODEFER_ ? 0 : BIT(n));
    t->mask &= ~(BIT(SIGKILL_) | BIT(SIGSTOP_));
    if (act.flags & SA_RESETHAND_)
        g_action[n].handler = 0;
    r->rsp = at;
    r->rip = act.handler;
    r->rdi = (u64)n;
    r->rsi = (u64)&f->info;
    r->rdx = (u64)&f->flags;
    r->rax = 0;
    r->rflags &= ~0x10500ull; /* RF, DF, TF */
    r->orig_rax = ~0ull;
}

/* From entry.S, before the program goes on: one fault, then what is pending. */
void signals_deliver(struct regs *r)
{
    struct thread *t = self();
    lock();
    t->signal_work = 0;
    if (t->has_fault) {
        struct fault fault = t->fault;
        int n = fault.signal;
        t->has_fault = false;
        if (g_action[n].handler < 2 || t->mask & BIT(n))
            deadly(n, &fault);
        deliver(r, n, &fault, 0, 0);
    }
    u64 set = due(t);
    for (int n = 1; n <= 64; n++) {
        if (!(set & BIT(n)))
            continue;
        int code = 0x80, value = 0;
        if (__atomic_fetch_and(&t->pending, ~BIT(n), __ATOMIC_SEQ_CST) & BIT(n)) {
            code = t->pending_code[n];
            value = t->pending_value[n];
        } else if (!(__atomic_fetch_and(&g_pending, ~BIT(n), __ATOMIC_SEQ_CST) & BIT(n)))
            continue;
        else
            code = process_code(n);
        if (ignored(n))
            continue;
        if (g_action[n].handler == 0)
            deadly(n, NULL);
        deliver(r, n, NULL, code, value);
        set &= ~t->mask;
    }
    if (t->restore_mask) {
        t->restore_mask = false;
        t->mask = t->saved_mask;
        signals_refresh(t);
    }
    if (r->rax == (u64)-ERESTARTSYS && r->orig_rax != ~0ull) { /* nobody looked: start the call again */
        r->rax = r->orig_rax;
        r->rcx = r->rip;
        r->rip = (u64)libos_syscall_entry;
        r->orig_rax = ~0ull;
    }
    unlock();
}

void signals_start(void)
{
    for (int n = 1; n <= 64; n++)
        g_pending_code[n] = 0x80;
}

long sys_rt_sigaction(const long *a)
{
    int n = (int)a[0];
    if (n < 1 || n > 64 || a[3] != 8)
        return -EINVAL;
    if ((a[1] && !user_read_ok((u64)a[1], 32)) || (a[2] && !user_write_ok((u64)a[2], 32)))
        return -EFAULT;
    struct action act, old = g_action[n];
    if (a[1]) {
        if (n == SIGKILL_ || n == SIGSTOP_)
            return -EINVAL;
        memcpy(&act, (void *)a[1], 32);
        act.mask &= ~(BIT(SIGKILL_) | BIT(SIGSTOP_));
        g_action[n] = act;
    }
    if (a[2])
        memcpy((void *)a[2], &old, 32);
    return 0;
}

long sys_rt_sigprocmask(const long *a)
{
    struct thread *t = self();
    u64 old = t->mask;
    if (a[3] != 8)
        return -EINVAL;
    if (a[1]) {
        if (!user_read_ok((u64)a[1], 8))
            return -EFAULT;
        u64 set = *(u64 *)a[1] & ~(BIT(SIGKILL_) | BIT(SIGSTOP_));
        switch (a[0]) {
        case SIG_BLOCK_: t->mask |= set; break;
        case SIG_UNBLOCK_: t->mask &= ~set; break;
        case SIG_SETMASK_: t->mask = set; break;
        default: return -EINVAL;
        }
    }
    if (a[2]) {
        if (!user_write_ok((u64)a[2], 8))
            return -EFAULT;
        *(u64 *)a[2] = old;
    }
    return 0;
}

long sys_rt_sigreturn(const long *a)
{
    struct thread *t = self();
    struct regs *r = sys_regs();
    (void)a;
    const struct frame *f = (const void *)(r->rsp - 8);
    if (!user_read_ok((u64)f, sizeof *f))
        deadly(11, NULL);
    struct context c = f->context;
    if (c.fpstate) {
        u8 area[XSTATE_SIZE] __attribute__((aligned(64)));
        if (c.fpstate & 63 || !user_read_ok(c.fpstate, XSTATE_SIZE))
            deadly(11, NULL);
        memcpy(area, (void *)c.fpstate, XSTATE_SIZE);
        *(u32 *)(area + 24) &= 0xffff;
        *(u64 *)(area + 512) &= 0xe7;
        memset(area + 520, 0, 56);
        __asm__ volatile("xrstor64 (%0)" : : "r"(area), "a"(0xe7), "d"(0) : "memory");
    }
    t->mask = f->mask & ~(BIT(SIGKILL_) | BIT(SIGSTOP_));
    if (f->stack.size || f->stack.flags & 2)
        t->altstack = f->stack;
    *r = (struct regs){c.r15, c.r14, c.r13, c.r12, c.rbp, c.rbx, c.r11, c.r10, c.r9, c.r8, c.rax, c.rcx, c.rdx, c.rsi, c.rdi, ~0ull,
                       c.rip, (c.rflags & 0x240dd5) | 0x202, c.rsp};
    signals_refresh(t);
    return (long)c.rax;
}

long sys_sigaltstack(const long *a)
{
    struct thread *t = self();
    struct sigaltstack_k old = t->altstack;
    if (!old.size)
        old.flags = 2;
    if ((a[0] && !user_read_ok((u64)a[0], 24)) || (a[1] && !user_write_ok((u64)a[1], 24)))
        return -EFAULT;
    if (a[0]) {
        memcpy(&t->altstack, (void *)a[0], 24);
        if (t->altstack.flags & 2)
            t->altstack.size = 0;
        else if (t->altstack.size < 2048)
            return t->altstack = old, -ENOMEM;
    }
    if (a[1])
        memcpy((void *)a[1], &old, 24);
    return 0;
}

static long send(struct thread *t, long n, int code)
{
    if (n < 0 || n > 64)
        return -EINVAL;
    if (n)
        signal_send(t, (int)n, code, 0);
    return 0;
}
long sys_kill(const long *a)
{
    int pid = (int)a[0];
    return pid == PID || pid == 0 || pid == -1 || pid == -PID ? send(NULL, (int)a[1], 0) : -ESRCH;
}
long sys_tkill(const long *a)
{
    int tid = (int)a[0];
    struct thread *t = tid > 0 ? thread_of(tid) : NULL;
    if (tid <= 0)
        return -EINVAL;
    return t ? send(t, (int)a[1], -6) : -ESRCH;
}
long sys_tgkill(const long *a) { return (int)a[0] <= 0 ? -EINVAL : (int)a[0] == PID ? sys_tkill((long[]){a[1], a[2]}) : -ESRCH; }
long sys_rt_sigpending(const long *a)
{
    if (!user_write_ok((u64)a[0], 8))
        return -EFAULT;
    *(u64 *)a[0] = (self()->pending | g_pending) & self()->mask;
    return 0;
}
static long wait_signal(void)
{
    while (park(-1, 0) != -EINTR)
        ;
    return -EINTR;
}
long sys_pause(const long *a) { (void)a; return wait_signal(); }
long sys_rt_sigsuspend(const long *a)
{
    struct thread *t = self();
    if (!user_read_ok((u64)a[0], 8))
        return -EFAULT;
    t->saved_mask = t->mask;
    t->mask = *(u64 *)a[0] & ~(BIT(SIGKILL_) | BIT(SIGSTOP_));
    long ret = wait_signal();
    t->restore_mask = true;
    return ret;
}
long sys_rt_sigtimedwait(const long *a)
{
    struct thread *t = self();
    long bad = 0, timeout = -1, ret = -EAGAIN;
    if (!user_read_ok((u64)a[0], 8) || (a[1] && !user_write_ok((u64)a[1], 128)))
        return -EFAULT;
    if (a[2] && (timeout = (long)timespec_ns((u64)a[2], &bad), bad))
        return bad;
    u64 set = *(u64 *)a[0], mask = t->mask, end = timeout < 0 ? 0 : now_ns(1) + (u64)timeout;
    user_hold((u64)a[1], a[1] ? 128 : 0, true);
    for (;;) {
        u64 found = (t->pending | g_pending) & set;
        if (found && !user_held_ok())
            return -EFAULT; /* the signal stays */
        if (found) {
            int n = __builtin_ctzll(found) + 1, code;
            if (__atomic_fetch_and(&t->pending, ~BIT(n), __ATOMIC_SEQ_CST) & BIT(n))
                code = t->pending_code[n];
            else {
                __atomic_fetch_and(&g_pending, ~BIT(n), __ATOMIC_SEQ_CST);
                code = process_code(n);
            }
            if (a[1]) {
                int *info = (int *)a[1];
                memset(info, 0, 128);
                info[0] = n;
                info[2] = code;
                info[4] = code <= 0 ? PID : 0;
                info[5] = code <= 0 ? (int)g_identity.uid[0] : 0;
            }
            ret = n;
            break;
        }
        u64 now = timeout < 0 ? 0 : now_ns(1);
        if (timeout >= 0 && now >= end)
            break;
        t->mask = mask & ~set;
        long waited = park(timeout < 0 ? -1 : (long)(end - now), 0);
        t->mask = mask;
        if (waited < 0 && !((t->pending | g_pending) & set)) {
            ret = waited;
            break;
        }
    }
    return ret;
}

/* ---- descriptors of processes: there is one process ---- */
long sys_pidfd_open(const long *a)
{
    if ((int)a[0] <= 0 || a[1] & ~0x800l /* PIDFD_NONBLOCK */)
        return -EINVAL;
    if ((int)a[0] != PID)
        return -ESRCH;
    return file_install(file_new(FILE_PROCESS, 2), 0, true);
}
long sys_pidfd_send_signal(const long *a)
{
    struct file *f = file_get((int)a[0]);
    bool folder = f && f->type == FILE_DIR && (!strcmp(f->path, "/proc/self") || !strcmp(f->path, "/proc/1000"));
    if (!f || (f->type != FILE_PROCESS && !folder))
        return -EBADF;
    if (a[3])
        return -EINVAL;
    if (a[2]) { /* a siginfo_t: its number must be the signal's, and it may not say that the kernel sent it */
        if (!user_read_ok((u64)a[2], 128))
            return -EFAULT;
        if (*(int *)a[2] != (int)a[1])
            return -EINVAL;
    }
    return send(NULL, (int)a[1], 0);
}
