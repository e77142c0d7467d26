/* Guest: AF_UNIX waits no longer than it is told to, and collects sockets that only messages hold; splice leaves flags alone. */
#include "guest.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static int wait_at_most(int fd, int option, long ms)
{
    return setsockopt(fd, SOL_SOCKET, option, &(struct timeval){ms / 1000, ms % 1000 * 1000}, sizeof(struct timeval));
}
/* Whether what began then has waited for about 100 ms. */
static int waited(double began) { return now() - began > 0.09 && now() - began < 5; }

CHECK(receiving_ends)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    for (int i = 0; i < 3; i++) {
        int s[2];
        char byte[4];
        struct iovec part = {byte, 4};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
        EXPECT(!socketpair(AF_UNIX, types[i], 0, s) && !wait_at_most(s[0], SO_RCVTIMEO, 100));
        double began = now();
        EXPECT_ERROR(recv(s[0], byte, 1, 0), EAGAIN);
        EXPECT(waited(began));
        began = now();
        EXPECT_ERROR(recvmsg(s[0], &m, 0), EAGAIN);
        EXPECT(waited(began));
        EXPECT(send(s[1], "ab", 2, 0) == 2);
        EXPECT(read(s[0], byte, 4) == 2);
        began = now();
        EXPECT_ERROR(read(s[0], byte, 4), EAGAIN);
        EXPECT(waited(began));
        if (types[i] == SOCK_STREAM) { /* what has come is told */
            EXPECT(send(s[1], "ab", 2, 0) == 2);
            EXPECT(recv(s[0], byte, 4, MSG_WAITALL) == 2);
        }
        close(s[0]), close(s[1]);
    }
}

CHECK(sending_ends)
{
    static char much[1 << 20];
    int s[2];
    EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, s) && !wait_at_most(s[0], SO_SNDTIMEO, 100));
    double began = now();
    ssize_t n = send(s[0], much, sizeof much, 0);
    EXPECT(n > 0 && n < (ssize_t)sizeof much && waited(began));
    began = now();
    EXPECT_ERROR(send(s[0], much, sizeof much, 0), EAGAIN);
    EXPECT(waited(began));
    close(s[0]), close(s[1]);
}

CHECK(connections_end)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t size = sizeof name;
    int server = socket(AF_UNIX, SOCK_STREAM, 0), first = socket(AF_UNIX, SOCK_STREAM, 0), second = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT(!bind(server, (void *)&name, sizeof(sa_family_t)) && !getsockname(server, (void *)&name, &size) && !listen(server, 0));
    EXPECT(!wait_at_most(server, SO_RCVTIMEO, 100) && !wait_at_most(second, SO_SNDTIMEO, 100));
    double began = now();
    EXPECT_ERROR(accept(server, NULL, NULL), EAGAIN);
    EXPECT(waited(began));
    EXPECT(!connect(first, (void *)&name, size));
    began = now();
    EXPECT_ERROR(connect(second, (void *)&name, size), EAGAIN);
    EXPECT(waited(began));
    int got = accept(server, NULL, NULL);
    struct timeval t = {9, 9};
    size = sizeof t; /* not the listener's */
    EXPECT(got >= 0 && !getsockopt(got, SOL_SOCKET, SO_RCVTIMEO, &t, &size) && !t.tv_sec && !t.tv_usec);
    close(server), close(first), close(second), close(got);
}

