/*
 * The program's view of an enclave, in ELRANGE: a second mapping of the pages' backing (mremap with old size 0), with the
 * smaller of what the program asked of the device and what the EPCM allows. Callers hold g.memory_lock.
 */
#include "library.h"

#define READ_IMPLIES_EXEC 0x400000
#define MMAP_MIN 0x10000ull /* no vm.mmap_min_addr is above this */

/* PROT_ bits that the EPCM allows of those asked. */
static int epcm_prot(uint64_t entry, int prot)
{
    if (!(entry & EPCM_VALID) || entry & EPCM_TCS)
        return 0;
    return ((entry & EPCM_R ? PROT_READ : 0) | (entry & EPCM_W ? PROT_WRITE : 0) | (entry & EPCM_X ? PROT_EXEC : 0)) &
           prot;
}

int memory_permits(uint64_t entry, int prot) { return entry & (EPCM_OUT | EPCM_REST | EPCM_BLOCKING) ? 0 : epcm_prot(entry, prot); }

/* What is in force: no fetch from secret memory, no write to what is executed (code.c). */
static int page_prot(uint64_t entry, int prot)
{
    int backed = entry & EPCM_STAYS ? PROT_READ | PROT_WRITE | PROT_EXEC : PROT_READ | (entry & EPCM_EXEC ? PROT_EXEC : PROT_WRITE);
    return memory_permits(entry, prot) & backed;
}

/* The first address from `start` on whose page exists; `end` where there is none before it. Both lie in ELRANGE. */
static uint64_t next_page(struct enclave *e, uint64_t start, uint64_t end)
{
    uint64_t base = e->secs.base;
    return base + present_next(e, (start - base) / SGX_PAGE_SIZE, (end - base) / SGX_PAGE_SIZE) * SGX_PAGE_SIZE;
}

/* Whether the program's view shows the page. */
static bool is_shown(uint64_t entry) { return (entry & (EPCM_VALID | EPCM_TCS | EPCM_ABORT)) == EPCM_VALID; }

/*
 * The program's view of the pages at `view`, which has its rights before it is where the program looks: a copy has the
 * library's own. As the library's view, it is not for a forked child. False when the kernel refuses those rights.
 */
static bool second_view(uint64_t view, uint64_t start, uint64_t size, int prot)
{
    long copy = sys(__NR_mremap, view, 0, size, MREMAP_MAYMOVE, 0);
    bool good = MAPPED(copy) && !keys_protect((uint64_t)copy, size, prot);
    if (MAPPED(copy) && !good)
        sys(__NR_mprotect, copy, size, PROT_NONE);
    if (!MAPPED(copy) || !MAPPED(sys(__NR_mremap, copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, start)))
        fatal("no second view of enclave memory: is a limit too low (ulimit -v, vm.max_map_count)?");
    return good;
}

/* Maps or protects the pages in [start, end) that exist, in runs that one call can serve; false when one was refused. */
static bool for_runs(struct enclave *e, uint64_t start, uint64_t end, int prot, bool map)
{
    bool all = true;
    if (!e->epcm) /* mapped before ECREATE */
        return true;
    if (start < e->secs.base) /* a mapping may reach beyond ELRANGE */
        start = e->secs.base;
    if (end > e->secs.base + e->secs.size)
        end = e->secs.base + e->secs.size;
    while (start < end && (start = next_page(e, start, end)) < end) {
        uint64_t entry = atomic_load(&e->epcm[(start - e->secs.base) / SGX_PAGE_SIZE]), at = start + SGX_PAGE_SIZE;
        int effective = page_prot(entry, prot);
        bool shown = is_shown(entry);
        for (; at < end; at += SGX_PAGE_SIZE) {
            uint64_t next = atomic_load(&e->epcm[(at - e->secs.base) / SGX_PAGE_SIZE]);
            bool next_shown = is_shown(next);
            if (next_shown != shown || page_prot(next, prot) != effective)
                break;
            if (shown && (next & EPCM_ADDRESS) != (entry & EPCM_ADDRESS) + (at - start))
                break;
        }
        if (shown) {
            bool shut = map && warm_show(entry & EPCM_ADDRESS, at - start, start);
            if (map && !shut)
                all &= second_view(entry & EPCM_ADDRESS, start, at - start, effective);
            else if (!shut || effective)
                all &= !keys_protect(start, at - start, effective);
        }
        start = at;
    }
    return all;
}

