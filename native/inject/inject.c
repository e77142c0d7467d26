/*
 * strongroom-inject: runs a program with the machine library in it. The program keeps this process's number:
 * a forked tracer waits for its exec, maps the library at its fixed address, points AT_SYSINFO_EHDR at the
 * library's vDSO, runs the library's start and lets go. Static and dynamic programs alike.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "wire.h"

static pid_t tracee;

static _Noreturn void fail(const char *what)
{
    int error = errno;
    dprintf(2, "strongroom-inject: %s%s%s\n", what, error ? ": " : "", error ? strerror(error) : "");
    if (tracee)
        kill(tracee, SIGKILL);
    _exit(125);
}

static void usage(void)
{
    dprintf(2, "usage: strongroom-inject --rpc-fd N --epc-fd M [--level faithful|separated|sealed] [--sgx2] "
               "[--tamper=disable] [--warm DATA:EXECUTABLE] [--no-secretmem] [--no-shani] [--no-fsgsbase] [--debug] -- PROGRAM [ARGUMENT...]\n");
    _exit(125);
}

/* ---- the tracee ---- */

static void wait_stop(const char *what)
{
    int status;
    while (waitpid(tracee, &status, __WALL) < 0)
        if (errno != EINTR)
            fail(what);
    if (!WIFSTOPPED(status)) {
        errno = 0;
        tracee = 0;
        fail(what);
    }
}

static struct user_regs_struct registers(void)
{
    struct user_regs_struct r;
    if (ptrace(PTRACE_GETREGS, tracee, 0, &r))
        fail("reading the program's registers");
    return r;
}

static void tracee_read(uint64_t at, void *to, size_t size)
{
    struct iovec local = {to, size}, remote = {(void *)at, size};
    if (process_vm_readv(tracee, &local, 1, &remote, 1, 0) != (ssize_t)size)
        fail("reading the program's memory");
}

static void tracee_write(uint64_t at, const void *from, size_t size)
{
    struct iovec local = {(void *)from, size}, remote = {(void *)at, size};
    if (process_vm_writev(tracee, &local, 1, &remote, 1, 0) != (ssize_t)size)
        fail("writing the program's memory");
}

/* One system call in the tracee, by a `syscall` instruction that stands at its RIP for the moment. */
static uint64_t tracee_call(struct user_regs_struct base, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    base.rax = (uint64_t)number;
    base.orig_rax = -1ull;
    base.rdi = a, base.rsi = b, base.rdx = c, base.r10 = d, base.r8 = -1ull, base.r9 = 0;
    if (ptrace(PTRACE_SETREGS, tracee, 0, &base) || ptrace(PTRACE_SINGLESTEP, tracee, 0, 0))
        fail("running a call in the program");
    wait_stop("the program ended during injection");
    uint64_t ret = registers().rax;
    if (ret >= -4095ull) {
        errno = (int)-(int64_t)ret;
        fail("mapping the machine library into the program");
    }
    return ret;
}

static void map_library(struct user_regs_struct base, const uint8_t *file, size_t size)
{
    const Elf64_Ehdr *ehdr = (const void *)file;
    if (size < sizeof *ehdr || memcmp(ehdr->e_ident, ELFMAG, SELFMAG) || ehdr->e_phoff + ehdr->e_phnum * sizeof(Elf64_Phdr) > size) {
        errno = ENOEXEC;
        fail("libstrongroom-processor.elf");
    }
    const Elf64_Phdr *phdr = (const void *)(file + ehdr->e_phoff);
    for (int i = 0; i < ehdr->e_phnum; i++) {
        if (phdr[i].p_type != PT_LOAD || !phdr[i].p_memsz)
            continue;
        uint64_t start = phdr[i].p_vaddr & ~4095ull, end = (phdr[i].p_vaddr + phdr[i].p_memsz + 4095) & ~4095ull;
        if (start < LIBRARY_BASE || phdr[i].p_offset + phdr[i].p_filesz > size) {
            errno = ENOEXEC;
            fail("libstrongroom-processor.elf");
        }
        tracee_call(base, SYS_mmap, start, end - start, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE);
        if (phdr[i].p_filesz)
            tracee_write(phdr[i].p_vaddr, file + phdr[i].p_offset, phdr[i].p_filesz);
        if (!(phdr[i].p_flags & PF_W))
            tracee_call(base, SYS_mprotect, start, end - start, PROT_READ | (phdr[i].p_flags & PF_X ? PROT_EXEC : 0), 0);
    }
}

