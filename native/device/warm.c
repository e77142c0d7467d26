/*
 * Warm memory: backing for pages that are still to be added, mapped twice and touched ahead, in a process that waits. The
 * first touch of a page of secret memory costs a flush of all processors' TLBs; a second mapping costs a fault a page more,
 * unless it is made ahead and then moved (mremap) to where the program wants its view. Descriptors are closed before
 * anything is written here. Callers hold g.memory_lock.
 */
#include "library.h"

#define WARM_PAGES_MAX 32768ull /* 128 MiB */
/* Of data, what is added first (libraries' data, stack, the heap's beginning) and last (the heap's end) is most used. */
#define WARM_HEAD (5632 * SGX_PAGE_SIZE)
#define WARM_TAIL (1536 * SGX_PAGE_SIZE)
#define MADV_POPULATE_WRITE 23

struct warm {
    uint64_t view, second, size, used; /* the library's mapping, the one to be moved; bytes, and how many are given out */
    uint64_t moved[WARM_PAGES_MAX / 64];
};
static struct warm g_warm[2]; /* secret, executable */

static void touch(uint64_t at, uint64_t size)
{
    for (uint64_t end = at + size; at < end; at += SGX_PAGE_SIZE)
        *(volatile uint8_t *)at = 0;
}

static void fill(struct warm *w, uint64_t pages, bool exec)
{
    uint64_t size = (pages < WARM_PAGES_MAX ? pages : WARM_PAGES_MAX) * SGX_PAGE_SIZE;
    if (!size)
        return;
    long fd = exec ? sys(__NR_memfd_create, "sgx-epc", MFD_CLOEXEC | MFD_ALLOW_SEALING) : sys(447 /* memfd_secret */, O_CLOEXEC);
    if (fd < 0)
        return;
    long view = -1, second = -1;
    if (!sys(__NR_ftruncate, fd, size)) {
        view = sys(__NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        second = sys(__NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (exec)
        sys(__NR_fcntl, fd, 1033 /* F_ADD_SEALS */, 0x2 | 0x4 | 0x10 /* SHRINK GROW FUTURE_WRITE */);
    sys(__NR_close, fd);
    if (!MAPPED(view) || !MAPPED(second)) {
        if (MAPPED(view))
            sys(__NR_munmap, view, size);
        return;
    }
    const long both[] = {view, second};
    uint64_t head = size < WARM_HEAD + WARM_TAIL ? size : WARM_HEAD;
    for (int i = 0; i < 2; i++) {
        sys(__NR_madvise, both[i], size, MADV_DONTFORK);
        sys(__NR_madvise, both[i], size, MADV_DONTDUMP);
        if (exec) {
            if (sys(__NR_madvise, both[i], size, MADV_POPULATE_WRITE))
                touch((uint64_t)both[i], size);
        } else {
            touch((uint64_t)both[i], head);
            if (head < size)
                touch((uint64_t)both[i] + size - WARM_TAIL, WARM_TAIL);
        }
    }
    /* It is shown shut, as an enclave is until its first entry: what is done here is not done at each start. */
    if (sys(__NR_mprotect, second, size, PROT_NONE)) {
        sys(__NR_munmap, view, size);
        sys(__NR_munmap, second, size);
        return;
    }
    w->view = (uint64_t)view;
    w->second = (uint64_t)second;
    w->size = size;
}

void warm_start(uint64_t data_pages, uint64_t exec_pages)
{
    if (g.secret_memory && !g.memlock_limited)
        fill(&g_warm[0], data_pages, false);
    fill(&g_warm[1], exec_pages, true);
}

uint64_t warm_take(uint64_t *size, bool exec)
{
    struct warm *w = &g_warm[exec];
    uint64_t left = w->size - w->used, at = w->view + w->used;
    if (!left)
        return 0;
    if (*size > left)
        *size = left;
    w->used += *size;
    return at;
}

bool warm_zero(uint64_t view)
{
    struct vector_state saved; /* zero_host leaves of the page in XMM */
    if (view - g_warm[0].view >= g_warm[0].size)
        return false;
    vector_save(&saved);
    bool zero = zero_host((const void *)view) == 1;
    vector_restore(&saved);
    return zero;
}

bool warm_show(uint64_t view, uint64_t size, uint64_t at)
{
    for (int i = 0; i < 2; i++) {
        struct warm *w = &g_warm[i];
        if (view - w->view >= w->size || size > w->size - (view - w->view))
            continue;
        uint64_t first = (view - w->view) / SGX_PAGE_SIZE, end = first + size / SGX_PAGE_SIZE;
        for (uint64_t p = first; p < end; p++)
            if (w->moved[p / 64] >> p % 64 & 1)
                return false;
        if (!MAPPED(sys(__NR_mremap, w->second + (view - w->view), size, size, MREMAP_MAYMOVE | MREMAP_FIXED, at)))
            return false;
        for (uint64_t p = first; p < end; p++)
            w->moved[p / 64] |= 1ull << p % 64;
        return true;
    }
    return false;
}

/* That view's address may be another's next: what is shown at it is then not this memory. */
void warm_drop(uint64_t view, uint64_t size)
{
    for (int i = 0; i < 2; i++) {
        struct warm *w = &g_warm[i];
        if (view - w->view >= w->size)
            continue;
        uint64_t first = (view - w->view) / SGX_PAGE_SIZE, end = first + size / SGX_PAGE_SIZE;
        for (uint64_t p = first; p < end; p++) {
            if (!(w->moved[p / 64] >> p % 64 & 1))
                sys(__NR_munmap, w->second + p * SGX_PAGE_SIZE, SGX_PAGE_SIZE);
            w->moved[p / 64] |= 1ull << p % 64;
        }
    }
}
