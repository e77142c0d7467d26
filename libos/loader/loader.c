/*
 * strongroom-loader: the untrusted half. Builds the enclave by Linux's SGX interface (image.c), enters it by the vDSO,
 * makes the system calls that the LibOS asks for. Knows nothing of the machine under it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loader.h"

#define LEAF_EENTER 2
#define LEAF_ERESUME 3
#define LEAF_EEXIT 4
#define EVENT_CODE 4
#ifndef LOADER_BEFORE_START
#define LOADER_BEFORE_START(info) /* attacks/liar.c is this loader with lies in it */
#endif

struct worker g_worker[THREADS_MAX];
uint32_t g_workers;
static uint64_t g_pending;
static vdso_sgx_enter_enclave_t g_enter;
static _Thread_local struct worker *t_worker;

/* ---- calls out ---- */
/* A system call that a signal cannot slip past: the handler moves RIP from before the instruction to the label after. */
long loader_syscall(uint64_t nr, const uint64_t *arg, const uint64_t *pending);
__asm__(".text\n"
        ".globl loader_syscall, loader_syscall_begin, loader_syscall_end, loader_syscall_interrupted\n"
        "loader_syscall:\n"
        " push %rbx\n mov %rdi, %rax\n mov %rsi, %rbx\n mov %rdx, %rcx\n"
        " mov (%rbx), %rdi\n mov 8(%rbx), %rsi\n mov 16(%rbx), %rdx\n mov 24(%rbx), %r10\n mov 32(%rbx), %r8\n mov 40(%rbx), %r9\n"
        "loader_syscall_begin:\n"
        " cmpq $0, (%rcx)\n jne loader_syscall_interrupted\n"
        " syscall\n"
        "loader_syscall_end:\n"
        " pop %rbx\n ret\n"
        "loader_syscall_interrupted:\n"
        " mov $-4, %rax\n pop %rbx\n ret\n");
extern char loader_syscall_begin[], loader_syscall_end[], loader_syscall_interrupted[];
static const uint64_t g_never = 0;

static bool may_wait(uint64_t nr)
{
    switch (nr) {
    case SYS_write: case SYS_exit_group: case SYS_sched_yield: case SYS_clock_gettime:
        return false;
    }
    return true;
}

static void *worker_run(void *argument);

static void *zero_on_park(struct worker *w, struct ocall_block *b)
{
    struct pollfd *fds = (struct pollfd *)b->data;
    uint64_t count = b->arg[1] > 8190 ? 8190 : b->arg[1];
    int64_t ns = (int64_t)b->arg[0];
    struct timespec ts = {ns / 1000000000, ns % 1000000000};
    uint64_t word;
    fds[count] = (struct pollfd){w->event, POLLIN, 0};
    uint64_t args[6] = {(uint64_t)fds, count + 1, ns < 0 ? 0 : (uint64_t)&ts, 0, 8, 0};
    long ret = loader_syscall(SYS_ppoll, args, &g_pending);
    if (ret > 0 && fds[count].revents) {
        (void)!read(w->event, &word, 8);
        ret--;
    }
    b->ret = ret;
    return NULL;
}

static void serve(struct worker *w, struct ocall_block *b)
{
    uint64_t one = 1;
    switch (b->op) {
    case OCALL_SYSCALL:
        if (b->number == SYS_close) /* the LibOS asks once: a signal may not come before the instruction */
            b->ret = close((int)b->arg[0]) ? -errno : 0;
        else
            b->ret = loader_syscall(b->number, b->arg, may_wait(b->number) && w == g_worker ? &g_pending : &g_never);
        break;
    case OCALL_PARK:
        zero_on_park(w, b);
        break;
    case OCALL_UNPARK:
        b->ret = b->arg[0] < g_workers ? write(g_worker[b->arg[0]].event, &one, 8) : -EINVAL;
        break;
    case OCALL_KICK:
        if (b->arg[0] < g_workers && g_worker[b->arg[0]].tid)
            syscall(SYS_tgkill, getpid(), g_worker[b->arg[0]].tid, SIGURG);
        b->ret = 0;
        break;
    case OCALL_TRIM:
    case OCALL_REMOVE:
        b->ret = pages_go(b->op == OCALL_TRIM, b->arg[0], b->arg[1]);
        break;
    case OCALL_THREAD: {
        pthread_t thread;
        pthread_attr_t attr;
        if (b->arg[0] == 0 || b->arg[0] >= g_workers) {
            b->ret = -EAGAIN;
            break;
        }
        pthread_attr_init(&attr);
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        pthread_attr_setstacksize(&attr, 256 << 10);
        b->ret = -pthread_create(&thread, &attr, worker_run, &g_worker[b->arg[0]]);
        break;
    }
    default:
        b->ret = -ENOSYS;
    }
}


