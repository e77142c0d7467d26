/*
 * Drives the test enclave: one scenario a run. Usage: host SCENARIO FILE.sgxs FILE.sig [ARGUMENT].
 * Prints facts for the test to compare; exit status 0 unless loading fails.
 */
#define LOADER_LIBRARY
#include "loader.c"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

#include "enclave.h"
#include "call.h"
#include "sgx_arch.h"

#define U(x) ((unsigned long long)(x))

static struct loaded l;
static uint64_t argument;

static void show(const char *what, int r, struct sgx_enclave_run *run)
{
    printf("%s: ret %d function %u vector %u error %#x addr %#llx\n", what, r, run->function, run->exception_vector,
           run->exception_error_code, U(run->exception_addr));
    fflush(stdout);
}

static void s_call(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {.in = 41};
    int r = call(F_ADD, &c, 2, &run);
    printf("ret %d function %u out %llu\n", r, run.function, U(c.out));
}

/* What the vDSO refuses before any ENCLU. */
static void s_invalid(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0], .function = 77};
    struct call c = {0};
    printf("leaf1 %d\n", call(F_ADD, &c, 1, &run));
    printf("leaf4 %d\n", call(F_ADD, &c, 4, &run));
    run.reserved[215] = 1;
    printf("reserved %d function %u\n", call(F_ADD, &c, 2, &run), run.function);
}

/* Each register across the call, the values that EEXIT passes on. */
static void s_registers(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    static uint64_t before[2], after[2], di, si, dx, r8v, r9v, r10v, r11v; /* not on the stack that moves */
    __asm__ volatile("mov %%rsp, %0; mov %%rbp, %1; push $0; push %11; mov $6, %%edi; mov $2, %%ecx;"
                     "call *%12; add $16, %%rsp; mov %%rsp, %2; mov %%rbp, %3; mov %%rdi, %4; mov %%rsi, %5; mov %%rdx, %6;"
                     "mov %%r8, %7; mov %%r9, %8; mov %%r10, %9; mov %%r11, %10"
                     : "=m"(before[0]), "=m"(before[1]), "=m"(after[0]), "=m"(after[1]), "=m"(di), "=m"(si), "=m"(dx),
                       "=m"(r8v), "=m"(r9v), "=m"(r10v), "=m"(r11v)
                     : "r"(&run), "r"(enter)
                     : "rax", "rcx", "rdx", "rdi", "rsi", "r8", "r9", "r10", "r11", "memory");
    printf("rsp %d rbp %d rdi %#llx rsi %#llx rdx %#llx r8 %#llx r9 %#llx r10 %#llx r11 %#llx\n", before[0] == after[0],
           before[1] == after[1], U(di), U(si), U(dx), U(r8v), U(r9v), U(r10v), U(r11v));
}

static void s_fault(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {.in = argument};
    int r = call(F_FAULT, &c, 2, &run);
    show("fault", r, &run);
}

static int handler_calls;
static struct call *handler_call;
static uint64_t handler_skip;

/* On an exception: the enclave's own handler (EENTER, CSSA = 1), then ERESUME. */
static int user_handler(long rdi, long rsi, long rdx, long rsp, long r8, long r9, struct sgx_enclave_run *run)
{
    (void)rdx, (void)r8, (void)r9, (void)rdi, (void)rsi, (void)rsp;
    struct sgx_enclave_run second = {.tcs = run->tcs};
    handler_calls++;
    if (run->function == 4)
        return 0;
    int r = call(handler_skip, handler_call, 2, &second);
    printf("second: ret %d function %u\n", r, second.function);
    return 3;
}

/* A fault, mended by the enclave's second-level entry, resumed. */
static void s_resume(void)
{
    static const uint64_t lengths[] = {[FAULT_DE] = 3, [FAULT_UD] = 2, [FAULT_PF] = 8, [FAULT_SYSCALL] = 2};
    struct sgx_enclave_run run = {.tcs = l.tcs[0], .user_handler = (uint64_t)user_handler, .user_data = 5};
    struct call c = {.in = argument, .handler_rax = 0x99};
    handler_call = &c;
    handler_skip = lengths[argument];
    int r = call(F_FAULT, &c, 2, &run);
    printf("ret %d function %u out %#llx handler %d exitinfo %#llx maddr %#llx errcd %#llx vector %u\n", r, run.function,
           U(c.out), handler_calls, U(c.exitinfo), U(c.maddr), U(c.errcd), run.exception_vector);
}

