/*
 * A hostile loader: libos/loader/loader.c with a layer that lies to the enclave. What the enclave asks for is done, and
 * then the answer is another; or what the enclave is told at its start is.
 *
 * Usage: liar LIE, then the loader's own arguments. Without a known LIE: prints the names and exits with 2.
 */
#define _GNU_SOURCE
#include <pthread.h>

struct start_info;
static void lie_at_start(struct start_info *info);
static int lying_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *argument);
#define LOADER_BEFORE_START(info) lie_at_start(info)
#define main loader_main
#define loader_syscall lying_syscall
#define pthread_create lying_create
#include LOADER
#undef main
#undef loader_syscall
#undef pthread_create

#include <sys/socket.h>
#include <time.h>

long loader_syscall(uint64_t nr, const uint64_t *arg, const uint64_t *pending);

#define INSIDE 0x20000ull /* in ELRANGE, which begins at 0 */
#define HUGE_SIZE (1ll << 40)

static const char *const lies[] = {
    "none", "read-more", "read-huge", "read-minus", "read-lowest", "read-restart", "read-one", "read-none", "write-one", "write-none",
    "write-more", "write-minus",
    "block-inside", "block-wraps", "pack-inside", "pack-wraps", "signals-inside", "strings-inside", "strings-wrap",
    "thread-block-inside", "thread-twice", "thread-denied", "entries", "descriptor-again", "descriptor-huge", "address-huge",
    "time-back", "time-nonsense", "poll-all", "poll-more", "poll-minus", "stat-minus", "stat-huge", "signals-all", "pack-flips",
    "quote-huge", "quote-short", "names-broken", "read-interrupted", "write-interrupted", "read-again", "write-again",
};
static const char *lie = "none";
static bool is(const char *name) { return !strcmp(lie, name); }

static bool reads(uint64_t nr) { return nr == SYS_read || nr == SYS_pread64 || nr == SYS_recvfrom; }
static bool writes(uint64_t nr) { return nr == SYS_write || nr == SYS_sendto || nr == SYS_pwrite64; }

static long lie_of_poll(const uint64_t *arg, long ret)
{
    struct pollfd *fds = (struct pollfd *)arg[0];
    if (is("poll-all"))
        for (uint64_t i = 0; i < arg[1]; i++)
            fds[i].revents = -1;
    return is("poll-all") ? (long)arg[1] : is("poll-more") ? 1000000 : is("poll-minus") ? -77777 : ret;
}

static long lie_of_time(const uint64_t *arg, long ret)
{
    static _Atomic uint64_t calls;
    int64_t *t = (int64_t *)arg[1];
    uint64_t n = calls++;
    if (is("time-back"))
        t[0] -= (int64_t)(n % 1000);
    if (is("time-nonsense")) {
        static const int64_t values[][2] = {{-1, 0}, {0, -1}, {1, 1000000000}, {INT64_MAX, 999999999}, {1ll << 34, 0}};
        t[0] = values[n % 5][0], t[1] = values[n % 5][1];
    }
    return ret;
}

long lying_syscall(uint64_t nr, const uint64_t *arg, const uint64_t *pending)
{
    uint64_t shorter[6];
    if (is("read-none") && reads(nr))
        return 0;
    if (is("write-none") && writes(nr))
        return 0;
    if ((is("read-interrupted") && reads(nr)) || (is("write-interrupted") && writes(nr)))
        return -EINTR;
    if ((is("read-again") && reads(nr)) || (is("write-again") && writes(nr)))
        return -EAGAIN;
    if (((is("read-one") && reads(nr)) || (is("write-one") && writes(nr))) && arg[2] > 1) {
        memcpy(shorter, arg, sizeof shorter);
        shorter[2] = 1;
        return loader_syscall(nr, shorter, pending);
    }
    long ret = loader_syscall(nr, arg, pending);
    if (is("signals-all"))
        __atomic_store_n(&g_pending, ~0ull, __ATOMIC_SEQ_CST);
    if (reads(nr) && ret >= 0) {
        if (is("read-more")) return (long)arg[2] + 1;
        if (is("read-huge")) return HUGE_SIZE;
        if (is("read-minus")) return -5000;
        if (is("read-lowest")) return INT64_MIN;
        if (is("read-restart")) return -512; /* the kernel's own number, which no program sees */
    }
    if (writes(nr) && ret >= 0) {
        if (is("write-more")) return (long)arg[2] + 1000;
        if (is("write-minus")) return -4097;
    }
    if (nr == SYS_ppoll)
        return lie_of_poll(arg, ret);
    if (nr == SYS_clock_gettime)
        return lie_of_time(arg, ret);
    if (nr == SYS_accept4 && ret >= 0) {
        if (is("descriptor-again")) return (long)arg[0];
        if (is("descriptor-huge")) return HUGE_SIZE;
    }
    if (nr == SYS_openat && ret >= 0 && is("descriptor-huge"))
        return INT32_MAX + 5ll;
    if (is("address-huge") && (nr == SYS_getsockname || nr == SYS_accept4) && ret >= 0 && arg[2])
        *(uint32_t *)arg[2] = 0xffffffff;
    if ((nr == SYS_fstat || nr == SYS_newfstatat) && ret >= 0) {
        struct stat *st = (struct stat *)(nr == SYS_fstat ? arg[1] : arg[2]);
        if (is("stat-minus")) st->st_size = -1;
        if (is("stat-huge")) st->st_size = 1ll << 62;
    }
    if (nr == SYS_getdents64 && ret > 0 && is("names-broken"))
        *(uint16_t *)(arg[1] + 16) = 0xffff;
    return ret;
}

