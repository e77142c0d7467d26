/*
 * Attacks from within a host program: what it is shown at an asynchronous exit, and entries that are not in order.
 *
 * Usage: misuse PAGES SIGSTRUCT runs against an enclave (attacks/misuse_enclave.S); misuse --plain is the control, the
 * same against code and values of an ordinary program. Prints one JSON document. Only Linux's SGX interface is used.
 */
#include "enclave_host.h"

#include <pthread.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

#define MASK 0x5a17c0de5a17c0deull
#define ERESUME 3
#define SSA (BASE + PAGE)
#define FRAME_NAME "the signal frame at an asynchronous exit"
#define MEMORY_NAME "all memory of the process at an asynchronous exit"
#define ENTRY_NAME "entries out of order"
#define SAVED_NAME "the saved state is changed before the resume"

static uint64_t secret[4]; /* masked: the clear words are in nobody's memory here */
static volatile uint32_t go_on;
static volatile int in_handler, handled, frame_hits, memory_hits, full_vector = -1;
static volatile uint64_t searched, frame_bytes;
static int plain;

static int is_secret(uint64_t word)
{
    word ^= MASK;
    return word == secret[0] || word == secret[1] || word == secret[2] || word == secret[3];
}

static int count_in(const uint64_t *at, uint64_t size)
{
    int hits = 0;
    for (uint64_t i = 0; i < size / 8; i++)
        hits += is_secret(at[i]);
    return hits;
}

/* All that this process can read, the enclave's own range aside, which reads as ones. */
static void search_all(void)
{
    static char text[1 << 20];
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    for (ssize_t n; (n = read(fd, text + size, sizeof text - 1 - size)) > 0; size += (size_t)n)
        ;
    close(fd);
    text[size] = 0;
    for (char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        ull start, end;
        char flags[8];
        if (sscanf(line, "%llx-%llx %7s", &start, &end, flags) != 3 || flags[0] != 'r' || start < BASE + ELRANGE)
            continue;
        char *name = memchr(line, '[', (size_t)(strchrnul(line, '\n') - line));
        if (name && name[1] == 'v')
            continue;
        memory_hits += count_in((const uint64_t *)start, end - start);
        searched += end - start;
    }
}

static void on_alarm(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)number, (void)info;
    if (handled || in_handler++)
        return;
    frame_bytes = sizeof *uc + 2696;
    frame_hits += count_in((const uint64_t *)uc, sizeof *uc);
    frame_hits += count_in((const uint64_t *)uc->uc_mcontext.fpregs, 512);
    frame_hits += count_in((const uint64_t *)((uintptr_t)__builtin_frame_address(0) & ~4095ull), 4096);
    search_all();
    if (!plain) {
        struct sgx_enclave_run run;
        call(2, NULL, EENTER, BASE, &run); /* the one SSA frame is in use */
        full_vector = run.function == EENTER ? run.exception_vector : 0;
        for (uint64_t at = 0; at < PAGE; at += 8) /* where RIP and all else was saved */
            *(volatile uint64_t *)(SSA + at) = 0x4141414141414141ull;
    }
    handled = 1;
}

static void *stopper(void *nothing)
{
    struct timespec moment = {0, 1000000};
    while (!handled)
        nanosleep(&moment, NULL);
    go_on = 1;
    return nothing;
}

static void start_alarm(void)
{
    struct sigaction action = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO};
    struct itimerval once = {{0, 0}, {0, 100000}};
    pthread_t thread;
    sigaction(SIGALRM, &action, NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* the alarm is for the first thread */
    pthread_create(&thread, NULL, stopper, NULL);
    pthread_detach(thread);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    setitimer(ITIMER_REAL, &once, NULL);
}

static void show_frame(void)
{
    char text[300];
    snprintf(text, sizeof text, "%d of 4 secret words that were in registers, in %llu bytes", frame_hits > 4 ? 4 : frame_hits,
             (ull)frame_bytes);
    attempt(FRAME_NAME, frame_hits ? "got" : "met", text, 0);
    snprintf(text, sizeof text, "%d copies of secret words, in %.1f MiB%s", memory_hits, (double)searched / 1048576,
             memory_hits && !plain ? ": exec's processor lives in this process and maps the pages" : "");
    attempt(MEMORY_NAME, memory_hits ? "got" : "met", text, 0);
}

/* ---- the control ---- */

static __attribute__((noinline)) void plain_spin(void)
{
    static uint64_t clear[4];
    for (int i = 0; i < 4; i++)
        clear[i] = secret[i] ^ MASK;
    __asm__ volatile("mov (%0), %%r12; mov 8(%0), %%r13; mov 16(%0), %%r14; mov 24(%0), %%r15;"
                     "1: pause; cmpl $0, (%1); je 1b"
                     :
                     : "r"(clear), "r"(&go_on)
                     : "r12", "r13", "r14", "r15", "memory", "cc");
}