static volatile sig_atomic_t alarms, at_aep;
static uint64_t aep;

static void on_alarm(int n, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)n, (void)info;
    alarms++;
    if (uc->uc_mcontext.gregs[REG_RAX] == 3 && uc->uc_mcontext.gregs[REG_RBX] == (long)l.tcs[0] &&
        uc->uc_mcontext.gregs[REG_RCX] == uc->uc_mcontext.gregs[REG_RIP])
        at_aep++;
    aep = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
}

static void alarm_every(long microseconds)
{
    struct itimerval every = {{0, microseconds}, {0, microseconds}};
    setitimer(ITIMER_REAL, &every, NULL);
}

/* Some time inside with all vector registers in use, and alarms meanwhile. */
static int long_work(long microseconds, struct call *c, struct sgx_enclave_run *run)
{
    run->tcs = l.tcs[0];
    c->in = 20000000;
    alarm_every(microseconds);
    int r = call(F_VECTOR, c, 2, run);
    alarm_every(0);
    return r;
}

static void storm(int signal_flags)
{
    struct sigaction a = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | signal_flags};
    struct sgx_enclave_run run = {0};
    struct call c = {0};
    sigaction(SIGALRM, &a, NULL);
    int r = long_work(300, &c, &run);
    printf("ret %d function %u out %llu alarms %d inside %d\n", r, run.function, U(c.out), alarms > 20, at_aep > 10);
}
static void s_storm(void) { storm(0); }
static void s_storm_altstack(void)
{
    static char stack[65536];
    stack_t s = {.ss_sp = stack, .ss_size = sizeof stack}, old;
    printf("sigaltstack %d\n", sigaltstack(&s, NULL));
    storm(SA_ONSTACK);
    sigaltstack(NULL, &old);
    printf("kept %d\n", old.ss_sp == stack && old.ss_size == sizeof stack);
}

/* Many short calls under a storm, two threads: signals meet every instruction of entry and exit. */
static void *short_calls(void *index)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[(uintptr_t)index], .user_handler = (uint64_t)user_handler};
    struct call c = {0};
    uintptr_t good = 0;
    handler_skip = 0;
    for (uint64_t i = 0; i < 30000; i++) {
        c.in = i;
        run.user_handler = 0;
        int r = call(F_ADD, &c, 2, &run);
        good += r == 0 && run.function == 4 && c.out == i + 1;
    }
    return (void *)good;
}
static void s_storm_calls(void)
{
    struct sigaction a = {.sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_RESTART};
    pthread_t t;
    void *good;
    sigaction(SIGALRM, &a, NULL);
    alarm_every(100);
    pthread_create(&t, NULL, short_calls, (void *)1);
    uintptr_t mine = (uintptr_t)short_calls(NULL);
    pthread_join(t, &good);
    alarm_every(0);
    printf("good %llu %llu alarms %d\n", U(mine), U((uintptr_t)good), alarms > 100);
}

/* A host handler that enters the interrupted enclave on the next SSA frame, as runtimes do. */
static int nested_result;
static struct call nested_call;
static void on_nested(int n)
{
    (void)n;
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    int r = call(0, &nested_call, 2, &run);
    if (r == 0 && run.function == 4)
        nested_result++;
}
static void s_nested(void)
{
    struct sigaction a = {.sa_handler = on_nested};
    struct sgx_enclave_run run = {0};
    struct call c = {0};
    sigaction(SIGALRM, &a, NULL);
    int r = long_work(2000, &c, &run);
    printf("ret %d function %u out %llu nested %d exitinfo %llu\n", r, run.function, U(c.out), nested_result > 3,
           U(nested_call.exitinfo));
}

