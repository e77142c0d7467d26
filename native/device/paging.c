/*
 * Paging (EWB, ELDU): clusters of 16 pages of ELRANGE leave the EPC and come back in place. A cluster is closed to the
 * program, its pages encrypted and authenticated into ordinary memory, wiped, and taken off the quota; a fault brings it
 * back. What authenticates them is as in PCMD and the version array (SDM vol. 3D, EWB): enclave, offset, EPCM entry and
 * a version that never returns, the versions in secret memory. Pages that can be executed and not written hold nothing
 * secret and cannot be changed: they are closed and leave the quota, and stay where they are (docs/deviations.md).
 *
 * Who goes: the oldest of those that rest. A cluster rests, closed but in place, before it is evicted; a fault meanwhile
 * makes it active again, so that what is in use is found out without accessed bits.
 *
 * Callers hold g.memory_lock. Pages are encrypted and decrypted on a stack in secret memory, as plaintext may spill there.
 */
#include "library.h"

#define CLUSTER_SIZE (CLUSTER_PAGES * SGX_PAGE_SIZE)
#define RESTING_SHARE 4 /* one part in this of the clusters rests once there is pressure */
#define STACK_SIZE 0x8000ull

enum cluster_state { CLUSTER_NONE, CLUSTER_ACTIVE, CLUSTER_RESTING };

struct cluster {
    struct cluster *next, *before;
    struct enclave *enclave;
    uint64_t version;     /* of the last eviction */
    uint16_t here, out;   /* pages in the EPC that can be evicted; evicted pages */
    uint16_t empty;       /* of those out: never touched, so nothing was written */
    uint16_t stayed;      /* of those out: executable, still in place */
    struct cluster *sibling; /* all clusters of the enclave that ever had a page */
    uint32_t state;
    uint32_t reserved;
};
_Static_assert(sizeof(struct cluster) == 56, "clusters are many");

struct queue { struct cluster *first, *last; uint64_t count; };
static struct queue g_active, g_resting;
static struct gcm_key *g_key; /* in secret memory, at the foot of the stack on which pages are encrypted */
static uint64_t g_stack;
static uint64_t g_version;
static uint64_t g_loading; /* pages that come in just now, whose room is free in a moment */

static struct queue *queue_of(struct cluster *c) { return c->state == CLUSTER_ACTIVE ? &g_active : &g_resting; }

static void queue_leave(struct cluster *c)
{
    if (c->state == CLUSTER_NONE)
        return;
    struct queue *q = queue_of(c);
    *(c->before ? &c->before->next : &q->first) = c->next;
    *(c->next ? &c->next->before : &q->last) = c->before;
    q->count--;
    c->next = c->before = NULL;
    c->state = CLUSTER_NONE;
}

static void queue_enter(struct cluster *c, enum cluster_state state)
{
    queue_leave(c);
    c->state = state;
    struct queue *q = queue_of(c);
    c->before = q->last;
    *(q->last ? &q->last->next : &q->first) = c;
    q->last = c;
    q->count++;
}

static uint64_t count_of(uint16_t pages)
{
    uint64_t n = 0;
    for (; pages; pages &= (uint16_t)(pages - 1))
        n++;
    return n;
}

static struct cluster *cluster_at(struct enclave *e, uint64_t offset) { return &e->cluster[offset / CLUSTER_SIZE]; }
static uint64_t offset_of(struct cluster *c) { return (uint64_t)(c - c->enclave->cluster) * CLUSTER_SIZE; }
static _Atomic uint64_t *entry_of(struct cluster *c, unsigned page)
{
    return &c->enclave->epcm[offset_of(c) / SGX_PAGE_SIZE + page];
}

static bool mark_once(struct cluster *c, uint16_t pages, uint64_t set, uint64_t clear)
{
    for (unsigned i = 0; i < CLUSTER_PAGES; i++)
        if (pages >> i & 1)
            atomic_store(entry_of(c, i), (atomic_load(entry_of(c, i)) & ~clear) | set);
    return memory_refresh(c->enclave, offset_of(c), CLUSTER_SIZE);
}

