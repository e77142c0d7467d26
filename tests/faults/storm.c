/*
 * Signals without end against running enclaves. Usage: storm FILE.sgxs FILE.sig PAGES MILLISECONDS SEED.
 * Threads work inside on pages of their own while SIGALRM, SIGUSR1 and SIGINT come every 100 us, some by an interval
 * timer, most sent to a random thread; one handler enters the enclave again. Prints "rounds N signals N bad N".
 */
#define LOADER_LIBRARY
#include "../native/loader.c"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#include "enclave.h"

#define THREADS 3

static vdso_sgx_enter_enclave_t enter;
static struct loaded l;
static uint64_t pages, seed;
static volatile int over;
static _Atomic uint64_t signals, rounds, bad;

static void on_signal(int n, siginfo_t *info, void *context)
{
    (void)n, (void)info, (void)context;
    signals++;
}

static uint64_t work(int thread, uint64_t mode, uint64_t value)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[thread]};
    struct call c = {0};
    uint64_t share = pages / THREADS;
    const uint64_t words[5] = {l.base + HEAP + (uint64_t)thread * share * PAGE, share, value, 1, mode};
    memcpy(c.data, words, sizeof words);
    int r = enter(F_PAGES, (uint64_t)&c, 0, 2, 0, 0, &run);
    if (r || run.function != 4) {
        printf("lost: ret %d function %u vector %u\n", r, run.function, run.exception_vector);
        exit(4);
    }
    return c.out;
}

static void *thread_work(void *index)
{
    int thread = (int)(intptr_t)index;
    for (uint64_t r = 1; !over; r++) {
        work(thread, PAGES_FILL, r * 1000 + (uint64_t)thread);
        bad += work(thread, PAGES_CHECK, r * 1000 + (uint64_t)thread);
        rounds++;
    }
    return NULL;
}

int main(int n, char **a)
{
    const char *step;
    size_t size, sig_size;
    pthread_t thread[THREADS];
    static char stack[65536];
    if (n < 6)
        return 2;
    void *sgxs = read_file(a[1], &size), *sig = read_file(a[2], &sig_size);
    enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter)
        return 2;
    pages = strtoull(a[3], NULL, 0), seed = strtoull(a[5], NULL, 0);
    l.xfrm = 7;
    int r = load(&l, sgxs, size, sig, &step);
    if (r)
        return printf("%s: %s\n", step, strerrorname_np(-r)), 1;
    stack_t s = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&s, NULL);
    static const int numbers[] = {SIGALRM, SIGUSR1, SIGINT, 34};
    for (int i = 0; i < 4; i++) {
        struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | (i == 1 ? SA_RESTART : 0)};
        sigaction(numbers[i], &action, NULL);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, thread_work, (void *)(intptr_t)i);
    struct itimerval every = {{0, 100}, {0, 100}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &every, NULL);
    struct timespec start, now, pause = {0, 100000};
    clock_gettime(CLOCK_MONOTONIC, &start);
    uint64_t limit = strtoull(a[4], NULL, 0), state = seed;
    do {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        pthread_kill(thread[(state >> 33) % THREADS], numbers[(state >> 40) % 4]);
        nanosleep(&pause, NULL);
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((uint64_t)((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000) < limit);
    over = 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    setitimer(ITIMER_REAL, &off, NULL);
    printf("rounds %llu signals %llu bad %llu\n", (unsigned long long)rounds, (unsigned long long)signals, (unsigned long long)bad);
    return 0;
}
