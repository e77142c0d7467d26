/*
 * The measurement runs behind ADD_PAGES. A page that was copied and entered in the EPCM is the enclave's own, and nothing can
 * write to it before EINIT; so its EADD and EEXTENDs wait in a queue, in the order they were asked, for the thread that gives
 * (epc.c) to hash them on another processor. No result hangs on that thread: where it is missing, asleep or slow, who needs
 * room or the measurement hashes for himself. Before a page can change (eviction, a DEBUG enclave's is shown, release) the
 * queue is settled. Puts are under g.memory_lock; g_lock is the innermost lock.
 */
#include "library.h"

#define QUEUE 2048u  /* a power of two */
#define STEP 32u     /* under one hold of the lock */
#define WORTH_IT 64u /* so many wait before another thread is woken */

struct piece {
    struct enclave *enclave; /* NULL: gone meanwhile */
    uint64_t offset, flags;
    const uint8_t *page;     /* what EEXTEND measures; NULL: not measured */
    uint64_t pages;          /* that follow each other; 1 where measured */
};
static struct piece g_queue[QUEUE];
static _Atomic uint32_t g_put, g_got; /* counted on, and wrapping */
static _Atomic uint32_t g_lock;

static uint32_t waiting(void) { return atomic_load(&g_put) - atomic_load(&g_got); }

/* Hashes at most `most` pieces. Caller holds g_lock. */
static void hash(uint32_t most)
{
    for (uint32_t got = atomic_load(&g_got); most-- && got != atomic_load(&g_put); atomic_store(&g_got, ++got)) {
        const struct piece *p = &g_queue[got % QUEUE];
        const struct sgx_secinfo secinfo = {.flags = p->flags};
        for (uint64_t i = 0; p->enclave && i < p->pages; i++) {
            measure_eadd(&p->enclave->measurement, p->offset + i * SGX_PAGE_SIZE, &secinfo);
            if (p->page)
                measure_eextend_page(&p->enclave->measurement, p->offset, p->page);
        }
    }
}

void measuring_add(struct enclave *e, uint64_t offset, uint64_t flags, const uint8_t *page, uint64_t pages)
{
    uint32_t put = atomic_load(&g_put);
    if (waiting() == QUEUE || !epc_thread_runs()) {
        lock(&g_lock);
        hash(QUEUE / 8);
        unlock(&g_lock);
    }
    g_queue[put % QUEUE] = (struct piece){e, offset, flags, page, pages};
    atomic_store(&g_put, put + 1);
    if (waiting() % WORTH_IT == 0)
        epc_thread_wake();
}

bool measuring_waits(void) { return waiting() != 0; }

/* A step of the thread that gives; false when there is nothing for it to do. */
bool measuring_step(void)
{
    uint32_t idle = 0;
    if (!waiting() || !atomic_compare_exchange_strong(&g_lock, &idle, 1))
        return false;
    hash(STEP);
    unlock(&g_lock);
    return true;
}

/* All that was added is in its enclave's measurement. Vector registers are the caller's: it may be no handler (enter_by_call). */
void measuring_settle(void)
{
    struct vector_state saved;
    if (!waiting())
        return;
    vector_save(&saved);
    lock(&g_lock);
    hash(QUEUE);
    unlock(&g_lock);
    vector_restore(&saved);
}

/* The enclave's pages are about to go, unmeasured. Caller holds g.memory_lock. */
void measuring_forget(struct enclave *e)
{
    lock(&g_lock);
    for (uint32_t i = atomic_load(&g_got); i != atomic_load(&g_put); i++)
        if (g_queue[i % QUEUE].enclave == e)
            g_queue[i % QUEUE].enclave = NULL;
    unlock(&g_lock);
}

/* In a forked child: its enclaves are lost, and who held the lock is not here. */
void measuring_reset(void)
{
    atomic_store(&g_got, atomic_load(&g_put));
    atomic_store(&g_lock, 0);
}
