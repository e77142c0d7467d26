/*
 * What a host does beside the seam, by design or by mistake. Usage: stray WHAT FILE.sgxs FILE.sig [ARGUMENT]
 *   stale 0|1      1: another enclave's pages were added, never shown, and let go; then the image's are measured and called
 *   signals N      30 rounds over 256 pages of heap, signal N sent to the thread all the while
 *   forks          children, made while another thread adds pages, that read at 8 and handle it
 *   copies         mremap with an old size of 0, at the heap's first page and at its second
 *   tcs 0|1        1: a look at a TCS from outside; then the enclave reads it
 *   budget N       N enclaves, one after another: KiB of each that can be written, secret and not
 */
#define LOADER_LIBRARY
#include "loader.c"
#include "enclave.h"
#include "call.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define HEAP 0x1000000ull
#define HEAP_PAGES 256

static struct loaded l;
static void *sgxs, *sig;
static size_t sgxs_size, sig_size;
static int result;

static int go(int tcs, uint64_t function, const void *data, size_t size, struct call *c, struct sgx_enclave_run *run)
{
    *c = (struct call){.in = 41};
    memcpy(c->data, data, size);
    *run = (struct sgx_enclave_run){.tcs = l.tcs[tcs]};
    return call(function, c, 2 /* EENTER */, run);
}

static int start(void)
{
    const char *step;
    int r = load(&l, sgxs, sgxs_size, sig, &step);
    return r ? fprintf(stderr, "stray: %s: %s\n", step, strerrorname_np(-r)), 1 : 0;
}

/* Each page of that enclave ends in what would answer a call with 0xbad, wherever it is entered. */
static int stale(const char *before)
{
    static const uint8_t answer[] = {0x48, 0xc7, 0x46, 0x08, 0xad, 0x0b, 0, 0, /* mov qword [rsi + 8], 0xbad */
                                     0x48, 0x89, 0xcb, 0xb8, 4, 0, 0, 0, 0x0f, 0x01, 0xd7}; /* mov rbx, rcx; EEXIT */
    static uint8_t page[PAGE] __attribute__((aligned(4096)));
    struct sgx_enclave_run run;
    struct call c;
    if (*before == '1') {
        struct loaded other = {.fd = create_enclave(1ull << 40, 1 << 28)};
        memset(page, 0x90, PAGE);
        memcpy(page + PAGE - sizeof answer, answer, sizeof answer);
        for (uint64_t i = 0; i < 512; i++)
            if (add_page(&other, i * PAGE, 0x203, page, 1) || add_page(&other, 0x4000000 + i * PAGE, 0x205, page, 1))
                return 1;
        close(other.fd);
    }
    if (start())
        return 1;
    int r = go(0, F_ADD, "", 0, &c, &run);
    printf("ret %d function %u vector %u out %#llx\n", r, run.function, run.exception_vector, (unsigned long long)c.out);
    const uint64_t heap[5] = {l.base + HEAP, HEAP_PAGES, 0, 1, PAGES_SUM};
    r = go(0, F_PAGES, heap, sizeof heap, &c, &run);
    printf("ret %d function %u vector %u sum %#llx\n", r, run.function, run.exception_vector, (unsigned long long)c.out);
    return 0;
}

static volatile sig_atomic_t ended;
static void on_signal(int number) { (void)number; }

static void *rounds(void *unused)
{
    (void)unused;
    for (int i = 0; i < 30; i++) {
        const uint64_t pages[5] = {l.base + HEAP, HEAP_PAGES, 7, 1, i ? PAGES_CHECK : PAGES_FILL};
        struct sgx_enclave_run run;
        struct call c;
        int r = go(0, F_PAGES, pages, sizeof pages, &c, &run);
        if (r || run.function != 4 || c.out)
            printf("round %d: ret %d function %u vector %u bad %llu\n", i, r, run.function, run.exception_vector, (unsigned long long)c.out), result = 1;
    }
    ended = 1;
    return NULL;
}

static int signals(int number)
{
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    pthread_t thread;
    if (start() || sigaction(number, &a, NULL) || pthread_create(&thread, NULL, rounds, NULL))
        return 1;
    while (!ended) {
        usleep(300);
        if (!ended)
            pthread_kill(thread, number);
    }
    pthread_join(thread, NULL);
    printf("ended\n");
    return result;
}