static void fatal_inside(uint64_t status)
{
    uint64_t vector = status >> 8 & 0xff, rip = status >> 16;
    if ((status & 0xff) == 139)
        fprintf(stderr, "strongroom: segmentation fault inside the enclave\n");
    else
        fprintf(stderr, "strongroom: the LibOS stopped (exception %llu at %#llx)\n", (unsigned long long)vector,
                (unsigned long long)rip);
    _exit((int)(status & 0xff));
}

static uint64_t enter(struct worker *w, uint64_t code, uint64_t argument)
{
    unsigned leaf = LEAF_EENTER;
    uint64_t rdi = code, rsi = argument;
    w->run = (struct sgx_enclave_run){.tcs = w->tcs, .user_handler = 0};
    for (;;) {
        uint64_t out_rdi = rdi, out_rsi = rsi, out_rdx = 0;
        register uint64_t r8 __asm__("r8") = 0;
        register uint64_t r9 __asm__("r9") = 0;
        register uint64_t r10 __asm__("r10") = (uint64_t)&w->run;
        long ret;
        /* The vDSO keeps RBX, RBP, R12-R15 only as the enclave leaves them: all of them are clobbered here. */
        __asm__ volatile("push %%rbp\n push %%rbx\n push %%r12\n push %%r13\n push %%r14\n push %%r15\n"
                         "mov %%rsp, %%rbx\n and $-16, %%rsp\n push %%rbx\n push %%r10\n"
                         "call *%%rax\n"
                         "add $8, %%rsp\n pop %%rsp\n"
                         "pop %%r15\n pop %%r14\n pop %%r13\n pop %%r12\n pop %%rbx\n pop %%rbp\n"
                         : "=a"(ret), "+D"(out_rdi), "+S"(out_rsi), "+d"(out_rdx), "+c"(leaf), "+r"(r8), "+r"(r9), "+r"(r10)
                         : "0"(g_enter)
                         : "r11", "memory", "cc");
        if (ret)
            fail("entering the enclave: %s", strerror((int)-ret));
        if (w->run.function == LEAF_EEXIT)  {
            if (out_rdi == EEXIT_HANDLED) {
                w->event_inside = 0;
                if (w->event_again) { /* came meanwhile */
                    w->event_again = 0;
                    w->event_inside = 1;
                    leaf = LEAF_EENTER;
                    rdi = EVENT_CODE;
                } else {
                    leaf = LEAF_ERESUME;
                    rdi = 0;
                }
                rsi = 0;
                continue;
            }
            if (out_rdi == EEXIT_FATAL)
                fatal_inside(out_rsi);
            if (out_rdi == EEXIT_REFUSED)
                fail("the enclave refused an entry");
            struct ocall_block *b = (struct ocall_block *)out_rdi;
            if (b->op == OCALL_LEAVE)
                return 0;
            serve(w, b);
            leaf = LEAF_EENTER;
            rdi = ECALL_RETURN;
            rsi = 0;
            continue;
        }
        if (w->run.function == LEAF_EENTER) { /* the thread that had this TCS is just leaving */
            if (code == ECALL_THREAD && w->run.exception_vector == 13) {
                sched_yield();
                leaf = LEAF_EENTER;
                rdi = code, rsi = argument;
                continue;
            }
            fail("the enclave cannot be entered any more (exception %u)", w->run.exception_vector);
        }
        leaf = LEAF_EENTER; /* a fault inside: the LibOS looks at it */
        w->event_inside = 1;
        rdi = EVENT_CODE;
        rsi = 0;
    }
}

/*
 * A signal. Inside, the kernel has made an asynchronous exit: RIP is at the vDSO's ENCLU with ERESUME in RAX.
 * EENTER instead tells the LibOS at CSSA 1; it answers EEXIT_HANDLED, and ERESUME follows.
 */
static void on_signal(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *r = uc->uc_mcontext.gregs;
    (void)info;
    if (number != SIGURG && number != SIGTRAP) /* SIGTRAP: INT3 inside, which Linux's vDSO does not report */
        __atomic_fetch_or(&g_pending, 1ull << (number - 1), __ATOMIC_SEQ_CST);
    const uint8_t *rip = (const uint8_t *)r[REG_RIP];
    if (rip >= (uint8_t *)loader_syscall_begin && rip < (uint8_t *)loader_syscall_end)
        r[REG_RIP] = (greg_t)loader_syscall_interrupted;
    else if (t_worker && r[REG_RAX] == LEAF_ERESUME && (uint64_t)r[REG_RBX] == t_worker->tcs && (uint64_t)rip >= 1ull << 30 &&
             rip[0] == 0x0f && rip[1] == 0x01 && rip[2] == 0xd7 && !t_worker->event_inside) {
        t_worker->event_inside = 1;
        r[REG_RAX] = LEAF_EENTER;
        r[REG_RDI] = EVENT_CODE;
    } else if (t_worker) /* between two instructions of ours: looked at before the next ERESUME */
        t_worker->event_again = 1;
}

