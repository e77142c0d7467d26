/*
 * What threads outside get of an enclave's pages while a thread is inside. Usage: keys SCENARIO FILE.sgxs FILE.sig HEAP [lost],
 * where HEAP is the offset of pages for the enclave's work. Prints facts for the test to compare.
 */
#define LOADER_LIBRARY
#include "loader.c"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <ucontext.h>

#include "enclave.h"
#include "call.h"

#define U(x) ((unsigned long long)(x))
#define HEAP_PAGES 8ull
#define ONES (~0ull)

static struct loaded l;
static uint64_t heap, secret; /* addresses inside */
static const char *after;

static uint64_t inside(int tcs, uint64_t function, struct call *c)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[tcs]};
    int r = call(function, c, 2, &run);
    if (r || run.function != 4)
        printf("fault vector %u error %#x at %#llx\n", run.exception_vector, run.exception_error_code, U(run.exception_addr));
    return c->out;
}

static void *stay(void *nothing)
{
    struct call c = {.in = 2};
    inside(0, F_MEET, &c);
    return nothing;
}

static pthread_t occupy(void)
{
    pthread_t t;
    pthread_create(&t, NULL, stay, NULL);
    usleep(300000);
    return t;
}

static void leave(pthread_t t)
{
    struct call c = {.in = 2};
    inside(1, F_MEET, &c);
    pthread_join(t, NULL);
}

static void *read_word(void *at) { return (void *)*(volatile uint64_t *)at; }

/* Reads and writes of a thread that entered before, and of one that never did, with another inside all the while. */
static void s_outside(void)
{
    void *value;
    pthread_t new, t = occupy();
    uint8_t bytes[64];
    int ones = 0, pipes[2];
    printf("read %#llx\n", U(*(volatile uint64_t *)secret));
    pthread_create(&new, NULL, read_word, (void *)secret);
    pthread_join(new, &value);
    printf("another thread %#llx\n", U(value));
    printf("across two pages %#llx\n", U(*(volatile uint64_t *)(heap + PAGE - 4)));
    void *to = bytes, *from = (void *)(secret + 4);
    uint64_t count = sizeof bytes;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    for (size_t i = 0; i < sizeof bytes; i++)
        ones += bytes[i] == 0xff;
    printf("of 64 copied %d are ones\n", ones);
    if (!pipe(pipes))
        printf("by the kernel %s\n", write(pipes[1], (void *)secret, 8) == 8 ? "taken" : strerrorname_np(errno));
    *(volatile uint64_t *)secret = 0xbad;
    *(volatile uint64_t *)(heap + PAGE - 4) = 0xbad0bad0bad;
    __atomic_fetch_add((uint64_t *)(heap + 64), 5, __ATOMIC_SEQ_CST);
    if (strcmp(after, "leave")) {
        struct call refused = {0};
        inside(1, F_SUM, &refused);
        exit(0); /* the thread inside waits for an entry that is refused */
    }
    leave(t);
    struct call c = {.in = 0}, d = {.in = 0};
    const uint64_t addresses[2] = {heap + PAGE - 4, heap + 64};
    printf("inside %#llx", U(inside(1, F_SUM, &c)));
    for (int i = 0; i < 2; i++) {
        memcpy(d.data, &addresses[i], 8);
        printf(" %#llx", U(inside(1, F_READ, &d)));
    }
    puts("");
}

static volatile sig_atomic_t alarms, traps, wrong_key;
static void on_alarm(int n) { (void)n, alarms++; }
static void on_trap(int n) { (void)n, traps++; }

/* An enclave at work on pages that a thread outside reads and writes all the while, with alarms. */
static void *work(void *bad)
{
    struct call c = {0};
    const uint64_t fill[5] = {heap, HEAP_PAGES, 7, 1, PAGES_FILL}, check[5] = {heap, HEAP_PAGES, 7, 10000, PAGES_CHECK};
    memcpy(c.data, fill, sizeof fill);
    inside(0, F_PAGES, &c);
    *(uint64_t *)(bad + 8) = 1;
    memcpy(c.data, check, sizeof check);
    *(uint64_t *)bad = inside(0, F_PAGES, &c);
    *(uint64_t *)(bad + 8) = 2;
    return NULL;
}
static void s_storm(void)
{
    static volatile uint64_t result[2];
    struct itimerval every = {{0, 3000}, {0, 3000}}, none = {0};
    uint64_t seen = 0, accesses = 0;
    pthread_t t;
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &every, NULL);
    pthread_create(&t, NULL, work, (void *)result);
    while (!result[1])
        usleep(1000);
    for (uint64_t i = 0; result[1] == 1; i++, accesses++) {
        volatile uint64_t *word = (volatile uint64_t *)(heap + (i % HEAP_PAGES) * PAGE + 56);
        uint64_t value = *word;
        seen += value != ONES && value >= i; /* while no thread is inside it reads what it wrote there itself (deviations.md) */
        *word = i;
    }
    setitimer(ITIMER_REAL, &none, NULL);
    pthread_join(t, NULL);
    printf("bad inside %d seen outside %d accesses %d alarms %d\n", result[0] != 0, seen != 0, accesses > 10, alarms > 2);
}