CHECK(times_are_kept)
{
    struct timeval t = {0, 0};
    socklen_t size = sizeof t;
    int s[2];
    EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    EXPECT(!getsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, &size) && size == sizeof t && !t.tv_sec && !t.tv_usec);
    EXPECT(!wait_at_most(s[0], SO_RCVTIMEO, 2500));
    EXPECT(!getsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, &size) && t.tv_sec == 2 && t.tv_usec == 500000);
    EXPECT(!getsockopt(s[0], SOL_SOCKET, SO_SNDTIMEO, &t, &size) && !t.tv_sec && !t.tv_usec);
    t = (struct timeval){0, 1000000};
    EXPECT_ERROR(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), EDOM);
    EXPECT_ERROR(setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, 8), EINVAL);
    t = (struct timeval){-1, 0}; /* no waiting */
    EXPECT(!setsockopt(s[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    EXPECT_ERROR(recv(s[0], &size, 1, 0), EAGAIN);
    close(s[0]), close(s[1]);
}

static void nothing(int number) { (void)number; }
static void *interrupt(void *who)
{
    usleep(50000);
    pthread_kill(*(pthread_t *)who, SIGUSR1);
    return NULL;
}
CHECK(interrupted_with_a_time) /* signal(7): EINTR, SA_RESTART or not */
{
    struct sigaction act = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    pthread_t me = pthread_self(), other;
    char byte;
    int s[2];
    sigaction(SIGUSR1, &act, NULL);
    EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, s) && !wait_at_most(s[0], SO_RCVTIMEO, 3000));
    pthread_create(&other, NULL, interrupt, &me);
    EXPECT_ERROR(recv(s[0], &byte, 1, 0), EINTR);
    pthread_join(other, NULL);
    close(s[0]), close(s[1]);
}

/* ---- descriptors in messages ---- */
static int give(int to, const int *fd, int count)
{
    union { char room[CMSG_SPACE(8 * sizeof(int))]; struct cmsghdr head; } control = {0};
    char byte = 'x';
    struct iovec part = {&byte, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE((size_t)count * sizeof(int))};
    control.head = (struct cmsghdr){CMSG_LEN((size_t)count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.head), fd, (size_t)count * sizeof(int));
    return (int)sendmsg(to, &m, 0);
}
static int g_second; /* of two descriptors in one message */
static int take(int from)
{
    union { char room[CMSG_SPACE(8 * sizeof(int))]; struct cmsghdr head; } control = {0};
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    int fd[2] = {-1, -1};
    if (recvmsg(from, &m, 0) == 1 && control.head.cmsg_type == SCM_RIGHTS)
        memcpy(fd, CMSG_DATA(&control.head), control.head.cmsg_len >= CMSG_LEN(sizeof fd) ? sizeof fd : sizeof *fd);
    g_second = fd[1];
    return fd[0];
}
/* The next socket's end is when Linux looks for those that nobody can reach; then the other end is told. */
static int told(int fd, int ms)
{
    int s[2];
    char byte;
    if (!socketpair(AF_UNIX, SOCK_STREAM, 0, s))
        close(s[0]), close(s[1]);
    return poll(&(struct pollfd){fd, POLLIN, 0}, 1, ms) == 1 && read(fd, &byte, 1) == 0;
}

CHECK(socket_over_itself)
{
    int s[2], seen[2];
    EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, s) && !socketpair(AF_UNIX, SOCK_STREAM, 0, seen));
    EXPECT(give(s[0], (int[]){s[1], seen[0]}, 2) == 1); /* s[1]'s queue holds s[1] */
    close(s[0]), close(s[1]), close(seen[0]);
    EXPECT(told(seen[1], 5000));
    close(seen[1]);
}

CHECK(sockets_over_each_other)
{
    int a[2], b[2], c[2], seen[2];
    EXPECT(!socketpair(AF_UNIX, SOCK_DGRAM, 0, a) && !socketpair(AF_UNIX, SOCK_STREAM, 0, b));
    EXPECT(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, c) && !socketpair(AF_UNIX, SOCK_STREAM, 0, seen));
    EXPECT(give(a[0], (int[]){b[1], b[0]}, 2) == 1 && give(b[0], (int[]){c[1]}, 1) == 1);
    EXPECT(give(c[0], (int[]){a[1], a[0], seen[0]}, 3) == 1);
    for (int i = 0; i < 2; i++)
        close(a[i]), close(b[i]), close(c[i]);
    close(seen[0]);
    EXPECT(told(seen[1], 5000));
    close(seen[1]);
}

CHECK(never_accepted) /* a connection waits in a listener that lies in that connection's own queue */
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t size = sizeof name;
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0), seen[2];
    EXPECT(!bind(server, (void *)&name, sizeof(sa_family_t)) && !getsockname(server, (void *)&name, &size) && !listen(server, 1));
    EXPECT(!connect(client, (void *)&name, size) && !socketpair(AF_UNIX, SOCK_STREAM, 0, seen));
    EXPECT(give(client, (int[]){server, seen[0]}, 2) == 1);
    close(server), close(client), close(seen[0]);
    EXPECT(told(seen[1], 5000));
    close(seen[1]);
}

