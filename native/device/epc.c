/*
 * The VM's page cache as a quota that its processes share (wire.h, struct epc_shared). Who is over it evicts pages of its
 * own; who holds the most is asked for some of his by a word on which a thread of his library waits, as Linux's ksgxd does.
 * Callers hold g.memory_lock, except where said.
 */
#include "library.h"

#include <linux/futex.h>

#define ASK_NS 5000000ll       /* one wait for what was asked of another process */
#define DEAF_ROUNDS 6          /* then it is taken not to answer, and pages of one's own go */
#define GIVE_UP_ROUNDS 600     /* 3 s without a page that anybody can evict */

struct timespec64 { int64_t sec, nsec; };

uint64_t clock_ns(void)
{
    struct timespec64 t = {0, 0};
    sys(__NR_clock_gettime, 1 /* CLOCK_MONOTONIC */, &t);
    return (uint64_t)t.sec * 1000000000u + (uint64_t)t.nsec;
}

struct epc_slot *epc_own(void)
{
    static struct epc_slot unseen; /* a process without a slot counts for itself */
    return g.epc ? &g.epc->slot[g.package.slot] : &unseen;
}

static uint32_t slots(void)
{
    uint32_t slots = atomic_load(&g.epc->slots);
    return slots < EPC_SLOTS ? slots : EPC_SLOTS;
}

/*
 * Adds `pages` to one counter of our slot, if all slots' sums of it stay within `total`. Of two that add at the same time
 * at least one sees both; what one killed in between has added goes with its slot.
 */
static bool take(_Atomic uint64_t *own, uint64_t pages, uint64_t total)
{
    uint64_t at = (uint64_t)((char *)own - (char *)epc_own()), sum = 0;
    atomic_fetch_add(own, pages);
    for (uint32_t i = 0; i < slots(); i++) {
        uint64_t used = atomic_load((_Atomic uint64_t *)((char *)&g.epc->slot[i] + at));
        sum += used <= total ? used : total + 1; /* another's, who may write anything there */
    }
    if (sum <= total)
        return true;
    atomic_fetch_sub(own, pages);
    return false;
}

/* The process that holds most, when that is more than our own; else NULL. */
static struct epc_slot *largest_other(void)
{
    struct epc_slot *own = epc_own(), *found = NULL;
    uint64_t most = atomic_load(&own->used);
    for (uint32_t i = 0; i < slots(); i++) {
        struct epc_slot *s = &g.epc->slot[i];
        uint64_t used = atomic_load(&s->used);
        if (s != own && used > most && used <= g.epc->total_pages) {
            most = used;
            found = s;
        }
    }
    return found;
}

static bool others_hold(void)
{
    for (uint32_t i = 0; i < slots(); i++)
        if (&g.epc->slot[i] != epc_own() && atomic_load(&g.epc->slot[i].used))
            return true;
    return false;
}

static void ask(struct epc_slot *s, uint64_t pages)
{
    const struct timespec64 wait = {0, ASK_NS};
    uint32_t freed = atomic_load(&g.epc->freed);
    if (s) {
        atomic_fetch_add(&s->asked, (uint32_t)pages);
        sys(__NR_futex, &s->asked, FUTEX_WAKE, 1);
    }
    sys(__NR_futex, &g.epc->freed, FUTEX_WAIT, freed, &wait);
}

static void freed(void)
{
    atomic_fetch_add(&g.epc->freed, 1);
    sys(__NR_futex, &g.epc->freed, FUTEX_WAKE, 0x7fffffff);
}

/* Gives what other processes asked for, as far as there is something to evict. */
static void serve(void)
{
    uint32_t asked = atomic_exchange(&epc_own()->asked, 0);
    if (asked && paging_evict(asked > 4096 ? 4096 : asked))
        freed();
}

/*
 * Takes `pages` off the VM's quota for `e`, evicting others; -ENOMEM when neither this process nor another has a page that
 * can be evicted, or there is no room for what is evicted.
 */
long epc_charge(struct enclave *e, uint64_t pages)
{
    if (!g.epc)
        return 0;
    struct epc_slot *own = epc_own();
    for (uint32_t round = 0, barren = 0; !take(&own->used, pages, g.epc->total_pages); round++) {
        struct epc_slot *other = largest_other();
        serve();
        if ((other == NULL || round % DEAF_ROUNDS == DEAF_ROUNDS - 1) && paging_evict(pages)) {
            barren = 0;
            continue;
        }
        if ((!other && !others_hold()) || ++barren > GIVE_UP_ROUNDS) {
            atomic_fetch_add(&own->refused, 1);
            return -ENOMEM;
        }
        ask(other, pages < CLUSTER_PAGES ? CLUSTER_PAGES : pages);
    }
    uint64_t used = atomic_load(&own->used);
    if (used > atomic_load(&own->peak))
        atomic_store(&own->peak, used);
    e->pages += pages;
    return 0;
}

