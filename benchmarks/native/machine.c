/*
 * The machine without a runtime: `machine ecall FILE.sgxs FILE.sig CALLS` enters and leaves the test enclave, and says
 * what one system call costs beside it; `machine add measured|plain PAGES` adds pages to an enclave; ns for each on
 * standard output, of the clock and, of pages, of the processors' time too.
 */
#define LOADER_LIBRARY
#include "loader.c"
#include "enclave.h"

#include <sys/syscall.h>
#include <time.h>

static double ns_by(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double now(void) { return ns_by(CLOCK_MONOTONIC); }

/* The processors' time that all threads of the process took. */
static double at_work(void) { return ns_by(CLOCK_PROCESS_CPUTIME_ID); }

static int fail(const char *what) { return fprintf(stderr, "machine: %s: %s\n", what, strerror(errno)), 1; }

static int ecalls(char **argv)
{
    struct loaded l = {0};
    struct call c = {0};
    const char *step;
    size_t size, sig_size;
    long calls = atol(argv[2]);
    void *sgxs = read_file(argv[0], &size), *sig = read_file(argv[1], &sig_size);
    vdso_sgx_enter_enclave_t enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter)
        return fail("no file, or no SGX vDSO");
    memcpy(&l.misc, (uint8_t *)sig + 900, 4);
    memcpy(&l.attributes, (uint8_t *)sig + 928, 8);
    memcpy(&l.xfrm, (uint8_t *)sig + 936, 8);
    if (load(&l, sgxs, size, sig, &step))
        return fail(step);
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    for (int round = 0; round < 2; round++) { /* the first one warms up */
        double start = now();
        for (long i = 0; i < calls; i++) {
            c.in = (uint64_t)i;
            if (enter(F_ADD, (uint64_t)&c, 0, 2 /* EENTER */, 0, 0, &run) || c.out != (uint64_t)i + 1)
                return fail("the enclave does not answer");
        }
        if (round)
            printf("%.3f", (now() - start) / (double)calls);
    }
    double start = now(); /* through the filters that a process with an enclave has */
    for (long i = 0; i < calls; i++)
        syscall(SYS_gettid);
    printf(" %.3f\n", (now() - start) / (double)calls);
    return 0;
}

static int add(char **argv)
{
    uint64_t pages = strtoull(argv[1], NULL, 0);
    _Alignas(4096) static uint8_t sigstruct[PAGE];
    _Alignas(64) uint64_t secinfo[8] = {0x203}; /* REG, R and W */
    int measured = !strcmp(argv[0], "measured");
    uint8_t *source = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (source == MAP_FAILED)
        return fail("no memory");
    for (uint64_t i = 0; i < pages * PAGE; i += 8)
        *(uint64_t *)(source + i) = i * 0x9e3779b97f4a7c15ull | 1;
    int fd = create_enclave(1ull << 32, 1ull << 30);
    if (fd < 0)
        return fail("create");
    struct sgx_enclave_add_pages a = {(uint64_t)source, 0, pages * PAGE, (uint64_t)secinfo, measured ? SGX_PAGE_MEASURE : 0, 0};
    double start = now(), work = at_work();
    if (ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &a) || a.count != pages * PAGE)
        return fail("add");
    /* The measurement may run behind ADD_PAGES; EINIT waits for it, then refuses a SIGSTRUCT of zeros. */
    struct sgx_enclave_init init = {(uint64_t)sigstruct};
    if (!ioctl(fd, SGX_IOC_ENCLAVE_INIT, &init) || errno != EPERM)
        return fail("init");
    printf("%.3f %.3f\n", (now() - start) / (double)pages, (at_work() - work) / (double)pages);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "ecall"))
        return ecalls(argv + 2);
    if (argc == 4 && !strcmp(argv[1], "add"))
        return add(argv + 2);
    return 2;
}