/* Its pages' EPCM entries get and lose flags, the program's view follows. False: the kernel has no room for more mappings. */
static bool mark(struct cluster *c, uint16_t pages, uint64_t set, uint64_t clear)
{
    if (mark_once(c, pages, set, clear))
        return true;
    if (!mark_once(c, pages, clear, set))
        fatal("the kernel refuses more mappings: raise vm.max_map_count");
    return false;
}

/* The tables of a new enclave; false when there is no memory. */
bool paging_start(struct enclave *e)
{
    bool secret;
    uint64_t size = page_up((e->secs.size + CLUSTER_SIZE - 1) / CLUSTER_SIZE * sizeof(struct cluster));
    uint64_t table = memory_shared(size, 0, true, &secret);
    if (!table)
        return false;
    sys(__NR_madvise, table, size, MADV_DONTFORK);
    sys(__NR_madvise, table, size, MADV_DONTDUMP);
    e->cluster = (struct cluster *)table;
    e->cluster_size = size;
    e->cluster_secret = secret;
    if (!g_key && gcm_available()) {
        uint8_t key[16];
        uint64_t at = memory_shared(STACK_SIZE, 0, true, &secret);
        if (!at || sys(__NR_getrandom, key, sizeof key, 0) != sizeof key)
            return false;
        sys(__NR_madvise, at, STACK_SIZE, MADV_DONTFORK);
        sys(__NR_madvise, at, STACK_SIZE, MADV_DONTDUMP);
        g_key = (struct gcm_key *)at;
        g_stack = at + STACK_SIZE;
        gcm_key_set(g_key, key);
        memset(key, 0, sizeof key);
        __asm__ volatile("" : : "r"(key) : "memory");
    }
    return true;
}

struct sealing { uint8_t iv[12]; uint64_t aad[4]; };

static struct sealing sealing_of(struct cluster *c, unsigned page)
{
    struct sealing s;
    uint32_t number = page;
    memcpy(s.iv, &c->version, 8);
    memcpy(s.iv + 8, &number, 4);
    s.aad[0] = c->enclave->serial;
    s.aad[1] = offset_of(c) + page * SGX_PAGE_SIZE;
    s.aad[2] = atomic_load(entry_of(c, page)) & EPCM_SEALED_FLAGS;
    s.aad[3] = c->version;
    return s;
}

/* Pages whose backing was never touched, or by us alone (warm.c), are zero: no need to touch, encrypt or keep them. */
static uint16_t untouched(struct cluster *c)
{
    uint16_t result = 0;
    for (unsigned i = 0; i < CLUSTER_PAGES;) {
        if (!(c->here >> i & 1)) {
            i++;
            continue;
        }
        uint64_t view = atomic_load(entry_of(c, i)) & EPCM_ADDRESS;
        unsigned n = 1;
        while (i + n < CLUSTER_PAGES && c->here >> (i + n) & 1 &&
               (atomic_load(entry_of(c, i + n)) & EPCM_ADDRESS) == view + n * SGX_PAGE_SIZE)
            n++;
        uint8_t in_core[CLUSTER_PAGES];
        if (!sys(__NR_mincore, view, n * SGX_PAGE_SIZE, in_core))
            for (unsigned j = 0; j < n; j++)
                if (!(in_core[j] & 1) || warm_zero(view + j * SGX_PAGE_SIZE))
                    result |= (uint16_t)(1u << (i + j));
        i += n;
    }
    return result;
}

static bool stays(uint64_t entry) { return (entry & (EPCM_EXEC | EPCM_STAYS)) == EPCM_EXEC; }