static int lying_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *argument)
{
    struct worker *w = argument;
    if (is("thread-block-inside"))
        w->block = (struct ocall_block *)INSIDE;
    int ret = pthread_create(thread, attr, start, argument);
    if (is("thread-twice")) {
        struct timespec moment = {0, 1000000};
        pthread_create(thread, attr, start, argument);
        nanosleep(&moment, NULL);
    }
    if (is("thread-denied")) { /* it runs, and the enclave is told that it does not */
        struct timespec moment = {0, 300000000}; /* it has entered by then, on a busy machine too: later it would be refused */
        nanosleep(&moment, NULL);
        return EAGAIN;
    }
    return ret;
}

/* One byte of a measured file in the mapped pack goes to and fro. */
static void *flipper(void *at)
{
    for (volatile uint8_t *p = at;; *p ^= 1)
        for (volatile int i = 0; i < 20; i++)
            ;
    return NULL;
}

/* A quoting service that answers with sizes of nonsense, or stops in the middle. */
static void *quoting(void *descriptor)
{
    uint8_t request[1024];
    int fd = (int)(intptr_t)descriptor;
    uint32_t huge[2] = {is("quote-huge") ? 0xfffffff0u : 4 + 511, 0};
    static uint8_t rest[511];
    while (read(fd, request, sizeof request) > 0) {
        (void)!write(fd, huge, sizeof huge);
        (void)!write(fd, rest, is("quote-huge") ? sizeof rest : 17);
        if (is("quote-short"))
            break;
    }
    close(fd);
    return NULL;
}

/* Entries that nobody asked for, while the first thread is in the enclave or out on a call. */
static void *enterer(void *nothing)
{
    static const uint64_t codes[] = {0, 1, 2, 3, 4, 5, 0xffffffffffffffff};
    struct timespec moment = {0, 300000};
    for (int i = 0; i < 4000; i++) {
        struct sgx_enclave_run run = {.tcs = g_worker[i % g_workers].tcs};
        uint64_t rdi = codes[i % 7], rsi = i % 3 ? INSIDE : (uint64_t)g_worker[0].block;
        unsigned leaf = i % 11 == 10 ? LEAF_ERESUME : LEAF_EENTER;
        register uint64_t r8 __asm__("r8") = 0, r9 __asm__("r9") = 0;
        long ret;
        __asm__ volatile("push %%rbp; mov %%rsp, %%rbp; sub $256, %%rsp; and $-16, %%rsp; push $0; push %[run]; call *%[f];"
                         "mov %%rbp, %%rsp; pop %%rbp"
                         : "=a"(ret), "+D"(rdi), "+S"(rsi), "+c"(leaf), "+r"(r8), "+r"(r9)
                         : [run] "b"(&run), [f] "a"(g_enter), "d"(0ull)
                         : "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
        nanosleep(&moment, NULL);
    }
    return nothing;
}

static void lie_at_start(struct start_info *info)
{
    pthread_t thread;
    if (is("block-inside")) info->block = INSIDE;
    if (is("block-wraps")) info->block = ~0ull - 63;
    if (is("pack-inside")) info->pack = INSIDE;
    if (is("pack-wraps")) info->pack_size = ~0ull - info->pack / 2;
    if (is("signals-inside")) info->signals = INSIDE;
    if (is("strings-inside")) info->strings = INSIDE, info->strings_size = 4096, info->argc = 1;
    if (is("strings-wrap")) info->strings_size = ~0ull, info->argc = 0xffffffff, info->envc = 0xffffffff;
    if (is("pack-flips")) {
        uint8_t *at = memmem((void *)info->pack, info->pack_size, "trusted-constant-", 17);
        uint64_t page = (uint64_t)at & ~4095ull;
        if (!at || mprotect((void *)page, 8192, PROT_READ | PROT_WRITE))
            fail("the trusted file is not in the pack");
        pthread_create(&thread, NULL, flipper, at);
    }
    if (is("quote-huge") || is("quote-short")) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
            fail("socketpair");
        info->quote_fd = pair[0];
        pthread_create(&thread, NULL, quoting, (void *)(intptr_t)pair[1]);
    }
    if (is("entries"))
        pthread_create(&thread, NULL, enterer, NULL);
}

int main(int argc, char **argv)
{
    for (size_t i = 0; i < sizeof lies / sizeof *lies && argc > 1; i++)
        if (!strcmp(argv[1], lies[i])) {
            lie = lies[i];
            argv[1] = argv[0];
            return loader_main(argc - 1, argv + 1);
        }
    for (size_t i = 1; i < sizeof lies / sizeof *lies; i++)
        puts(lies[i]);
    return 2;
}
