/*
 * Backing of EPC pages. Each enclave has extents of shared memory: secret memory for pages that can be
 * written, a sealed memfd for those that can only be executed; code.c is of those that can be both. The library keeps a view of its own of every page; the
 * program's view in ELRANGE is a second mapping of the same memory (mremap with old size 0), with the
 * smaller of what the program asked of the device and what the EPCM allows. Descriptors are closed before
 * anything is written. Callers hold g.memory_lock, except for memory_page.
 */
#include "library.h"

#define READ_IMPLIES_EXEC 0x400000
#define MMAP_MIN 0x10000ull /* no vm.mmap_min_addr is above this */
#define EXTENT_SIZE (2ull << 20)
#define MAPPED(r) ((unsigned long)(r) < -4095ul)

uint64_t memory_shared(uint64_t size, uint64_t at, bool want_secret, bool *secret)
{
    long fd = -ENOSYS, address;
    int fixed = at ? MAP_FIXED : 0;
    *secret = false;
    uint64_t weight = at ? size : 2 * size; /* a thread's slot is mapped once, enclave pages twice */
    if (want_secret && g.secret_memory && g.memlock_left >= weight) {
        fd = sys(447 /* memfd_secret */, O_CLOEXEC);
        if (fd >= 0) {
            address = -1;
            if (!sys(__NR_ftruncate, fd, size))
                address = sys(__NR_mmap, at, size, PROT_READ | PROT_WRITE, MAP_SHARED | fixed, fd, 0);
            sys(__NR_close, fd);
            if (MAPPED(address)) {
                *secret = true;
                if (g.memlock_limited)
                    g.memlock_left -= weight;
                return (uint64_t)address;
            }
        }
    }
    fd = sys(__NR_memfd_create, "sgx-epc", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return 0;
    address = -1;
    if (!sys(__NR_ftruncate, fd, size))
        address = sys(__NR_mmap, at, size, PROT_READ | PROT_WRITE, MAP_SHARED | fixed, fd, 0);
    sys(__NR_fcntl, fd, 1033 /* F_ADD_SEALS */, 0x2 | 0x4 | 0x10 /* SHRINK GROW FUTURE_WRITE */);
    sys(__NR_close, fd);
    return MAPPED(address) ? (uint64_t)address : 0;
}

/* The share of a process's pages that had to do with ordinary memory is shown beside its EPC use. */
static void ordinary_count(struct enclave *e, uint64_t pages)
{
    e->refused_secret += pages;
    atomic_fetch_add(&epc_own()->ordinary, (uint32_t)pages);
}

void memory_hint(struct enclave *e, uint64_t pages, bool exec) { e->hint[exec] = pages; }

uint64_t memory_backing(struct enclave *e, bool exec)
{
    bool secret, debug = e->secs.attributes & SGX_ATTR_DEBUG; /* open to gdb: ordinary memory */
    struct extent *extent = exec ? &e->exec : &e->data;

    if (extent->used == extent->size) {
        uint64_t size = e->hint[exec] * SGX_PAGE_SIZE;
        uint64_t least = EXTENT_SIZE << (e->held_count / 512); /* the list is finite */
        if (size < least && (!g.memlock_limited || exec || g.memlock_left < 2 * EXTENT_SIZE))
            size = least;
        if (size < 16 * SGX_PAGE_SIZE)
            size = 16 * SGX_PAGE_SIZE;
        bool room = e->held_count < sizeof e->held / sizeof e->held[0];
        uint64_t base = room && (exec || !debug) ? warm_take(&size, exec) : 0;
        bool warm = base;
        secret = warm && !exec;
        if (!base && room)
            base = memory_shared(size, 0, !exec && !debug, &secret);
        if (!base)
            return 0;
        if (!warm) {
            sys(__NR_madvise, base, size, MADV_DONTFORK);
            sys(__NR_madvise, base, size, MADV_DONTDUMP);
        }
        if (!warm && exec && e->hint[1] > 1) /* all of it will be filled: one call in place of a fault a page */
            sys(__NR_madvise, base, e->hint[1] * SGX_PAGE_SIZE, 23 /* MADV_POPULATE_WRITE */);
        if (!exec && !secret && !debug)
            ordinary_count(e, size / SGX_PAGE_SIZE);
        if (exec && atomic_load(&e->flags) & ENCLAVE_INITIALIZED) /* filled a page at a time: code.c */
            sys(__NR_mprotect, base, size, PROT_READ);
        *extent = (struct extent){base, size, 0, exec};
        e->held[e->held_count++] = *extent;
    }
    uint64_t view = extent->base + extent->used;
    extent->used += SGX_PAGE_SIZE;
    if (e->hint[exec])
        e->hint[exec]--;
    return view;
}

/* A page of backing for `offset`, charged and entered in the EPCM; the library's view of it, or an error. */
void *memory_add(struct enclave *e, uint64_t offset, uint64_t epcm_flags)
{
    bool exec = (epcm_flags & (EPCM_X | EPCM_W)) == EPCM_X;
    if (epc_charge(e, 1))
        return (void *)-(long)ENOMEM;
    long ret = paging_in(e, offset); /* a cluster is in the EPC or out of it as a whole */
    uint64_t before = atomic_load(&e->epcm[offset / SGX_PAGE_SIZE]) & EPCM_ADDRESS; /* of a page removed from there */
    uint64_t view = ret ? 0 : before && !exec ? before : memory_backing(e, exec);
    if (!view) {
        epc_return(e, 1);
        return (void *)(ret ? ret : -(long)ENOMEM);
    }
    atomic_store(&e->epcm[offset / SGX_PAGE_SIZE], view | epcm_flags | EPCM_VALID | (exec ? EPCM_EXEC : 0));
    present_set(e, offset / SGX_PAGE_SIZE);
    epc_demand(1);
    e->exist++;
    if (!(epcm_flags & EPCM_TCS)) /* a TCS stays: a thread may be about to enter by it */
        paging_added(e, offset);
    return (void *)view;
}

/* After EINIT the executable pages are no longer written, by nobody. */
void memory_seal(struct enclave *e)
{
    for (uint32_t i = 0; i < e->held_count; i++)
        if (e->held[i].exec)
            sys(__NR_mprotect, e->held[i].base, e->held[i].size, PROT_READ);
    e->exec.used = e->exec.size; /* what comes later gets an extent of its own */
}

/* Bytes of an enclave's EPCM and of what says which of its pages exist, in one mapping. */
uint64_t memory_tables(uint64_t size) { return size / SGX_PAGE_SIZE * 8 + present_size(size / SGX_PAGE_SIZE); }

void memory_release(struct enclave *e)
{
    measuring_forget(e);
    for (uint32_t i = 0; i < e->vma_count; i++)
        sys(__NR_munmap, e->vma[i].start, e->vma[i].end - e->vma[i].start);
    for (uint32_t i = 0; i < e->held_count; i++)
        sys(__NR_munmap, e->held[i].base, e->held[i].size);
    atomic_fetch_sub(&epc_own()->ordinary, (uint32_t)e->refused_secret);
    paging_release(e);
    code_release(e);
    if (e->epcm)
        sys(__NR_munmap, e->epcm, memory_tables(e->secs.size));
    epc_demand(-(int64_t)e->exist);
    epc_return(e, e->pages);
}

/* ---- the library's view ---- */

void *memory_page(struct enclave *e, uint64_t address, uint64_t need)
{
    uint64_t offset = address - e->secs.base;
    if (offset >= e->secs.size || !e->epcm)
        return NULL;
    uint64_t entry = atomic_load(&e->epcm[offset / SGX_PAGE_SIZE]);
    if ((entry & need) != need || entry & EPCM_BLOCKING)
        return NULL;
    return (void *)(entry & EPCM_ADDRESS);
}

/* The page fault error code of an access (4 and more, without P) that ends in a fault: a page that is there is refused by the EPCM. */
uint32_t memory_error(struct enclave *e, uint64_t address, uint32_t access)
{
    uint64_t offset = address - e->secs.base;
    bool there = offset < e->secs.size && e->epcm && atomic_load(&e->epcm[offset / SGX_PAGE_SIZE]) & EPCM_VALID;
    return there ? access | 1 | SGX_PF_SGX : access;
}

/* Between the enclave's pages and a buffer of the library's. */
static long memory_copy(struct enclave *e, uint64_t address, uint8_t *buffer, size_t size, bool write)
{
    while (size) {
        uint64_t in_page = address & (SGX_PAGE_SIZE - 1), n = SGX_PAGE_SIZE - in_page, offset = page_down(address) - e->secs.base;
        if (!memory_page(e, address, EPCM_VALID) || paging_in(e, offset) || (write && !code_to_data(e, offset)))
            return -EFAULT;
        uint8_t *page = memory_page(e, address, EPCM_VALID);
        if (n > size)
            n = size;
        memcpy(write ? page + in_page : buffer, write ? buffer : page + in_page, n);
        buffer += n, address += n, size -= n;
    }
    return 0;
}

long memory_read(struct enclave *e, uint64_t address, void *to, size_t size) { return memory_copy(e, address, to, size, false); }

long memory_write(struct enclave *e, uint64_t address, const void *from, size_t size)
{
    return memory_copy(e, address, (uint8_t *)from, size, true);
}

/* ---- the program's view ---- */

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
