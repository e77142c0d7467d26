/*
 * SGX2 inside an enclave: EACCEPT, EMODPE, EACCEPTCOPY (SDM vol. 3D, "SGX Instruction References", each leaf's
 * "Operation"). A page that is not there yet is added as Linux's page fault handler would (EAUG), and the leaf goes on.
 */
#include "library.h"

static const struct exit_event done = {-1, 0, 0}, gp = {VECTOR_GP, 0, 0};

#define SECINFO_KNOWN (7 | SGX_SECINFO_PENDING | SGX_SECINFO_MODIFIED | SGX_SECINFO_PR | SGX_SECINFO_TYPE)
#define RFLAGS_CLEARED 0x8d5ull /* CF PF AF ZF SF OF */
#define RFLAGS_ZF 0x40ull

static struct exit_event page_fault(struct enclave *e, uint64_t address)
{
    return (struct exit_event){VECTOR_PF, memory_error(e, address, 4), address};
}

static void answer(struct sigcontext *r, uint64_t code)
{
    r->rax = code;
    r->eflags &= ~RFLAGS_CLEARED;
    if (code)
        r->eflags |= RFLAGS_ZF;
}

/* SECINFO at RBX; false with the fault to raise. */
static bool secinfo_read(struct enclave *e, uint64_t address, struct sgx_secinfo *s, struct exit_event *fault)
{
    *fault = gp;
    if (!inside_elrange(e, address, sizeof *s, 64))
        return false;
    if (!operand_read(e, address, s, sizeof *s, fault))
        return false;
    *fault = gp;
    return all_zero(s->reserved, sizeof s->reserved) && !(s->flags & ~SECINFO_KNOWN);
}

/* The EPCM entry of a page that exists, added first where the kernel would; 0 when there is none. Caller holds the lock. */
static uint64_t entry_of(struct enclave *e, uint64_t address)
{
    _Atomic uint64_t *entry = &e->epcm[(address - e->secs.base) / SGX_PAGE_SIZE];
    if (!(atomic_load(entry) & EPCM_VALID))
        memory_augment(e, address);
    else if (paging_in(e, address - e->secs.base))
        return 0;
    return atomic_load(entry) & EPCM_VALID ? atomic_load(entry) : 0;
}

static void entry_change(struct enclave *e, uint64_t address, uint64_t set, uint64_t clear)
{
    _Atomic uint64_t *entry = &e->epcm[(address - e->secs.base) / SGX_PAGE_SIZE];
    atomic_store(entry, (atomic_load(entry) & ~clear) | set);
}

/* SECINFO.FLAGS as the EPCM entry has them. */
static uint64_t flags_of(uint64_t entry)
{
    uint64_t type = entry & EPCM_TCS ? SGX_SECINFO_TCS : entry & EPCM_TRIM ? SGX_SECINFO_TRIM : SGX_SECINFO_REG;
    return (entry >> 1 & 7) | (entry & EPCM_PENDING ? SGX_SECINFO_PENDING : 0) | (entry & EPCM_MODIFIED ? SGX_SECINFO_MODIFIED : 0) | type;
}

static bool tcs_acceptable(const struct sgx_tcs *t)
{
    return !t->state && !t->aep && !(t->flags & SGX_TCS_DBGOPTIN) && t->cssa < t->nssa && !t->ocetssa && !t->prevssp &&
           all_zero(t->reserved, sizeof t->reserved);
}

/* EACCEPT: RBX SECINFO as the enclave expects it, RCX the page. */
static struct exit_event accept(struct enclave *e, struct sigcontext *r, const struct sgx_secinfo *s)
{
    uint64_t type = s->flags & SGX_SECINFO_TYPE, state = s->flags & (SGX_SECINFO_PENDING | SGX_SECINFO_MODIFIED | SGX_SECINFO_PR);
    bool regular = type == SGX_SECINFO_REG && !(state & SGX_SECINFO_MODIFIED) && state;
    bool changed = (type == SGX_SECINFO_TCS || type == SGX_SECINFO_TRIM) && state == SGX_SECINFO_MODIFIED;
    if (!regular && !changed)
        return gp;
    uint64_t entry = entry_of(e, r->rcx);
    if (!entry)
        return page_fault(e, r->rcx);
    /* PR is no part of the comparison: it says only that a restriction is to be accepted. */
    if (flags_of(entry) != (s->flags & ~SGX_SECINFO_PR)) {
        answer(r, SGX_PAGE_ATTRIBUTES_MISMATCH);
        return done;
    }
    if (type == SGX_SECINFO_TCS && !tcs_acceptable((const struct sgx_tcs *)(entry & EPCM_ADDRESS)))
        return gp;
    entry_change(e, r->rcx, 0, EPCM_PENDING | EPCM_MODIFIED | EPCM_PR);
    memory_refresh(e, r->rcx - e->secs.base, SGX_PAGE_SIZE);
    answer(r, 0);
    return done;
}