/* EWB of a cluster's pages; how many left the EPC, 0 when there is no room for them. */
static long evict_here(struct cluster *c)
{
    struct enclave *e = c->enclave;
    bool debug = e->secs.attributes & SGX_ATTR_DEBUG;
    uint64_t pages = count_of(c->here), base = offset_of(c);
    if (!(atomic_load(&e->flags) & ENCLAVE_INITIALIZED))
        measuring_settle();
    for (unsigned i = 0; i < CLUSTER_PAGES; i++)
        if (c->here >> i & 1 && atomic_load(entry_of(c, i)) & EPCM_W && !code_to_data(e, base + i * SGX_PAGE_SIZE))
            return 0;
    uint16_t empty = untouched(c), stayed = 0;
    if (!store_ready(e, base) || !epc_backing_take(pages, g_loading))
        return 0;
    bool rested = c->state == CLUSTER_RESTING;
    if (!mark(c, c->here, EPCM_OUT, rested ? EPCM_REST : 0)) {
        epc_backing_return(pages);
        return 0;
    }
    c->version = ++g_version;
    for (unsigned i = 0; i < CLUSTER_PAGES; i++) {
        uint64_t entry = atomic_load(entry_of(c, i)), offset = base + i * SGX_PAGE_SIZE;
        if (!(c->here >> i & 1) || empty >> i & 1)
            continue;
        if (stays(entry)) {
            stayed |= (uint16_t)(1u << i);
            continue;
        }
        struct sealing s = sealing_of(c, i);
        void *view = (void *)(entry & EPCM_ADDRESS);
        gcm_page_seal(g_key, s.iv, (const uint8_t *)s.aad, view, store_cipher(e, offset), store_tag(e, offset));
        if (!debug) /* a debugger reads a DEBUG enclave's pages where they are, evicted or not */
            memset(view, 0, SGX_PAGE_SIZE);
    }
    c->out = c->here;
    c->here = 0;
    c->empty = empty;
    c->stayed = stayed;
    queue_leave(c);
    epc_return(e, pages);
    atomic_fetch_add(&epc_own()->evicted, pages);
    return (long)pages;
}

/* Lets the oldest active clusters rest, so that the next evictions find ones that nobody used meanwhile. */
static void rest_some(void)
{
    while (g_active.first && g_resting.count < (g_active.count + g_resting.count) / RESTING_SHARE) {
        struct cluster *c = g_active.first;
        if (!mark(c, c->here, EPCM_REST, 0))
            break;
        queue_enter(c, CLUSTER_RESTING);
    }
}

/* On the stack in secret memory, without signals: one there would take the alternate stack from its top, where frames of ours are. */
static long on_stack(long (*fn)(struct cluster *), struct cluster *c)
{
    uint64_t all = ~0ull, before;
    sys(__NR_rt_sigprocmask, SIG_SETMASK, &all, &before, 8);
    long ret = call_on_stack(g_stack, (long (*)(void *))fn, c);
    sys(__NR_rt_sigprocmask, SIG_SETMASK, &before, NULL, 8);
    return ret;
}

/* Evicts at least `pages` pages of this process, if it has them; how many went. */
uint64_t paging_evict(uint64_t pages)
{
    uint64_t gone = 0, start;
    if (!g_key || !(g_active.first || g_resting.first))
        return 0;
    start = clock_ns();
    while (gone < pages) {
        struct cluster *c = g_resting.first ? g_resting.first : g_active.first;
        long n = c ? on_stack(evict_here, c) : 0;
        if (!n)
            break;
        gone += (uint64_t)n;
    }
    rest_some();
    atomic_fetch_add(&epc_own()->paging_ns, clock_ns() - start);
    return gone;
}

static void open_to_program(struct cluster *c, uint16_t pages, uint64_t clear)
{
    if (!mark(c, pages, 0, clear))
        fatal("the kernel refuses more mappings: raise vm.max_map_count");
}

/* A page that authentication refuses: the host changed, swapped or replayed what was evicted. The enclave is lost. */
static void refused(struct enclave *e)
{
    if (!(atomic_fetch_or(&e->flags, ENCLAVE_LOST) & ENCLAVE_LOST) && atomic_load(&e->flags) & ENCLAVE_INITIALIZED) {
        struct rpc_event_message event = {.enclave_id = e->id, .kind = RPC_EVENT_TAMPERED};
        rpc_call(RPC_EVENT, &event, sizeof event, NULL, 0);
    }
    note("an evicted page does not authenticate: the enclave is disabled");
}

