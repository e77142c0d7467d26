/*
 * A slot for each thread that meets an enclave: its record in the first page, its alternate signal stack in
 * the rest, in secret memory at level sealed. A handler finds its thread by the stack that it runs on.
 */
#include "library.h"

static _Atomic uint32_t g_slots; /* slots ever used */

static struct thread *slot_at(uint32_t index) { return (struct thread *)(LIBRARY_THREADS + index * THREAD_SLOT); }

/* The calling thread's record, when the handler runs on its alternate stack; else NULL. */
struct thread *thread_here(void)
{
    uint64_t sp = (uint64_t)__builtin_frame_address(0);
    if (sp - LIBRARY_THREADS >= THREADS_MAX * THREAD_SLOT)
        return NULL;
    return (struct thread *)(sp & ~(THREAD_SLOT - 1));
}

#define LEAVING 0x80000000u

/* The record of thread `tid`, or NULL. */
struct thread *thread_find(uint32_t tid)
{
    uint32_t count = atomic_load(&g_slots);
    for (uint32_t i = 0; i < count; i++)
        if (atomic_load(&slot_at(i)->tid) == tid)
            return slot_at(i);
    return NULL;
}

/* Whether a thread is inside by the TCS at this offset of the enclave. */
bool thread_has_tcs(struct enclave *e, uint64_t offset)
{
    for (uint32_t i = 0; i < atomic_load(&g_slots); i++)
        if (atomic_load(&slot_at(i)->tid) && slot_at(i)->inside && slot_at(i)->enclave == e && slot_at(i)->tcs_address == e->secs.base + offset)
            return true;
    return false;
}

void thread_leave(struct thread *t) { atomic_fetch_or(&t->tid, LEAVING); }

/*
 * Secret memory is shared memory: a forked child would run its handlers on its parent's stack. So only at level sealed,
 * where the loader is the one program and does not fork; elsewhere the child gets a copy.
 */
static bool slot_memory(uint64_t at)
{
    bool secret;
    if (g.level == LEVEL_SEALED)
        return memory_shared(THREAD_SLOT, at, true, &secret);
    return sys(__NR_mmap, at, THREAD_SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == (long)at;
}

static struct thread *slot_take(uint32_t tid)
{
    uint32_t count = atomic_load(&g_slots);
    for (uint32_t i = 0; i < count; i++) {
        struct thread *t = slot_at(i);
        uint32_t owner = atomic_load(&t->tid);
        /* a slot whose thread is gone, or that a thread of the same number left behind */
        if (owner && (owner & ~LEAVING) != tid && sys(__NR_tgkill, g.pid, owner & ~LEAVING, 0) != -ESRCH)
            continue;
        uint64_t keep = t->magic;
        memset(t, 0, sizeof *t);
        t->magic = keep;
        atomic_store(&t->tid, tid);
        return t;
    }
    if (count == THREADS_MAX)
        fatal("too many threads entered enclaves");
    struct thread *t = slot_at(count);
    if (!slot_memory((uint64_t)t))
        fatal("no memory for a thread's signal stack");
    sys(__NR_madvise, t, THREAD_SLOT, MADV_DONTDUMP);
    t->magic = THREAD_MAGIC;
    t->stack.ss_flags = SS_DISABLE;
    atomic_store(&t->tid, tid);
    atomic_store(&g_slots, count + 1);
    return t;
}

void thread_stack(struct thread *t, stack_t *stack)
{
    stack->ss_sp = (char *)t + SGX_PAGE_SIZE;
    stack->ss_size = THREAD_SLOT - SGX_PAGE_SIZE;
    stack->ss_flags = 0;
}

/*
 * The calling thread's record, made when there is none; its alternate stack takes effect when the handler
 * returns. `on_stack` tells whether this handler already runs there.
 */
struct thread *thread_ensure(ucontext_kernel *uc, bool *on_stack)
{
    struct thread *t = thread_here();
    *on_stack = t != NULL;
    if (t)
        return t;
    lock(&g.memory_lock);
    t = slot_take((uint32_t)sys(__NR_gettid, 0));
    unlock(&g.memory_lock);
    t->stack = uc->uc_stack;
    thread_stack(t, &uc->uc_stack);
    return t;
}

/* A forked child has one thread; the other slots' owners are not its own. */
void threads_forget(void)
{
    struct thread *here = thread_here();
    uint32_t tid = (uint32_t)sys(__NR_gettid, 0);
    for (uint32_t i = 0; i < atomic_load(&g_slots); i++)
        atomic_store(&slot_at(i)->tid, slot_at(i) == here ? tid : 0);
}
