/*
 * Backing of EPC pages. Each enclave has extents of shared memory: secret memory for pages that can be written, a sealed memfd
 * for those that can only be executed; code.c is of those that can be both. Descriptors are closed before anything is written.
 * The library keeps a view of its own of every page; the program's is view.c's. Callers hold g.memory_lock, except for memory_page.
 */
#include "library.h"

#define EXTENT_SIZE (2ull << 20)
#define POPULATE_FROM 64 /* pages */
#define MADV_POPULATE_WRITE 23

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

void memory_return(uint64_t base, uint64_t size, bool secret)
{
    sys(__NR_munmap, base, size);
    if (secret && g.memlock_limited)
        g.memlock_left += 2 * size;
}

/* The share of a process's pages that had to do with ordinary memory is shown beside its EPC use. */
static void ordinary_count(struct enclave *e, uint64_t pages)
{
    e->refused_secret += pages;
    atomic_fetch_add(&epc_own()->ordinary, (uint32_t)pages);
}

/* So many pages will be added from `offset` on, ADD_AT_ONCE before this is said again: backing and their EPCM entries at once. */
void memory_hint(struct enclave *e, uint64_t offset, uint64_t pages, bool exec)
{
    uint64_t most = pages < ADD_AT_ONCE ? pages : ADD_AT_ONCE;
    uint64_t from = page_down((uint64_t)&e->epcm[offset / SGX_PAGE_SIZE]), to = (uint64_t)&e->epcm[offset / SGX_PAGE_SIZE + most];
    e->hint[exec] = pages;
    if (pages >= POPULATE_FROM) /* else a page of them faults twice, as each entry is read before it is written */
        sys(__NR_madvise, from, page_up(to) - from, MADV_POPULATE_WRITE);
}

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
            sys(__NR_madvise, base, e->hint[1] * SGX_PAGE_SIZE, MADV_POPULATE_WRITE);
        if (!exec && !secret && !debug)
            ordinary_count(e, size / SGX_PAGE_SIZE);
        if (exec && atomic_load(&e->flags) & ENCLAVE_INITIALIZED) /* filled a page at a time: code.c */
            sys(__NR_mprotect, base, size, PROT_READ);
        *extent = (struct extent){base, size, 0, exec, secret};
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
    for (uint32_t i = 0; i < e->held_count; i++) {
        warm_drop(e->held[i].base, e->held[i].size);
        memory_return(e->held[i].base, e->held[i].size, e->held[i].secret);
    }
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