/* What of a mapping's rights is in force: none while the enclave is closed (device/tamper.c). */
static int now(struct enclave *e, uint32_t prot) { return atomic_load(&e->closed) ? 0 : (int)prot; }

/* Makes pages just added visible where the program has mapped the device already. */
void memory_show(struct enclave *e, uint64_t offset, uint64_t size)
{
    uint64_t start = e->secs.base + offset, end = start + size;
    for (uint32_t i = 0; i < e->vma_count; i++) {
        uint64_t from = e->vma[i].start > start ? e->vma[i].start : start;
        uint64_t to = e->vma[i].end < end ? e->vma[i].end : end;
        if (from < to)
            for_runs(e, from, to, now(e, e->vma[i].prot), true);
    }
}

/* The EPCM entries there changed: the program's view follows, unless the enclave is closed; false when the kernel refuses. */
bool memory_refresh(struct enclave *e, uint64_t offset, uint64_t size)
{
    uint64_t start = e->secs.base + offset, end = size < e->secs.size - offset ? start + size : e->secs.base + e->secs.size;
    bool all = true;
    if (atomic_load(&e->closed))
        return true;
    for (uint32_t i = 0; i < e->vma_count; i++) {
        uint64_t from = e->vma[i].start > start ? e->vma[i].start : start;
        uint64_t to = e->vma[i].end < end ? e->vma[i].end : end;
        if (from < to)
            all &= for_runs(e, from, to, (int)e->vma[i].prot, false);
    }
    return all;
}