static void *meet(void *index)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[(uintptr_t)index]};
    struct call c = {.in = (uint64_t)l.tcs_count};
    int r = call(F_MEET, &c, 2, &run);
    return (void *)(uintptr_t)(r == 0 && run.function == 4 && c.out == (uint64_t)l.tcs_count);
}
static void s_threads(void)
{
    pthread_t t[LOAD_TCS_MAX];
    uintptr_t good = 0;
    for (int round = 0; round < 1; round++)
        for (int i = 0; i < l.tcs_count; i++)
            pthread_create(&t[i], NULL, meet, (void *)(uintptr_t)i);
    for (int i = 0; i < l.tcs_count; i++) {
        void *ok;
        pthread_join(t[i], &ok);
        good += (uintptr_t)ok;
    }
    printf("met %llu of %d\n", U(good), l.tcs_count);
}

static void *one_call(void *index)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[(uintptr_t)index]};
    struct call c = {.in = 1};
    int r = call(F_ADD, &c, 2, &run);
    return (void *)(uintptr_t)(r == 0 && c.out == 2);
}
/* Threads come and go: their slots are used again. */
static void s_many(void)
{
    uintptr_t good = 0;
    for (int i = 0; i < 3000; i++) {
        pthread_t t;
        void *ok;
        pthread_create(&t, NULL, one_call, (void *)(uintptr_t)(i % l.tcs_count));
        pthread_join(t, &ok);
        good += (uintptr_t)ok;
    }
    printf("good %llu\n", U(good));
}

/* The same TCS twice at once; a TCS that is none; a resume of what was never left. */
static void *busy_inside(void *c)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    call(F_MEET, c, 2, &run);
    return NULL;
}
static void s_busy(void)
{
    pthread_t t;
    struct call c = {.in = 2}, mine = {.in = 2};
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    pthread_create(&t, NULL, busy_inside, &c);
    usleep(200000);
    show("busy", call(F_ADD, &mine, 2, &run), &run);
    run.tcs = l.tcs[1];
    show("second", call(F_MEET, &mine, 2, &run), &run);
    pthread_join(t, NULL);
    show("idle resume", call(F_ADD, &mine, 3, &run), &run);
    run.tcs = l.tcs[0] + 8;
    show("unaligned", call(F_ADD, &mine, 2, &run), &run);
    run.tcs = l.tcs[0] + 4096;
    show("not a TCS", call(F_ADD, &mine, 2, &run), &run);
    run.tcs = 0x7f0000000000;
    show("no enclave", call(F_ADD, &mine, 2, &run), &run);
}

/* Two unresumed faults use up... three SSA frames: entries until CSSA reaches NSSA. */
static void s_nssa(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {.in = FAULT_UD};
    for (int i = 0; i < 4; i++) {
        int r = call(i ? 2 : F_FAULT, i ? NULL : &c, 2, &run); /* with CSSA > 0 and a null call the handler faults */
        show("entry", r, &run);
    }
}

/* EENTER by our own instruction, without the vDSO: faults are signals, AEP is ours. */
static volatile int raw_signal, raw_rax, raw_at_aep;
static void on_raw(int n, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)info;
    raw_signal = n;
    raw_rax = (int)uc->uc_mcontext.gregs[REG_RAX];
    raw_at_aep = uc->uc_mcontext.gregs[REG_RIP] == uc->uc_mcontext.gregs[REG_RCX];
    uc->uc_mcontext.gregs[REG_RIP] += 3; /* step over the ENCLU at the AEP */
}
static void raw(uint64_t function, struct call *c, uint64_t tcs)
{
    uint64_t a = 2, b = tcs;
    __asm__ volatile("lea 1f(%%rip), %%rcx; 1: .byte 0x0f, 0x01, 0xd7"
                     : "+a"(a), "+b"(b), "+D"(function), "+S"(c)
                     :
                     : "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc");
}
static void s_raw(void)
{
    struct sigaction a = {.sa_sigaction = on_raw, .sa_flags = SA_SIGINFO};
    struct call c = {.in = 41}, f = {.in = argument};
    for (int n = 1; n < 32; n++)
        if (n == SIGILL || n == SIGSEGV || n == SIGFPE || n == SIGTRAP)
            sigaction(n, &a, NULL);
    raw(F_ADD, &c, l.tcs[0]);
    printf("out %llu signal %d\n", U(c.out), raw_signal);
    raw(F_FAULT, &f, l.tcs[0]);
    printf("fault signal %d rax %d at AEP %d\n", raw_signal, raw_rax, raw_at_aep);
    raw_signal = 0;
    raw(F_ADD, &c, 0x123);
    printf("bad TCS signal %d\n", raw_signal);
}

