/*
 * Asynchronous exit and the state that crosses at an entry (SDM vol. 3D, "Enclave Exiting Events").
 * All of it edits the signal context, which the kernel then restores: atomic, as signals are blocked.
 */
#include "library.h"

#define FP_MAGIC1 0x46505853u
#define RFLAGS_RESUMED 0x250cd5ull /* CF PF AF ZF SF DF OF RF AC ID: what ERESUME takes from the SSA, but what sigreturn will not */
#define RFLAGS_ARITHMETIC 0x10cd5ull /* CF PF AF ZF SF OF RF: cleared by an asynchronous exit */

struct fp_software { uint32_t magic1, extended_size; uint64_t features; uint32_t xstate_size; };

void base_read(uint64_t *fs, uint64_t *gs)
{
    if (g.fsgsbase) {
        __asm__ volatile("rdfsbase %0\n\trdgsbase %1" : "=r"(*fs), "=r"(*gs));
        return;
    }
    sys(__NR_arch_prctl, 0x1003 /* ARCH_GET_FS */, fs);
    sys(__NR_arch_prctl, 0x1004 /* ARCH_GET_GS */, gs);
}

void base_write(uint64_t fs, uint64_t gs)
{
    if (g.fsgsbase) {
        __asm__ volatile("wrfsbase %0\n\twrgsbase %1" : : "r"(fs), "r"(gs) : "memory");
        return;
    }
    sys(__NR_arch_prctl, 0x1002 /* ARCH_SET_FS */, fs);
    sys(__NR_arch_prctl, 0x1001 /* ARCH_SET_GS */, gs);
}

/* Bytes of a standard-format XSAVE area for `xfrm`. */
uint64_t xstate_mask_size(uint64_t xfrm)
{
    uint64_t size = 576;
    for (int i = 2; i < 63; i++)
        if (xfrm >> i & 1 && g.xstate_offset[i] + g.xstate_size[i] > size)
            size = g.xstate_offset[i] + g.xstate_size[i];
    return size;
}

static bool has_xstate(const uint8_t *fp)
{
    const struct fp_software *software = (const void *)(fp + 464);
    return software->magic1 == FP_MAGIC1;
}

static uint64_t frame_offset(struct enclave *e, struct sgx_tcs *tcs, uint32_t index)
{
    return tcs->ossa + (uint64_t)index * e->secs.ssa_frame_size * SGX_PAGE_SIZE;
}

static uint64_t gpr_offset(struct enclave *e, struct sgx_tcs *tcs, uint32_t index)
{
    return frame_offset(e, tcs, index) + e->secs.ssa_frame_size * SGX_PAGE_SIZE - sizeof(struct sgx_gprsgx);
}

/* Synthetic state: every component of XFRM in its initial state, nothing of the enclave left in the frame. */
static void state_initial(struct enclave *e, uint8_t *fp)
{
    uint64_t xfrm = e->secs.xfrm;
    memset(fp, 0, 464);
    *(uint16_t *)fp = 0x37f;
    *(uint32_t *)(fp + 24) = 0x1f80;
    *(uint32_t *)(fp + 28) = 0xffff;
    if (!has_xstate(fp))
        return;
    *(uint64_t *)(fp + 512) &= ~xfrm;
    for (int i = 2; i < 63; i++)
        if (xfrm >> i & 1 && g.xstate_size[i])
            memset(fp + g.xstate_offset[i], 0, g.xstate_size[i]);
}

/* XSAVE of the interrupted enclave to its SSA frame, and the synthetic state in its place; 0, or the frame could not be had. */
static long state_save(struct enclave *e, uint64_t frame, uint8_t *fp)
{
    uint64_t xfrm = e->secs.xfrm, in_use = 3;
    uint64_t header[8] = {0};
    bool extended = has_xstate(fp);
    uint8_t software[48];

    if (extended)
        in_use = *(uint64_t *)(fp + 512);
    header[0] = in_use & xfrm;
    long bad = memory_write(e, e->secs.base + frame, fp, 464);
    memset(software, 0, sizeof software); /* the kernel's software bytes are none of the enclave's business */
    bad |= memory_write(e, e->secs.base + frame + 464, software, sizeof software);
    bad |= memory_write(e, e->secs.base + frame + 512, header, sizeof header);
    for (int i = 2; i < 63 && extended; i++)
        if (header[0] >> i & 1)
            bad |= memory_write(e, e->secs.base + frame + g.xstate_offset[i], fp + g.xstate_offset[i], g.xstate_size[i]);
    state_initial(e, fp);
    return bad;
}