/* Steps of a program that steps itself: as many over an access to the enclave as over one to its own memory. */
static int stepped(volatile uint64_t *at, uint64_t *value)
{
    traps = 0;
    __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; mov (%1), %0; nop; pushfq; andl $~0x100, (%%rsp); popfq"
                     : "=r"(*value) : "r"(at) : "memory", "cc");
    return traps;
}
static void s_step(void)
{
    uint64_t own = 3, value;
    signal(SIGTRAP, on_trap);
    pthread_t t = occupy();
    int there = stepped(&own, &value);
    printf("own %#llx\n", U(value));
    int here = stepped((volatile uint64_t *)secret, &value);
    printf("enclave %#llx steps %d\n", U(value), here - there);
    leave(t);
}

/* WRPKRU inside reaches neither the enclave's own pages nor what the thread may do outside. */
static void s_wrpkru(void)
{
    for (int i = 0; i < 3; i++) {
        static const uint32_t values[] = {0x55555554, 0, 0xfffffffc};
        struct call c = {.in = values[i]};
        uint32_t saved = __builtin_ia32_rdpkru();
        uint64_t held = inside(1, F_PKRU, &c);
        uint32_t after = __builtin_ia32_rdpkru();
        __builtin_ia32_wrpkru(saved);
        printf("held %#llx denied outside %d\n", U(held), __builtin_popcount(after & 0x55555555) >= 2);
        __builtin_ia32_wrpkru(after);
        pthread_t t = occupy();
        printf("read %#llx\n", U(*(volatile uint64_t *)secret));
        leave(t);
        __builtin_ia32_wrpkru(saved);
    }
}

/* The program's own keys and its own faults are its own. */
static void on_fault(int n, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)n;
    printf("signal %d code %d key %d\n", info->si_signo, info->si_code, wrong_key && info->si_pkey == (unsigned)wrong_key);
    uc->uc_mcontext.gregs[REG_RIP] += 3; /* mov (%reg), %rax */
}
static void s_own(void)
{
    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    uint64_t value = 0, *own = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct call c = {0};
    sigaction(SIGSEGV, &a, NULL);
    inside(1, F_SUM, &c);
    int key = pkey_alloc(0, 0);
    *own = 5;
    pkey_mprotect(own, PAGE, PROT_READ | PROT_WRITE, key);
    pkey_set(key, PKEY_DISABLE_ACCESS);
    wrong_key = key;
    __asm__ volatile("mov (%1), %0" : "+a"(value) : "c"(own));
    pkey_set(key, 0);
    wrong_key = 0;
    printf("value %llu then %llu\n", U(value), U(*own));
    munmap(own, PAGE);
    __asm__ volatile("mov (%1), %0" : "+a"(value) : "c"(own));
    inside(1, F_SUM, &c);
    printf("inside %#llx\n", U(c.out));
}

/* How many keys the program can have. */
static void s_count(void)
{
    int keys = 0;
    while (pkey_alloc(0, 0) > 0)
        keys++;
    printf("%d\n", keys);
}

static const struct { const char *name; void (*run)(void); } scenarios[] = {
    {"outside", s_outside}, {"storm", s_storm}, {"step", s_step}, {"wrpkru", s_wrpkru}, {"own", s_own}, {"count", s_count},
};

int main(int argc, char **argv)
{
    size_t size, sig_size;
    const char *step;
    setvbuf(stdout, NULL, _IOLBF, 0);
    enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    void *sgxs = argc > 4 ? read_file(argv[2], &size) : NULL, *sig = sgxs ? read_file(argv[3], &sig_size) : NULL;
    if (!enter || !sig)
        return 2;
    int r = load(&l, sgxs, size, sig, &step);
    if (r) {
        fprintf(stderr, "%s: %s\n", step, strerror(-r));
        return 1;
    }
    after = argv[5] ? argv[5] : "leave";
    heap = l.base + strtoull(argv[4], NULL, 16);
    struct call c = {0};
    if (strcmp(argv[1], "storm")) /* there the first entry is the work itself */
        secret = inside(0, F_POKE, &c);
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        if (!strcmp(scenarios[i].name, argv[1])) {
            scenarios[i].run();
            return 0;
        }
    return 2;
}
