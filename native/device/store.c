/*
 * Where evicted pages go: ciphertext in identity layout, then 16 bytes of tag a page; shared memory, as with Linux. By
 * gigabyte of ELRANGE, as they are needed: the address space does not hold another ELRANGE for each enclave. Callers hold
 * g.memory_lock.
 */
#include "library.h"

#define PART (1ull << 30)

static uint64_t part_size(struct enclave *e) { return e->secs.size < PART ? e->secs.size : PART; }
static uint64_t part_bytes(struct enclave *e) { return part_size(e) + page_up(part_size(e) / SGX_PAGE_SIZE * 16); }
static uint64_t parts(struct enclave *e) { return e->secs.size / part_size(e); }

bool store_ready(struct enclave *e, uint64_t offset)
{
    if (!e->store) {
        long at = sys(__NR_mmap, 0, page_up(parts(e) * 8), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (!MAPPED(at))
            return false;
        e->store = (uint8_t **)at;
    }
    uint8_t **part = &e->store[offset / part_size(e)];
    if (!*part) {
        long at = sys(__NR_mmap, 0, part_bytes(e), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (!MAPPED(at))
            return false;
        sys(__NR_madvise, at, part_bytes(e), MADV_DONTFORK);
        *part = (uint8_t *)at;
    }
    return true;
}

uint8_t *store_cipher(struct enclave *e, uint64_t offset)
{
    return e->store[offset / part_size(e)] + offset % part_size(e);
}

uint8_t *store_tag(struct enclave *e, uint64_t offset)
{
    return e->store[offset / part_size(e)] + part_size(e) + offset % part_size(e) / SGX_PAGE_SIZE * 16;
}

void store_release(struct enclave *e)
{
    for (uint64_t i = 0; e->store && i < parts(e); i++)
        if (e->store[i])
            sys(__NR_munmap, e->store[i], part_bytes(e));
    if (e->store)
        sys(__NR_munmap, e->store, page_up(parts(e) * 8));
}
