/*
 * strongroom-loader: the untrusted half. Builds the enclave by Linux's SGX interface, enters it by the vDSO,
 * makes the system calls that the LibOS asks for. Knows nothing of the machine under it.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <asm/sgx.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "boot.h"
#include "ocall.h"

#define PAGE 4096ull
#define THREADS_MAX 1024
#define SGX_PAGE_TYPE_TRIM 4 /* SDM vol. 3D, "SECINFO.FLAGS.PT" */
#define LEAF_EENTER 2
#define LEAF_ERESUME 3
#define LEAF_EEXIT 4
#define EVENT_CODE 4
#ifndef LOADER_BEFORE_START
#define LOADER_BEFORE_START(info) /* attacks/liar.c is this loader with lies in it */
#endif

struct worker {
    uint64_t tcs;
    struct ocall_block *block;
    int event;
    _Atomic pid_t tid;
    volatile sig_atomic_t event_inside; /* the LibOS is at CSSA 1: another signal waits until it is out again */
    volatile sig_atomic_t event_again;
    struct sgx_enclave_run run;
};
static struct worker g_worker[THREADS_MAX];
static uint32_t g_workers;
static uint64_t g_pending;
static vdso_sgx_enter_enclave_t g_enter;
static bool g_debug;
static _Thread_local struct worker *t_worker;

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *f, ...)
{
    va_list list;
    fputs("strongroom-loader: ", stderr);
    va_start(list, f);
    vfprintf(stderr, f, list);
    va_end(list);
    fputc('\n', stderr);
    _exit(125);
}

/* ---- --timing: when each step was done, for the benchmarks ---- */
static struct { const char *name; uint64_t ns; } g_step[8];
static unsigned g_steps;

static void step_done(const char *name)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (g_steps < sizeof g_step / sizeof *g_step) {
        g_step[g_steps].name = name;
        g_step[g_steps++].ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    }
}

static void steps_tell(void)
{
    char line[512];
    int n = snprintf(line, sizeof line, "strongroom-loader: timing");
    for (unsigned i = 0; i < g_steps && n < (int)sizeof line; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, " %s=%llu", g_step[i].name, (unsigned long long)g_step[i].ns);
    fprintf(stderr, "%s\n", line);
}

/* ---- the image ---- */
static const uint8_t *map_file(int fd, const char *name, uint64_t *size)
{
    struct stat st;
    if (fstat(fd, &st))
        fail("%s: %s", name, strerror(errno));
    *size = (uint64_t)st.st_size;
    void *at = mmap(NULL, *size ? *size : 1, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED)
        fail("%s: %s", name, strerror(errno));
    return at;
}

static int g_device = -1;               /* kept where the heap grows and shrinks */
static struct { uint64_t base, size; int prot; } g_heap; /* SGX2: room for pages to come; from the boot information, size 0: none */

struct area { uint64_t start, end; int prot; };
static struct area *g_area;
static uint32_t g_areas;

static void area_add(uint64_t at, uint64_t size, int prot)
{
    if (g_areas && g_area[g_areas - 1].end == at && g_area[g_areas - 1].prot == prot) {
        g_area[g_areas - 1].end += size;
        return;
    }
    if (!(g_areas & (g_areas + 1)) || !g_area)
        g_area = realloc(g_area, (2 * g_areas + 2) * sizeof *g_area);
    if (!g_area)
        fail("no memory");
    g_area[g_areas++] = (struct area){at, at + size, prot};
}

static void add_pages(int device, const void *from, uint64_t at, uint64_t size, uint64_t flags, bool measure)
{
    struct { uint64_t flags; uint8_t zero[56]; } __attribute__((aligned(64))) secinfo = {flags, {0}};
    struct sgx_enclave_add_pages add = {
        (uint64_t)from, at, size, (uint64_t)&secinfo, measure ? SGX_PAGE_MEASURE : 0, 0,
    };
    while (add.length) {
        add.count = 0;
        int ret = ioctl(device, SGX_IOC_ENCLAVE_ADD_PAGES, &add);
        if (ret && errno != EINTR && errno != EAGAIN)
            fail("adding the enclave's pages at %#llx: %s%s", (unsigned long long)at, strerror(errno),
                 errno == ENOMEM ? " (the EPC is full, and nothing more can be evicted: see strongroom fit)" : "");
        if (!add.count && !ret)
            break;
        add.src += add.count;
        add.offset += add.count;
        add.length -= add.count;
    }
}

