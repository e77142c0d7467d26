/*
 * Random and boundary arguments for everything that a program may ask of the device: its ioctls, mmap, mprotect, munmap,
 * mremap, madvise, entries by the vDSO and by ENCLU. Usage: fuzz FILE.sgxs FILE.sig SEED COUNT. Prints how often each gave
 * 0, an errno, a fault; at the end enclaves are loaded and entered as if nothing had been ("good N").
 */
#define LOADER_LIBRARY
#include "../native/loader.c"

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>

#include "enclave.h"
#include "../native/call.h"

#define ARENA ((uint8_t *)0x300000000000ull) /* all addresses that are given away lie here, or are no memory */
#define ARENA_SIZE (1ull << 30)
#define DEVICES 8

static struct loaded good;
static uint8_t *sgxs, *sig;
static size_t size, sig_size;
static uint64_t state;
static int device[DEVICES];
static sigjmp_buf back;
static volatile bool guarded;
static uint64_t zeros, errnos, faults;
static const char *what = "start";
static bool traced;
#define TRACE(...) (traced ? (void)fprintf(stderr, __VA_ARGS__) : (void)0) /* FUZZ_TRACE=1: what was asked */
#define U(x) ((unsigned long long)(x))

static uint64_t rnd(uint64_t below)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return below ? (state * 0x2545f4914f6cdd1dull >> 11) % below : 0;
}
static uint64_t word(void) { return rnd(1ull << 53) << 11 ^ rnd(1ull << 53); }
#define PICK(...) ((const uint64_t[]){__VA_ARGS__}[rnd(sizeof((const uint64_t[]){__VA_ARGS__}) / 8)])

static void on_fault(int n, siginfo_t *info, void *context)
{
    (void)info, (void)context;
    if (!guarded) {
        fprintf(stderr, "fuzz: signal %d outside a guarded call, after %s\n", n, what);
        _exit(3);
    }
    siglongjmp(back, n);
}

static void counted(long ret)
{
    if (ret == 0)
        zeros++;
    else if (ret > 0 && ret < 134)
        errnos++;
    else {
        fprintf(stderr, "fuzz: %s answered %ld, which is no errno\n", what, ret);
        _exit(3);
    }
}
/* A system call's answer. */
static void called(long ret) { counted(ret == -1 ? errno : 0); }

static uint64_t size_of(void) { return PICK(0, 1, 4095, 4096, 4097, 8192, 65536, 1 << 20, 1ull << 28, 1ull << 46, 1ull << 47, ~0ull, -4096ull, 1ull << 63); }
static uint64_t small(void) { return PICK(0, 1, 4095, 4096, 8192, 12288, 65536, 1 << 20); }
static uint64_t in_arena(void)
{
    uint64_t at = rnd(ARENA_SIZE / PAGE) * PAGE;
    if (rnd(3))
        at = rnd(64) * PAGE + rnd(4) * (1 << 28);
    return (uint64_t)ARENA + at + (rnd(8) ? 0 : rnd(PAGE));
}
static uint64_t address(void)
{
    switch (rnd(8)) {
    case 0: return PICK(0, 1, 8, 4095, 4096, 0x10000);
    case 1: return PICK(~0ull, -4096ull, 1ull << 47, (1ull << 47) - 4096, 1ull << 63, 0xffff800000000000ull, 0xffffffff81000000ull);
    case 2: return good.base + rnd(good.size / PAGE) * PAGE;
    case 3: return good.tcs[rnd((uint64_t)good.tcs_count)] + PICK(0, 8, 4096, -4096ull);
    default: return in_arena();
    }
}

/* Memory for arguments: its page is followed by none. */
static uint8_t *argument_page;
static void *argument(size_t wanted, const void *from)
{
    switch (rnd(16)) {
    case 0: return (void *)address();
    case 1: return argument_page + PAGE - (wanted ? rnd(wanted) : 0); /* across the end */
    }
    uint8_t *at = argument_page + PAGE - wanted - (rnd(4) ? 0 : rnd(64));
    at = (uint8_t *)((uint64_t)at & ~(rnd(8) ? 7ull : 0ull));
    if ((uint64_t)at + wanted > (uint64_t)argument_page + PAGE)
        at = argument_page + PAGE - wanted;
    if (from)
        memcpy(at, from, wanted);
    return at;
}

