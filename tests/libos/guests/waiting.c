/* Guest: a descriptor is closed, added, or read while another thread waits for it. Linux goes on with the open file; so here. */
#include "guest.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static struct wait { int fd, other; char room[16]; long got; size_t size; void *data; } g_wait;

/* Once as `what` waits in a thread, `closed` are closed, and every waiting thread is woken for nothing. */
static pthread_t waits(void *(*what)(void *), int closed, int closed_too)
{
    pthread_t thread;
    int nothing[2];
    g_wait.got = 0;
    pthread_create(&thread, NULL, what, &g_wait);
    usleep(50000);
    close(closed);
    if (closed_too >= 0)
        close(closed_too);
    for (int i = 0; i < 8; i++) { /* and what was given back is given out again */
        EXPECT(pipe(nothing) == 0 && write(nothing[1], "x", 1) == 1 && read(nothing[0], g_wait.room, 1) == 1);
        usleep(2000);
        close(nothing[0]), close(nothing[1]);
    }
    return thread;
}

static void *reads(void *at)
{
    struct wait *w = at;
    w->got = read(w->fd, w->room, sizeof w->room);
    return NULL;
}
static void *reads_parts(void *at)
{
    struct wait *w = at;
    struct iovec part[] = {{w->room, 5}, {w->room + 5, 5}};
    w->got = readv(w->fd, part, 2);
    return NULL;
}
static void *writes(void *at)
{
    struct wait *w = at;
    w->got = write(w->fd, w->data, w->size);
    return NULL;
}
static void *splices(void *at)
{
    struct wait *w = at;
    w->got = splice(w->fd, NULL, w->other, NULL, 10, 0);
    return NULL;
}

