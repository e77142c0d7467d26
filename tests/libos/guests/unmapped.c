/*
 * Guest: memory that a system call was given goes, or is changed, while the call waits. Linux answers EFAULT, and works on its own
 * copies of vectors and lists; so here, and what the LibOS has put in that place meanwhile stays as it is.
 */
#include "guest.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define SIZE 0x10000ul /* a pipe's buffer fits */
#define OTHERS 4
static struct call {
    long (*make)(struct call *c);
    int fd, other;
    char *room;                      /* what goes */
    struct iovec part[2];
    struct msghdr message;
    char kept[64];
    long got;
    int error;
} g_call;
static int g_others[OTHERS][2];
static char g_page[4096], g_back[4096];

static void *caller(void *at)
{
    struct call *c = at;
    errno = 0;
    c->got = c->make(c);
    c->error = errno;
    return NULL;
}
static pthread_t waiting(long (*make)(struct call *c))
{
    pthread_t thread;
    g_call.make = make;
    pthread_create(&thread, NULL, caller, &g_call);
    usleep(60000);
    return thread;
}
static char *room(void) { return g_call.room = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

/* The room goes, and pipes of the LibOS's come into its place. */
static void gone(void)
{
    EXPECT(munmap(g_call.room, SIZE) == 0);
    memset(g_page, 'A', sizeof g_page);
    for (int i = 0; i < OTHERS; i++)
        EXPECT(pipe(g_others[i]) == 0 && write(g_others[i][1], g_page, sizeof g_page) == sizeof g_page);
}
static void untouched(void)
{
    for (int i = 0; i < OTHERS; i++) {
        EXPECT(read(g_others[i][0], g_back, sizeof g_back) == sizeof g_back && !memcmp(g_back, g_page, sizeof g_back));
        close(g_others[i][0]), close(g_others[i][1]);
    }
}
static void refused(pthread_t thread)
{
    pthread_join(thread, NULL);
    EXPECT(g_call.got == -1 && g_call.error == EFAULT);
    untouched();
}

static long reads(struct call *c) { return read(c->fd, c->room, SIZE); }
static long reads_parts(struct call *c) { return readv(c->fd, c->part, 2); }
static long receives(struct call *c) { return recv(c->fd, c->room, SIZE, 0); }
static long receives_message(struct call *c) { return recvmsg(c->fd, &c->message, 0); }
static long writes(struct call *c) { return write(c->fd, c->room, SIZE); }
static long polls(struct call *c) { return poll((struct pollfd *)c->room, 1, 5000); }
static long selects(struct call *c) { return select(c->fd + 1, (fd_set *)c->room, NULL, NULL, NULL); }
static long waits_for_events(struct call *c) { return epoll_wait(c->other, (struct epoll_event *)c->room, 8, 5000); }
static long sends_file(struct call *c) { return sendfile(c->fd, c->other, (off_t *)c->room, 4096); }
static long splices(struct call *c) { return splice(c->other, (off_t *)c->room, c->fd, NULL, 4096, 0); }
static long waits_for_a_signal(struct call *c)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    return sigwaitinfo(&set, (siginfo_t *)c->room);
}

static void pair(int fd[2], bool socket)
{
    if (socket)
        EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    else
        EXPECT(pipe(fd) == 0);
    g_call.fd = fd[0];
}
static void both_closed(int fd[2]) { close(fd[0]), close(fd[1]); }

