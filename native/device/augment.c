/*
 * Pages that come, change and go after EINIT (SGX2): what Linux does at a fault on a page that is not there (EAUG),
 * and at EREMOVE. Callers hold g.memory_lock.
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

/* EREMOVE: the page is gone; its backing waits, wiped, for the next page at this offset. */
void memory_remove(struct enclave *e, uint64_t offset)
{
    _Atomic uint64_t *entry = &e->epcm[offset / SGX_PAGE_SIZE];
    memory_hide(e, offset, SGX_PAGE_SIZE);
    atomic_store(entry, code_removed(e, offset));
    present_clear(e, offset / SGX_PAGE_SIZE);
    paging_removed(e, offset);
    epc_return(e, 1);
    epc_demand(-1);
    e->exist--;
}