static uint8_t *page_of_data, *secs_page, *sig_page;
static uint64_t source(void) { return rnd(6) ? (uint64_t)page_of_data : address(); }

static void flip(void *p, size_t bytes)
{
    for (uint64_t n = rnd(3); n; n--)
        ((uint8_t *)p)[rnd(bytes)] ^= (uint8_t)(1u << rnd(8));
}

static void one_ioctl(void)
{
    int fd = rnd(12) ? device[rnd(DEVICES)] : (int)PICK(-1, 0, 1, 2, 77777);
    uint64_t a[8] = {0};
    _Alignas(64) static uint64_t secinfo[8];
    unsigned long command;
    void *p;
    memset(secinfo, 0, sizeof secinfo);
    secinfo[0] = PICK(0x203, 0x203, 0x205, 0x201, 0x200, 0x100, 0x100, 0x207, 0x400, 0x300, 0, 0x202, 3, 7, 1, 0);
    if (!rnd(6))
        flip(secinfo, sizeof secinfo);
    switch (rnd(9)) {
    case 0: case 1: {
        what = "create";
        memset(secs_page, 0, PAGE);
        uint64_t secs[8] = {PICK(1 << 28, 1 << 28, 1 << 16, 1 << 13, 1 << 12, 0, 3 << 12, 1ull << 46, 1ull << 63), (uint64_t)ARENA + rnd(4) * (1 << 28), 1};
        secs[6] = PICK(4, 4, 4, 6, 0x24, 0x84, ~0ull), secs[7] = PICK(3, 7, 0xe7, 0, ~0ull);
        memcpy(secs_page, secs, sizeof secs);
        if (!rnd(3))
            flip(secs_page, rnd(2) ? 64 : PAGE);
        a[0] = rnd(8) ? (uint64_t)secs_page : address();
        p = argument(8, a), command = SGX_IOC_ENCLAVE_CREATE;
        break;
    }
    case 2: case 3: case 4: {
        struct sgx_enclave_add_pages add = {.src = source(), .offset = rnd(4) ? rnd(40) * PAGE : word(), .length = rnd(4) ? PICK(4096, 8192, 65536) : size_of(),
                                            .secinfo = rnd(8) ? (uint64_t)secinfo : address(), .flags = PICK(0, 1, 1, 2, ~0ull), .count = word()};
        what = "add", p = argument(sizeof add, &add), command = SGX_IOC_ENCLAVE_ADD_PAGES;
        break;
    }
    case 5:
        memcpy(sig_page, sig, 1808);
        flip(sig_page, 1808);
        what = "init", a[0] = rnd(8) ? (uint64_t)sig_page : address();
        p = argument(8, a), command = SGX_IOC_ENCLAVE_INIT;
        break;
    case 6:
        what = "provision", a[0] = rnd(2) ? (uint64_t)device[0] : word();
        p = argument(8, a), command = SGX_IOC_ENCLAVE_PROVISION;
        break;
    case 7: {
        for (int i = 0; i < 6; i++)
            a[i] = rnd(3) ? rnd(40) * PAGE : PICK(0, 1, 3, 7, 0x200, 0x400, 4095, ~0ull, 1ull << 28, 4096);
        command = PICK(SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS, SGX_IOC_ENCLAVE_MODIFY_TYPES, SGX_IOC_ENCLAVE_REMOVE_PAGES);
        what = "SGX2", p = argument(48, a);
        break;
    }
    default:
        for (int i = 0; i < 8; i++)
            a[i] = word();
        what = "unknown ioctl", p = argument(64, a), command = PICK(0xa400, 0xa4ff, 0xc0ffa400) ^ rnd(1 << 16);
        if ((command >> 8 & 0xff) != 0xa4 && fd >= 0 && fd < 3)
            fd = -1; /* not a terminal's settings */
    }
    TRACE("ioctl %s fd %d %#lx %p: %#llx %#llx %#llx %#llx %#llx\n", what, fd, command, p, U(a[0]), U(a[1]), U(a[2]), U(a[3]), U(secinfo[0]));
    called(ioctl(fd, command, p));
}