static void worker_start(struct worker *w)
{
    t_worker = w;
    w->tid = (pid_t)syscall(SYS_gettid);
}

static void *worker_run(void *argument)
{
    struct worker *w = argument;
    sigset_t set;
    sigfillset(&set); /* the host's signals are the first thread's; SIGURG is our own */
    sigdelset(&set, SIGURG);
    pthread_sigmask(SIG_SETMASK, &set, NULL);
    worker_start(w);
    enter(w, ECALL_THREAD, (uint64_t)w->block);
    return NULL;
}

int main(int argc, char **argv)
{
    static const char *const names[3] = {"enclave.sgxs", "enclave.sig", "files.pack"};
    struct options o = {.fd = {-1, -1, -1}, .quote = -1, .channel = -1};
    int *fd = o.fd;
    if (argc == 5 && !strcmp(argv[1], "--quote-fd") && !strcmp(argv[3], "--wait-fd")) {
        o.quote = number_of(argv[2]);
        options_await(&o, number_of(argv[4]));
    } else {
        options_parse(&o, argc - 1, argv + 1);
    }
    const char *directory = o.directory;
    step_done("started");
    if (!directory && (fd[0] < 0 || fd[1] < 0 || fd[2] < 0))
        fail("use: strongroom-loader [options] BUILD_DIR [-- ARGS]");
    uint64_t size[3];
    const uint8_t *file[3];
    for (int n = 0; n < 3; n++) {
        char path[4200];
        snprintf(path, sizeof path, "%s/%s", directory ? directory : ".", names[n]);
        if (fd[n] < 0)
            fd[n] = open(path, O_RDONLY | O_CLOEXEC);
        if (fd[n] < 0)
            fail("%s: %s; run strongroom build first", path, strerror(errno));
        file[n] = map_file(fd[n], path, &size[n]);
        close(fd[n]);
    }
    if (size[1] != 1808)
        fail("enclave.sig is %llu bytes, not 1808", (unsigned long long)size[1]);
    if (directory && chdir(directory) == 0) /* "allowed" mounts may be relative to the project */
        (void)!chdir("..");
    g_enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!g_enter)
        fail("no __vdso_sgx_enter_enclave: this process runs without SGX, start it with strongroom run");
    image_load(file[0], size[0], file[1]);
    munmap((void *)file[0], size[0]);
    if (!g_workers)
        fail("the image has no thread");
    for (uint32_t n = 0; n < g_workers; n++) {
        g_worker[n].block = mmap(NULL, (sizeof(struct ocall_block) + 4095) & ~4095ull, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        g_worker[n].event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (g_worker[n].block == MAP_FAILED || g_worker[n].event < 0)
            fail("no memory for thread %u", n);
    }
    uint64_t total = 1;
    for (int n = 0; n < o.rest_count; n++) total += strlen(o.rest[n]) + 1;
    for (int n = 0; n < o.env_count; n++) total += strlen(o.env[n]) + 1;
    char *strings = malloc(total), *to = strings;
    for (int n = 0; n < o.rest_count; n++) to = stpcpy(to, o.rest[n]) + 1;
    for (int n = 0; n < o.env_count; n++) to = stpcpy(to, o.env[n]) + 1;
    struct start_info info = {
        .magic = START_MAGIC, .block = (uint64_t)g_worker[0].block, .pack = (uint64_t)file[2], .pack_size = size[2],
        .signals = (uint64_t)&g_pending, .strings = (uint64_t)strings, .strings_size = (uint64_t)(to - strings),
        .argc = (uint32_t)o.rest_count, .envc = (uint32_t)o.env_count, .quote_fd = o.quote,
        .channel_fd = o.channel, .flags = o.trace ? START_TRACE : 0, .cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN),
    };
    struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    static const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGPROF, SIGQUIT, SIGWINCH,
                                SIGCONT, SIGURG, SIGTRAP};
    static char stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    sigfillset(&act.sa_mask);
    for (size_t n = 0; n < sizeof taken / sizeof *taken; n++)
        sigaction(taken[n], &act, NULL);
    signal(SIGPIPE, SIG_IGN);
    step_done("prepared");
    image_start(file[1]); /* as late as it can be: a processor may still be at work on the measurement */
    if (o.timing)
        steps_tell();
    LOADER_BEFORE_START(&info);
    worker_start(&g_worker[0]);
    enter(&g_worker[0], ECALL_START, (uint64_t)&info);
    for (;;) /* the first thread left, others go on */
        pause();
}