/* Decrypts the pages of a cluster in place; -EFAULT when one does not authenticate. */
static long open_here(struct cluster *c)
{
    struct enclave *e = c->enclave;
    for (unsigned i = 0; i < CLUSTER_PAGES; i++) {
        uint64_t entry = atomic_load(entry_of(c, i)), offset = offset_of(c) + i * SGX_PAGE_SIZE;
        if (!(c->out >> i & 1) || (c->empty | c->stayed) >> i & 1)
            continue;
        struct sealing s = sealing_of(c, i);
        if (!gcm_page_open(g_key, s.iv, (const uint8_t *)s.aad, store_cipher(e, offset), store_tag(e, offset), (void *)(entry & EPCM_ADDRESS)))
            return -EFAULT;
    }
    return 0;
}

/* ELDU of a cluster, whose pages are all out. */
static long load(struct cluster *c)
{
    struct enclave *e = c->enclave;
    uint64_t pages = count_of(c->out), start;
    if (atomic_load(&e->flags) & ENCLAVE_LOST)
        return -EFAULT;
    g_loading = pages;
    long ret = epc_charge(e, pages);
    g_loading = 0;
    if (ret)
        return ret;
    start = clock_ns();
    if (on_stack(open_here, c)) {
        epc_return(e, pages);
        refused(e);
        return -EFAULT;
    }
    epc_backing_return(pages);
    uint16_t out = c->out;
    c->here |= out;
    c->out = c->empty = c->stayed = 0;
    queue_enter(c, CLUSTER_ACTIVE);
    open_to_program(c, out, EPCM_OUT);
    atomic_fetch_add(&epc_own()->loaded, pages);
    atomic_fetch_add(&epc_own()->paging_ns, clock_ns() - start);
    return 0;
}

/* Brings the page at `offset` in, when it is out; 0 or -errno. */
long paging_in(struct enclave *e, uint64_t offset)
{
    struct cluster *c = cluster_at(e, offset);
    return c->enclave && c->out ? load(c) : 0;
}

/* A page was added at `offset`: it can be evicted from now on. Its cluster is all in the EPC (paging_in). */
void paging_added(struct enclave *e, uint64_t offset)
{
    struct cluster *c = cluster_at(e, offset);
    if (!c->enclave) {
        c->enclave = e;
        c->sibling = e->clusters;
        e->clusters = c;
    }
    c->here |= (uint16_t)(1u << (offset / SGX_PAGE_SIZE % CLUSTER_PAGES));
    if (c->state == CLUSTER_NONE) /* a resting one stays: the page added is open until it is evicted */
        queue_enter(c, CLUSTER_ACTIVE);
}

/* The page at `offset` is gone, or is evicted no more (EREMOVE, a TCS). It is in the EPC. */
void paging_removed(struct enclave *e, uint64_t offset)
{
    struct cluster *c = cluster_at(e, offset);
    c->here &= (uint16_t)~(1u << (offset / SGX_PAGE_SIZE % CLUSTER_PAGES));
    if (!c->here)
        queue_leave(c);
}

/*
 * A fault of the program at an address in ELRANGE: true when the page was out or rested, or another thread has dealt with
 * that meanwhile, and the instruction is to run again. `error` is the page fault's error code.
 */
bool paging_fault(struct enclave *e, uint64_t address, uint64_t error)
{
    uint64_t offset = page_down(address) - e->secs.base, entry = atomic_load(&e->epcm[offset / SGX_PAGE_SIZE]);
    struct cluster *c = cluster_at(e, offset);
    if (entry & EPCM_OUT)
        return !paging_in(e, offset);
    if (!(entry & EPCM_REST))
        return memory_allows(e, address, error) || code_fault(e, address, error);
    queue_enter(c, CLUSTER_ACTIVE);
    open_to_program(c, c->here, EPCM_REST);
    rest_some();
    return true;
}

void paging_release(struct enclave *e)
{
    uint64_t out = 0;
    for (struct cluster *c = e->clusters; c; c = c->sibling) {
        out += count_of(c->out);
        queue_leave(c);
    }
    epc_backing_return(out);
    store_release(e);
    if (e->cluster)
        memory_return((uint64_t)e->cluster, e->cluster_size, e->cluster_secret);
}

/* In a forked child: nothing of the parent's enclaves is here. */
void paging_forget(void)
{
    g_active = g_resting = (struct queue){NULL, NULL, 0};
    g_key = NULL;
}