/* Address of the auxiliary vector's entry of `type` on the new program's stack; 0 when there is none. */
static uint64_t find_auxv(uint64_t sp, uint64_t type, uint64_t *value)
{
    uint64_t word, pair[2];
    tracee_read(sp, &word, 8); /* argc */
    sp += 8 * (word + 2);
    do {
        tracee_read(sp, &word, 8);
        sp += 8;
    } while (word);
    for (;; sp += 16) {
        tracee_read(sp, pair, 16);
        if (pair[0] == AT_NULL)
            return 0;
        if (pair[0] == type) {
            *value = pair[1];
            return sp + 8;
        }
    }
}

static void inject(struct inject_block block, const char *library, uint64_t vdso)
{
    int fd = open(library, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        fail(library);
    const uint8_t *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED)
        fail(library);
    struct user_regs_struct start = registers();
    uint64_t code, patched, at, value;

    errno = 0;
    code = (uint64_t)ptrace(PTRACE_PEEKTEXT, tracee, start.rip, 0);
    if (errno)
        fail("reading the program's first instruction");
    patched = (code & ~0xffffull) | 0x050f; /* syscall */
    if (ptrace(PTRACE_POKETEXT, tracee, start.rip, patched))
        fail("writing the program's first instruction");
    map_library(start, file, (size_t)st.st_size);
    if (ptrace(PTRACE_POKETEXT, tracee, start.rip, code))
        fail("restoring the program's first instruction");

    at = find_auxv(start.rsp, AT_SYSINFO_EHDR, &value);
    if (at) {
        block.kernel_vdso = value;
        tracee_write(at, &vdso, 8);
    }
    struct user_regs_struct run = start;
    run.rsp = ((start.rsp - 4096 - sizeof block) & ~63ull);
    run.rdi = run.rsp;
    tracee_write(run.rsp, &block, sizeof block);
    run.rip = ((const Elf64_Ehdr *)file)->e_entry;
    run.orig_rax = -1ull;
    if (ptrace(PTRACE_SETREGS, tracee, 0, &run) || ptrace(PTRACE_CONT, tracee, 0, 0))
        fail("starting the machine library");
    int status;
    while (waitpid(tracee, &status, __WALL) < 0 && errno == EINTR)
        ;
    if (!WIFSTOPPED(status)) /* the library has said why */
        _exit(125);
    if (WSTOPSIG(status) != SIGTRAP) {
        errno = 0;
        fail("the machine library did not start");
    }
    if (ptrace(PTRACE_SETREGS, tracee, 0, &start) || ptrace(PTRACE_DETACH, tracee, 0, 0))
        fail("letting the program go");
}

/* Address of the symbol vdso_image, from the library's symbol table. */
static uint64_t find_vdso(const char *library)
{
    int fd = open(library, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        fail(library);
    const uint8_t *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    const Elf64_Ehdr *ehdr = (const void *)file;
    close(fd);
    const Elf64_Phdr *phdr = (const void *)(file + ehdr->e_phoff);
    for (int i = 0; i < ehdr->e_phnum; i++) /* the second segment is the vDSO (library.lds) */
        if (phdr[i].p_type == PT_LOAD && i == 1)
            return phdr[i].p_vaddr;
    errno = ENOEXEC;
    fail(library);
}

/* In the tracer: from the attached program's exec to its release. */
static void trace(struct inject_block block, const char *library)
{
    int status;
    uint64_t vdso = find_vdso(library);
    for (;;) {
        if (waitpid(tracee, &status, __WALL) < 0) {
            if (errno == EINTR)
                continue;
            _exit(0);
        }
        if (!WIFSTOPPED(status)) /* exec failed, its line is printed */
            _exit(0);
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8))
            break;
        ptrace(PTRACE_CONT, tracee, 0, WSTOPSIG(status) == SIGSTOP ? 0 : WSTOPSIG(status));
    }
    /* The call's own end comes after this stop and would overwrite what is injected before it. */
    if (ptrace(PTRACE_SYSCALL, tracee, 0, 0))
        fail("waiting for the program");
    wait_stop("the program ended before its first instruction");
    inject(block, library, vdso);
    _exit(0);
}