static void one_mapping(void)
{
    uint64_t at = in_arena(), bytes = rnd(3) ? small() : size_of();
    int prot = (int)rnd(16) & 15, fd = rnd(6) ? device[rnd(DEVICES)] : rnd(2) ? -1 : good.fd;
    if (at + bytes > (uint64_t)ARENA + ARENA_SIZE && bytes < 1ull << 47)
        bytes = PAGE;
    long r;
    TRACE("mapping %#llx %#llx prot %d fd %d\n", U(at), U(bytes), prot, fd);
    switch (rnd(6)) {
    case 0: case 1: {
        int flags = (int)PICK(MAP_SHARED, MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE, 0) | (rnd(5) ? MAP_FIXED : rnd(2) ? MAP_FIXED_NOREPLACE : 0) |
                    (rnd(8) ? 0 : MAP_ANONYMOUS);
        what = "mmap";
        r = syscall(SYS_mmap, at, bytes, prot & 7, flags, fd, rnd(8) ? 0 : word());
        counted(r == -1 ? errno : 0);
        if (r != -1 && ((uint64_t)r < (uint64_t)ARENA || (uint64_t)r >= (uint64_t)ARENA + ARENA_SIZE))
            syscall(SYS_munmap, r, bytes); /* where the kernel chose */
        break;
    }
    case 2: case 3:
        what = "mprotect";
        called(syscall(SYS_mprotect, at, bytes, (uint64_t)prot));
        break;
    case 4:
        what = "munmap";
        called(syscall(SYS_munmap, at, bytes));
        break;
    default:
        what = "madvise or mremap";
        if (at + bytes > (uint64_t)ARENA + ARENA_SIZE || at + bytes < at) /* madvise skips holes: it would reach this program */
            bytes = PAGE;
        if (rnd(2))
            called(syscall(SYS_madvise, at, bytes, PICK(0, 1, 2, 3, 4, 8, 9, 10, 11, 14, 16, 18, 21, 23)));
        else
            counted((r = syscall(SYS_mremap, at, bytes, small(), 3 /* MAYMOVE FIXED */, in_arena())) == -1 ? errno : 0);
    }
}

static const uint64_t functions[] = {F_ADD, F_FAULT, F_BASES, F_SUM, 60, 1000, ~0ull};

static void one_entry(void)
{
    struct sgx_enclave_run run = {.tcs = rnd(2) ? good.tcs[rnd((uint64_t)good.tcs_count)] : address()};
    struct call c = {.in = rnd(20)};
    const volatile uint64_t function = functions[rnd(sizeof functions / 8)];
    if (c.in == FAULT_IN || c.in == FAULT_EENTER)
        c.in = FAULT_UD;
    if (!rnd(4))
        ((uint8_t *)&run)[rnd(sizeof run)] = (uint8_t)rnd(256);
    run.user_handler = 0;
    struct sgx_enclave_run *const volatile where = rnd(12) ? &run : (struct sgx_enclave_run *)address();
    const volatile int leaf = (int)(rnd(3) ? 2 + rnd(2) : PICK(0, 1, 4, 5, 6, 7, 100, ~0ull));
    what = "entry";
    TRACE("entry function %llu in %llu leaf %d tcs %#llx run %p\n", U(function), U(c.in), leaf, U(run.tcs), (void *)where);
    if (sigsetjmp(back, 1)) {
        guarded = false;
        faults++;
        return;
    }
    guarded = true;
    int r = call(function, &c, (uint32_t)leaf, where);
    guarded = false;
    if (r == 0 && where->function != 4)
        faults++;
    else
        counted(r < 0 ? -r : 0);
}

static void one_enclu(void)
{
    static uint64_t leaf, b, c, d; /* not in registers, which the jump back would undo */
    leaf = rnd(3) ? PICK(2, 3) : PICK(0, 1, 4, 5, 6, 7, 99, ~0ull);
    b = address(), c = rnd(2) ? address() : (uint64_t)&&aep, d = address();
    static struct call arguments;
    what = "ENCLU";
    TRACE("enclu %llu rbx %#llx rcx %#llx rdx %#llx\n", U(leaf), U(b), U(c), U(d));
    if (sigsetjmp(back, 1)) {
        guarded = false;
        faults++;
        return;
    }
    guarded = true;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd7"
                     : "+a"(leaf), "+b"(b), "+c"(c), "+d"(d)
                     : "D"((uint64_t)F_ADD), "S"(&arguments)
                     : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
aep:
    guarded = false;
    zeros++;
}