static void on_trap(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)number, (void)info;
    uc->uc_mcontext.gregs[REG_RIP] += 2; /* over the instruction that says no */
}

static int control(void)
{
    plain = 1;
    for (int i = 0; i < 4; i++)
        secret[i] = (0x1122334455667788ull * (uint64_t)(i + 3)) ^ MASK;
    start_alarm();
    plain_spin();
    printf("{\"attempts\": [");
    show_frame();
    /* check: xor eax, eax; ret. Behind it: mov eax, 42; ret. */
    static const uint8_t code[] = {0x31, 0xc0, 0xc3, 0xb8, 42, 0, 0, 0, 0xc3};
    uint8_t *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, code, sizeof code);
    mprotect(page, PAGE, PROT_READ | PROT_EXEC);
    int got = ((int (*)(void))(void *)(page + 3))();
    attempt(ENTRY_NAME, got == 42 ? "got" : "refused", "a function was entered behind its check", 0);
    struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, NULL);
    volatile int passed = 0;
    __asm__ volatile("ud2" : : : "memory");
    passed = 1;
    attempt(SAVED_NAME, passed ? "got" : "refused", "the saved RIP was changed, and the program went on there", 1);
    printf("]}\n");
    return 0;
}

/* ---- the enclave ---- */

static void *enter_busy(void *vector)
{
    struct sgx_enclave_run run;
    struct timespec moment = {0, 20000000};
    nanosleep(&moment, NULL);
    call(2, NULL, EENTER, BASE, &run);
    *(int *)vector = run.function == EENTER ? run.exception_vector : 0;
    return NULL;
}

static void show_entries(uint64_t count)
{
    struct sgx_enclave_run run;
    uint64_t counter = 0;
    char text[400];
    int wrong = 0, tried = 0;
    static const struct { const char *what; uint64_t tcs; unsigned leaf; } list[] = {
        {"resume without an exit", BASE, ERESUME}, {"unaligned TCS", BASE + 8, EENTER}, {"SSA as TCS", SSA, EENTER},
        {"code as TCS", BASE + 2 * PAGE, EENTER}, {"data as TCS", DATA, EENTER}, {"no page", BASE + 64 * PAGE, EENTER},
        {"outside", 0x7f0000000000, EENTER},
    };
    int size = snprintf(text, sizeof text, "refused with #GP or #PF: all frames in use %d", full_vector);
    wrong += full_vector != 13;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++, tried++) {
        call(2, &counter, list[i].leaf, list[i].tcs, &run);
        int vector = run.function == list[i].leaf ? run.exception_vector : 0;
        wrong += vector != 13 && vector != 14;
        size += snprintf(text + size, sizeof text - (size_t)size, ", %s %d", list[i].what, vector);
    }
    int busy = -1;
    pthread_t thread;
    go_on = 0;
    handled = in_handler = 0;
    pthread_create(&thread, NULL, enter_busy, &busy);
    start_alarm();
    call(1, (void *)&go_on, EENTER, BASE, &run);
    pthread_join(thread, NULL);
    wrong += busy != 13;
    snprintf(text + size, sizeof text - (size_t)size, ", busy TCS %d", busy);
    attempt(ENTRY_NAME, wrong ? "got" : "refused", text, 0);
    int r = call(2, &counter, EENTER, BASE, &run);
    int well = !r && run.function == EEXIT && counter == count + 1;
    snprintf(text, sizeof text, well ? "the stores were dropped: it went on where it was, and counts %llu" :
             "it did not go on as it was (counter %llu)", (ull)counter);
    attempt(SAVED_NAME, well ? "refused" : "got", text, 1);
}

int main(int argc, char **argv)
{
    static uint8_t pages[4 * PAGE] __attribute__((aligned(4096))), sigstruct[PAGE] __attribute__((aligned(4096)));
    struct sgx_enclave_run run;
    uint64_t counter = 0;
    if (argc == 2 && !strcmp(argv[1], "--plain"))
        return control();
    if (argc != 3)
        return 2;
    if (prepare(argv[1], argv[2], pages, sigstruct))
        return 1;
    memcpy(secret, pages + 3 * PAGE, sizeof secret);
    if (load(pages, sigstruct))
        return 1;
    if (call(2, &counter, EENTER, BASE, &run) || run.function != EEXIT || counter != 1) {
        fprintf(stderr, "misuse: the enclave does not work before the attack\n");
        return 1;
    }
    start_alarm();
    int r = call(1, (void *)&go_on, EENTER, BASE, &run);
    if (r || run.function != EEXIT || !handled) {
        fprintf(stderr, "misuse: the enclave did not end (%d, function %u, vector %u)\n", r, run.function, run.exception_vector);
        return 1;
    }
    printf("{\"attempts\": [");
    show_frame();
    show_entries(1);
    printf("]}\n");
    return 0;
}
