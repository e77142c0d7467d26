/*
 * Pages that come, change and go after EINIT (SGX2): what Linux does at a fault on a page that is not there (EAUG), and the
 * backing behind a page whose permissions the enclave extends. Callers hold g.memory_lock.
 */
#include "library.h"

/*
 * EAUG: a zero page with R and W, pending until the enclave accepts it, where the program has mapped the device
 * (Linux's sgx_encl_eaug_page). False: no SGX2, no mapping, no EPC.
 */
bool memory_augment(struct enclave *e, uint64_t address)
{
    uint64_t offset = page_down(address) - e->secs.base;
    if (!(g.package.flags & RPC_HELLO_SGX2) || !memory_vma_prot(e, address) ||
        (atomic_load(&e->flags) & (ENCLAVE_INITIALIZED | ENCLAVE_LOST)) != ENCLAVE_INITIALIZED)
        return false;
    e->hint[0] = 0;
    void *view = memory_add(e, offset, EPCM_R | EPCM_W | EPCM_PENDING | EPCM_MAX_R | EPCM_MAX_W | EPCM_MAX_X);
    if ((unsigned long)view >= -4095ul) {
        note("no EPC for a page that the enclave asks for: the VM's EPC is full of pages that cannot be evicted");
        return false;
    }
    memory_show(e, offset, SGX_PAGE_SIZE);
    return true;
}

/*
 * Backing fit for `permissions`: executable pages cannot be secret memory, and sealed ones cannot be written. A page moved stays
 * in memory that the library can write: code made at run time is not sealed. False: no memory.
 */
bool memory_repurpose(struct enclave *e, uint64_t offset, uint64_t permissions)
{
    _Atomic uint64_t *entry = &e->epcm[offset / SGX_PAGE_SIZE];
    uint64_t was = atomic_load(entry);
    bool sealed = (was & (EPCM_EXEC | EPCM_W)) == EPCM_EXEC;
    if (was & EPCM_EXEC ? !(sealed && permissions & EPCM_W) : !(permissions & EPCM_X))
        return true;
    if (paging_in(e, offset))
        return false;
    was = atomic_load(entry);
    void *from = (void *)(was & EPCM_ADDRESS);
    uint64_t to = memory_backing(e, true);
    if (!to)
        return false;
    memcpy((void *)to, from, SGX_PAGE_SIZE);
    if (!sealed)
        memset(from, 0, SGX_PAGE_SIZE);
    atomic_store(entry, (was & ~EPCM_ADDRESS) | to | EPCM_EXEC);
    memory_show(e, offset, SGX_PAGE_SIZE);
    return true;
}

/* EREMOVE: the page is gone; its backing waits, wiped, for the next page at this offset. */
void memory_remove(struct enclave *e, uint64_t offset)
{
    _Atomic uint64_t *entry = &e->epcm[offset / SGX_PAGE_SIZE];
    uint64_t was = atomic_load(entry);
    bool maybe_sealed = was & EPCM_EXEC; /* not written then, and not used again */
    memory_hide(e, offset, SGX_PAGE_SIZE);
    if (!maybe_sealed)
        memset((void *)(was & EPCM_ADDRESS), 0, SGX_PAGE_SIZE);
    atomic_store(entry, maybe_sealed ? 0 : was & EPCM_ADDRESS);
    present_clear(e, offset / SGX_PAGE_SIZE);
    paging_removed(e, offset);
    epc_return(e, 1);
    epc_demand(-1);
    e->exist--;
}
