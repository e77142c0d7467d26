/*
 * strongroom-inject: runs a program with the machine library in it. The program keeps this process's number:
 * a forked tracer waits for its exec, maps the library at its fixed address, points AT_SYSINFO_EHDR at the
 * library's vDSO, runs the library's start and lets go. Static and dynamic programs alike. With --follow the tracer
 * stays, for the programs that the program executes (follow.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tracee.h"

static void usage(void)
{
    dprintf(2, "usage: strongroom-inject --rpc-fd N --epc-fd M [--level faithful|separated|sealed] [--sgx2] "
               "[--tamper=disable] [--warm DATA:EXECUTABLE] [--no-secretmem] [--no-shani] [--no-fsgsbase] [--no-pkeys] [--debug] "
               "[--guard | --follow [--line-fd N]] -- PROGRAM [ARGUMENT...]\n");
    _exit(125);
}

/* In the tracer: from the attached program's exec to its release. */
static void trace(struct inject_block block, const char *library, int listener, int lines)
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
    inject(block, library, vdso, NULL);
    if (tracee_kept)
        guard();
    if (listener >= 0)
        follow_serve(listener, lines, tracee, block, library);
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
        {"debug", 0, 0, 'd'}, {"no-secretmem", 0, 0, 's'}, {"no-shani", 0, 0, 'h'}, {"no-fsgsbase", 0, 0, 'f'}, {"no-pkeys", 0, 0, 'k'},
        {"library", 1, 0, 'L'}, {"warm", 1, 0, 'w'}, {"follow", 0, 0, 'F'}, {"guard", 0, 0, 'G'}, {"line-fd", 1, 0, 'l' + 256}, {0, 0, 0, 0}};
    static const char *const levels[] = {"faithful", "separated", "sealed"};
    struct inject_block block = {.magic = INJECT_MAGIC, .rpc_fd = -1, .epc_fd = -1, .hwcap2 = getauxval(AT_HWCAP2)};
    static char library[PATH_MAX];
    int c, gate[2], listener = -1, lines = -1;
    bool follow = false;

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
        case 'k': block.flags |= INJECT_NO_PKEYS; break;
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
        case 'F': follow = true; break;
        case 'G': tracee_kept = true; break;
        case 'l' + 256: lines = number_of(optarg); break;
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
    if (lines >= 0)
        fcntl(lines, F_SETFD, FD_CLOEXEC);
    if (follow)
        listener = follow_listen(&block);
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
        trace(block, library, listener, lines);
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
