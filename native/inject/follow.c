/*
 * The programs that an injected program executes. The library's seccomp filter outlives an exec, the library does not:
 * before each execve it asks here to be traced, and the new program gets the library as the first one did. A program
 * that opens the SGX device without a line to the package asks here for one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tracee.h"

int follow_listen(struct inject_block *block)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t token[2];
    if (getrandom(token, sizeof token, 0) != sizeof token)
        fail("getrandom");
    int size = snprintf(block->follow, sizeof block->follow, "strongroom-follow-%016llx%016llx", (unsigned long long)token[0],
                        (unsigned long long)token[1]);
    memcpy(address.sun_path + 1, block->follow, (size_t)size); /* an abstract name: no file, gone with its holders */
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)size)) ||
        listen(fd, 128))
        fail("a socket for the programs that the program executes");
    return fd;
}

static void answer(int client, int error)
{
    struct follow_reply reply = {.error = error};
    (void)!send(client, &reply, sizeof reply, MSG_NOSIGNAL);
}

/* In a process of its own: from before the execve of thread `tid` to the new program's first instruction. */
static _Noreturn void follow_exec(int client, pid_t tid, uint64_t mask, struct inject_block block, const char *library)
{
    uint64_t vdso = find_vdso(library);
    int status;
    if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL)) {
        answer(client, errno);
        _exit(0);
    }
    answer(client, 0);
    close(client);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL); /* an exec gives the thread its leader's number */
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0 || !WIFSTOPPED(status))
            _exit(0);
        int event = status >> 16;
        if (event == PTRACE_EVENT_EXEC) {
            tracee = pid;
            break;
        }
        if (event == 0 && WSTOPSIG(status) == SIGTRAP) { /* the exec failed: the library's breakpoint */
            ptrace(PTRACE_DETACH, pid, 0, 0);
            _exit(0);
        }
        if (event == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP)
            ptrace(PTRACE_LISTEN, pid, 0, 0);
        else
            ptrace(PTRACE_CONT, pid, 0, event ? 0 : WSTOPSIG(status));
    }
    /* The call's own end comes after this stop and would overwrite what is injected before it. */
    if (ptrace(PTRACE_SYSCALL, tracee, 0, 0))
        fail("waiting for the program");
    wait_stop("the program ended before its first instruction");
    inject(block, library, vdso, &mask);
    _exit(0);
}

/* A new line to the package, from whoever started the first program, passed on. */
static void follow_line(int client, int lines)
{
    struct follow_reply reply = {.error = ENODEV};
    char control[CMSG_SPACE(2 * sizeof(int))] = {0}, word = 'l';
    struct iovec v = {&word, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t n = -1;
    if (lines >= 0 && send(lines, &word, 1, MSG_NOSIGNAL) == 1)
        n = recvmsg(lines, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n == 1 ? CMSG_FIRSTHDR(&m) : NULL;
    if (!c || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(2 * sizeof(int))) {
        answer(client, ENODEV);
        return;
    }
    int fds[2];
    memcpy(fds, CMSG_DATA(c), sizeof fds);
    reply.error = 0;
    v = (struct iovec){&reply, sizeof reply};
    m.msg_controllen = sizeof control;
    (void)!sendmsg(client, &m, MSG_NOSIGNAL);
    close(fds[0]);
    close(fds[1]);
}

static void serve_one(int listener, int lines, struct inject_block block, const char *library)
{
    struct timeval soon = {2, 0};
    struct follow_request request;
    struct ucred peer;
    socklen_t size = sizeof peer;
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
        return;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof soon);
    if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &size) || recv(client, &request, sizeof request, 0) != sizeof request) {
        close(client);
        return;
    }
    if (request.op == FOLLOW_LINE && peer.uid == geteuid()) {
        follow_line(client, lines);
    } else if (request.op == FOLLOW_EXEC) {
        /* The kernel's word for the process, in our numbers; another thread of it needs its own, and is one of that process. */
        pid_t tid = request.tid == request.pid ? peer.pid : (pid_t)request.tid;
        char task[64];
        snprintf(task, sizeof task, "/proc/%d/task/%d", peer.pid, tid);
        if (tid <= 0 || access(task, F_OK)) {
            answer(client, EPERM);
            close(client);
            return;
        }
        pid_t child = fork();
        if (child == 0) {
            close(listener);
            follow_exec(client, tid, request.mask, block, library);
        }
        if (child < 0)
            answer(client, EAGAIN);
    } else {
        answer(client, EPERM);
    }
    close(client);
}

_Noreturn void follow_serve(int listener, int lines, pid_t root, struct inject_block block, const char *library)
{
    static const int ignored[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE, SIGCHLD};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN); /* the terminal's are for the program; children are reaped by the kernel */
    int pidfd = (int)syscall(SYS_pidfd_open, root, 0), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (pidfd < 0)
        _exit(0);
    dup2(null, 0);
    dup2(null, 1);
    tracee = 0;
    block.flags |= INJECT_HAVE_FILTER;
    block.rpc_fd = block.epc_fd = -1;
    for (;;) {
        struct pollfd p[2] = {{listener, POLLIN, 0}, {pidfd, POLLIN, 0}};
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[1].revents)
            _exit(0);
        if (p[0].revents)
            serve_one(listener, lines, block, library);
    }
}
