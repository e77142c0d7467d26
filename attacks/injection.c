/*
 * ptrace injection, as fast as a program can: a stopped thread is given the registers of system calls that write its
 * own memory into a pipe whose other end is here. Whoever watches for the attach has that long to kill the process.
 *
 * Usage: injection PID MARKER ELRANGE (numbers in decimal, the marker in hex). Prints one JSON document.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NAME "system calls injected by ptrace: the thread writes its memory into a pipe"
#define PIECE 65536
#define AREAS 4096
typedef unsigned long long ull;

static struct { uint64_t start, end; } area[AREAS];
static unsigned areas;
static uint64_t gadget;
static pid_t pid;
static unsigned calls; /* done in the thread */

static int say(const char *result, const char *text)
{
    printf("{\"attempts\": [{\"name\": \"%s\", \"result\": \"%s\", \"text\": \"%s\"}]}\n", NAME, result, text);
    return 0;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* A `syscall` instruction in executable memory outside the enclave; read before the attach. */
static void find_gadget(int mem, uint64_t start, uint64_t end)
{
    static uint8_t block[1 << 20];
    for (uint64_t at = start; at < end && !gadget; at += sizeof block) {
        ssize_t n = pread(mem, block, end - at < sizeof block ? end - at : sizeof block, (off_t)at);
        for (ssize_t i = 0; i + 1 < n; i++)
            if (block[i] == 0x0f && block[i + 1] == 0x05) {
                gadget = at + (uint64_t)i;
                return;
            }
    }
}

static void look(uint64_t elrange)
{
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int mem = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "re");
    while (maps && fgets(line, sizeof line, maps)) {
        ull start, end;
        char flags[8];
        if (sscanf(line, "%llx-%llx %7s", &start, &end, flags) != 3)
            continue;
        int special = strstr(line, "[v") != NULL, backing = strstr(line, "/secretmem") || strstr(line, "sgx-epc");
        if (flags[2] == 'x' && !special && (!elrange || start >= elrange) && mem >= 0)
            find_gadget(mem, start, end);
        if (flags[0] == 'r' && flags[2] != 'x' && !special && (!elrange || start < elrange || backing) && areas < AREAS)
            area[areas].start = start, area[areas++].end = end;
    }
    if (maps)
        fclose(maps);
    close(mem);
}

/* One system call in the stopped thread; 0 where it went away. */
static int inject(struct user_regs_struct base, long number, uint64_t a, uint64_t b, uint64_t c, int64_t *answer)
{
    int status;
    base.rip = gadget, base.rax = (uint64_t)number, base.orig_rax = ~0ull;
    base.rdi = a, base.rsi = b, base.rdx = c;
    if (ptrace(PTRACE_SETREGS, pid, 0, &base) || ptrace(PTRACE_SINGLESTEP, pid, 0, 0) || waitpid(pid, &status, __WALL) != pid ||
        !WIFSTOPPED(status) || ptrace(PTRACE_GETREGS, pid, 0, &base))
        return 0;
    *answer = (int64_t)base.rax;
    calls++;
    return 1;
}

int main(int argc, char **argv)
{
    static uint8_t marker[64], block[PIECE + 64];
    struct user_regs_struct start = {0};
    char text[256];
    size_t size = 0;
    int status, ours = -1;
    int64_t answer, ends = 0;
    if (argc != 4)
        return 2;
    pid = atoi(argv[1]);
    for (; size < sizeof marker && sscanf(argv[2] + 2 * size, "%2hhx", &marker[size]) == 1; size++)
        ;
    look(strtoull(argv[3], NULL, 10));
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (!gadget || !areas || pidfd < 0)
        return say("refused", "memory and mappings of the process are not shown");
    double begin = now();
    if (ptrace(PTRACE_SEIZE, pid, 0, 0)) {
        snprintf(text, sizeof text, "ptrace: %s (errno %d)", strerror(errno), errno);
        return say("refused", text);
    }
    if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) || waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status) ||
        ptrace(PTRACE_GETREGS, pid, 0, &start))
        goto killed;
    uint64_t place = (start.rsp - 4096) & ~15ull; /* below the red zone of the host's stack */
    if (!inject(start, SYS_pipe2, place, O_NONBLOCK, 0, &answer))
        goto killed;
    if (answer) {
        snprintf(text, sizeof text, "pipe2 in the thread: %lld", (long long)answer);
        ptrace(PTRACE_DETACH, pid, 0, 0);
        return say("refused", text);
    }
    errno = 0;
    ends = ptrace(PTRACE_PEEKDATA, pid, place, 0);
    if (errno)
        goto killed;
    ours = (int)syscall(SYS_pidfd_getfd, pidfd, (int)ends, 0);
    if (ours < 0)
        goto killed;
    uint64_t hits = 0, had = 0;
    int alive = 1;
    for (unsigned i = 0; i < areas && alive; i++) {
        size_t tail = 0;
        for (uint64_t at = area[i].start; at < area[i].end && alive; at += PIECE) {
            uint64_t want = area[i].end - at < PIECE ? area[i].end - at : PIECE;
            alive = inject(start, SYS_write, (uint64_t)ends >> 32, at, want, &answer);
            ssize_t n = read(ours, block + tail, PIECE);
            if (n <= 0) {
                tail = 0;
                continue;
            }
            had += (uint64_t)n;
            for (uint8_t *p = block, *end = block + tail + n; (p = memmem(p, (size_t)(end - p), marker, size)); p++)
                hits++;
            size_t whole = tail + (size_t)n;
            tail = whole < size - 1 ? whole : size - 1;
            memmove(block, block + whole - tail, tail);
        }
    }
    if (alive) {
        int64_t ignored;
        inject(start, SYS_close, (uint64_t)ends & 0xffffffff, 0, 0, &ignored);
        inject(start, SYS_close, (uint64_t)ends >> 32, 0, 0, &ignored);
        ptrace(PTRACE_SETREGS, pid, 0, &start);
        ptrace(PTRACE_DETACH, pid, 0, 0);
    }
    const char *end = alive ? "" : "; then the process was killed";
    snprintf(text, sizeof text, hits ? "the marker, %llu times, in %.1f MiB%s" : "%llu markers in %.1f MiB%s", (ull)hits,
             (double)had / 1048576, end);
    return say(hits ? "got" : alive ? "met" : "refused", text);
killed:;
    int error = errno;
    double took = now() - begin;
    struct pollfd dead = {pidfd, POLLIN, 0};
    if (poll(&dead, 1, 1000) != 1) { /* its end may be on its way */
        snprintf(text, sizeof text, "after %u calls in the thread: %s (errno %d)", calls, strerror(error), error);
        if (calls)
            ptrace(PTRACE_SETREGS, pid, 0, &start);
        ptrace(PTRACE_DETACH, pid, 0, 0);
        return say("refused", text);
    }
    snprintf(text, sizeof text, "the process was killed %.0f microseconds after the attach, after %u calls in the thread", took, calls);
    return say("refused", text);
}