static void one_open(void)
{
    static const char *const names[] = {"/dev/sgx_enclave", "/dev/sgx/enclave", "/dev/sgx_provision"};
    int i = (int)rnd(DEVICES);
    what = "open";
    if (device[i] > 2)
        close(device[i]);
    device[i] = open(names[rnd(8) ? 0 : rnd(3)], (int)PICK(O_RDWR, O_RDONLY, O_WRONLY, O_RDWR | O_CLOEXEC));
    counted(device[i] < 0 ? errno : 0);
    if (!rnd(10) && device[i] >= 0) {
        int copy = dup(device[i]);
        close(device[i]);
        device[i] = copy;
    }
}

/* A fresh enclave is loaded in the place of the one there was, entered by each of its TCSs, and right. */
static bool works(void)
{
    struct loaded l = {.xfrm = 7};
    const char *step;
    int before = good.fd, r = load(&l, sgxs, size, sig, &step);
    if (rnd(2))
        close(before), before = -1;
    if (r) {
        fprintf(stderr, "fuzz: afterwards %s: %s\n", step, strerrorname_np(-r));
        return false;
    }
    bool all = true;
    for (int i = 0; i < l.tcs_count; i++) {
        struct sgx_enclave_run run = {.tcs = l.tcs[i]};
        struct call c = {.in = 41};
        r = call(F_ADD, &c, 2, &run);
        if (r || run.function != 4 || c.out != 42) {
            fprintf(stderr, "fuzz: afterwards an entry gave %d, function %u, vector %u\n", r, run.function, run.exception_vector);
            all = false;
        }
    }
    if (before >= 0)
        close(before);
    good = l;
    return all;
}

int main(int n, char **a)
{
    const char *step;
    if (n < 5)
        return 2;
    sgxs = read_file(a[1], &size), sig = read_file(a[2], &sig_size);
    enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter)
        return 2;
    state = strtoull(a[3], NULL, 0) * 0x9e3779b97f4a7c15ull + 1;
    traced = getenv("FUZZ_TRACE") != NULL;
    uint64_t count = strtoull(a[4], NULL, 0), well = 0, opened = 0;
    good.xfrm = 7;
    int r = load(&good, sgxs, size, sig, &step);
    if (r)
        return fprintf(stderr, "fuzz: %s: %s\n", step, strerrorname_np(-r)), 1;
    uint8_t *pages = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    argument_page = pages + PAGE, secs_page = pages + 4 * PAGE, sig_page = pages + 6 * PAGE, page_of_data = pages + 8 * PAGE;
    munmap(pages + 2 * PAGE, PAGE);
    if (mmap(ARENA, ARENA_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != (void *)ARENA)
        return 2;
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    for (int s = 0; s < 5; s++)
        sigaction((const int[]){SIGSEGV, SIGILL, SIGBUS, SIGFPE, SIGTRAP}[s], &action, NULL);
    for (int i = 0; i < DEVICES; i++)
        device[i] = open("/dev/sgx_enclave", O_RDWR);
    for (uint64_t i = 0; i < count; i++) {
        switch (rnd(12)) {
        case 0: case 1: case 2: case 3: case 4: one_ioctl(); break;
        case 5: case 6: case 7: one_mapping(); break;
        case 8: case 9: one_entry(); break;
        case 10: one_enclu(); break;
        default: one_open(), opened++;
        }
        if (i % (count / 4 + 1) == 0)
            well += works();
    }
    for (int i = 0; i < DEVICES; i++)
        if (device[i] > 2)
            close(device[i]);
    munmap(ARENA, ARENA_SIZE);
    well += works();
    printf("zeros %llu errnos %llu faults %llu good %llu\n", (unsigned long long)zeros, (unsigned long long)errnos, (unsigned long long)faults,
           (unsigned long long)well);
    return 0;
}
