/* ENCLU executed inside an enclave (SDM vol. 3D, "SGX Instruction References"): one function a leaf. */
#include "library.h"

static const struct exit_event done = {-1, 0, 0}, gp = {VECTOR_GP, 0, 0};

/* `size` bytes at `address` lie in the enclave and have the alignment that the leaf asks for. */
bool inside_elrange(struct enclave *e, uint64_t address, uint64_t size, uint64_t align)
{
    return !(address & (align - 1)) && address >= e->secs.base && size <= e->secs.size &&
           address - e->secs.base <= e->secs.size - size;
}

/* An operand is read or written where the enclave's own page permissions allow it; else #PF there. */
bool operand_read(struct enclave *e, uint64_t address, void *to, size_t size, struct exit_event *fault)
{
    lock(&g.memory_lock);
    bool good = memory_page(e, address, EPCM_VALID | EPCM_R) && !memory_read(e, address, to, size);
    *fault = (struct exit_event){VECTOR_PF, memory_error(e, address, 4), address};
    unlock(&g.memory_lock);
    return good;
}

static bool operand_writable(struct enclave *e, uint64_t address, struct exit_event *fault)
{
    *fault = (struct exit_event){VECTOR_PF, memory_error(e, address, 6), address};
    return memory_page(e, address, EPCM_VALID | EPCM_W);
}

static bool operand_write(struct enclave *e, uint64_t address, const void *from, size_t size, struct exit_event *fault)
{
    lock(&g.memory_lock);
    bool good = operand_writable(e, address, fault) && !memory_write(e, address, from, size);
    unlock(&g.memory_lock);
    return good;
}

/* EREPORT: RBX TARGETINFO, RCX REPORTDATA, RDX the REPORT to write. */
static struct exit_event ereport(struct thread *t, struct sigcontext *r)
{
    struct enclave *e = t->enclave;
    struct rpc_ereport request = {.enclave_id = e->id};
    struct sgx_report report;
    struct exit_event fault = gp;

    if (!inside_elrange(e, r->rbx, 512, 512) || !inside_elrange(e, r->rcx, 64, 128) ||
        !inside_elrange(e, r->rdx, sizeof report, 512))
        return gp;
    if (!operand_read(e, r->rbx, &request.targetinfo, 512, &fault) ||
        !operand_read(e, r->rcx, request.reportdata, 64, &fault) || !operand_writable(e, r->rdx, &fault))
        return fault;
    uint32_t status = rpc_call(RPC_EREPORT, &request, sizeof request, &report, sizeof report);
    if (status & RPC_STATUS_FAULT)
        return (struct exit_event){(int)(status & 0xff), 0, 0};
    if (status)
        fatal("the software package does not answer EREPORT: is its daemon running?");
    if (!operand_write(e, r->rdx, &report, sizeof report, &fault))
        return fault;
    return done;
}

/* EGETKEY: RBX KEYREQUEST, RCX the key to write; RAX and ZF carry the error code. */
static struct exit_event egetkey(struct thread *t, struct sigcontext *r)
{
    struct enclave *e = t->enclave;
    struct rpc_egetkey request = {.enclave_id = e->id};
    uint8_t key[16];
    struct exit_event fault = gp;

    if (!inside_elrange(e, r->rbx, 512, 512) || !inside_elrange(e, r->rcx, 16, 16))
        return gp;
    if (!operand_read(e, r->rbx, &request.keyrequest, 512, &fault) || !operand_writable(e, r->rcx, &fault))
        return fault;
    uint32_t status = rpc_call(RPC_EGETKEY, &request, sizeof request, key, sizeof key);
    if (status & RPC_STATUS_FAULT)
        return (struct exit_event){(int)(status & 0xff), 0, 0};
    if (status & RPC_STATUS_ERRNO)
        fatal("the software package does not answer EGETKEY: is its daemon running?");
    if (!status && !operand_write(e, r->rcx, key, sizeof key, &fault))
        return fault;
    memset(key, 0, sizeof key);
    __asm__ volatile("" : : "r"(key) : "memory");
    r->rax = status;
    r->eflags &= ~0x8d5ull; /* CF PF AF ZF SF OF */
    if (status)
        r->eflags |= 0x40;
    return done;
}

/* EEXIT: RBX the address outside to go on at; RCX gets the AEP. */
static struct exit_event eexit(struct thread *t, struct sigcontext *r)
{
    struct enclave *e = t->enclave;
    if ((int64_t)r->rbx >> 47)
        return gp;
    r->rip = r->rbx;
    r->rcx = t->tcs->aep;
    r->eflags = (r->eflags & ~0x100ull) | t->host_tf;
    base_write(t->host_fs, t->host_gs);
    t->inside = 0;
    t->enclave = NULL;
    atomic_store((_Atomic uint64_t *)&t->tcs->state, 0);
    atomic_fetch_sub(&e->inside, 1);
    tamper_left(e);
    return done;
}

void enclu_inside(struct thread *t, ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    struct exit_event result = gp; /* leaves that this processor does not have: #GP(0) */
    switch ((uint32_t)r->rax) {
    case SGX_EREPORT:
        result = ereport(t, r);
        r->rip += result.vector < 0 ? 3 : 0;
        break;
    case SGX_EGETKEY:
        result = egetkey(t, r);
        r->rip += result.vector < 0 ? 3 : 0;
        break;
    case SGX_EACCEPT:
    case SGX_EMODPE:
    case SGX_EACCEPTCOPY:
        if (g.package.flags & RPC_HELLO_SGX2) {
            result = enclu_edmm(t, r);
            r->rip += result.vector < 0 ? 3 : 0;
        }
        break;
    case SGX_EEXIT:
        result = eexit(t, r);
        if (!t->inside)
            keys_switch(uc, false);
        break;
    }
    if (result.vector >= 0) {
        aex(t, uc, &result);
        host_exception(t, uc, result.vector, result.error, page_down(result.address), NULL);
    }
}