static uint64_t u64_at(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static uint32_t u32_at(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }

static uint64_t xcr0(void)
{
    uint32_t a = 1, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (!(c >> 27 & 1))
        return 3;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a | (uint64_t)d << 32;
}

#define BATCH (256 * PAGE)
#define ZEROS (1024 * PAGE)
static int image_load(const uint8_t *s, uint64_t size, const uint8_t *sig)
{
    int device = open("/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
    if (device < 0)
        device = open("/dev/sgx/enclave", O_RDWR | O_CLOEXEC);
    if (device < 0)
        fail("/dev/sgx_enclave: %s", strerror(errno));
    if (size < 64 || memcmp(s, "ECREATE", 8))
        fail("enclave.sgxs does not start with ECREATE");
    uint8_t *secs = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *batch = mmap(NULL, BATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (secs == MAP_FAILED || batch == MAP_FAILED)
        fail("no memory");
    uint32_t ssa_frame = u32_at(s + 8), misc = u32_at(sig + 900) | 1;
    uint64_t elrange = u64_at(s + 12), attributes = u64_at(sig + 928), xfrm = xcr0() & 0xe7, base = 0;
    memcpy(secs, &elrange, 8);
    memcpy(secs + 8, &base, 8);
    memcpy(secs + 16, &ssa_frame, 4);
    memcpy(secs + 20, &misc, 4);
    memcpy(secs + 48, &attributes, 8);
    memcpy(secs + 56, &xfrm, 8);
    g_debug = attributes & 2;
    struct sgx_enclave_create create = {(uint64_t)secs};
    if (ioctl(device, SGX_IOC_ENCLAVE_CREATE, &create)) {
        misc = u32_at(sig + 900); /* a processor without EXINFO */
        memcpy(secs + 20, &misc, 4);
        if (ioctl(device, SGX_IOC_ENCLAVE_CREATE, &create))
            fail("creating the enclave: %s", strerror(errno));
    }
    step_done("created");
    uint64_t at = 64;
    /* What unmeasured pages of zeros are added from, again and again: a page's first read costs a fault. */
    uint8_t *zero = mmap(NULL, ZEROS, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (zero == MAP_FAILED)
        fail("no memory");
    madvise(zero, ZEROS, MADV_HUGEPAGE);
    while (at < size) {
        if (at + 64 > size)
            fail("enclave.sgxs is damaged (it ends within a record): build it again");
        /* One run: pages that follow each other, with the same flags, all measured or none. */
        uint64_t start = 0, length = 0, flags = 0, measured = 0;
        while (at + 64 <= size && length < (measured || !length ? BATCH : ~0ull)) {
            if (memcmp(s + at, "EADD\0\0\0\0", 8))
                fail("enclave.sgxs is damaged (unknown record at %llu): build it again", (unsigned long long)at);
            uint64_t offset = u64_at(s + at + 8), page_flags = u64_at(s + at + 16), next = at + 64;
            bool has = next + 64 <= size && !memcmp(s + next, "EEXTEND", 8);
            bool data = next + 64 <= size && !memcmp(s + next, "UNMEASRD", 8);
            uint64_t kind = has ? 1 : data ? 2 : 0;
            if (length && (offset != start + length || page_flags != flags || kind != measured))
                break;
            if (!length)
                start = offset, flags = page_flags, measured = kind;
            if (kind) {
                uint8_t *page = batch + length;
                if (size - next < 16 * 320 || memcmp(s + next + 15 * 320, has ? "EEXTEND" : "UNMEASRD", 8))
                    memset(page, 0, PAGE); /* it does not have all its parts */
                while (next + 320 <= size && !memcmp(s + next, has ? "EEXTEND" : "UNMEASRD", 8)) {
                    uint64_t to = u64_at(s + next + 8) - offset;
                    if (to > PAGE - 256)
                        break;
                    memcpy(page + to, s + next + 64, 256);
                    next += 320;
                }
            }
            if ((flags >> 8 & 0xff) == 1 && g_workers < THREADS_MAX)
                g_worker[g_workers++].tcs = offset;
            at = next;
            length += PAGE;
        }
        if (measured && start <= BOOT_ADDRESS && BOOT_ADDRESS < start + length) {
            const struct boot_info *info = (const void *)(batch + (BOOT_ADDRESS - start));
            if (info->magic == BOOT_MAGIC && info->flags & BOOT_EDMM) {
                g_heap.base = info->heap_base;
                g_heap.size = info->heap_size;
                g_heap.prot = PROT_READ | PROT_WRITE | (info->late_size ? PROT_EXEC : 0);
            }
        }
        if (measured)
            add_pages(device, batch, start, length, flags, measured == 1);
        for (uint64_t done = 0, part; !measured && done < length; done += part) {
            part = length - done < ZEROS ? length - done : ZEROS;
            add_pages(device, zero, start + done, part, flags, false);
        }
        bool tcs = (flags >> 8 & 0xff) == 1;
        area_add(start, length, tcs ? PROT_READ | PROT_WRITE
                                    : (flags & 1 ? PROT_READ : 0) | (flags & 2 ? PROT_WRITE : 0) | (flags & 4 ? PROT_EXEC : 0));
    }
    if (g_heap.size)
        area_add(g_heap.base, g_heap.size, g_heap.prot);
    step_done("added");
    struct sgx_enclave_init init = {(uint64_t)sig};
    int ret = ioctl(device, SGX_IOC_ENCLAVE_INIT, &init);
    if (ret > 0 || (ret && errno == EPERM))
        fail("the enclave is refused, its pages or its signature are not those that were built: build it again");
    if (ret)
        fail("starting the enclave: %s", strerror(errno));
    step_done("initialised");
    for (uint32_t i = 0; i < g_areas; i++)
        if (mmap((void *)g_area[i].start, g_area[i].end - g_area[i].start, g_area[i].prot, MAP_SHARED | MAP_FIXED, device, 0) ==
            MAP_FAILED)
            fail("mapping the enclave at %#llx: %s", (unsigned long long)g_area[i].start, strerror(errno));
    step_done("mapped");
    munmap(zero, ZEROS);
    munmap(batch, BATCH);
    munmap(secs, PAGE);
    return device;
}

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
static _Thread_local volatile uint64_t t_kicked;

static bool may_wait(uint64_t nr)
{
    switch (nr) {
    case SYS_write: case SYS_close: case SYS_exit_group: case SYS_sched_yield: case SYS_clock_gettime:
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

/* Pages of the heap are trimmed, or those trimmed and accepted are removed (SGX2); how many bytes, as the kernel may stop short. */
static int64_t pages_go(bool trim, uint64_t offset, uint64_t size)
{
    uint64_t done = 0;
    int ret = 0;
    while (done < size && (!ret || errno == EAGAIN || errno == EINTR)) {
        struct sgx_enclave_modify_types types = {offset + done, size - done, SGX_PAGE_TYPE_TRIM, 0, 0};
        struct sgx_enclave_remove_pages pages = {offset + done, size - done, 0};
        ret = trim ? ioctl(g_device, SGX_IOC_ENCLAVE_MODIFY_TYPES, &types) : ioctl(g_device, SGX_IOC_ENCLAVE_REMOVE_PAGES, &pages);
        done += trim ? types.count : pages.count;
    }
    return (int64_t)done;
}

static void serve(struct worker *w, struct ocall_block *b)
{
    uint64_t one = 1;
    switch (b->op) {
    case OCALL_SYSCALL:
        t_kicked = 0;
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

static void *vdso_symbol(const char *name)
{
    const uint8_t *base = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
    if (!base)
        return NULL;
    const Elf64_Ehdr *eh = (const void *)base;
    const Elf64_Phdr *ph = (const void *)(base + eh->e_phoff);
    const Elf64_Dyn *dyn = NULL;
    uint64_t slide = 0;
    for (int i = 0; i < eh->e_phnum; i++) {
        if (ph[i].p_type == PT_LOAD && !slide)
            slide = (uint64_t)base + ph[i].p_offset - ph[i].p_vaddr;
        if (ph[i].p_type == PT_DYNAMIC)
            dyn = (const void *)(base + ph[i].p_offset);
    }
    const Elf64_Sym *symbols = NULL;
    const char *strings = NULL;
    const uint32_t *hash = NULL;
    for (; dyn && dyn->d_tag != DT_NULL; dyn++) {
        void *at = (void *)(slide + dyn->d_un.d_ptr);
        if (dyn->d_tag == DT_SYMTAB) symbols = at;
        if (dyn->d_tag == DT_STRTAB) strings = at;
        if (dyn->d_tag == DT_HASH) hash = at;
    }
    for (uint32_t i = 0; symbols && strings && hash && i < hash[1]; i++)
        if (!strcmp(strings + symbols[i].st_name, name) && symbols[i].st_shndx)
            return (void *)(slide + symbols[i].st_value);
    return NULL;
}

/* ---- what it is asked ---- */
struct options {
    int fd[3], quote, channel;
    const char *directory;
    const char **env;
    int env_count;
    char **rest; /* the program's arguments */
    int rest_count;
    bool trace, timing;
};

static int number_of(const char *text)
{
    char *end;
    long n = text ? strtol(text, &end, 10) : -1;
    if (n < 0 || n > 1 << 20 || *end)
        fail("expected a descriptor's number, got %s", text ? text : "nothing");
    return (int)n;
}

static void options_parse(struct options *o, int argc, char **argv)
{
    int i = 0;
    o->env = calloc((size_t)argc + 1, sizeof *o->env);
    if (!o->env)
        fail("no memory");
    for (; i < argc; i++) {
        const char *a = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(a, "--")) { i++; break; }
        if (!strcmp(a, "--fd-sgxs")) o->fd[0] = number_of(next), i++;
        else if (!strcmp(a, "--fd-sig")) o->fd[1] = number_of(next), i++;
        else if (!strcmp(a, "--fd-pack")) o->fd[2] = number_of(next), i++;
        else if (!strcmp(a, "--quote-fd")) o->quote = number_of(next), i++;
        else if (!strcmp(a, "--channel-fd")) o->channel = number_of(next), i++;
        else if (!strcmp(a, "--env") && next) o->env[o->env_count++] = next, i++;
        else if (!strcmp(a, "--trace")) o->trace = true;
        else if (!strcmp(a, "--timing")) o->timing = true;
        else if (a[0] == '-' && a[1]) fail("unknown option %s; use: strongroom-loader [options] BUILD_DIR [-- ARGS]", a);
        else if (!o->directory) o->directory = a;
        else break;
    }
    o->rest = argv + i;
    o->rest_count = argc - i;
}

/*
 * --wait-fd: all is ready but the image. Says so, and waits for one message: options and arguments, each ended by a NUL;
 * descriptors 0, 1, 2 and the image's three, then the channel's where there is one.
 */
static void options_await(struct options *o, int from)
{
    union { char room[CMSG_SPACE(7 * sizeof(int))]; struct cmsghdr align; } control;
    int fd[7];
    char probe;
    (void)!write(from, "r", 1);
    ssize_t size = recv(from, &probe, 1, MSG_PEEK | MSG_TRUNC);
    if (size <= 0)
        _exit(0); /* nobody needs us */
    char *words = malloc((size_t)size + 1), **argv = calloc((size_t)size + 1, sizeof *argv);
    if (!words || !argv)
        fail("no memory");
    struct iovec part = {words, (size_t)size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    if (recvmsg(from, &message, 0) != size || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        fail("the request is damaged");
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    size_t count = c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
    if (count != 6 && count != 7)
        fail("the request is damaged");
    memcpy(fd, CMSG_DATA(c), count * sizeof(int));
    for (int n = 0; n < 3; n++) {
        if (dup2(fd[n], n) < 0)
            fail("%s", strerror(errno));
        close(fd[n]);
        o->fd[n] = fd[n + 3];
    }
    o->channel = count == 7 ? fd[6] : -1;
    close(from);
    words[size] = 0;
    int argc = 0;
    for (char *at = words; at < words + size; at += strlen(at) + 1)
        argv[argc++] = at;
    options_parse(o, argc, argv);
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
    int device = image_load(file[0], size[0], file[1]);
    munmap((void *)file[0], size[0]);
    if (g_heap.size)
        g_device = device;
    else
        close(device);
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
    step_done("entering");
    if (o.timing)
        steps_tell();
    LOADER_BEFORE_START(&info);
    worker_start(&g_worker[0]);
    enter(&g_worker[0], ECALL_START, (uint64_t)&info);
    for (;;) /* the first thread left, others go on */
        pause();
}