static void *adds(void *unused)
{
    _Alignas(64) static uint64_t info[8] = {0x203};
    void *from = mmap(NULL, 8000 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (;;) {
        int fd = create_enclave(1ull << 40, 1 << 28);
        struct sgx_enclave_add_pages add = {(uint64_t)from, 0, 8000 * PAGE, (uint64_t)info, SGX_PAGE_MEASURE, 0};
        ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add);
        close(fd);
    }
    return unused;
}

static void on_fault(int number) { _exit(number == SIGSEGV ? 7 : 8); }

static int forks(void)
{
    int hung = 0, handled = 0;
    pthread_t thread;
    if (start() || pthread_create(&thread, NULL, adds, NULL))
        return 1;
    signal(SIGSEGV, on_fault);
    for (int i = 0; i < 20; i++) {
        int status = 0, waits = 0;
        usleep(20000 + (unsigned)i * 700);
        pid_t child = fork();
        if (!child) {
            volatile uint64_t nowhere = 8;
            *(volatile int *)nowhere = 1;
            _exit(1);
        }
        for (; waits < 500 && waitpid(child, &status, WNOHANG) != child; waits++)
            usleep(10000);
        if (waits == 500) {
            hung++;
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
        } else {
            handled += WIFEXITED(status) && WEXITSTATUS(status) == 7;
        }
    }
    printf("handled %d hung %d\n", handled, hung);
    fflush(stdout);
    _exit(0);
}

static int copies(void)
{
    struct sgx_enclave_run run;
    struct call c;
    if (start())
        return 1;
    const uint64_t write[2] = {l.base + HEAP, 0x5ec2e7};
    go(0, F_WRITE, write, sizeof write, &c, &run);
    for (uint64_t i = 0; i < 2; i++) {
        volatile uint64_t *copy = mremap((void *)(l.base + HEAP + i * PAGE), 0, PAGE, MREMAP_MAYMOVE);
        if (copy == MAP_FAILED)
            printf("page %d: %s\n", (int)i, strerrorname_np(errno));
        else if (mprotect((void *)copy, PAGE, PROT_READ | PROT_WRITE))
            printf("page %d: copied, %s\n", (int)i, strerrorname_np(errno));
        else
            printf("page %d: reads %#llx\n", (int)i, (unsigned long long)*copy);
    }
    return 0;
}

static int tcs(const char *look)
{
    struct sgx_enclave_run run;
    struct call c;
    if (start())
        return 1;
    go(0, F_NOTHING, "", 0, &c, &run);
    if (*look == '1')
        printf("outside %#llx\n", (unsigned long long)*(volatile uint64_t *)l.tcs[1]);
    go(2, F_READ, &l.tcs[1], 8, &c, &run);
    printf("inside: function %u vector %u error %#x\n", run.function, run.exception_vector, run.exception_error_code);
    return 0;
}

static int budget(int count)
{
    char line[256], rights[8];
    unsigned long from, to;
    for (int i = 0; i < count; i++) {
        long secret = 0, ordinary = 0;
        l = (struct loaded){0};
        if (start())
            return 1;
        FILE *maps = fopen("/proc/self/maps", "r");
        while (fgets(line, sizeof line, maps))
            if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3 && rights[1] == 'w')
                *(strstr(line, "secretmem") ? &secret : strstr(line, "sgx-epc") ? &ordinary : &(long){0}) += (long)(to - from) >> 10;
        fclose(maps);
        printf("%ld %ld\n", secret, ordinary);
        munmap((void *)l.base, l.size);
        close(l.fd);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    const char *what = argv[1], *argument = argc > 4 ? argv[4] : "0";
    setvbuf(stdout, NULL, _IONBF, 0);
    sgxs = read_file(argv[2], &sgxs_size);
    sig = read_file(argv[3], &sig_size);
    enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter)
        return 2;
    return !strcmp(what, "stale") ? stale(argument) : !strcmp(what, "signals") ? signals(atoi(argument)) : !strcmp(what, "forks") ? forks()
           : !strcmp(what, "copies") ? copies() : !strcmp(what, "tcs") ? tcs(argument) : !strcmp(what, "budget") ? budget(atoi(argument)) : 2;
}
