/* What is done to a stopped program: the library is mapped into it and run, and the program let go. */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tracee.h"

pid_t tracee;
bool tracee_kept;

_Noreturn void fail(const char *what)
{
    int error = errno;
    dprintf(2, "strongroom-inject: %s%s%s\n", what, error ? ": " : "", error ? strerror(error) : "");
    if (tracee)
        kill(tracee, SIGKILL);
    _exit(125);
}

int wait_stop(const char *what)
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
    return WSTOPSIG(status);
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

/* One system call in the tracee, by the `syscall` instruction at its RIP. */
static uint64_t tracee_call(struct user_regs_struct base, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    base.rax = (uint64_t)number;
    base.orig_rax = -1ull;
    base.rdi = a, base.rsi = b, base.rdx = c, base.r10 = d, base.r8 = -1ull, base.r9 = 0;
    if (ptrace(PTRACE_SETREGS, tracee, 0, &base) || ptrace(PTRACE_SINGLESTEP, tracee, 0, 0))
        fail("running a call in the program");
    int stop = wait_stop("the program ended during injection");
    errno = 0;
    if (stop != SIGTRAP)
        fail("a system call filter of the program's stops what the injection needs");
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
        tracee_call(base, SYS_mmap, start, end - start, PROT_READ | PROT_WRITE | (phdr[i].p_flags & PF_X ? PROT_EXEC : 0),
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE);
        if (phdr[i].p_filesz)
            tracee_write(phdr[i].p_vaddr, file + phdr[i].p_offset, phdr[i].p_filesz);
        const uint8_t *code = phdr[i].p_flags & PF_X ? memmem(file + phdr[i].p_offset, phdr[i].p_filesz, "\x0f\x05", 2) : NULL;
        if (code) /* from here on by the library's own: the filter of an earlier enclave outlives an exec, and traps mprotect elsewhere */
            base.rip = phdr[i].p_vaddr + (uint64_t)(code - file) - phdr[i].p_offset;
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

void inject(struct inject_block block, const char *library, uint64_t vdso, const uint64_t *mask)
{
    int fd = open(library, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        fail(library);
    const uint8_t *file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (file == MAP_FAILED)
        fail(library);
    struct user_regs_struct start = registers();
    uint64_t code, patched, at, value, program_mask = 0;
    /* A signal's stop would pass for a step's end: all wait but the six that the program's own instructions raise. */
    const uint64_t waiting = ~(1ull << (SIGTRAP - 1) | 1ull << (SIGSEGV - 1) | 1ull << (SIGILL - 1) | 1ull << (SIGBUS - 1) |
                               1ull << (SIGFPE - 1) | 1ull << (SIGSYS - 1));
    if (ptrace(PTRACE_GETSIGMASK, tracee, 8, &program_mask) || ptrace(PTRACE_SETSIGMASK, tracee, 8, &waiting))
        fail("holding the program's signals back");

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
    if (ptrace(PTRACE_SETSIGMASK, tracee, 8, mask ? mask : &program_mask))
        fail("setting the program's signal mask");
    if (ptrace(PTRACE_SETREGS, tracee, 0, &start) ||
        (tracee_kept && ptrace(PTRACE_SETOPTIONS, tracee, 0, PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL)) ||
        ptrace(tracee_kept ? PTRACE_CONT : PTRACE_DETACH, tracee, 0, 0))
        fail("letting the program go");
}

/* Address of the symbol vdso_image, from the library's symbol table. */
uint64_t find_vdso(const char *library)
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