static void reader(long (*make)(struct call *c), bool socket)
{
    int fd[2];
    pair(fd, socket);
    room();
    pthread_t thread = waiting(make);
    gone();
    EXPECT(write(fd[1], "BBBBBBBB", 8) == 8);
    refused(thread);
    both_closed(fd);
}
CHECK(read_of_a_pipe) { reader(reads, false); }
CHECK(read_of_a_socket) { reader(reads, true); }
CHECK(receive) { reader(receives, true); }
CHECK(poll_list)
{
    int fd[2];
    pair(fd, false);
    *(struct pollfd *)room() = (struct pollfd){fd[0], POLLIN, 0};
    pthread_t thread = waiting(polls);
    gone();
    EXPECT(write(fd[1], "B", 1) == 1);
    refused(thread);
    both_closed(fd);
}
CHECK(select_set)
{
    int fd[2];
    pair(fd, false);
    FD_SET(fd[0], (fd_set *)room());
    pthread_t thread = waiting(selects);
    gone();
    EXPECT(write(fd[1], "B", 1) == 1);
    refused(thread);
    both_closed(fd);
}
CHECK(epoll_events)
{
    int fd[2];
    pair(fd, false);
    struct epoll_event event = {.events = EPOLLIN};
    g_call.other = epoll_create1(0);
    EXPECT(epoll_ctl(g_call.other, EPOLL_CTL_ADD, fd[0], &event) == 0);
    room();
    pthread_t thread = waiting(waits_for_events);
    gone();
    EXPECT(write(fd[1], "B", 1) == 1);
    refused(thread);
    both_closed(fd), close(g_call.other);
}
CHECK(eventfd)
{
    g_call.fd = eventfd(0, 0);
    room();
    pthread_t thread = waiting(reads);
    gone();
    EXPECT(eventfd_write(g_call.fd, 5) == 0);
    refused(thread);
    close(g_call.fd);
}
CHECK(information_of_a_signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    room();
    pthread_t thread = waiting(waits_for_a_signal);
    gone();
    EXPECT(pthread_kill(thread, SIGUSR1) == 0);
    refused(thread);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}
static void message(int fd[2], struct msghdr message)
{
    g_call.message = message;
    pthread_t thread = waiting(receives_message);
    gone();
    EXPECT(write(fd[1], "BBBBBBBB", 8) == 8);
    refused(thread);
}
CHECK(receive_message)
{
    int fd[2];
    pair(fd, true);
    g_call.part[0] = (struct iovec){room(), SIZE};
    message(fd, (struct msghdr){.msg_iov = g_call.part, .msg_iovlen = 1});
    both_closed(fd);
}

/* ---- what is written: what has gone by then is Linux's answer ---- */
static void writer(long (*make)(struct call *c), bool socket)
{
    int fd[2];
    pair(fd, socket);
    g_call.fd = fd[1];
    char *filler = calloc(1, 1 << 20);
    long filled = 0, n;
    fcntl(fd[1], F_SETFL, O_NONBLOCK);
    while ((n = write(fd[1], filler, 4096)) > 0) /* full: the call waits before it takes anything */
        filled += n;
    fcntl(fd[1], F_SETFL, 0);
    memset(room(), 'C', SIZE);
    pthread_t thread = waiting(make);
    gone();
    for (long total = 0; total < filled; total += n)
        if (!EXPECT((n = read(fd[0], filler, 1 << 20)) > 0))
            break;
    refused(thread);
    both_closed(fd);
    free(filler);
}
CHECK(write_to_a_pipe) { writer(writes, false); }
CHECK(write_to_a_socket) { writer(writes, true); }

/* ---- offsets ---- */
static void offset(long (*make)(struct call *c))
{
    int fd[2];
    char *filler = calloc(1, SIZE);
    pair(fd, false);
    g_call.fd = fd[1];
    g_call.other = memfd_create("from", 0);
    EXPECT(write(g_call.other, filler, SIZE) == (long)SIZE && write(fd[1], filler, SIZE) == (long)SIZE);
    memset(room(), 0, 8);
    pthread_t thread = waiting(make);
    gone();
    for (int i = 0; i < 17; i++)
        EXPECT(read(fd[0], filler, 4096) == 4096);
    refused(thread);
    both_closed(fd), close(g_call.other);
    free(filler);
}
CHECK(offset_of_sendfile) { offset(sends_file); }
CHECK(offset_of_splice) { offset(splices); }