/* XRSTOR from an SSA frame into the signal frame; false where the instruction would fault. */
static bool state_restore(struct enclave *e, uint64_t frame, uint8_t *fp)
{
    uint64_t xfrm = e->secs.xfrm, header[8], base = e->secs.base;
    uint8_t legacy[464];

    if (memory_read(e, base + frame, legacy, sizeof legacy) || memory_read(e, base + frame + 512, header, sizeof header))
        return false;
    if (header[1] || header[2]) /* bytes 520 to 535 */
        return false;
    if (header[0] & ~xfrm || *(uint32_t *)(legacy + 24) & ~0xffffu)
        return false;
    if (!(header[0] & 1)) { /* a component not in the frame takes its initial state */
        memset(legacy, 0, 24);
        memset(legacy + 32, 0, 128);
        *(uint16_t *)legacy = 0x37f;
    }
    if (!(header[0] & 2))
        memset(legacy + 160, 0, 256);
    *(uint32_t *)(legacy + 28) = *(uint32_t *)(fp + 28);
    memcpy(fp, legacy, 416);
    if (!has_xstate(fp))
        return true;
    uint64_t *bv = (uint64_t *)(fp + 512);
    *bv = (*bv & ~xfrm) | header[0] | 3;
    for (int i = 2; i < 63; i++)
        if (header[0] >> i & 1 && memory_read(e, base + frame + g.xstate_offset[i], fp + g.xstate_offset[i], g.xstate_size[i])) {
            state_initial(e, fp); /* it goes back to the host */
            return false;
        }
    return true;
}

static uint32_t exit_information(const struct exit_event *event, bool exinfo)
{
    switch (event->vector) {
    case VECTOR_BP:
        return SGX_EXITINFO_VALID | SGX_EXITINFO_SOFTWARE | VECTOR_BP;
    case VECTOR_DE: case VECTOR_DB: case VECTOR_BR: case VECTOR_UD: case VECTOR_MF: case VECTOR_AC: case VECTOR_XM:
        return SGX_EXITINFO_VALID | SGX_EXITINFO_HARDWARE | (uint32_t)event->vector;
    case VECTOR_PF: case VECTOR_GP:
        return exinfo ? SGX_EXITINFO_VALID | SGX_EXITINFO_HARDWARE | (uint32_t)event->vector : 0;
    }
    return 0;
}

void aex(struct thread *t, ucontext_kernel *uc, const struct exit_event *event)
{
    struct enclave *e = t->enclave;
    struct sgx_tcs *tcs = t->tcs;
    struct sigcontext *r = &uc->uc_mcontext;
    uint64_t gpr_at = gpr_offset(e, tcs, tcs->cssa);
    bool exinfo = e->secs.miscselect & SGX_MISC_EXINFO;
    struct sgx_gprsgx gpr;

    lock(&g.memory_lock);
    long bad = memory_read(e, e->secs.base + gpr_at, &gpr, sizeof gpr); /* URSP, URBP as EENTER left them */
    if (bad) {
        memset(&gpr, 0, sizeof gpr);
        gpr.ursp = t->host_rsp;
        gpr.urbp = t->host_rbp;
    }
    uint64_t ursp = gpr.ursp, urbp = gpr.urbp;
    gpr.rax = r->rax; gpr.rcx = r->rcx; gpr.rdx = r->rdx; gpr.rbx = r->rbx;
    gpr.rsp = r->rsp; gpr.rbp = r->rbp; gpr.rsi = r->rsi; gpr.rdi = r->rdi;
    gpr.r8 = r->r8; gpr.r9 = r->r9; gpr.r10 = r->r10; gpr.r11 = r->r11;
    gpr.r12 = r->r12; gpr.r13 = r->r13; gpr.r14 = r->r14; gpr.r15 = r->r15;
    gpr.rflags = r->eflags;
    gpr.rip = r->rip;
    gpr.exitinfo = event ? exit_information(event, exinfo) : 0;
    base_read(&gpr.fsbase, &gpr.gsbase);
    bad |= memory_write(e, e->secs.base + gpr_at, &gpr, sizeof gpr);
    if (exinfo && event && (event->vector == VECTOR_PF || event->vector == VECTOR_GP)) {
        struct sgx_exinfo info = {.maddr = event->vector == VECTOR_PF ? event->address : 0, .errcd = event->error};
        bad |= memory_write(e, e->secs.base + gpr_at - sizeof info, &info, sizeof info);
    }
    bad |= state_save(e, frame_offset(e, tcs, tcs->cssa), (uint8_t *)r->fpstate);
    if (bad) /* the frame could not be had: there is no state to resume */
        atomic_fetch_or(&e->flags, ENCLAVE_LOST);
    unlock(&g.memory_lock);

    r->rax = SGX_ERESUME;
    r->rbx = t->tcs_address;
    r->rcx = r->rip = tcs->aep;
    r->rdx = r->rsi = r->rdi = 0;
    r->r8 = r->r9 = r->r10 = r->r11 = r->r12 = r->r13 = r->r14 = r->r15 = 0;
    r->rsp = ursp;
    r->rbp = urbp;
    r->eflags = (r->eflags & ~(RFLAGS_ARITHMETIC | RFLAGS_TF)) | t->host_tf;
    base_write(t->host_fs, t->host_gs);
    keys_switch(uc, false);
    t->inside = 0;
    t->enclave = NULL;
    tcs->cssa++;
    atomic_store((_Atomic uint64_t *)&tcs->state, 0);
    atomic_fetch_sub(&e->inside, 1);
    tamper_left(e);
}

