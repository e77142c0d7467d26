/*
 * Attacks on evicted pages from within a host program, which does to them what a hostile kernel may.
 *
 * Usage: evictor PAGES SIGSTRUCT ATTEMPT runs against an enclave (attacks/evictor_enclave.S) that is larger than its
 * VM's EPC; evictor --plain ATTEMPT is the control, an ordinary program that pages its own memory out and in by itself.
 * Prints one JSON document. Only Linux's SGX interface is used.
 */
#define ELRANGE (64ull << 20)
#define HEAP_PAGES 14336ull
#include "enclave_host.h"

#include "evicted_store.h"

#define VICTIM 3ull
#define OTHER 20ull /* a page of another cluster, where pages leave in clusters */
#define ROOM 4096ull /* pages that the control keeps in memory */
#define ERESUME 3

enum work { FILL = 1, CHECK, COUNT };

static int plain;
static struct store store;
static struct sgx_enclave_run last;

/* ---- the control: pages come in by SIGSEGV, and the one that came first goes out ---- */

static uint8_t *memory;
static uint16_t in_memory[ROOM];
static uint64_t arrivals;

static void page_out(uint64_t page)
{
    memcpy(store_page(store, page * PAGE), memory + page * PAGE, PAGE);
    madvise(memory + page * PAGE, PAGE, MADV_DONTNEED);
    mprotect(memory + page * PAGE, PAGE, PROT_NONE);
}

static void page_in(int number, siginfo_t *info, void *context)
{
    uint64_t page = ((uint64_t)info->si_addr - (uint64_t)memory) / PAGE;
    (void)context;
    if (page >= HEAP_PAGES) {
        signal(number, SIG_DFL);
        return;
    }
    if (arrivals >= ROOM)
        page_out(in_memory[arrivals % ROOM]);
    in_memory[arrivals++ % ROOM] = (uint16_t)page;
    mprotect(memory + page * PAGE, PAGE, PROT_READ | PROT_WRITE);
    memcpy(memory + page * PAGE, store_page(store, page * PAGE), PAGE);
}