/* ---- the host's sockets ---- */
static void connected(int fd[2])
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof to;
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    fd[1] = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(bind(listening, (void *)&to, sizeof to) == 0 && listen(listening, 4) == 0 && getsockname(listening, (void *)&to, &size) == 0);
    EXPECT(connect(fd[1], (void *)&to, sizeof to) == 0);
    fd[0] = accept(listening, NULL, NULL);
    g_call.fd = fd[0];
    close(listening);
}
CHECK(host_socket)
{
    static long (*const calls[])(struct call *c) = {reads, receives, receives_message};
    for (int i = 0; i < 3; i++) {
        int fd[2];
        connected(fd);
        g_call.part[0] = (struct iovec){room(), SIZE};
        g_call.message = (struct msghdr){.msg_iov = g_call.part, .msg_iovlen = 1};
        pthread_t thread = waiting(calls[i]);
        gone();
        EXPECT(write(fd[1], "BBBBBBBB", 8) == 8);
        refused(thread);
        both_closed(fd);
    }
}

/* A stream's write that has sent a part of its memory when that goes: what has come into the place stays inside. */
#define MUCH (6ul << 20)
static long writes_much(struct call *c) { return write(c->fd, c->room, MUCH); }
CHECK(host_socket_that_is_written)
{
    static int pipes[96][2];
    static char page[4096], back[65536];
    struct timeval second = {1, 0};
    int fd[2];
    long n, marks = 0;
    connected(fd);
    memset(page, 'K', sizeof page);
    g_call.room = mmap(NULL, MUCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(g_call.room, 'w', MUCH);
    pthread_t thread = waiting(writes_much);
    usleep(200000); /* the socket is full */
    EXPECT(munmap(g_call.room, MUCH) == 0);
    for (int i = 0; i < 96 && EXPECT(pipe(pipes[i]) == 0); i++)
        for (int k = 0; k < 16; k++)
            EXPECT(write(pipes[i][1], page, sizeof page) == sizeof page);
    EXPECT(setsockopt(fd[1], SOL_SOCKET, SO_RCVTIMEO, &second, sizeof second) == 0);
    while ((n = recv(fd[1], back, sizeof back, 0)) > 0)
        for (long i = 0; i < n; i++)
            marks += back[i] == 'K';
    pthread_join(thread, NULL);
    EXPECT(marks == 0);
    EXPECT(g_call.got < (long)MUCH);
    for (int i = 0; i < 96; i++)
        both_closed(pipes[i]);
    both_closed(fd);
}

/* ---- lists that change while the call waits: it goes by what it was given ---- */
CHECK(parts_of_a_read_change)
{
    int fd[2];
    char other[8] = "zzzzzzz";
    pair(fd, false);
    g_call.part[0] = (struct iovec){g_call.kept, 4}, g_call.part[1] = (struct iovec){g_call.kept + 4, 4};
    pthread_t thread = waiting(reads_parts);
    g_call.part[0] = (struct iovec){other, 4}, g_call.part[1] = (struct iovec){(void *)8, 4};
    EXPECT(write(fd[1], "12345678", 8) == 8);
    pthread_join(thread, NULL);
    EXPECT(g_call.got == 8 && !memcmp(g_call.kept, "12345678", 8) && other[0] == 'z');
    both_closed(fd);
}
CHECK(parts_of_a_message_change)
{
    int fd[2];
    char other[8] = "zzzzzzz";
    pair(fd, true);
    memset(g_call.kept, 0, sizeof g_call.kept);
    g_call.part[0] = (struct iovec){g_call.kept, 8};
    g_call.message = (struct msghdr){.msg_iov = g_call.part, .msg_iovlen = 1};
    pthread_t thread = waiting(receives_message);
    g_call.part[0] = (struct iovec){other, 8};
    EXPECT(write(fd[1], "12345678", 8) == 8);
    pthread_join(thread, NULL);
    EXPECT(g_call.got == 8 && !memcmp(g_call.kept, "12345678", 8) && other[0] == 'z');
    both_closed(fd);
}
CHECK(set_of_a_select_changes)
{
    int fd[2];
    pair(fd, false);
    FD_SET(fd[0], (fd_set *)room());
    pthread_t thread = waiting(selects);
    memset(g_call.room, 0, sizeof(fd_set));
    EXPECT(write(fd[1], "B", 1) == 1);
    pthread_join(thread, NULL);
    EXPECT(g_call.got == 1 && FD_ISSET(fd[0], (fd_set *)g_call.room));
    munmap(g_call.room, SIZE);
    both_closed(fd);
}

/* ---- no memory at all ---- */
CHECK(a_gap_is_no_memory)
{
    int fd[2];
    char *gap = room();
    EXPECT(pipe(fd) == 0 && write(fd[1], "B", 1) == 1);
    munmap(gap, SIZE);
    EXPECT_ERROR(read(fd[0], gap, 1), EFAULT);
    EXPECT_ERROR(write(fd[1], gap, 1), EFAULT);
    EXPECT(mmap(gap, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == gap);
    EXPECT_ERROR(write(fd[1], gap + 4000, 200), EFAULT); /* over its end */
    EXPECT(write(fd[1], gap + 3896, 200) == 200);
    munmap(gap, 4096);
    both_closed(fd);
}

/* ---- descriptors are taken before connections ---- */
static void accepts_nothing(int listening)
{
    struct rlimit was, few;
    int first = dup(listening);
    EXPECT(getrlimit(RLIMIT_NOFILE, &was) == 0);
    few = was;
    few.rlim_cur = (rlim_t)first;
    close(first);
    EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
    EXPECT_ERROR(accept(listening, NULL, NULL), EMFILE);
    EXPECT_ERROR(accept(listening, NULL, NULL), EMFILE);
    EXPECT(setrlimit(RLIMIT_NOFILE, &was) == 0);
}
static void accepts_at_last(int listening, int client)
{
    char back[8];
    EXPECT(write(client, "first", 5) == 5);
    accepts_nothing(listening);
    int fd = accept(listening, NULL, NULL);
    EXPECT(fd >= 0 && read(fd, back, 8) == 5 && !memcmp(back, "first", 5));
    EXPECT_ERROR(accept4(listening, NULL, NULL, 0x10000000), EINVAL);
    EXPECT_ERROR(accept4(-1, NULL, NULL, 0x10000000), EBADF);
    EXPECT_ERROR(accept4(0, NULL, NULL, 0x10000000), EINVAL); /* before it is no socket */
    close(fd), close(client), close(listening);
}
CHECK(connection_without_a_descriptor)
{
    struct sockaddr_un to = {AF_UNIX, "\0accepts"};
    int listening = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    EXPECT(bind(listening, (void *)&to, 10) == 0 && listen(listening, 4) == 0 && connect(client, (void *)&to, 10) == 0);
    accepts_at_last(listening, client);
}
CHECK(host_connection_without_a_descriptor)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof to;
    int listening = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    EXPECT(bind(listening, (void *)&to, sizeof to) == 0 && listen(listening, 4) == 0 && getsockname(listening, (void *)&to, &size) == 0);
    EXPECT(connect(client, (void *)&to, sizeof to) == 0);
    accepts_at_last(listening, client);
}
static long accepts(struct call *c) { return accept(c->fd, NULL, NULL); }
CHECK(number_of_who_waits_is_taken)
{
    struct sockaddr_un to = {AF_UNIX, "\0number"};
    int listening = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0), number = dup(listening);
    EXPECT(bind(listening, (void *)&to, 9) == 0 && listen(listening, 4) == 0 && close(number) == 0);
    g_call.fd = listening;
    pthread_t thread = waiting(accepts);
    EXPECT_ERROR(close(number), EBADF);
    EXPECT_ERROR(dup2(client, number), EBUSY);
    EXPECT(connect(client, (void *)&to, 9) == 0);
    pthread_join(thread, NULL);
    EXPECT(g_call.got == number);
    close(number), close(client), close(listening);
}
CHECK(select_for_ever_and_longer)
{
    int fd[2];
    fd_set set;
    EXPECT(pipe(fd) == 0 && write(fd[1], "B", 1) == 1);
    FD_ZERO(&set);
    FD_SET(fd[0], &set);
    struct timeval most = {0x7fffffffffffffff, 0}, odd = {-1, 0};
    EXPECT(select(fd[0] + 1, &set, NULL, NULL, &most) == 1);
    EXPECT_ERROR(select(fd[0] + 1, &set, NULL, NULL, &odd), EINVAL);
    both_closed(fd);
}
GUEST_MAIN
