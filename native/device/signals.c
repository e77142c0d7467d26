/*
 * Signals. The library's handler takes every signal that the program handles, on the thread's alternate
 * stack, and SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGSYS always: these six are never really blocked.
 * The program sees its own actions, masks and alternate stack.
 */
#include "library.h"

#include "vdso_symbols.h"

#define BIT(n) (1ull << ((n) - 1))
#define SIX (BIT(SIGILL) | BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGTRAP) | BIT(SIGSYS))
#define NEVER (BIT(SIGKILL) | BIT(SIGSTOP))
#define REAL_SIGINFO 4u
#define REAL_RESTORER 0x04000000u
#define RFLAGS_DF 0x400u

/* What the kernel lays on the stack of a handler. */
struct frame { uint64_t restorer; ucontext_kernel uc; siginfo_t info; };

static long real_action(int number, const struct action *act)
{
    return sys(__NR_rt_sigaction, number, act, NULL, 8);
}

static long take_over(int number, uint64_t flags)
{
    struct action mine = {(uint64_t)signal_stub, flags | REAL_SIGINFO | REAL_RESTORER | SA_ONSTACK,
                          (uint64_t)signal_restore, ~SIX};
    return real_action(number, &mine);
}

void signals_start(void)
{
    for (int n = 1; n < 65; n++) {
        sys(__NR_rt_sigaction, n, NULL, &g.action[n], 8);
        if (SIX & BIT(n))
            take_over(n, SA_NODEFER);
    }
}

/* rt_sigaction as the program sees it. */
long signal_action(int number, const struct action *act, struct action *old, size_t size)
{
    struct action a = {0}, before;
    if (size != 8 || number < 1 || number > 64)
        return -EINVAL;
    if (act && copy_host(&a, act, sizeof a))
        return -EFAULT;
    if (act && NEVER & BIT(number))
        return -EINVAL;
    bool shared = sys(__NR_getpid, 0) != g.pid; /* a vfork child: the memory is its parent's, the actions are not */
    lock(&g.signal_lock);
    before = g.action[number];
    long ret = 0;
    if (act && !(SIX & BIT(number))) {
        if (a.handler == (uint64_t)SIG_DFL || a.handler == (uint64_t)SIG_IGN)
            ret = real_action(number, &a);
        else
            ret = take_over(number, a.flags & (SA_RESTART | SA_NOCLDSTOP | SA_NOCLDWAIT));
    }
    if (act && !ret && !shared)
        g.action[number] = a;
    unlock(&g.signal_lock);
    if (!ret && old && copy_host(old, &before, sizeof before))
        return -EFAULT;
    return ret;
}