static int start_plain(void)
{
    struct sigaction action = {.sa_sigaction = page_in, .sa_flags = SA_SIGINFO};
    uint64_t tags = HEAP_PAGES * STORE_TAG;
    memory = mmap(NULL, HEAP_PAGES * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    store.elrange = HEAP_PAGES * PAGE;
    store.base = mmap(NULL, store.elrange + tags, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || store.base == MAP_FAILED)
        return fail("mmap");
    sigaction(SIGSEGV, &action, NULL);
    return 0;
}

static uint64_t plain_work(enum work what, uint64_t first, uint64_t count, uint64_t seed)
{
    uint64_t result = 0;
    for (uint64_t page = first; page < first + count; page++) {
        volatile uint64_t *word = (uint64_t *)(memory + page * PAGE);
        uint64_t wrong = 0;
        for (int i = 0; i < 512 && what != COUNT; i++)
            if (what == FILL)
                word[i] = seed + page;
            else
                wrong |= word[i] ^ (seed + page);
        if (what == COUNT)
            result = ++word[0];
        else
            result += wrong != 0;
    }
    return result;
}

/* ---- both ---- */

/* What the program makes of its pages; `last` says how an enclave was left. */
static uint64_t work(enum work what, uint64_t first, uint64_t count, uint64_t seed)
{
    uint64_t words[4] = {first, count, seed, 0};
    if (plain)
        return plain_work(what, first, count, seed);
    call(what, words, EENTER, BASE, &last);
    return words[3];
}

static uint64_t place(uint64_t page) { return plain ? page * PAGE : HEAP + page * PAGE; }

static int is_out(uint64_t page)
{
    for (uint64_t i = 0; i < PAGE; i++)
        if (store_page(store, place(page))[i])
            return 1;
    return 0;
}

static void report(const char *name, const char *result, const char *text)
{
    printf("{\"attempts\": [");
    attempt(name, result, text, 1);
    printf("]}\n");
}

static int evicted_anew(const char *name, const struct copy *first)
{
    if (memcmp(first->page, store_page(store, place(VICTIM)), PAGE))
        return 1;
    report(name, "not tried", "the page was not evicted a second time");
    return 0;
}

static void outcome(const char *name, uint64_t found, uint64_t right, const char *believed)
{
    char text[300];
    if (plain || last.function == EEXIT) {
        snprintf(text, sizeof text, found == right ? "the program has what it had" : "%s", believed);
        report(name, found == right ? "not tried" : "got", text);
        return;
    }
    struct sgx_enclave_run at = last;
    work(CHECK, OTHER * 2, 1, 0);
    int size = snprintf(text, sizeof text, "the access was refused, vDSO exception %u, error code %#x; ", at.exception_vector,
                        at.exception_error_code);
    if (at.function == ERESUME && at.exception_vector == 14 && last.function == EENTER)
        snprintf(text + size, sizeof text - (size_t)size, "the enclave is disabled: EENTER faulted, vector %u, error code %#x",
                 last.exception_vector, last.exception_error_code);
    else
        snprintf(text + size, sizeof text - (size_t)size, "then an entry ended with function %u, vector %u", last.function,
                 last.exception_vector);
    report(name, last.function == EENTER && at.exception_vector == 14 ? "refused" : "got", text);
}

static int run(const char *what)
{
    uint64_t seed = 1000, newer = 500000, found;
    work(FILL, 0, HEAP_PAGES, seed);
    if (!plain)
        store = store_find(ELRANGE);
    if (!store.base || !is_out(VICTIM) || !is_out(VICTIM + 1) || !is_out(OTHER)) {
        report("evicted pages", "not tried", "the pages were not evicted");
        return 0;
    }
    struct copy first = store_keep(store, place(VICTIM));
    if (!strcmp(what, "flip")) {
        store_page(store, place(VICTIM))[100] ^= 1;
        found = work(CHECK, VICTIM, 1, seed);
        outcome("the host program flips a bit of an evicted page", found, 0, "the program computes with the changed word");
    } else if (!strcmp(what, "swap")) {
        store_swap(store, place(VICTIM), place(VICTIM + 1));
        found = work(CHECK, VICTIM, 2, seed);
        outcome("the host program swaps two evicted pages", found, 0, "the program has each page in the other's place");
    } else if (!strcmp(what, "other")) {
        store_put(store, place(OTHER), &first);
        found = work(CHECK, OTHER, 1, seed);
        outcome("the host program gives one evicted page for two", found, 0, "the program has one page in two places");
    } else if (!strcmp(what, "replay")) {
        work(FILL, 0, HEAP_PAGES, newer);
        const char *name = "the host program puts back an older copy of a page that was changed since";
        if (!evicted_anew(name, &first))
            return 0;
        store_put(store, place(VICTIM), &first);
        found = work(CHECK, VICTIM, 1, newer);
        outcome(name, found, 0, "the program computes with the older page");
    } else if (!strcmp(what, "twice")) {
        uint64_t counted = work(COUNT, VICTIM, 1, 0);
        work(CHECK, OTHER, HEAP_PAGES - OTHER, seed);
        const char *name = "the host program has a page evicted twice and its first copy loaded twice";
        if (!evicted_anew(name, &first))
            return 0;
        store_put(store, place(VICTIM), &first);
        found = work(COUNT, VICTIM, 1, 0);
        outcome(name, found, counted + 1, "the program counted its second use as its first");
    } else if (!strcmp(what, "none")) { /* the same steps, nothing changed */
        found = work(CHECK, VICTIM, 2, seed);
        outcome("nothing is changed", found, 0, "the program has lost its pages");
    } else
        return 2;
    return 0;
}

int main(int argc, char **argv)
{
    static uint8_t pages[4 * PAGE] __attribute__((aligned(4096))), sigstruct[PAGE] __attribute__((aligned(4096)));
    if (argc == 3 && !strcmp(argv[1], "--plain")) {
        plain = 1;
        return start_plain() ? 1 : run(argv[2]);
    }
    if (argc != 4)
        return 2;
    if (prepare(argv[1], argv[2], pages, sigstruct))
        return 1;
    return load(pages, sigstruct) ? 1 : run(argv[3]);
}