CHECK(reached_ones_stay)
{
    int s[2], inner[2], seen[2];
    EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, s) && !socketpair(AF_UNIX, SOCK_STREAM, 0, inner) && !socketpair(AF_UNIX, SOCK_STREAM, 0, seen));
    EXPECT(give(inner[0], (int[]){inner[1], seen[0]}, 2) == 1 && give(s[0], &inner[1], 1) == 1);
    close(inner[0]), close(inner[1]), close(seen[0]), close(s[0]);
    EXPECT(!told(seen[1], 200)); /* s[1] leads to it */
    int back = take(s[1]), again = take(back);
    EXPECT(back >= 0 && again >= 0 && g_second >= 0 && again != back);
    EXPECT(write(g_second, "y", 1) == 1 && !told(seen[1], 200));
    close(s[1]), close(back), close(again), close(g_second);
    EXPECT(told(seen[1], 5000));
    close(seen[1]);
}

CHECK(many_cycles) /* more than there is memory for, if they stayed */
{
    static char fill[30000];
    int s[2];
    for (int i = 0; i < 2000; i++) {
        if (!EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, s) && send(s[0], fill, sizeof fill, 0) == sizeof fill && give(s[0], &s[1], 1) == 1))
            break;
        close(s[0]), close(s[1]);
    }
}

/* ---- splice ---- */
CHECK(splice_without_waiting)
{
    int from[2], to[2], s[2];
    EXPECT(!pipe(from) && !pipe(to) && !socketpair(AF_UNIX, SOCK_STREAM, 0, s));
    EXPECT_ERROR(splice(from[0], NULL, to[1], NULL, 100, SPLICE_F_NONBLOCK), EAGAIN);
    EXPECT_ERROR(splice(s[0], NULL, to[1], NULL, 100, SPLICE_F_NONBLOCK), EAGAIN);
    EXPECT(write(from[1], "abc", 3) == 3 && splice(from[0], NULL, to[1], NULL, 100, SPLICE_F_NONBLOCK) == 3);
    EXPECT(write(s[1], "abc", 3) == 3 && splice(s[0], NULL, to[1], NULL, 100, SPLICE_F_NONBLOCK) == 3);
    EXPECT(!(fcntl(from[0], F_GETFL) & O_NONBLOCK) && !(fcntl(s[0], F_GETFL) & O_NONBLOCK));
    close(from[1]);
    EXPECT(splice(from[0], NULL, to[1], NULL, 100, SPLICE_F_NONBLOCK) == 0);
    close(from[0]), close(to[0]), close(to[1]), close(s[0]), close(s[1]);
}

static int g_connection, g_pipe[2];
static void *splicing(void *got)
{
    *(ssize_t *)got = splice(g_connection, NULL, g_pipe[1], NULL, 100, SPLICE_F_NONBLOCK);
    return NULL;
}
CHECK(splice_leaves_the_flags) /* a socket of the host's waits as it was opened; and nobody sees another flag meanwhile */
{
    struct sockaddr_storage name = {.ss_family = AF_INET};
    socklen_t size = 16;
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t other;
    ssize_t got = -2;
    ((unsigned char *)&name)[4] = 127, ((unsigned char *)&name)[7] = 1;
    EXPECT(!bind(server, (void *)&name, size) && !getsockname(server, (void *)&name, &size) && !listen(server, 1));
    EXPECT(!connect(client, (void *)&name, size) && (g_connection = accept(server, NULL, NULL)) >= 0 && !pipe(g_pipe));
    pthread_create(&other, NULL, splicing, &got);
    usleep(100000);
    EXPECT(got == -2 && !(fcntl(g_connection, F_GETFL) & O_NONBLOCK));
    EXPECT(write(client, "abc", 3) == 3);
    pthread_join(other, NULL);
    EXPECT(got == 3 && !(fcntl(g_connection, F_GETFL) & O_NONBLOCK));
    close(server), close(client), close(g_connection), close(g_pipe[0]), close(g_pipe[1]);
}

GUEST_MAIN