static void hex(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        printf("%02x", p[i]);
    printf("\n");
}

static void s_report(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {0};
    memcpy(c.data, "report data of the test", 24);
    if (argument && fread(c.data, 1, 64 + 512, stdin) != 64 + 512) /* report data and TARGETINFO from the test */
        return;
    int r = call(F_REPORT, &c, 2, &run);
    printf("ret %d function %u vector %u\n", r, run.function, run.exception_vector);
    hex(c.data, 432);
}

static void s_key(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    for (int i = 0; i < 3; i++) {
        struct call c = {0};
        struct sgx_keyrequest q = {.keyname = i == 2 ? 99 : 4 /* seal */, .keypolicy = 2 /* MRSIGNER */, .attributemask = 3};
        if (argument) { /* KEYPOLICY, and a CONFIGSVN that rises */
            q.keyname = 4;
            q.keypolicy = (uint16_t)argument;
            q.configsvn = (uint16_t)(i + 1);
        }
        memcpy(c.data, &q, sizeof q);
        int r = call(F_KEY, &c, 2, &run);
        printf("ret %d function %u status %llu ", r, run.function, U(c.out));
        hex(c.data, 16);
    }
}

static void s_bases(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[1]};
    struct call c = {0};
    pthread_t self = pthread_self();
    call(F_BASES, &c, 2, &run);
    printf("fs %d gs %d host %d\n", c.fsbase == l.tcs[1] + 4 * PAGE, c.gsbase == l.tcs[1] + 4 * PAGE, self == pthread_self());
}