/* EMODPE: RBX SECINFO with the permissions to add, RCX the page. */
static struct exit_event extend(struct enclave *e, struct sigcontext *r, const struct sgx_secinfo *s)
{
    uint64_t entry = entry_of(e, r->rcx), add = (s->flags & 7) << 1;
    if (!entry || entry & (EPCM_PENDING | EPCM_MODIFIED | EPCM_TRIM | EPCM_TCS))
        return page_fault(e, r->rcx);
    if (!((entry | add) & EPCM_R) && add & EPCM_W)
        return gp;
    entry_change(e, r->rcx, add, 0);
    memory_refresh(e, r->rcx - e->secs.base, SGX_PAGE_SIZE);
    return done;
}

/* EACCEPTCOPY: RBX SECINFO with the permissions to have, RCX a pending page, RDX the page to copy. */
static struct exit_event accept_copy(struct enclave *e, struct sigcontext *r, const struct sgx_secinfo *s)
{
    if (!inside_elrange(e, r->rdx, SGX_PAGE_SIZE, SGX_PAGE_SIZE) || (s->flags & SGX_SECINFO_TYPE) != SGX_SECINFO_REG ||
        (!(s->flags & SGX_SECINFO_R) && s->flags & SGX_SECINFO_W))
        return gp;
    uint64_t entry = entry_of(e, r->rcx), source = entry_of(e, r->rdx), add = (s->flags & 7) << 1;
    if (!entry)
        return page_fault(e, r->rcx);
    if ((source & (EPCM_R | EPCM_TCS | EPCM_BLOCKING)) != EPCM_R)
        return page_fault(e, r->rdx);
    if ((entry & (EPCM_PENDING | EPCM_MODIFIED | EPCM_TRIM | EPCM_TCS | EPCM_R | EPCM_W | EPCM_X)) != (EPCM_PENDING | EPCM_R | EPCM_W)) {
        answer(r, SGX_PAGE_ATTRIBUTES_MISMATCH);
        return done;
    }
    if (paging_in(e, r->rcx - e->secs.base) || paging_in(e, r->rdx - e->secs.base)) /* the one's reload may have evicted the other */
        return page_fault(e, r->rcx);
    uint64_t to = atomic_load(&e->epcm[(r->rcx - e->secs.base) / SGX_PAGE_SIZE]);
    if ((to | atomic_load(&e->epcm[(r->rdx - e->secs.base) / SGX_PAGE_SIZE])) & EPCM_OUT)
        return page_fault(e, r->rcx); /* an EPC that does not hold two clusters */
    memcpy((void *)(to & EPCM_ADDRESS), memory_page(e, r->rdx, EPCM_VALID), SGX_PAGE_SIZE);
    entry_change(e, r->rcx, add, EPCM_PENDING | EPCM_R | EPCM_W);
    memory_refresh(e, r->rcx - e->secs.base, SGX_PAGE_SIZE);
    answer(r, 0);
    return done;
}

/* One of the three leaves, by RAX. */
struct exit_event enclu_edmm(struct thread *t, struct sigcontext *r)
{
    struct enclave *e = t->enclave;
    struct sgx_secinfo s;
    struct exit_event result;
    if (!secinfo_read(e, r->rbx, &s, &result))
        return result;
    if (!inside_elrange(e, r->rcx, SGX_PAGE_SIZE, SGX_PAGE_SIZE))
        return gp;
    lock(&g.memory_lock);
    switch ((uint32_t)r->rax) {
    case SGX_EACCEPT:
        result = accept(e, r, &s);
        break;
    case SGX_EMODPE:
        result = extend(e, r, &s);
        break;
    default:
        result = accept_copy(e, r, &s);
    }
    unlock(&g.memory_lock);
    return result;
}