CHECK(reader_of_a_pipe)
{
    int fd[2];
    EXPECT(pipe(fd) == 0);
    g_wait.fd = fd[0];
    pthread_t thread = waits(reads, fd[0], -1);
    EXPECT(write(fd[1], "hello", 5) == 5);
    pthread_join(thread, NULL);
    EXPECT(g_wait.got == 5 && !memcmp(g_wait.room, "hello", 5));
    signal(SIGPIPE, SIG_IGN);
    EXPECT_ERROR(write(fd[1], "hello", 5), EPIPE); /* with the read the last reader went */
    close(fd[1]);
}
CHECK(reader_of_parts)
{
    int fd[2];
    EXPECT(pipe(fd) == 0);
    g_wait.fd = fd[0];
    pthread_t thread = waits(reads_parts, fd[0], -1);
    EXPECT(write(fd[1], "helloworld", 10) == 10);
    pthread_join(thread, NULL);
    EXPECT(g_wait.got == 10 && !memcmp(g_wait.room, "helloworld", 10));
    close(fd[1]);
}
CHECK(writer_of_a_pipe)
{
    int fd[2];
    char room[4096];
    long n, total = 0;
    EXPECT(pipe(fd) == 0);
    g_wait = (struct wait){.fd = fd[1], .size = 200000, .data = calloc(1, 200000)};
    pthread_t thread = waits(writes, fd[1], -1);
    while ((n = read(fd[0], room, sizeof room)) > 0)
        total += n;
    pthread_join(thread, NULL);
    EXPECT(n == 0 && total == 200000 && g_wait.got == 200000);
    close(fd[0]);
    free(g_wait.data);
}
CHECK(reader_of_a_socket)
{
    int fd[2];
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    g_wait.fd = fd[0];
    pthread_t thread = waits(reads, fd[0], -1);
    EXPECT(send(fd[1], "hello", 5, MSG_NOSIGNAL) == 5);
    pthread_join(thread, NULL);
    EXPECT(g_wait.got == 5 && !memcmp(g_wait.room, "hello", 5));
    close(fd[1]);
}
CHECK(splice_between_pipes)
{
    int from[2], to[2];
    char *room = malloc(65536);
    EXPECT(pipe(from) == 0 && pipe(to) == 0 && write(from[1], "helloworld", 10) == 10);
    for (int i = 0; i < 16; i++)
        EXPECT(write(to[1], memset(room, 'x', 4096), 4096) == 4096);
    g_wait.fd = from[0], g_wait.other = to[1];
    pthread_t thread = waits(splices, from[0], to[1]);
    for (long total = 0, n; total < 65536; total += n)
        if (!EXPECT((n = read(to[0], room, 65536 - (size_t)total)) > 0))
            break;
    EXPECT(read(to[0], room, 64) == 10 && !memcmp(room, "helloworld", 10));
    pthread_join(thread, NULL);
    EXPECT(g_wait.got == 10);
    EXPECT(read(to[0], room, 64) == 0);
    close(from[1]), close(to[0]);
    free(room);
}
static void *waits_for_events(void *at)
{
    struct wait *w = at;
    struct epoll_event event[4] = {0};
    w->got = epoll_wait(w->fd, event, 4, 5000);
    w->size = event[0].data.u64;
    return NULL;
}
static long told(int epoll, int operation, int fd, struct epoll_event event)
{
    pthread_t thread;
    g_wait = (struct wait){.fd = epoll};
    pthread_create(&thread, NULL, waits_for_events, &g_wait);
    usleep(50000);
    EXPECT(epoll_ctl(epoll, operation, fd, &event) == 0);
    pthread_join(thread, NULL);
    return g_wait.got;
}
CHECK(epoll_of_what_comes_later)
{
    int epoll = epoll_create1(0), quiet = eventfd(0, 0), ready = eventfd(1, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1};
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, quiet, &event) == 0);
    EXPECT(told(epoll, EPOLL_CTL_ADD, ready, (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 2}) == 1 && g_wait.size == 2);
    EXPECT(told(epoll, EPOLL_CTL_MOD, ready, (struct epoll_event){.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 3}) == 1 && g_wait.size == 3);
    EXPECT(epoll_wait(epoll, &event, 1, 20) == 0);
    close(epoll), close(quiet), close(ready);
}
/* Two ends of a connection: of the host's loopback, or inside. */
static void ends(bool host, int fd[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    if (!host) {
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
        return;
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    fd[0] = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(listen(listener, 1) == 0 && getsockname(listener, (struct sockaddr *)&at, &size) == 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT(connect(fd[0], (struct sockaddr *)&at, size) == 0 && (fd[1] = accept(listener, NULL, NULL)) >= 0);
    close(listener);
}
/* EPOLLET: an edge was told, one thread waits for the next one, another one takes what the first told of. */
static void next_edge(bool host)
{
    int fd[2], epoll = epoll_create1(0);
    char room[16];
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = 5};
    pthread_t thread;
    ends(host, fd);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[1], &event) == 0 && write(fd[0], "one", 3) == 3);
    EXPECT(epoll_wait(epoll, &event, 1, 1000) == 1);
    g_wait = (struct wait){.fd = epoll};
    pthread_create(&thread, NULL, waits_for_events, &g_wait);
    usleep(50000);
    EXPECT(read(fd[1], room, sizeof room) == 3);
    usleep(50000);
    EXPECT(write(fd[0], "two", 3) == 3);
    pthread_join(thread, NULL);
    EXPECT(g_wait.got == 1 && g_wait.size == 5);
    close(epoll), close(fd[0]), close(fd[1]);
}
CHECK(next_edge_inside) { next_edge(false); }
CHECK(next_edge_of_the_host) { next_edge(true); }
static long takes(int how, int fd, char *room, size_t size)
{
    struct iovec part = {room, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    return how == 0 ? read(fd, room, size) : how == 1 ? recv(fd, room, size, 0) : how == 2 ? recvmsg(fd, &message, 0) : readv(fd, &part, 1);
}
static long gives(int how, int fd, char *room, size_t size)
{
    struct iovec part = {room, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    return how == 0 ? write(fd, room, size) : how == 1 ? send(fd, room, size, 0) : how == 2 ? sendmsg(fd, &message, 0) : writev(fd, &part, 1);
}
/* Whatever call takes what there is, or fills what room there is: the next edge is told. */
static void edges(bool host, int how)
{
    static char room[1 << 16];
    int fd[2], epoll = epoll_create1(0);
    long n, total = 0;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    ends(host, fd);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[1], &event) == 0 && write(fd[0], "one", 3) == 3 && epoll_wait(epoll, &event, 1, 2000) == 1);
    EXPECT(takes(how, fd[1], room, sizeof room) == 3 && write(fd[0], "two", 3) == 3 && epoll_wait(epoll, &event, 1, 2000) == 1);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_DEL, fd[1], NULL) == 0 && takes(how, fd[1], room, sizeof room) == 3);
    event.events = EPOLLOUT | EPOLLET;
    EXPECT(fcntl(fd[1], F_SETFL, O_NONBLOCK) == 0 && fcntl(fd[0], F_SETFL, O_NONBLOCK) == 0);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[1], &event) == 0 && epoll_wait(epoll, &event, 1, 2000) == 1);
    while ((n = gives(how, fd[1], room, sizeof room)) > 0)
        total += n;
    EXPECT(n == -1 && errno == EAGAIN);
    for (int idle = 0; total > 0 && idle < 500; idle++)
        while ((n = read(fd[0], room, sizeof room)) > 0 || (usleep(n < 0 ? 1000 : 0), 0))
            total -= n, idle = 0;
    EXPECT(total == 0 && epoll_wait(epoll, &event, 1, 2000) == 1 && event.events == EPOLLOUT);
    close(epoll), close(fd[0]), close(fd[1]);
}
CHECK(edges_inside)
{
    for (int how = 0; how < 4; how++)
        edges(false, how);
}
CHECK(edges_of_the_host)
{
    for (int how = 0; how < 4; how++)
        edges(true, how);
}
CHECK(edges_of_a_listener)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), epoll = epoll_create1(0), one;
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    EXPECT(bind(listener, (struct sockaddr *)&at, size) == 0 && listen(listener, 4) == 0);
    EXPECT(getsockname(listener, (struct sockaddr *)&at, &size) == 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) == 0);
    for (int i = 0; i < 3; i++) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        EXPECT(connect(client, (struct sockaddr *)&at, size) == 0 && epoll_wait(epoll, &event, 1, 2000) == 1);
        EXPECT((one = accept(listener, NULL, NULL)) >= 0);
        close(one), close(client);
    }
    close(epoll), close(listener);
}
static void *looks_ahead(void *at)
{
    struct wait *w = at;
    w->got = recv(w->fd, w->room, 6, MSG_PEEK | MSG_WAITALL);
    return NULL;
}
/* The same where the use begins before the edge is told, and ends after it. */
CHECK(edge_while_another_thread_reads)
{
    int fd[2], epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    pthread_t thread;
    ends(true, fd);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[1], &event) == 0);
    g_wait = (struct wait){.fd = fd[1]};
    pthread_create(&thread, NULL, looks_ahead, &g_wait);
    usleep(50000);
    EXPECT(write(fd[0], "one", 3) == 3 && epoll_wait(epoll, &event, 1, 2000) == 1);
    EXPECT(write(fd[0], "two", 3) == 3);
    pthread_join(thread, NULL);
    EXPECT(g_wait.got == 6 && epoll_wait(epoll, &event, 1, 2000) == 1);
    close(epoll), close(fd[0]), close(fd[1]);
}
/* Two descriptors of one file in one list: each has its own events, its own data, and its own edges. */
CHECK(epoll_of_two_descriptors_of_one_file)
{
    int fd[2], epoll = epoll_create1(0);
    ends(false, fd);
    int other = dup(fd[0]);
    struct epoll_event in = {.events = EPOLLIN, .data.u64 = 1}, out = {.events = EPOLLOUT | EPOLLONESHOT, .data.u64 = 2}, event[4];
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd[0], &in) == 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, other, &out) == 0);
    EXPECT(epoll_wait(epoll, event, 4, 1000) == 1 && event[0].events == EPOLLOUT && event[0].data.u64 == 2);
    EXPECT(write(fd[1], "x", 1) == 1);
    EXPECT(epoll_wait(epoll, event, 4, 1000) == 1 && event[0].events == EPOLLIN && event[0].data.u64 == 1);
    EXPECT(epoll_ctl(epoll, EPOLL_CTL_MOD, other, &out) == 0);
    EXPECT(epoll_wait(epoll, event, 4, 1000) == 2 && event[0].data.u64 != event[1].data.u64);
    close(epoll), close(other), close(fd[0]), close(fd[1]);
}
GUEST_MAIN