void epc_return(struct enclave *e, uint64_t pages)
{
    e->pages -= pages;
    if (g.epc)
        atomic_fetch_sub(&epc_own()->used, pages);
}

/* Pages that exist, in the EPC or evicted: the EPC that would hold this process without paging. */
void epc_demand(int64_t pages)
{
    struct epc_slot *own = epc_own();
    uint64_t now = atomic_fetch_add(&own->demand, (uint64_t)pages) + (uint64_t)pages;
    if (now > atomic_load(&own->most_demand))
        atomic_store(&own->most_demand, now);
}

/* Room for `pages` evicted pages in the VM's memory, which is as large as its size says; `back` of it is given back at once. */
bool epc_backing_take(uint64_t pages, uint64_t back)
{
    return !g.epc || take(&epc_own()->backing, pages, g.epc->backing_total + (back ? CLUSTER_PAGES : 0));
}

void epc_backing_return(uint64_t pages)
{
    if (g.epc)
        atomic_fetch_sub(&epc_own()->backing, pages);
}

/* ---- the thread that gives ---- */

static _Atomic uint32_t g_started;
static _Atomic uint32_t g_rests; /* it waits, or is about to */

/* Threads of this process that are alive; 0 when /proc does not say. */
static uint32_t threads_alive(void)
{
    struct stat st;
    if (sys(__NR_stat, "/proc/self/task", &st))
        return 0;
    return (uint32_t)st.st_nlink - 2 - (g.leader_left ? 1 : 0);
}

/* The program's last thread may have left by exit(2): without us the process would be gone. */
static void end_with_program(void)
{
    const struct timespec64 wait = {0, 2000000};
    while (atomic_exchange(&g.thread_left, 0))
        for (int i = 0; i < 25; i++) {
            if (threads_alive() == 1)
                sys(__NR_exit_group, g.exit_status);
            sys(__NR_nanosleep, &wait, NULL);
        }
    if (threads_alive() == 1) /* it took longer to go */
        sys(__NR_exit_group, g.exit_status);
}

__attribute__((noreturn)) void epc_thread(void)
{
    struct epc_slot *own = epc_own();
    sys(__NR_prctl, 15 /* PR_SET_NAME */, "sgx-reclaim");
    for (bool leaving = false;;) {
        /* Once a thread has left, a look each second: a wake-up that came between the check and the wait is not lost for good. */
        const struct timespec64 second = {1, 0};
        leaving |= atomic_load(&g.thread_left) != 0;
        while (!atomic_load(&own->asked) && !atomic_load(&g.thread_left) && measuring_step())
            ;
        atomic_store(&g_rests, 1);
        if (!atomic_load(&own->asked) && !atomic_load(&g.thread_left))
            sys(__NR_futex, &own->asked, FUTEX_WAIT, 0, leaving ? &second : NULL);
        atomic_store(&g_rests, 0);
        leaving |= atomic_load(&g.thread_left) != 0;
        if (leaving)
            end_with_program();
        if (!atomic_load(&own->asked)) /* ADD_PAGES holds the lock for long */
            continue;
        lock(&g.memory_lock);
        serve();
        unlock(&g.memory_lock);
    }
}

/* Without g.memory_lock: starts the thread, once a process. It stands in secret memory, as it sees pages in the clear. */
void epc_thread_start(void)
{
    bool secret;
    if (!g.epc || atomic_exchange(&g_started, 1))
        return;
    lock(&g.memory_lock);
    uint64_t stack = memory_shared(THREAD_SLOT, 0, true, &secret);
    unlock(&g.memory_lock);
    if (stack)
        sys(__NR_madvise, stack, THREAD_SLOT, MADV_DONTDUMP);
    if (!stack || thread_clone(stack + THREAD_SLOT, epc_thread) < 0)
        atomic_store(&g_started, 0); /* it evicts only for itself then */
}

void epc_thread_nudge(void)
{
    atomic_store(&g.thread_left, 1);
    if (!atomic_load(&g_started))
        return;
    sys(__NR_futex, &epc_own()->asked, FUTEX_WAKE, 1);
}

bool epc_thread_runs(void) { return atomic_load(&g_started); }

/* A wake-up that comes between its look at the queue and its wait is lost; the next is not, and nobody depends on it. */
void epc_thread_wake(void)
{
    if (atomic_load(&g_rests))
        sys(__NR_futex, &epc_own()->asked, FUTEX_WAKE, 1);
}

void epc_forget(void)
{
    atomic_store(&g_started, 0);
    atomic_store(&g_rests, 0);
}