static bool canonical(uint64_t address) { return !((int64_t)address >> 47); } /* of user space */

/* A page of an SSA frame is there, regular, readable and writable; else the #PF to raise. */
static bool ssa_page(struct enclave *e, uint64_t address, struct exit_event *fault)
{
    if (memory_page(e, address, EPCM_VALID | EPCM_R | EPCM_W) && !memory_page(e, address, EPCM_TCS))
        return true;
    *fault = (struct exit_event){VECTOR_PF, memory_error(e, address, 6), page_down(address)};
    return false;
}

/* The pages of an SSA frame that the processor uses: those of the XSAVE area, and the one with GPRSGX. */
static bool ssa_frame(struct enclave *e, uint64_t frame, uint64_t gpr, struct exit_event *fault)
{
    for (uint64_t at = 0; at < xstate_mask_size(e->secs.xfrm); at += SGX_PAGE_SIZE)
        if (!ssa_page(e, frame + at, fault))
            return false;
    return ssa_page(e, gpr, fault);
}

/* Checks and transition of EENTER and ERESUME; the fault to raise at the ENCLU instruction, or vector -1. */
static struct exit_event enter_enclave(struct enclave *e, struct thread *t, ucontext_kernel *uc, bool resume)
{
    static const struct exit_event done = {-1, 0, 0}, gp = {VECTOR_GP, 0, 0};
    struct sigcontext *r = &uc->uc_mcontext;
    uint64_t address = r->rbx, aep = r->rcx;
    struct exit_event pf = {VECTOR_PF, 4, page_down(address)};
    struct sgx_tcs *tcs;

    if (!page_aligned(address))
        return gp;
    if (!e)
        return pf;
    if (!canonical(aep))
        return gp;
    if (!(tcs = memory_page(e, address, EPCM_VALID | EPCM_TCS)) || atomic_load(&e->flags) & ENCLAVE_LOST) {
        pf.error = memory_error(e, address, 4);
        return pf;
    }
    if (!(atomic_load(&e->flags) & ENCLAVE_INITIALIZED))
        return gp;
    uint64_t idle = 0;
    if (!atomic_compare_exchange_strong((_Atomic uint64_t *)&tcs->state, &idle, 1))
        return gp;
    struct exit_event failed = gp;
    if (tcs->flags & ~SGX_TCS_DBGOPTIN || !page_aligned(tcs->ossa) || !page_aligned(tcs->ofsbase) || !page_aligned(tcs->ogsbase))
        goto fail;
    if (resume ? tcs->cssa == 0 : tcs->cssa >= tcs->nssa)
        goto fail;
    uint32_t index = resume ? tcs->cssa - 1 : tcs->cssa;
    uint64_t frame = e->secs.base + frame_offset(e, tcs, index), gpr_at = e->secs.base + gpr_offset(e, tcs, index);
    uint64_t fs = e->secs.base + tcs->ofsbase, gs = e->secs.base + tcs->ogsbase, start = e->secs.base + tcs->oentry;
    if (!resume && !(canonical(fs) && canonical(gs) && canonical(start)))
        goto fail;
    if (!ssa_frame(e, frame, gpr_at, &failed))
        goto fail;
    const uint64_t host_stack[2] = {r->rsp, r->rbp};
    struct sgx_gprsgx gpr; /* read for ERESUME only, which runs on a stack in secret memory */
    lock(&g.memory_lock);
    bool good = !memory_write(e, gpr_at + offsetof(struct sgx_gprsgx, ursp), host_stack, sizeof host_stack);
    if (good && resume)
        good = !memory_read(e, gpr_at, &gpr, sizeof gpr) && canonical(gpr.rip) && canonical(gpr.fsbase) &&
               canonical(gpr.gsbase) && state_restore(e, frame - e->secs.base, (uint8_t *)r->fpstate);
    unlock(&g.memory_lock);
    if (!good)
        goto fail;
    bool opted_in = tcs->flags & SGX_TCS_DBGOPTIN; /* else TF waits outside */
    t->host_tf = r->eflags & RFLAGS_TF;
    if (resume) {
        fs = gpr.fsbase;
        gs = gpr.gsbase;
        r->rax = gpr.rax; r->rcx = gpr.rcx; r->rdx = gpr.rdx; r->rbx = gpr.rbx;
        r->rsp = gpr.rsp; r->rbp = gpr.rbp; r->rsi = gpr.rsi; r->rdi = gpr.rdi;
        r->r8 = gpr.r8; r->r9 = gpr.r9; r->r10 = gpr.r10; r->r11 = gpr.r11;
        r->r12 = gpr.r12; r->r13 = gpr.r13; r->r14 = gpr.r14; r->r15 = gpr.r15;
        r->eflags = (gpr.rflags & (RFLAGS_RESUMED | (opted_in ? RFLAGS_TF : 0))) | 0x202;
        r->rip = gpr.rip;
        tcs->cssa--;
    } else {
        r->rax = tcs->cssa;
        r->rcx = r->rip + 3;
        r->rip = start;
        if (!opted_in)
            r->eflags &= ~RFLAGS_TF;
    }
    tcs->aep = aep;
    t->host_rsp = host_stack[0];
    t->host_rbp = host_stack[1];
    base_read(&t->host_fs, &t->host_gs);
    base_write(fs, gs);
    t->enclave = e;
    t->tcs = tcs;
    t->tcs_address = address;
    tamper_open(e);
    t->inside = 1;
    return done;
fail:
    atomic_store((_Atomic uint64_t *)&tcs->state, 0);
    return failed;
}