/* Nothing of the program's mapping of the device is left there but the range. */
void memory_hide(struct enclave *e, uint64_t offset, uint64_t size)
{
    uint64_t start = e->secs.base + offset;
    for (uint32_t i = 0; i < e->vma_count; i++)
        for (uint64_t at = start; at < start + size; at += SGX_PAGE_SIZE)
            if (at >= e->vma[i].start && at < e->vma[i].end)
                sys(__NR_mmap, at, SGX_PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

/* Whether an access with this page fault error code is one that the EPCM and the program's mapping allow. */
bool memory_allows(struct enclave *e, uint64_t address, uint64_t error)
{
    uint64_t entry = atomic_load(&e->epcm[(address - e->secs.base) / SGX_PAGE_SIZE]);
    return !atomic_load(&e->closed) && page_prot(entry, (int)memory_vma_prot(e, address)) & access_of(error);
}

void memory_close(struct enclave *e)
{
    for (uint32_t i = 0; i < e->vma_count; i++)
        sys(__NR_mprotect, e->vma[i].start, e->vma[i].end - e->vma[i].start, PROT_NONE);
}

void memory_open(struct enclave *e, bool remap)
{
    for (uint32_t i = 0; i < e->vma_count; i++)
        for_runs(e, e->vma[i].start, e->vma[i].end, (int)e->vma[i].prot, remap);
    uint64_t pages = remap ? e->secs.size / SGX_PAGE_SIZE : 0;
    for (uint64_t p = 0; (p = present_next(e, p, pages)) < pages; p++) /* a page of ones may stand for a TCS, which is not shown */
        if ((atomic_load(&e->epcm[p]) & (EPCM_VALID | EPCM_TCS | EPCM_ABORT)) == (EPCM_VALID | EPCM_TCS))
            memory_hide(e, p * SGX_PAGE_SIZE, SGX_PAGE_SIZE);
}

/* PROT_ bits of the program's mapping of the device at `address`; 0 when there is none. */
uint32_t memory_vma_prot(struct enclave *e, uint64_t address)
{
    for (uint32_t i = 0; i < e->vma_count; i++)
        if (address >= e->vma[i].start && address < e->vma[i].end)
            return e->vma[i].prot;
    return 0;
}

/* Linux's sgx_encl_may_map: no more than each page's SECINFO allows; before it, no more than the descriptor was opened for. */
static long may_map(struct enclave *e, uint64_t start, uint64_t end, int prot)
{
    uint32_t flags = atomic_load(&e->flags);
    if (e->mode == O_WRONLY || (prot & PROT_WRITE && e->mode == O_RDONLY))
        return -EACCES;
    if (sys(__NR_personality, 0xffffffff) & READ_IMPLIES_EXEC)
        return -EACCES;
    if (!(flags & ENCLAVE_CREATED))
        return 0;
    uint64_t base = e->secs.base, limit = base + e->secs.size;
    if (start < base || end > limit) {
        if (flags & ENCLAVE_INITIALIZED)
            return -EACCES;
        if (start < base)
            start = base;
        if (end > limit)
            end = limit;
    }
    for (; prot && start < end && (start = next_page(e, start, end)) < end; start += SGX_PAGE_SIZE) {
        int most = (int)(atomic_load(&e->epcm[(start - base) / SGX_PAGE_SIZE]) >> 48 & 7); /* EPCM_MAX_* */
        if (prot & ~most)
            return -EACCES;
    }
    return 0;
}

/* Takes [start, end) out of the list of what the program mapped; splits at the borders. */
static long vma_cut(struct enclave *e, uint64_t start, uint64_t end)
{
    for (uint32_t i = 0; i < e->vma_count; i++) {
        struct enclave_vma *v = &e->vma[i];
        if (v->end <= start || v->start >= end)
            continue;
        if (v->start < start && v->end > end) {
            if (e->vma_count == VMAS_MAX)
                return -ENOMEM;
            e->vma[e->vma_count++] = (struct enclave_vma){end, v->end, v->prot};
            v->end = start;
        } else if (v->start < start) {
            v->end = start;
        } else if (v->end > end) {
            v->start = end;
        } else {
            e->vma[i--] = e->vma[--e->vma_count];
        }
    }
    return 0;
}

/* Is every page there one that for_runs maps? */
static bool all_shown(struct enclave *e, uint64_t address, uint64_t size)
{
    uint64_t offset = address - e->secs.base;
    if (!(atomic_load(&e->flags) & ENCLAVE_CREATED) || offset >= e->secs.size || size > e->secs.size - offset)
        return false;
    for (uint64_t p = offset / SGX_PAGE_SIZE, end = p + size / SGX_PAGE_SIZE; p < end; p++) {
        uint64_t entry = atomic_load(&e->epcm[p]);
        if (!(entry & EPCM_VALID) || entry & EPCM_TCS)
            return false;
    }
    return true;
}

long memory_map(struct enclave *e, uint64_t address, uint64_t size, int prot)
{
    long ret = may_map(e, address, address + size, prot);
    if (ret)
        return ret;
    if (e->vma_count + 2 > VMAS_MAX)
        return -ENOMEM;
    /* Where all are there the pages themselves take the whole place, but where the kernel may want a right for it. */
    if (address < MMAP_MIN || !all_shown(e, address, size)) {
        ret = sys(__NR_mmap, address, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        if (!MAPPED(ret))
            return ret;
        sys(__NR_madvise, address, size, MADV_DONTFORK);
    }
    vma_cut(e, address, address + size);
    e->vma[e->vma_count++] = (struct enclave_vma){address, address + size, (uint32_t)prot};
    if (atomic_load(&e->flags) & ENCLAVE_CREATED) {
        uint64_t from = address > e->secs.base ? address : e->secs.base;
        uint64_t limit = e->secs.base + e->secs.size;
        uint64_t to = address + size < limit ? address + size : limit;
        if (from < to)
            for_runs(e, from, to, now(e, (uint32_t)prot), true);
    }
    return (long)address;
}

/* mprotect of a range: the device's mappings as the EPCM allows, all else by the kernel. */
long memory_protect(struct enclave *e, uint64_t address, uint64_t size, int prot)
{
    uint64_t end = address + size;
    for (uint64_t at = address; at < end;) {
        uint64_t stop = end;
        struct enclave_vma *in = NULL;
        for (uint32_t i = 0; i < e->vma_count; i++) {
            if (e->vma[i].start <= at && e->vma[i].end > at)
                in = &e->vma[i];
            else if (e->vma[i].start > at && e->vma[i].start < stop)
                stop = e->vma[i].start;
        }
        if (in && in->end < stop)
            stop = in->end;
        long ret;
        if (!in) {
            ret = sys(__NR_mprotect, at, stop - at, prot);
        } else {
            ret = may_map(e, at, stop, prot);
            if (!ret && vma_cut(e, at, stop) == 0 && e->vma_count < VMAS_MAX) {
                e->vma[e->vma_count++] = (struct enclave_vma){at, stop, (uint32_t)prot};
                for_runs(e, at, stop, now(e, (uint32_t)prot), false);
            } else if (!ret) {
                ret = -ENOMEM;
            }
        }
        if (ret)
            return ret;
        at = stop;
    }
    return 0;
}

void memory_unmap(struct enclave *e, uint64_t address, uint64_t size) { vma_cut(e, address, address + size); }
