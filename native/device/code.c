/*
 * Pages that the EPCM lets be written and executed. Secret memory cannot be executed, and memory that can be executed is
 * read by root and, where it is mapped writable, written: so the backing follows use, not the EPCM. Such a page lies in secret
 * memory until it is fetched from, then in executable memory that nobody has mapped writable, until it is written: two
 * backings, one of them mapped. Where the two follow each other too fast (an instruction that writes its own page among
 * them) it stays executable, mapped both: root can write it then. Callers hold g.memory_lock.
 */
#include "library.h"

#define MOVES_MAX 16u
#define QUIET 10000000ull /* time stamp counter ticks, some 4 ms, without a fetch that moves it: the count begins anew */

struct both { uint64_t data, exec, last; uint32_t moves, reserved; };

static uint64_t table_size(struct enclave *e) { return e->secs.size / SGX_PAGE_SIZE * sizeof(struct both); }

/* What is known of the page's two backings; NULL when there is no memory. */
static struct both *both_of(struct enclave *e, uint64_t offset)
{
    if (!e->both) { /* sparse, and only where an enclave has such pages */
        long at = sys(__NR_mmap, 0, table_size(e), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if ((unsigned long)at >= -4095ul)
            return NULL;
        e->both = (struct both *)at;
    }
    return &e->both[offset / SGX_PAGE_SIZE];
}

void code_release(struct enclave *e)
{
    if (e->both)
        sys(__NR_munmap, e->both, table_size(e));
}

static void view_protect(uint64_t view, int prot)
{
    if (sys(__NR_mprotect, view, SGX_PAGE_SIZE, prot))
        fatal("the kernel refuses more mappings: raise vm.max_map_count");
}

/* The page's content and the program's view of it go to the other backing: no write gets lost, as none is let through meanwhile. */
static bool move(struct enclave *e, uint64_t offset, bool exec)
{
    _Atomic uint64_t *entry = &e->epcm[offset / SGX_PAGE_SIZE];
    struct both *b = both_of(e, offset);
    if (!b)
        return false;
    uint64_t was = atomic_load(entry), from = was & EPCM_ADDRESS, *to = exec ? &b->exec : &b->data;
    *(exec ? &b->data : &b->exec) = from;
    if (!*to && !(*to = memory_backing(e, exec)))
        return false;
    if (!(was & EPCM_EXEC) || was & EPCM_STAYS) { /* shut meanwhile where it is mapped writable; a fault waits and tries again */
        atomic_store(entry, was | EPCM_REST);
        if (!memory_refresh(e, offset, SGX_PAGE_SIZE)) {
            atomic_store(entry, was);
            return false;
        }
    }
    uint64_t now = (was & ~(EPCM_ADDRESS | EPCM_EXEC | EPCM_STAYS)) | *to;
    if (exec) {
        uint64_t ticks = __builtin_ia32_rdtsc();
        b->moves = ticks - b->last > QUIET ? 1 : b->moves + 1;
        b->last = ticks;
        now |= EPCM_EXEC | (was & EPCM_W && b->moves > MOVES_MAX ? EPCM_STAYS : 0);
        view_protect(*to, PROT_READ | PROT_WRITE);
    }
    memcpy((void *)*to, (const void *)from, SGX_PAGE_SIZE);
    if (exec && !(now & EPCM_STAYS))
        view_protect(*to, PROT_READ);
    if (was & EPCM_STAYS) { /* what was written there need not have been code */
        memset((void *)from, 0, SGX_PAGE_SIZE);
        view_protect(from, PROT_READ);
    }
    atomic_store(entry, now);
    memory_show(e, offset, SGX_PAGE_SIZE);
    return true;
}

/* Before the library writes a page: out of executable memory, unless it stays there. False: no memory. */
bool code_to_data(struct enclave *e, uint64_t offset)
{
    uint64_t entry = atomic_load(&e->epcm[offset / SGX_PAGE_SIZE]);
    return (entry & (EPCM_EXEC | EPCM_STAYS)) != EPCM_EXEC || move(e, offset, false);
}

/* A fault where the EPCM and the program's mapping allow the access and the backing does not: true when it does now. */
bool code_fault(struct enclave *e, uint64_t address, uint64_t error)
{
    uint64_t offset = page_down(address) - e->secs.base, entry = atomic_load(&e->epcm[offset / SGX_PAGE_SIZE]);
    int need = error & 16 ? PROT_EXEC : error & 2 ? PROT_WRITE : 0;
    if (!(memory_permits(entry, (int)memory_vma_prot(e, address)) & need) || atomic_load(&e->closed) ||
        !(atomic_load(&e->flags) & ENCLAVE_INITIALIZED))
        return false;
    bool exec = need == PROT_EXEC;
    if (exec == !!(entry & EPCM_EXEC))
        return false;
    if (move(e, offset, exec))
        return true;
    note("no memory for a page of code made at run time");
    return false;
}

/* The page goes (EREMOVE): where the next one at this offset may lie, wiped; 0: nowhere yet. */
uint64_t code_removed(struct enclave *e, uint64_t offset)
{
    uint64_t was = atomic_load(&e->epcm[offset / SGX_PAGE_SIZE]), data = was & EPCM_ADDRESS;
    if (was & EPCM_STAYS) {
        memset((void *)data, 0, SGX_PAGE_SIZE);
        view_protect(data, PROT_READ);
    }
    if (was & EPCM_EXEC)
        data = e->both ? e->both[offset / SGX_PAGE_SIZE].data : 0;
    if (data)
        memset((void *)data, 0, SGX_PAGE_SIZE);
    return data;
}