/* The thread counts itself before anything is looked at: an enclave with threads inside is not swept. */
static struct exit_event enter(struct thread *t, ucontext_kernel *uc, bool resume)
{
    struct enclave *e = enclave_at(uc->uc_mcontext.rbx);
    if (e)
        atomic_fetch_add(&e->inside, 1);
    bool gone = e && !atomic_load(&e->live);
    struct exit_event result = enter_enclave(gone ? NULL : e, t, uc, resume);
    if (e && (gone || result.vector >= 0)) {
        atomic_fetch_sub(&e->inside, 1);
        if (!gone)
            tamper_left(e);
    }
    return result;
}

/*
 * EENTER for the vDSO's plain call (entry.S), signals blocked. `registers` is what it pushed, last first: mask,
 * RFLAGS, R15..R8, RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX. The thread's record with the registers to go on
 * with; NULL when the instruction itself must raise a fault, or the thread has no record yet.
 */
uint64_t *enter_by_call(uint64_t *registers)
{
    ucontext_kernel uc;
    struct sigcontext *r = &uc.uc_mcontext;
    const uint64_t *w = registers + 2;

    fork_check();
    struct thread *t = thread_find((uint32_t)sys(__NR_gettid, 0));
    if (!t || t->inside)
        return NULL;
    r->r15 = w[0]; r->r14 = w[1]; r->r13 = w[2]; r->r12 = w[3]; r->r11 = w[4]; r->r10 = w[5]; r->r9 = w[6]; r->r8 = w[7];
    r->rdi = w[8]; r->rsi = w[9]; r->rbp = w[10]; r->rsp = w[11]; r->rbx = w[12]; r->rdx = w[13]; r->rcx = w[14];
    r->rax = w[15];
    r->eflags = registers[1];
    r->rip = r->rcx; /* the vDSO's ENCLU is its own AEP */
    struct exit_event fault = enter(t, &uc, false);
    if (fault.vector >= 0)
        return NULL;
    const uint64_t entry[18] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi, r->r8,
                                r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15, r->eflags, r->rip};
    memcpy(t->entry, entry, sizeof entry);
    keys_enter();
    return t->entry;
}

/* A signal came between the entry's commitment and the enclave's first instruction: it starts there. */
void enter_complete(struct thread *t, ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    const uint64_t *w = t->entry;
    r->rax = w[0]; r->rcx = w[1]; r->rdx = w[2]; r->rbx = w[3]; r->rsp = w[4]; r->rbp = w[5]; r->rsi = w[6]; r->rdi = w[7];
    r->r8 = w[8]; r->r9 = w[9]; r->r10 = w[10]; r->r11 = w[11]; r->r12 = w[12]; r->r13 = w[13]; r->r14 = w[14];
    r->r15 = w[15];
    r->eflags = w[16];
    r->rip = w[17];
    keys_switch(uc, true);
}

/* ENCLU executed outside an enclave, at RIP. */
void enclu_outside(struct thread *t, ucontext_kernel *uc)
{
    uint32_t leaf = (uint32_t)uc->uc_mcontext.rax;
    struct exit_event fault = {VECTOR_GP, 0, 0};
    if (leaf == SGX_EENTER || leaf == SGX_ERESUME)
        fault = enter(t, uc, leaf == SGX_ERESUME);
    if (t->inside)
        keys_switch(uc, true);
    if (fault.vector >= 0)
        host_exception(t, uc, fault.vector, fault.error, fault.address, NULL);
}
