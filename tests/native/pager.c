/*
 * An enclave under EPC pressure. Usage: pager SCENARIO FILE.sgxs FILE.sig HEAP PAGES [ROUNDS [THREADS]].
 * Prints facts for the test to compare. The attacks on evicted pages are those of
 * a hostile kernel: it holds the ciphertext and the tags, here the process's own ordinary memory.
 */
#define LOADER_LIBRARY
#include "loader.c"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include "../../attacks/evicted_store.h"
#include "enclave.h"

static vdso_sgx_enter_enclave_t enter;
static struct loaded l;
static uint64_t heap, pages, rounds, threads;

static struct sgx_enclave_run last;

static uint64_t work_on(int tcs, uint64_t first, uint64_t count, uint64_t seed, uint64_t times, uint64_t mode, int *ret)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[tcs]};
    struct call c = {0};
    const uint64_t words[5] = {heap + first * PAGE, count, seed, times, mode};
    memcpy(c.data, words, sizeof words);
    *ret = enter(F_PAGES, (uint64_t)&c, 0, 2, 0, 0, &run);
    last = run;
    return c.out;
}

static uint64_t work(uint64_t mode, uint64_t seed)
{
    int ret;
    uint64_t out = work_on(0, 0, pages, seed, 1, mode, &ret);
    if (ret || last.function != 4)
        printf("fault: ret %d function %u vector %u error %#x\n", ret, last.function, last.exception_vector, last.exception_error_code);
    return out;
}

static void s_walk(void)
{
    for (uint64_t r = 0; r < rounds; r++) {
        work(PAGES_FILL, r);
        printf("bad %llu\n", (unsigned long long)work(PAGES_CHECK, r));
    }
}

static void *count(void *index)
{
    int ret;
    work_on((int)(intptr_t)index, 0, pages, 77 + (uint64_t)(intptr_t)index, rounds, PAGES_COUNT, &ret);
    return (void *)(intptr_t)ret;
}

/* Threads raise counters in random order: every one of them is there in the end. */
static void s_threads(void)
{
    pthread_t t[LOAD_TCS_MAX];
    for (uint64_t i = 0; i < threads; i++)
        pthread_create(&t[i], NULL, count, (void *)(intptr_t)i);
    for (uint64_t i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
    printf("sum %llu of %llu\n", (unsigned long long)work(PAGES_SUM, 0), (unsigned long long)(pages * rounds * threads));
}

static volatile sig_atomic_t alarms;
static void on_alarm(int n) { alarms += n == SIGALRM; }

/* The same under a storm of signals: asynchronous exits, each with an SSA frame that may be out. */
static void s_storm(void)
{
    struct sigaction a = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval every = {{0, 150}, {0, 150}}, off = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &a, NULL);
    setitimer(ITIMER_REAL, &every, NULL);
    s_threads();
    setitimer(ITIMER_REAL, &off, NULL);
    printf("alarms %d\n", alarms > 20);
}

/* ---- a hostile kernel ---- */

/* What the enclave makes of page `page`, then of an entry. */
static void outcome(uint64_t page)
{
    int ret;
    uint64_t bad = work_on(0, page, 1, 5 + page * 512, 1, PAGES_CHECK, &ret);
    printf("read: function %u vector %u bad %llu\n", last.function, last.exception_vector, (unsigned long long)bad);
    work_on(1, page, 1, 5 + page * 512, 1, PAGES_CHECK, &ret);
    printf("entry: function %u vector %u error %#x\n", last.function, last.exception_vector, last.exception_error_code);
}

/* The first pages were written first, hence are out after a walk that is longer than the EPC. */
static void s_attack(const char *what)
{
    work(PAGES_FILL, 5);
    struct store s = store_find(l.size);
    const uint64_t page = heap - l.base + 3 * PAGE;
    int ret;
    if (!s.base) {
        printf("no store\n");
        return;
    }
    if (!strcmp(what, "flip"))
        store_page(s, page)[100] ^= 1;
    else if (!strcmp(what, "tag"))
        store_tag(s, page)[0] ^= 0x80;
    else if (!strcmp(what, "swap"))
        store_swap(s, page, page + PAGE);
    else if (!strcmp(what, "replay")) { /* an older version of the same page, evicted once more since */
        struct copy old = store_keep(s, page);
        work_on(0, 0, 16, 5, 1, PAGES_FILL, &ret);
        work_on(0, 16, pages - 16, 5, 1, PAGES_FILL, &ret);
        printf("same %d\n", !memcmp(old.page, store_page(s, page), PAGE));
        store_put(s, page, &old);
    }
    outcome(3);
}
static void s_none(void) { s_attack("none"); }
static void s_flip(void) { s_attack("flip"); }
static void s_tag(void) { s_attack("tag"); }
static void s_swap(void) { s_attack("swap"); }
static void s_replay(void) { s_attack("replay"); }

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* One page of each cluster in turn, so that each access is an eviction and a reload of 16 pages. */
static void s_price(void)
{
    int ret;
    work(PAGES_FILL, 1);
    double start = seconds();
    for (uint64_t r = 0; r < rounds; r++)
        for (uint64_t i = 0; i + 16 <= pages; i += 16)
            work_on(0, i, 1, 1, 1, PAGES_SUM, &ret);
    double each = (seconds() - start) / (double)(rounds * (pages / 16));
    printf("cluster %.2f us, page %.3f us\n", each * 1e6, each * 1e6 / 16);
}

static const struct { const char *name; void (*run)(void); } scenarios[] = {
    {"walk", s_walk}, {"threads", s_threads}, {"storm", s_storm}, {"none", s_none}, {"flip", s_flip}, {"tag", s_tag}, {"swap", s_swap},
    {"replay", s_replay}, {"price", s_price},
};

int main(int argc, char **argv)
{
    const char *step;
    size_t size, sig_size;
    if (argc < 6)
        return 2;
    void *sgxs = read_file(argv[2], &size), *sig = read_file(argv[3], &sig_size);
    enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter)
        return 2;
    l.xfrm = 7;
    l.attributes = getenv("ENCLAVE_DEBUG") ? 2 : 0;
    heap = strtoull(argv[4], NULL, 0);
    pages = strtoull(argv[5], NULL, 0);
    rounds = argc > 6 ? strtoull(argv[6], NULL, 0) : 1;
    threads = argc > 7 ? strtoull(argv[7], NULL, 0) : 1;
    int r = load(&l, sgxs, size, sig, &step);
    if (r)
        return printf("%s: %s\n", step, strerrorname_np(-r)), 1;
    heap += l.base;
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        if (!strcmp(scenarios[i].name, argv[1]))
            return scenarios[i].run(), 0;
    return 2;
}