/* mmap and mprotect never give more than SECINFO; a private mapping is refused. */
static void s_permissions(void)
{
    void *p = mmap((void *)0x10000, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, l.fd, 0);
    printf("write to text %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    printf("mprotect text %s\n", mprotect((void *)0x10000, PAGE, PROT_READ | PROT_WRITE) ? strerrorname_np(errno) : "done");
    printf("mprotect less %s\n", mprotect((void *)0x10000, PAGE, PROT_READ) ? strerrorname_np(errno) : "done");
    printf("mprotect back %s\n", mprotect((void *)0x10000, PAGE, PROT_READ | PROT_EXEC) ? strerrorname_np(errno) : "done");
    p = mmap((void *)0x10000, PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, l.fd, 0);
    printf("private %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    p = mmap((void *)(SGX_PAGE_SIZE << 17), PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, l.fd, 0);
    printf("beyond %s\n", p == MAP_FAILED ? strerrorname_np(errno) : "mapped");
    s_call();
}

/* A child has no enclave; its parent's goes on. */
static void s_fork(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {.in = 1};
    call(F_ADD, &c, 2, &run);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        struct call d = {.in = 1};
        show("child", call(F_ADD, &d, 2, &run), &run);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    s_call();
}

/* Host signal calls are as without the library. */
static void on_count(int n) { (void)n; alarms++; }
static void s_signals(void)
{
    struct sigaction a = {.sa_handler = on_count, .sa_flags = SA_RESETHAND}, old;
    sigset_t set, was;
    sigaction(SIGSEGV, &a, NULL);
    sigaction(SIGSEGV, NULL, &old);
    printf("action %d\n", old.sa_handler == on_count);
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigprocmask(SIG_SETMASK, NULL, &was);
    printf("blocked %d %d\n", sigismember(&was, SIGSEGV), sigismember(&was, SIGUSR1));
    raise(SIGSEGV);
    printf("pending %d\n", alarms == 0);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    printf("delivered %d\n", alarms == 1);
    sigaction(SIGSEGV, NULL, &old);
    printf("reset %d\n", old.sa_handler == SIG_DFL);
    s_call();
    fflush(stdout);
    if (argument)
        __asm__ volatile("movb $1, 16" : : : "memory");
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static void s_bench(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {0};
    double start = seconds();
    int n = 20000;
    for (int i = 0; i < n; i++)
        call(F_NOTHING, &c, 2, &run);
    printf("round trip %.2f us\n", (seconds() - start) / n * 1e6);
}

/* A write by untrusted code into the idle enclave; then entries. */
static void s_tamper(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {0}, d = {0};
    call(F_POKE, &c, 2, &run);
    printf("read %#llx\n", U(*(volatile uint64_t *)c.out));
    call(F_SUM, &d, 2, &run);
    printf("inside %#llx\n", U(d.out));
    if (argument)
        *(volatile uint64_t *)c.out = 0xbad;
    d.out = 0;
    show("entry", call(F_SUM, &d, 2, &run), &run);
    printf("inside %#llx\n", U(d.out));
}

/* Enclaves that come and go in one process: unmapped and closed, their pages are free again. */
static void *image_sgxs, *image_sig;
static size_t image_size;
static volatile int entering; /* a thread that enters all the time, and how often it did */
static volatile uint64_t entered;
static void s_again(void)
{
    struct call c;
    int good = 0;
    for (int i = 0; i < (entering ? 150 : 300); i++) {
        const char *step;
        munmap((void *)0x10000, l.size - 0x10000);
        close(l.fd);
        memset(&l, 0, sizeof l);
        int r = load(&l, image_sgxs, image_size, image_sig, &step);
        if (r) {
            printf("%d %s: %s\n", i, step, strerrorname_np(-r));
            return;
        }
        struct sgx_enclave_run run = {.tcs = l.tcs[0]};
        c = (struct call){.in = (uint64_t)i};
        r = call(F_ADD, &c, 2, &run);
        good += r == 0 && run.function == 4 && c.out == (uint64_t)i + 1;
        for (uint64_t before = entered, n = 0; entering && entered == before && n < 100000; n++)
            sched_yield();
    }
    munmap((void *)0x10000, l.size - 0x10000);
    close(l.fd);
    l.fd = open("/dev/sgx_enclave", O_RDWR);
    printf("good %d\n", good);
    fflush(stdout);
}

/* The same under the hands of a thread that enters all the time: what it meets is an enclave, or none. */
static void *enter_always(void *nothing)
{
    while (entering) {
        struct sgx_enclave_run run = {.tcs = 0x100000 + 0x20000}; /* the second TCS of the image, at base 0 */
        struct call c = {.in = 7};
        int r = call(F_ADD, &c, 2, &run);
        if (r == 0 && run.function == 4 && c.out == 8)
            entered++;
    }
    return nothing;
}
static void s_entered(void)
{
    pthread_t t;
    entering = 1;
    pthread_create(&t, NULL, enter_always, NULL);
    s_again();
    entering = 0;
    pthread_join(t, NULL);
    printf("entered %d\n", entered > 100);
}

/* The provisioning attribute needs its device. */
static void s_provision(void)
{
    struct sgx_enclave_provision provision = {(uint64_t)open("/dev/sgx_provision", O_RDWR)};
    int fd = open("/dev/sgx_enclave", O_RDWR);
    printf("open %d ioctl %s\n", (int)provision.fd >= 0, ioctl(fd, SGX_IOC_ENCLAVE_PROVISION, &provision) ? strerrorname_np(errno) : "0");
}

/* What a debugger's ways in get of a data page, and whether they can change a text page. */
static void s_peek(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {0};
    uint64_t word = 0;
    call(F_POKE, &c, 2, &run);
    struct iovec here = {&word, 8}, there = {(void *)c.out, 8};
    ssize_t n = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
    printf("readv %s %#llx\n", n == 8 ? "read" : strerrorname_np(errno), U(word));
    word = 0;
    int fd = open("/proc/self/mem", O_RDWR);
    if (fd < 0) {
        printf("mem %s\n", strerrorname_np(errno));
        return;
    }
    n = pread(fd, &word, 8, (off_t)c.out);
    printf("mem %s %#llx\n", n == 8 ? "read" : strerrorname_np(errno), U(word));
    n = pwrite(fd, "\xcc", 1, 0x10000);
    printf("text %s\n", n == 1 ? "written" : strerrorname_np(errno));
}

/* Measured data between EINIT and the first entry: read and written by the host. The argument is its place. */
static void s_before(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {0};
    volatile uint64_t *word = (volatile uint64_t *)(l.base + argument);
    uint64_t seen = *word;
    *word = 0xbad;
    int r = call(F_SUM, &c, 2, &run);
    printf("seen %#llx ret %d function %u out %#llx\n", U(seen), r, run.function, U(c.out));
}

/* Changes of mappings that do not begin in the enclave, or by another name. The argument is a page with none of the enclave's before it. */
static void s_spans(void)
{
    uint8_t *text = (uint8_t *)(l.base + argument);
    mmap(text - PAGE, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("span %s\n", mprotect(text - PAGE, 2 * PAGE, 7) ? strerrorname_np(errno) : "0");
    printf("pkey %s\n", syscall(SYS_pkey_mprotect, text, PAGE, 7, -1) ? strerrorname_np(errno) : "0");
    printf("unaligned %s\n", syscall(SYS_munmap, text + 1, PAGE) ? strerrorname_np(errno) : "0");
    void *elsewhere = mmap(NULL, PAGE, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("mremap %s\n", mremap(elsewhere, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, text) == MAP_FAILED ? strerrorname_np(errno) : "0");
    s_call();
}

/* Single steps (TF) across a call: none in the enclave, whose entry is opted out of debugging, and on behind it. */
static volatile int steps_at_aep, steps_behind, stepping_inside;
static void on_step(int n, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)n, (void)info;
    steps_at_aep += uc->uc_mcontext.gregs[REG_RAX] == 3 && uc->uc_mcontext.gregs[REG_RBX] == (long)l.tcs[0];
    steps_behind += stepping_inside == 2;
}
static void s_step(void)
{
    struct sigaction a = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {.in = 41};
    sigaction(SIGTRAP, &a, NULL);
    call(F_ADD, &c, 2, &run); /* gives the thread its record: the next one enters by the plain call */
    for (int i = 0; i < 2; i++) {
        c.out = 0;
        stepping_inside = 1;
        __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq" : : : "memory", "cc");
        int r = call(F_ADD, &c, 2, &run);
        stepping_inside = 2;
        __asm__ volatile("nop; nop; pushfq; andl $~0x100, (%%rsp); popfq" : : : "memory", "cc");
        stepping_inside = 0;
        printf("ret %d function %u out %llu inside %d behind %d\n", r, run.function, U(c.out), steps_at_aep, steps_behind > 2);
    }
    c.in = FAULT_TF;
    int r = call(F_FAULT, &c, 2, &run); /* set inside, by POPF */
    printf("ret %d function %u inside %d\n", r, run.function, steps_at_aep);
}

/* The program's mapping loses W: a plain page fault inside; it gets it back: ERESUME goes on with the write. */
static void s_protect(void)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {0}, d = {0};
    call(F_POKE, &d, 2, &run);
    uint64_t page = d.out & ~(PAGE - 1), words[2] = {d.out, 0x1234};
    memcpy(c.data, words, sizeof words);
    printf("mprotect %s\n", mprotect((void *)page, PAGE, PROT_READ) ? strerrorname_np(errno) : "0");
    show("write", call(F_WRITE, &c, 2, &run), &run);
    printf("own page %d\n", run.exception_addr == page);
    printf("mprotect %s\n", mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE) ? strerrorname_np(errno) : "0");
    int r = call(F_WRITE, &c, 3, &run);
    printf("resumed: ret %d function %u\n", r, run.function);
    call(F_SUM, &d, 2, &run);
    printf("inside %#llx\n", U(d.out));
}

static void s_leave(void) { syscall(SYS_exit, 7); }

/* A forked child loads an enclave of its own, at the place of its parent's. */
static void s_child(void)
{
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        const char *failed;
        struct loaded own = {.xfrm = 7, .base = l.base};
        int r = load(&own, image_sgxs, image_size, image_sig, &failed);
        printf("child: %s\n", r ? strerrorname_np(-r) : "loaded");
        fflush(stdout);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    printf("status %d\n", status);
    s_call();
}

/* An enclave whose measured pages may still wait to be hashed: its descriptor, or -1. */
static int begun(uint64_t pages)
{
    _Alignas(4096) static uint8_t secs[PAGE], source[1024 * PAGE];
    _Alignas(64) static uint64_t secinfo[8] = {0x203}; /* REG, R and W */
    const uint64_t size = 1ull << 26, base = 1ull << 41, attributes = 4, xfrm = 3;
    const uint32_t frame = 1;
    memcpy(secs, &size, 8);
    memcpy(secs + 8, &base, 8);
    memcpy(secs + 16, &frame, 4);
    memcpy(secs + 48, &attributes, 8);
    memcpy(secs + 56, &xfrm, 8);
    struct sgx_enclave_create create = {(uint64_t)secs};
    struct sgx_enclave_add_pages add = {(uint64_t)source, 0, pages * PAGE, (uint64_t)secinfo, SGX_PAGE_MEASURE, 0};
    int fd = open("/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create) || ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add))
        return -1;
    return fd;
}

/*
 * Forks while measured pages of the parent's wait, last descriptors that are closed while they do: what is loaded meanwhile
 * and afterwards has the measurement that was signed, and a child gets no device and does not hang.
 */
static volatile int loading = 1;
static void *forks(void *count)
{
    int good = 0;
    for (int i = 0; loading || i < 10; i++, ++*(int *)count) {
        int status = -1;
        pid_t child = fork();
        if (!child) {
            alarm(20); /* it waits for a lock that nobody holds */
            _exit(begun(100) >= 0 || errno != ENODEV);
        }
        waitpid(child, &status, 0);
        good += !status;
    }
    return (void *)(uintptr_t)good;
}
static void s_waiting(void)
{
    int closed = 0, loaded = 0, count = 0;
    const char *failed;
    void *good;
    pthread_t t;
    pthread_create(&t, NULL, forks, &count);
    for (int i = 0; i < 6; i++) {
        struct loaded own = {.xfrm = 7, .base = l.base + (l.size << 1)};
        int fd = begun(1024);
        closed += fd >= 0 && !close(fd);
        loaded += !load(&own, image_sgxs, image_size, image_sig, &failed);
        munmap((void *)own.base, own.size);
        close(own.fd);
    }
    loading = 0;
    pthread_join(t, &good);
    printf("closed %d loaded %d children %d\n", closed, loaded, count >= 10 && (int)(uintptr_t)good == count);
    s_call();
}

static const struct { const char *name; void (*run)(void); } scenarios[] = {
    {"waiting", s_waiting},
    {"before", s_before}, {"spans", s_spans}, {"child", s_child}, {"leave", s_leave}, {"step", s_step}, {"protect", s_protect},
    {"call", s_call}, {"invalid", s_invalid}, {"registers", s_registers}, {"fault", s_fault}, {"resume", s_resume},
    {"storm", s_storm}, {"storm-altstack", s_storm_altstack}, {"storm-calls", s_storm_calls}, {"nested", s_nested}, {"threads", s_threads}, {"many", s_many},
    {"busy", s_busy}, {"nssa", s_nssa}, {"raw", s_raw}, {"report", s_report}, {"key", s_key}, {"bases", s_bases},
    {"permissions", s_permissions}, {"fork", s_fork}, {"signals", s_signals}, {"bench", s_bench},
    {"tamper", s_tamper}, {"peek", s_peek}, {"again", s_again}, {"entered", s_entered},
    {"provision", s_provision},
};

int main(int argc, char **argv)
{
    const char *step;
    size_t size, sig_size;
    if (argc < 4)
        return 2;
    void *sgxs = read_file(argv[2], &size), *sig = read_file(argv[3], &sig_size);
    enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter)
        return 2;
    image_sgxs = sgxs, image_sig = sig, image_size = size;
    argument = argc > 4 ? strtoull(argv[4], NULL, 0) : 0;
    l.xfrm = 7;
    l.misc = argc > 5;
    l.attributes = getenv("ENCLAVE_DEBUG") ? 2 : getenv("ENCLAVE_KSS") ? 0x80 : 0;
    if (getenv("ENCLAVE_CONFIG")) { /* CONFIGID of sevens, CONFIGSVN 2 */
        memset(l.config, 7, 64);
        l.config[64] = 2;
    }
    int r = load(&l, sgxs, size, sig, &step);
    if (r)
        return printf("%s: %s\n", step, strerrorname_np(-r)), 1;
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        if (!strcmp(scenarios[i].name, argv[1]))
            return scenarios[i].run(), 0;
    return 2;
}