static int number_of(const char *text)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (*end || end == text || n < 0 || n > INT_MAX || fcntl((int)n, F_GETFD) < 0) {
        errno = EBADF;
        fail("--rpc-fd and --epc-fd take open descriptors");
    }
    return (int)n;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rpc-fd", 1, 0, 'r'}, {"epc-fd", 1, 0, 'e'}, {"level", 1, 0, 'l'}, {"sgx2", 0, 0, '2'}, {"tamper", 1, 0, 't'},
        {"debug", 0, 0, 'd'}, {"no-secretmem", 0, 0, 's'}, {"no-shani", 0, 0, 'h'}, {"no-fsgsbase", 0, 0, 'f'},
        {"library", 1, 0, 'L'}, {"warm", 1, 0, 'w'}, {0, 0, 0, 0}};
    static const char *const levels[] = {"faithful", "separated", "sealed"};
    struct inject_block block = {.magic = INJECT_MAGIC, .rpc_fd = -1, .epc_fd = -1, .hwcap2 = getauxval(AT_HWCAP2)};
    static char library[PATH_MAX];
    int c, gate[2];

    ssize_t n = readlink("/proc/self/exe", library, sizeof library - 64);
    if (n < 0)
        fail("/proc/self/exe");
    library[n] = 0;
    strcpy(strrchr(library, '/') + 1, "libstrongroom-processor.elf");
    while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        switch (c) {
        case 'r': block.rpc_fd = number_of(optarg); break;
        case 'e': block.epc_fd = number_of(optarg); break;
        case '2': block.flags |= INJECT_SGX2; break;
        case 'd': block.flags |= INJECT_DEBUG; break;
        case 's': block.flags |= INJECT_NO_SECRETMEM; break;
        case 'h': block.flags |= INJECT_NO_SHANI; break;
        case 'f': block.flags |= INJECT_NO_FSGSBASE; break;
        case 't':
            if (strcmp(optarg, "disable"))
                usage();
            block.flags |= INJECT_TAMPER_DISABLE;
            break;
        case 'l':
            for (block.level = 0; block.level < 3 && strcmp(optarg, levels[block.level]); block.level++)
                ;
            if (block.level == 3)
                usage();
            break;
        case 'L':
            if (strlen(optarg) >= sizeof library)
                usage();
            strcpy(library, optarg);
            break;
        case 'w': { /* DATA:EXECUTABLE, pages to touch ahead */
            char *end;
            unsigned long data = strtoul(optarg, &end, 10), executable = *end == ':' ? strtoul(end + 1, &end, 10) : 0;
            if (*end || data > 0xffff * 16ul || executable > 0xffff * 16ul)
                usage();
            block.warm = (uint32_t)((data + 15) / 16 | (executable + 15) / 16 << 16);
            break;
        }
        default: usage();
        }
    }
    if (optind >= argc || block.rpc_fd < 0 || block.epc_fd < 0)
        usage();
    fcntl(block.rpc_fd, F_SETFD, 0);
    fcntl(block.epc_fd, F_SETFD, 0);
    if (pipe2(gate, O_CLOEXEC))
        fail("pipe");
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* where Yama lets only ancestors trace; the exec ends it */
    pid_t self = getpid(), child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        if (fork()) /* the tracer is nobody's child that the program could wait for */
            _exit(0);
        tracee = self;
        close(gate[0]);
        close(block.rpc_fd);
        close(block.epc_fd);
        if (ptrace(PTRACE_SEIZE, self, 0, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)) {
            tracee = 0;
            fail("ptrace is refused here (kernel.yama.ptrace_scope, or a container's profile)");
        }
        if (write(gate[1], "g", 1) != 1)
            _exit(125);
        close(gate[1]);
        trace(block, library);
    }
    close(gate[1]);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    char go;
    if (read(gate[0], &go, 1) != 1)
        _exit(125);
    execvp(argv[optind], argv + optind);
    fail(argv[optind]);
}
