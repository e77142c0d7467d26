/*
 * The idle enclave's pages are closed to the program: reads give ones and writes are lost (the abort page of
 * SDM vol. 3D), or, with --tamper=disable, a write disables the enclave for good. Closing costs a protection
 * change of all its mappings, so it has a budget: one part in BUDGET of the time, saved up to CREDIT ticks. Where
 * exits come faster than that the pages stay open until the next exit that can be paid for. A DEBUG enclave
 * stays open, for its debugger. An enclave is closed from ECREATE on, until a thread enters. Where there are protection
 * keys (keys.c), pages that are open are so to threads inside alone.
 */
#include "library.h"

#define BUDGET 50
#define CREDIT 50000000ull /* some 20 ms */
#define CREDIT_START 5000000ull

static uint64_t ticks(void) { return __builtin_ia32_rdtsc(); }

/* After a thread entered: every page as it was mapped. Seen by every later entry before it runs. */
void tamper_open(struct enclave *e)
{
    if (!atomic_load(&e->closed))
        return;
    lock(&g.memory_lock);
    if (atomic_load(&e->closed)) {
        uint64_t start = ticks();
        memory_open(e, e->abort_pages != 0);
        e->abort_pages = 0;
        atomic_store(&e->closed, 0);
        uint64_t cost = ticks() - start;
        e->close_credit -= cost < e->close_credit ? cost : e->close_credit;
        e->close_cost += cost;
    }
    unlock(&g.memory_lock);
}

/* After a thread left. An entering thread counts itself before it looks at `closed`, so one of the two sees the other. */
void tamper_left(struct enclave *e)
{
    if (atomic_load(&e->inside) || atomic_load(&e->closed) || e->secs.attributes & SGX_ATTR_DEBUG)
        return;
    lock(&g.memory_lock);
    uint64_t start = ticks();
    e->close_credit += e->close_last ? (start - e->close_last) / BUDGET : CREDIT_START;
    e->close_last = start;
    if (e->close_credit > CREDIT)
        e->close_credit = CREDIT;
    if (e->close_credit < e->close_cost) {
        unlock(&g.memory_lock);
        return;
    }
    if (!atomic_exchange(&e->closed, 1)) {
        if (atomic_load(&e->inside)) {
            atomic_store(&e->closed, 0);
        } else {
            memory_close(e);
            e->close_cost = ticks() - start;
            e->close_credit -= e->close_cost < e->close_credit ? e->close_cost : e->close_credit;
        }
    }
    unlock(&g.memory_lock);
}

/*
 * A page fault of untrusted code, whose thread may have no record: 0 when it was an access to a closed enclave, or to a page
 * that comes now, and is dealt with; else the signal to deliver. As with Linux, that is SIGBUS where the mapping allows the
 * access and there is no page.
 */
int tamper_fault(struct thread *t, ucontext_kernel *uc)
{
    uint64_t address = uc->uc_mcontext.cr2, error = uc->uc_mcontext.err;
    struct enclave *e;
    bool handled = false, disabled = false, hole = false;
    fork_check();
    lock(&g.memory_lock);
    if (!enclave_touches(page_down(address), SGX_PAGE_SIZE, &e))
        goto out;
    bool allowed = memory_vma_prot(e, address) & (uint32_t)access_of(error), created = atomic_load(&e->flags) & ENCLAVE_CREATED;
    hole = allowed && (!created || address - e->secs.base >= e->secs.size ||
                       !(atomic_load(&e->epcm[(address - e->secs.base) / SGX_PAGE_SIZE]) & EPCM_VALID));
    if (hole && created && address - e->secs.base < e->secs.size)
        handled = memory_augment(e, address);
    if (hole || !created)
        goto out;
    bool write = error & 2, fetch = error & 16, closed = atomic_load(&e->closed);
    if (!closed && (fetch || !g.key)) { /* open to the program: paged in for it, or opened meanwhile */
        handled = address - e->secs.base < e->secs.size && paging_fault(e, address, error);
        goto out;
    }
    if (!allowed || fetch)
        goto out;
    disabled = write && g.flags & INJECT_TAMPER_DISABLE && !(atomic_fetch_or(&e->flags, ENCLAVE_LOST) & ENCLAVE_LOST);
    if (!closed) { /* a thread is inside, or was a moment ago: its protection key keeps this one out */
        handled = keys_step(t, uc, e, address);
        goto out;
    }
    handled = sys(__NR_mmap, page_down(address), SGX_PAGE_SIZE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (long)page_down(address);
    if (handled) {
        memset((void *)page_down(address), 0xff, SGX_PAGE_SIZE);
        if (!write)
            sys(__NR_mprotect, page_down(address), SGX_PAGE_SIZE, PROT_READ);
        e->abort_pages++;
    }
out:
    unlock(&g.memory_lock);
    if (disabled && atomic_load(&e->flags) & ENCLAVE_INITIALIZED) {
        struct rpc_event_message event = {.enclave_id = e->id, .kind = RPC_EVENT_TAMPERED};
        rpc_call(RPC_EVENT, &event, sizeof event, NULL, 0);
    }
    return handled ? 0 : hole ? SIGBUS : SIGSEGV;
}
