/*
 * Protection keys, where the processor has them: the program's view of every enclave carries one key, which a thread's PKRU
 * permits from its entry to its exit and denies otherwise. So the threads outside are kept out while one is inside, too, and
 * between exits that come too fast to close the pages (tamper.c). It stops mistakes: WRPKRU is no privileged instruction.
 *
 * An access from outside, while the pages are open, gets the abort page: the instruction runs again, alone, with a page of
 * ones in the enclave's page's place. That page has the other key, which this one thread's PKRU permits for the one step, so
 * that a thread inside which comes there meanwhile faults and waits for the page to be back.
 *
 * Keys have no part in fetches. The kernel gives a handler a PKRU that denies all but key 0; the library's own view, its
 * stacks and the program's memory have key 0.
 */
#include "library.h"

#include <cpuid.h>

#define PKRU_COMPONENT 9

static uint32_t g_offset; /* of PKRU in a signal frame's XSAVE area */

static uint32_t denied(int key) { return 1u << 2 * key; }
static uint32_t both(int key) { return 3u << 2 * key; }

static uint32_t pkru_read(void)
{
    uint32_t value, high;
    __asm__ volatile(".byte 0x0f, 0x01, 0xee" : "=a"(value), "=d"(high) : "c"(0));
    return value;
}
static void pkru_write(uint32_t value) { __asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0) : "memory"); }

/* With the first enclave: two keys for this process, if it can have them. Caller holds g.memory_lock. */
void keys_start(void)
{
    uint32_t a, b, c, d;
    if (g.key || g.flags & INJECT_NO_PKEYS || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(c & 1u << 4 /* OSPKE */))
        return;
    __cpuid_count(0xd, PKRU_COMPONENT, a, b, c, d);
    long key = sys(__NR_pkey_alloc, 0, 1 /* PKEY_DISABLE_ACCESS */);
    long step = key > 0 ? sys(__NR_pkey_alloc, 0, 1) : key;
    if (step > 0) {
        g_offset = b;
        g.key_step = (int32_t)step;
        g.key = (int32_t)key;
    } else if (key > 0) {
        sys(__NR_pkey_free, key);
    }
}

/* mprotect of the program's view of an enclave. */
long keys_protect(uint64_t at, uint64_t size, int prot)
{
    return g.key ? sys(__NR_pkey_mprotect, at, size, prot, g.key) : sys(__NR_mprotect, at, size, prot);
}

/* PKRU in a signal frame: `clear` bits, then `set` ones. */
static void frame_change(ucontext_kernel *uc, uint32_t clear, uint32_t set)
{
    uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpstate;
    uint64_t *in_use = (uint64_t *)(fp + 512);
    uint32_t *pkru = (uint32_t *)(fp + g_offset);
    if (*(uint32_t *)(fp + 464) != 0x46505853) /* no XSAVE frame */
        return;
    *pkru = ((*in_use >> PKRU_COMPONENT & 1 ? *pkru : 0) & ~clear) | set;
    *in_use |= 1ull << PKRU_COMPONENT;
}

/* The thread of this signal frame goes on inside, or outside. */
void keys_switch(ucontext_kernel *uc, bool inside)
{
    if (g.key)
        frame_change(uc, inside ? both(g.key) : 0, denied(g.key_step) | (inside ? 0 : denied(g.key)));
}

/* The calling thread goes on inside (entry.S). */
void keys_enter(void)
{
    if (g.key)
        pkru_write((pkru_read() & ~both(g.key)) | denied(g.key_step));
}

/* Whether a key of ours may have refused this access. (The error code's own bit for it is not set by every processor.) */
bool keys_may_refuse(uint64_t address)
{
    struct enclave *e;
    if (!g.key)
        return false;
    fork_check();
    lock(&g.memory_lock);
    bool touches = enclave_touches(page_down(address), SGX_PAGE_SIZE, &e);
    unlock(&g.memory_lock);
    return touches;
}

/* The pages are the enclave's again. Caller holds g.memory_lock. */
static void steps_undo(struct thread *t, ucontext_kernel *uc)
{
    for (uint32_t i = 0; i < t->steps; i++) {
        struct enclave *e = t->step[i].enclave;
        uint64_t offset = t->step[i].at - e->secs.base;
        if (!atomic_load(&e->live) || e->serial != t->step[i].serial || !e->epcm)
            continue;
        uint64_t entry = atomic_fetch_and(&e->epcm[offset / SGX_PAGE_SIZE], ~EPCM_ABORT);
        if ((entry & EPCM_VALID) && !(entry & EPCM_TCS))
            memory_show(e, offset, SGX_PAGE_SIZE);
        else
            memory_hide(e, offset, SGX_PAGE_SIZE);
    }
    t->steps = 0;
    uc->uc_mcontext.eflags = (uc->uc_mcontext.eflags & ~RFLAGS_TF) | t->step_tf;
    frame_change(uc, 0, denied(g.key_step));
}

/* A page of ones at `address`, open to the thread of the frame for one instruction; false: not so. Caller holds g.memory_lock. */
bool keys_step(struct thread *t, ucontext_kernel *uc, struct enclave *e, uint64_t address)
{
    uint64_t at = page_down(address);
    if (!t) /* the next fault gets it a record */
        return true;
    for (uint32_t i = 0; i < t->steps; i++)
        if (t->step[i].at == at) { /* its page of ones was closed with the enclave meanwhile: afresh */
            steps_undo(t, uc);
            return true;
        }
    if (t->steps == STEPS_MAX)
        return false;
    long page = sys(__NR_mmap, 0, SGX_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!MAPPED(page))
        return false;
    memset((void *)page, 0xff, SGX_PAGE_SIZE);
    _Atomic uint64_t *entry = &e->epcm[(at - e->secs.base) / SGX_PAGE_SIZE];
    if (atomic_load(entry) & EPCM_ABORT || sys(__NR_pkey_mprotect, page, SGX_PAGE_SIZE, PROT_READ | PROT_WRITE, g.key_step) ||
        !MAPPED(sys(__NR_mremap, page, SGX_PAGE_SIZE, SGX_PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, at))) {
        bool busy = atomic_load(entry) & EPCM_ABORT; /* another thread steps there: this one tries again */
        sys(__NR_munmap, page, SGX_PAGE_SIZE);
        return busy;
    }
    atomic_fetch_or(entry, EPCM_ABORT);
    if (!t->steps)
        t->step_tf = uc->uc_mcontext.eflags & RFLAGS_TF;
    t->step[t->steps].at = at;
    t->step[t->steps].enclave = e;
    t->step[t->steps++].serial = e->serial;
    uc->uc_mcontext.eflags |= RFLAGS_TF;
    frame_change(uc, both(g.key_step), denied(g.key));
    return true;
}

/* The step is done, or something came between: the pages are the enclave's again, and the instruction, where it was not run, faults again. */
void keys_step_end(struct thread *t, ucontext_kernel *uc)
{
    lock(&g.memory_lock);
    steps_undo(t, uc);
    unlock(&g.memory_lock);
}