static __attribute__((noreturn)) void die_of(int number)
{
    struct action dfl = {0};
    uint64_t none = 0;
    real_action(number, &dfl);
    sys(__NR_tgkill, sys(__NR_getpid, 0), sys(__NR_gettid, 0), number);
    sys(__NR_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
    for (;;)
        sys(__NR_exit_group, 128 + number);
}

/*
 * A thread that has no alternate stack of ours yet: the kernel's frame is on its own stack already, so its handler
 * is called on top of it. It may enter an enclave and so get its alternate stack, which this frame must not undo.
 */
static void deliver_here(const struct action *a, int number, siginfo_t *info, ucontext_kernel *uc)
{
    uint64_t mask = (*(uint64_t *)&uc->uc_sigmask | a->mask | (a->flags & SA_NODEFER ? 0 : BIT(number))) & ~(SIX | NEVER);
    sys(__NR_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
    ((void (*)(int, siginfo_t *, ucontext_kernel *))a->handler)(number, info, uc);
    mask = ~SIX;
    sys(__NR_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
    struct thread *t = thread_find((uint32_t)sys(__NR_gettid, 0));
    if (t)
        thread_stack(t, &uc->uc_stack);
}

/* Makes the interrupted program run its handler, as the kernel would: a frame on its stack. */
void signal_deliver(struct thread *t, int number, siginfo_t *info, ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    bool fault = info->si_code > 0 && (SIX & BIT(number)) && info->si_code != SI_KERNEL + 1;
    struct action a;

    lock(&g.signal_lock);
    a = g.action[number];
    if (a.flags & SA_RESETHAND && a.handler > 1) {
        g.action[number].handler = (uint64_t)SIG_DFL;
        if (!(SIX & BIT(number)))
            real_action(number, &g.action[number]);
    }
    unlock(&g.signal_lock);
    if (a.handler == (uint64_t)SIG_IGN && !fault)
        return;
    if (a.handler <= 1 || (fault && t && t->blocked_six & BIT(number)))
        die_of(number);

    if (!thread_here()) {
        deliver_here(&a, number, info, uc);
        return;
    }
    uint64_t sp = r->rsp - 128;
    if (a.flags & SA_ONSTACK && t && !(t->stack.ss_flags & SS_DISABLE) && t->stack.ss_size &&
        r->rsp - (uint64_t)t->stack.ss_sp > t->stack.ss_size)
        sp = (uint64_t)t->stack.ss_sp + t->stack.ss_size;
    struct frame f;
    uint8_t *fp = (uint8_t *)r->fpstate;
    uint32_t fp_size = 512;
    if (*(uint32_t *)(fp + 464) == 0x46505853)
        fp_size = *(uint32_t *)(fp + 468);
    sp = (sp - fp_size) & ~63ull;
    uint64_t fp_at = sp;
    sp = ((sp - sizeof f) & ~15ull) - 8;
    f.restorer = a.restorer;
    f.uc = *uc;
    f.uc.uc_mcontext.fpstate = (void *)fp_at;
    f.info = *info;
    if (copy_host((void *)fp_at, fp, fp_size) || copy_host((void *)sp, &f, sizeof f))
        die_of(SIGSEGV);
    uint64_t *mask = (uint64_t *)&uc->uc_sigmask;
    *mask |= a.mask | (a.flags & SA_NODEFER ? 0 : BIT(number));
    *mask &= ~(SIX | NEVER);
    r->rdi = (uint64_t)number;
    r->rsi = sp + offsetof(struct frame, info);
    r->rdx = sp + offsetof(struct frame, uc);
    r->rax = 0;
    r->rip = a.handler;
    r->rsp = sp;
    r->eflags &= ~(uint64_t)(RFLAGS_DF | RFLAGS_TF);
}

/*
 * A processor exception as the program's kernel would report it: fixed up inside the vDSO's entry, else a
 * signal. `info` is the kernel's own where the fault was real.
 */
void host_exception(struct thread *t, ucontext_kernel *uc, int vector, uint32_t error, uint64_t address, siginfo_t *info)
{
    struct sigcontext *r = &uc->uc_mcontext;
    siginfo_t made;
    int number = SIGSEGV;

    if (r->rip == (uint64_t)vdso_image + VDSO_ENCLU_OFFSET && vector != VECTOR_DB && vector != VECTOR_BP) {
        r->rip = (uint64_t)vdso_image + VDSO_EXCEPTION_OFFSET;
        r->rdi = (uint64_t)vector;
        r->rsi = error;
        r->rdx = address;
        return;
    }
    memset(&made, 0, sizeof made);
    made.si_code = SI_KERNEL;
    switch (vector) {
    case VECTOR_UD:
        number = SIGILL, made.si_code = ILL_ILLOPN, made.si_addr = (void *)r->rip;
        break;
    case VECTOR_DE: case VECTOR_MF: case VECTOR_XM:
        number = SIGFPE, made.si_code = info ? info->si_code : FPE_INTDIV, made.si_addr = (void *)r->rip;
        break;
    case VECTOR_DB: case VECTOR_BP:
        number = SIGTRAP, made.si_code = info ? info->si_code : SI_KERNEL;
        break;
    case VECTOR_AC:
        number = SIGBUS, made.si_code = BUS_ADRALN;
        break;
    case VECTOR_PF:
        number = info && info->si_signo == SIGBUS ? SIGBUS : SIGSEGV;
        made.si_code = info ? info->si_code : SEGV_ACCERR;
        made.si_addr = (void *)address;
    }
    made.si_signo = number;
    r->trapno = (uint64_t)vector;
    r->err = error;
    r->cr2 = address;
    signal_deliver(t, number, &made, uc);
}

static bool is_enclu(const uint8_t code[3]) { return code[0] == 0x0f && code[1] == 0x01 && code[2] == 0xd7; }

static bool at_enclu(uint64_t rip)
{
    uint8_t code[3];
    return !copy_host(code, (void *)rip, 3) && is_enclu(code);
}

/* The instruction at RIP of a thread inside: by the library's view, as its page may have been evicted meanwhile. */
static void code_at(struct enclave *e, uint64_t rip, uint8_t code[3])
{
    if (rip - e->secs.base >= e->secs.size)
        copy_host(code, (void *)rip, 3);
    else if (memory_read(e, rip, code, 3))
        memory_read(e, rip, code, 2); /* the last bytes of the last page */
}

/* I/O instructions fault as invalid opcodes inside an enclave (SDM vol. 3D, "Illegal Instructions"). */
static bool is_io(const uint8_t code[3])
{
    int i = 0;
    while (i < 2 && (code[i] == 0x66 || code[i] == 0xf2 || code[i] == 0xf3))
        i++;
    return (code[i] >= 0xe4 && code[i] <= 0xe7) || (code[i] >= 0xec && code[i] <= 0xef) ||
           (code[i] >= 0x6c && code[i] <= 0x6f);
}

/* Of a page that the mapping allows and that is not there. */
static void no_page(siginfo_t *info)
{
    info->si_signo = SIGBUS;
    info->si_code = BUS_ADRERR;
}

/* A fault raised by the instruction at RIP while the thread was in enclave mode. */
static void fault_inside(struct thread *t, siginfo_t *info, ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    struct exit_event event = {(int)r->trapno, (uint32_t)r->err, 0};
    struct enclave *e = t->enclave;
    if (event.vector == VECTOR_DB && !(t->tcs->flags & SGX_TCS_DBGOPTIN)) { /* POPF inside set TF: opt-out entries have none */
        r->eflags &= ~(uint64_t)RFLAGS_TF;
        return;
    }
    bool own_page = event.vector == VECTOR_PF && r->cr2 - e->secs.base < e->secs.size;
    uint8_t code[3] = {0};

    lock(&g.memory_lock);
    if (own_page && paging_fault(e, r->cr2, r->err)) {
        unlock(&g.memory_lock);
        keys_switch(uc, true); /* the enclave may have changed PKRU: keys are no part of what it may reach */
        return;
    }
    if (own_page) { /* why: the page is not there, the program's mapping says no, or the EPCM does */
        _Atomic uint64_t *entry = &e->epcm[(r->cr2 - e->secs.base) / SGX_PAGE_SIZE];
        int prot = (int)memory_vma_prot(e, r->cr2), need = access_of(r->err);
        if (!(atomic_load(entry) & EPCM_VALID) && prot & need)
            memory_augment(e, r->cr2); /* pending, so the access faults all the same */
        if (atomic_load(entry) & EPCM_VALID && prot)
            event.error |= prot & need ? 1 | SGX_PF_SGX : 1;
        else if (prot & need)
            no_page(info);
    }
    if (event.vector == VECTOR_UD || event.vector == VECTOR_GP)
        code_at(e, r->rip, code);
    unlock(&g.memory_lock);
    if ((event.vector == VECTOR_UD || event.vector == VECTOR_GP) && is_enclu(code)) {
        enclu_inside(t, uc);
        return;
    }
    if (event.vector == VECTOR_PF) {
        event.address = r->cr2;
    } else if (event.vector == VECTOR_GP && is_io(code)) {
        event.vector = VECTOR_UD;
        event.error = 0;
    } else if (event.vector == VECTOR_BP) {
        r->rip--; /* INT3 is fault-class in an enclave that has not opted in to debugging */
    }
    aex(t, uc, &event);
    host_exception(t, uc, event.vector, event.error, event.vector == VECTOR_PF ? page_down(event.address) : 0, info);
}

static bool in_library(uint64_t rip) { return rip - LIBRARY_BASE < LIBRARY_TEXT_SPAN && !(rip - (uint64_t)vdso_image < SGX_PAGE_SIZE); }

__attribute__((noreturn)) static void fault_in_library(const struct sigcontext *r)
{
    static char text[] = "fault inside the machine library at text+0x00000, address 0x0000000000000000";
    uint64_t at = r->rip - LIBRARY_BASE, address = r->cr2;
    for (char *p = text + 47; *p != 'x'; p--, at >>= 4)
        *p = "0123456789abcdef"[at & 15];
    for (char *p = text + sizeof text - 2; *p != 'x'; p--, address >>= 4)
        *p = "0123456789abcdef"[address & 15];
    fatal(text);
}

void signal_entry(int number, siginfo_t *info, ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    struct thread *t = thread_here();
    bool fault = info->si_code > 0 && (SIX & BIT(number));
    bool step = fault && number == SIGTRAP && r->trapno == VECTOR_DB; /* of a program that steps: what is here is one instruction to it */
    bool page_fault = fault && number == SIGSEGV && r->trapno == VECTOR_PF;

    if (t && t->steps && !page_fault && !in_library(r->rip)) {
        keys_step_end(t, uc);
        if (step && !t->step_tf)
            return;
    }
    if (r->rip >= (uint64_t)enter_call && r->rip < (uint64_t)enter_call_end) {
        if (t && t->inside)
            enter_complete(t, uc);
        if (step)
            return;
    } else if (in_library(r->rip)) {
        if (step)
            return;
        if (fault && r->rip >= (uint64_t)copy_host_begin && r->rip < (uint64_t)copy_host_end) {
            r->rip = (uint64_t)copy_host_fault;
            return;
        }
        if (fault)
            fault_in_library(r);
        if (t && !atomic_load(&t->deferred)) {
            t->deferred_info = *info;
            atomic_store(&t->deferred, number);
        }
        return;
    }
    if (t && t->magic != THREAD_MAGIC)
        fatal("a thread's record is damaged");
    if (number == SIGSYS && info->si_code == 1 /* SYS_SECCOMP */) {
        if (t && t->inside) {
            struct exit_event ud = {VECTOR_UD, 0, 0};
            r->rip -= 2;
            aex(t, uc, &ud);
            host_exception(t, uc, VECTOR_UD, 0, 0, NULL);
        } else {
            syscall_trapped(t, info, uc);
        }
    } else if (fault) {
        if (t && t->inside) {
            fault_inside(t, info, uc);
        } else if ((number == SIGILL || number == SIGSEGV) && (r->trapno == VECTOR_UD || r->trapno == VECTOR_GP) &&
                   at_enclu(r->rip)) {
            bool on_stack;
            fork_check();
            t = thread_ensure(uc, &on_stack);
            if (on_stack) /* else the instruction runs again, its frame then on the stack in secret memory */
                enclu_outside(t, uc);
        } else if (r->rip == (uint64_t)vdso_image + VDSO_ENCLU_OFFSET) {
            host_exception(t, uc, (int)r->trapno, (uint32_t)r->err, r->cr2, info);
        } else if (page_fault && !t && keys_may_refuse(r->cr2)) { /* again, with the frame on a stack of ours and a record for the step */
            bool on_stack;
            fork_check();
            thread_ensure(uc, &on_stack);
        } else {
            int instead = page_fault ? tamper_fault(t, uc) : number;
            if (instead && t && t->steps)
                keys_step_end(t, uc);
            if (instead == SIGBUS && number == SIGSEGV)
                no_page(info);
            if (instead)
                signal_deliver(t, instead, info, uc);
        }
    } else {
        if (t && t->inside)
            aex(t, uc, NULL);
        if (t && t->blocked_six & BIT(number)) {
            t->pending_info = *info;
            t->pending_six |= BIT(number);
        } else {
            signal_deliver(t, number, info, uc);
        }
    }
    int32_t late = t ? atomic_exchange(&t->deferred, 0) : 0;
    if (late && !t->inside)
        signal_deliver(t, late, &t->deferred_info, uc);
    else if (late) {
        aex(t, uc, NULL);
        signal_deliver(t, late, &t->deferred_info, uc);
    }
}
