/*
 * Programs that this one executes (inject/follow.c has the other half). The seccomp filter outlives an exec and this
 * library does not, so the injector attaches first; where nobody follows, execve is refused.
 */
#include "library.h"

#define AF_UNIX 1
#define SOCK_SEQPACKET 5
#define SOCK_CLOEXEC 02000000
#define MSG_NOSIGNAL 0x4000
#define MSG_CMSG_CLOEXEC 0x40000000
#define SCM_RIGHTS 1
#define PR_SET_PTRACER 0x59616d61

struct address { uint16_t family; char path[108]; };
struct vector { void *base; uint64_t size; };
struct message { void *name; uint64_t name_size; struct vector *vector; uint64_t count; void *control; uint64_t control_size; uint64_t flags; };
struct rights { uint64_t size; int level, type; int fd[2]; };

/* Sends a request to the injector; our end of the connection, or -errno. */
static long follow_ask(const struct follow_request *request)
{
    struct address a = {.family = AF_UNIX};
    uint32_t length = 0;
    for (; g.follow[length]; length++)
        a.path[1 + length] = g.follow[length];
    if (!length)
        return -ENOSYS;
    long fd = sys(__NR_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), r;
    if (fd < 0)
        return fd;
    do
        r = sys(__NR_connect, fd, &a, 3 + length);
    while (r == -EINTR);
    if (!r)
        r = sys(__NR_sendto, fd, request, sizeof *request, MSG_NOSIGNAL, 0, 0);
    if (r == (long)sizeof *request)
        return fd;
    sys(__NR_close, fd);
    return r < 0 ? r : -EIO;
}

static struct follow_request request_of(uint32_t op, uint64_t mask)
{
    return (struct follow_request){.op = op, .pid = (uint32_t)sys(__NR_getpid, 0), .tid = (uint32_t)sys(__NR_gettid, 0),
                                   .mask = mask};
}

/*
 * execve or execveat, as the program asked for it; returns only where it fails. The new program inherits its mask,
 * not this handler's: the injector sets it. In a vfork child the memory is its parent's: nothing is changed here.
 */
long follow_exec(ucontext_kernel *uc)
{
    struct sigcontext *r = &uc->uc_mcontext;
    struct follow_request request = request_of(FOLLOW_EXEC, *(uint64_t *)&uc->uc_sigmask);
    struct follow_reply reply = {.error = EIO};
    sys(__NR_prctl, PR_SET_PTRACER, -1l); /* where Yama lets only ancestors trace; the exec ends it */
    long fd = follow_ask(&request), n;
    if (fd < 0)
        return fd;
    do
        n = sys(__NR_recvfrom, fd, &reply, sizeof reply, 0, 0, 0);
    while (n == -EINTR);
    sys(__NR_close, fd);
    if (n != (long)sizeof reply || reply.error)
        return n == (long)sizeof reply ? -(long)reply.error : -EIO;
    long ret = sys6((long)r->rax, (long)r->rdi, (long)r->rsi, (long)r->rdx, (long)r->r10, (long)r->r8, (long)r->r9);
    __asm__ volatile("int3"); /* the tracer's sign that nothing was executed: it lets go */
    return ret;
}

/* A line to the package, where there is none yet: (rpc, epc), or false. */
bool follow_line(int32_t *rpc, int32_t *epc)
{
    struct follow_request request = request_of(FOLLOW_LINE, 0);
    struct follow_reply reply = {.error = EIO};
    struct rights rights = {0};
    struct vector v = {&reply, sizeof reply};
    struct message m = {.vector = &v, .count = 1, .control = &rights, .control_size = sizeof rights};
    long fd = follow_ask(&request), n;
    if (fd < 0)
        return false;
    do
        n = sys(__NR_recvmsg, fd, &m, MSG_CMSG_CLOEXEC);
    while (n == -EINTR);
    sys(__NR_close, fd);
    if (n != (long)sizeof reply || reply.error || rights.size != 24 || rights.level != 1 || rights.type != SCM_RIGHTS)
        return false;
    *rpc = rights.fd[0];
    *epc = rights.fd[1];
    return true;
}
