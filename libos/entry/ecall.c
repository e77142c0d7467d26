/* Entries by EENTER: start, new threads (CSSA 0), and events (CSSA 1). */
#include "libos.h"

#define EXITINFO_VALID 0x80000000u
static u32 g_started;

static bool in_range(u64 rip, const char *from, const char *to) { return rip >= (u64)from && rip < (u64)to; }
void start_main(struct thread *t, const struct start_info *from);

static bool block_ok(u64 block)
{
    return !(block & 63) && outside(block, sizeof(struct ocall_block));
}

/* CSSA 0, no OCALL out. Returns to refuse. */
void libos_ecall(u64 code, u64 argument)
{
    struct thread *t = self();
    if (code == ECALL_START && t->number == 0) {
        struct start_info info;
        u32 not_yet = 0;
        if ((argument & 7) || !outside(argument, sizeof info))
            return;
        memcpy(&info, (const void *)argument, sizeof info);
        if (info.magic != START_MAGIC || !block_ok(info.block) || (info.signals & 7) || !outside(info.signals, 8))
            return;
        if (!__atomic_compare_exchange_n(&g_started, &not_yet, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return;
        t->block = info.block;
        t->state = THREAD_RUNNING;
        start_main(t, &info);
    }
    if (code == ECALL_THREAD && t->number != 0 && block_ok(argument)) {
        u32 starting = THREAD_STARTING;
        if (!__atomic_compare_exchange_n(&t->state, &starting, THREAD_RUNNING, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            return;
        t->block = argument;
        __asm__ volatile("wrfsbase %0" : : "r"(t->fs_base));
        libos_go(&t->start);
    }
}

/* Which signal an exception is (Linux: arch/x86/kernel/traps.c). */
static struct fault fault_of(u32 vector, const struct sgx_exinfo *info)
{
    switch (vector) {
    case 0: return (struct fault){8, 1 /* FPE_INTDIV */, 0, 0, 0};
    case 1: return (struct fault){5, 2 /* TRAP_TRACE */, 1, 0, 0};
    case 3: return (struct fault){5, 0x80 /* SI_KERNEL */, 3, 0, 0};
    case 6: return (struct fault){4, 2 /* ILL_ILLOPN */, 6, 0, 0};
    case 16: return (struct fault){8, 7 /* FPE_FLTINV */, 16, 0, 0};
    case 17: return (struct fault){7, 1 /* BUS_ADRALN */, 17, 0, 0};
    case 19: return (struct fault){8, 7, 19, 0, 0};
    case 14: return (struct fault){11, info->errcd & 1 ? 2 : 1, 14, info->errcd, info->maddr};
    default: return (struct fault){11, 0x80, (int)vector, 0, 0};
    }
}

struct answer { u64 rax, rdx; };
static struct answer fatal(u64 status) { return (struct answer){EEXIT_FATAL, status}; }

/* CSSA 1: the interrupted state is in SSA frame 0. Whatever RDI said, only that frame is believed. */
struct answer libos_event(void)
{
    static const struct answer handled = {EEXIT_HANDLED, 0};
    struct thread *t = self();
    struct sgx_gpr *gpr = (struct sgx_gpr *)(t->ssa + PAGE - sizeof(struct sgx_gpr));
    const struct sgx_exinfo *exinfo = (const void *)((u64)gpr - sizeof *exinfo);
    u32 info = gpr->exitinfo, vector = info & 0xff;
    struct regs *frame = (struct regs *)(t->stack_top - 160);

    gpr->exitinfo = 0;
    if (info & EXITINFO_VALID && vector == 14) {
        enum edmm_answer answer = edmm_fault(exinfo->maddr, exinfo->errcd);
        if (answer != EDMM_NOT_MINE)
            return answer == EDMM_AGAIN ? handled : fatal(134 | (u64)vector << 8);
    }
    if (!(info & EXITINFO_VALID))
        take_host_signals(t);
    if (info & EXITINFO_VALID && vector == 6 && gpr->rip == (u64)libos_rdtsc) { /* SGX1: RDTSC is illegal inside */
        gpr->rip = (u64)libos_rdtsc_none;
        return handled;
    }
    if (in_range(gpr->rip, libos_text_begin, libos_text_end) || t->state != THREAD_RUNNING || t->ocall_rsp) {
        if (info & EXITINFO_VALID) {
            if (boot()->flags & BOOT_DEBUG)
                t->exit_rip = gpr->rip;
            return (struct answer){EEXIT_FATAL, 134 | (u64)vector << 8 |
                                                    (boot()->flags & BOOT_DEBUG ? gpr->rip << 16 : 0)};
        }
        if (in_range(gpr->rip, libos_exit_begin, libos_exit_end) && t->signal_work) {
            gpr->rip = (u64)libos_resume_entry;
            gpr->rsp = (u64)frame;
        }
        return handled;
    }
    if (info & EXITINFO_VALID) {
        if (vector == 6 && user_read_ok(gpr->rip, 2) && ((u8 *)gpr->rip)[0] == 0x0f && ((u8 *)gpr->rip)[1] == 0x05) {
            gpr->rcx = gpr->rip + 2;
            gpr->rip = (u64)libos_syscall_entry;
            return handled;
        }
        if (t->has_fault)
            return fatal(139);
        t->fault = fault_of(vector, exinfo);
        if (vector == 3)
            gpr->rip++; /* in an enclave INT3 is a fault; Linux's signal comes after it */
        t->has_fault = true;
        t->signal_work = 1;
    }
    if (!t->signal_work)
        return handled;
    *frame = (struct regs){gpr->r15, gpr->r14, gpr->r13, gpr->r12, gpr->rbp, gpr->rbx, gpr->r11, gpr->r10, gpr->r9,
                           gpr->r8, gpr->rax, gpr->rcx, gpr->rdx, gpr->rsi, gpr->rdi, ~0ull, gpr->rip, gpr->rflags,
                           gpr->rsp};
    gpr->rip = (u64)libos_resume_entry;
    gpr->rsp = (u64)frame;
    gpr->rflags &= ~0x40400ull; /* AC, DF */
    return handled;
}
