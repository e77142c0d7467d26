/* Guest: bytes on their way through vectors, splices and sockets: none is lost, no packet is two or a half, no call waits that has something. */
#include "guest.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

/* Two ends of a connection of the host's loopback. */
static void connected(int type, int fd[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int first = socket(AF_INET, type, 0);
    EXPECT(bind(first, (void *)&at, size) == 0 && getsockname(first, (void *)&at, &size) == 0);
    EXPECT(type == SOCK_DGRAM || listen(first, 1) == 0);
    fd[0] = socket(AF_INET, type, 0);
    EXPECT(connect(fd[0], (void *)&at, size) == 0);
    if (type == SOCK_DGRAM) {
        fd[1] = first;
        return;
    }
    fd[1] = accept(first, NULL, NULL);
    close(first);
}
static void both_closed(int fd[2]) { close(fd[0]), close(fd[1]); }

static void quiet(int number) { (void)number; }
static void alarm_in(int ms, int flags) /* 0: none any more */
{
    struct sigaction action = {.sa_handler = quiet, .sa_flags = flags};
    struct itimerval at = {.it_value = {ms / 1000, ms % 1000 * 1000}};
    EXPECT(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &at, NULL) == 0);
}

/* ---- vectors ---- */
static void read_is_what_is_there(int fd[2])
{
    char head[4], rest[64];
    struct iovec part[] = {{head, sizeof head}, {rest, sizeof rest}};
    EXPECT(write(fd[0], "1234", 4) == 4);
    usleep(30000);
    alarm_in(1500, 0); /* the first part is full: no waiting for the second */
    EXPECT(readv(fd[1], part, 2) == 4 && !memcmp(head, "1234", 4));
    alarm_in(0, 0);
    EXPECT(write(fd[0], "12345678", 8) == 8);
    usleep(30000);
    EXPECT(readv(fd[1], part, 2) == 8 && !memcmp(head, "1234", 4) && !memcmp(rest, "5678", 4));
    both_closed(fd);
}
CHECK(readv_of_a_host_socket)
{
    int fd[2];
    connected(SOCK_STREAM, fd);
    read_is_what_is_there(fd);
}
CHECK(readv_of_a_socket_inside)
{
    int fd[2];
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM, 0, fd) == 0);
    read_is_what_is_there(fd);
}
CHECK(readv_of_a_pipe)
{
    int fd[2], ends[2];
    EXPECT(pipe(fd) == 0);
    ends[0] = fd[1], ends[1] = fd[0];
    read_is_what_is_there(ends);
}
static void packets_stay_apart(int fd[2])
{
    static char first[50000], second[50000], back[120000];
    char head[4], rest[64];
    struct iovec part[] = {{head, sizeof head}, {rest, sizeof rest}}, large[] = {{first, 20000}, {second, 40000}};
    struct iovec too_large[7];
    struct timeval most = {2, 0};
    EXPECT(setsockopt(fd[1], SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most) == 0);
    EXPECT(write(fd[0], "12345678", 8) == 8 && write(fd[0], "abcd", 4) == 4);
    usleep(30000);
    EXPECT(readv(fd[1], part, 2) == 8 && !memcmp(head, "1234", 4) && !memcmp(rest, "5678", 4));
    EXPECT(readv(fd[1], part, 2) == 4 && !memcmp(head, "abcd", 4));
    memset(second, 's', sizeof second);
    EXPECT(writev(fd[0], large, 2) == 60000);
    usleep(30000);
    EXPECT(recv(fd[1], back, sizeof back, MSG_DONTWAIT) == 60000 && back[19999] == 0 && back[20000] == 's');
    for (int i = 0; i < 7; i++)
        too_large[i] = (struct iovec){first, sizeof first};
    EXPECT_ERROR(writev(fd[0], too_large, 7), EMSGSIZE);
    EXPECT_ERROR(recv(fd[1], back, sizeof back, MSG_DONTWAIT), EAGAIN);
    both_closed(fd);
}
CHECK(packets_of_the_host)
{
    int fd[2];
    connected(SOCK_DGRAM, fd);
    packets_stay_apart(fd);
}
CHECK(packets_inside)
{
    static const int type[] = {SOCK_DGRAM, SOCK_SEQPACKET};
    for (int i = 0; i < 2; i++) {
        int fd[2];
        EXPECT(socketpair(AF_UNIX, type[i], 0, fd) == 0);
        packets_stay_apart(fd);
    }
}
CHECK(packet_of_more_than_a_pipe)
{
    static char half[50000], back[120000];
    struct iovec part[] = {{half, sizeof half}, {half, sizeof half}};
    int fd[2];
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd) == 0);
    EXPECT(writev(fd[0], part, 2) == 100000 && recv(fd[1], back, sizeof back, MSG_DONTWAIT) == 100000);
    both_closed(fd);
}
CHECK(parts_without_memory)
{
    char head[4];
    struct iovec part[] = {{head, sizeof head}, {(void *)8, 4}};
    int fd[2];
    EXPECT(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd) == 0);
    EXPECT_ERROR(writev(fd[0], part, 2), EFAULT);
    EXPECT_ERROR(recv(fd[1], head, sizeof head, MSG_DONTWAIT), EAGAIN); /* no half of a packet */
    both_closed(fd);
}
#define MUCH 400000
static int g_fd[2], g_pipe[2];
static char g_much[MUCH], g_back[MUCH];

/* ---- MSG_WAITALL of more than the LibOS asks the host for at once ---- */
static void *sends_slowly(void *unused)
{
    for (long at = 0, n; at < MUCH; at += n, usleep(3000))
        if (!EXPECT((n = send(g_fd[0], g_much + at, 50000, MSG_NOSIGNAL)) > 0))
            break;
    return unused;
}
CHECK(waits_for_all)
{
    pthread_t thread;
    struct timeval most = {5, 0};
    for (size_t i = 0; i < MUCH / sizeof(int); i++)
        ((int *)g_much)[i] = (int)i;
    connected(SOCK_STREAM, g_fd);
    EXPECT(setsockopt(g_fd[1], SOL_SOCKET, SO_RCVTIMEO, &most, sizeof most) == 0);
    pthread_create(&thread, NULL, sends_slowly, NULL);
    EXPECT(recv(g_fd[1], g_back, MUCH, MSG_WAITALL) == MUCH && !memcmp(g_back, g_much, MUCH));
    while (recv(g_fd[1], g_back, MUCH, MSG_DONTWAIT) > 0)
        ;
    pthread_join(thread, NULL);
    EXPECT(send(g_fd[0], "12", 2, 0) == 2 && shutdown(g_fd[0], SHUT_WR) == 0);
    EXPECT(recv(g_fd[1], g_back, MUCH, MSG_WAITALL) == 2); /* the end comes first */
    both_closed(g_fd);
}

/* ---- a time for a call: signal(7) never begins it anew ---- */
CHECK(time_is_not_begun_anew)
{
    struct timeval time = {3, 0}, begun, ended;
    struct iovec part = {g_back, 4};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int fd[2];
    connected(SOCK_STREAM, fd);
    EXPECT(setsockopt(fd[1], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0 && gettimeofday(&begun, NULL) == 0);
    alarm_in(100, SA_RESTART);
    EXPECT_ERROR(recv(fd[1], g_back, 4, 0), EINTR);
    alarm_in(100, SA_RESTART);
    EXPECT_ERROR(read(fd[1], g_back, 4), EINTR);
    alarm_in(100, SA_RESTART);
    EXPECT_ERROR(recvmsg(fd[1], &message, 0), EINTR);
    EXPECT(gettimeofday(&ended, NULL) == 0 && ended.tv_sec - begun.tv_sec < 3);
    time.tv_sec = 0;
    EXPECT(setsockopt(fd[1], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
    both_closed(fd);
}

/* ---- splice: what the target does not take is still there ---- */
static void *splices(void *unused)
{
    long n;
    while ((n = splice(g_fd[1], NULL, g_pipe[1], NULL, 65536, 0)) > 0 || (n < 0 && errno == EAGAIN))
        usleep(n < 0 ? 1000 : 0);
    return unused;
}
static void *sends_marks(void *unused)
{
    static char room[65536];
    memset(room, 'x', sizeof room);
    for (int round = 0; round < 3; round++) {
        usleep(100000);
        EXPECT(send(g_fd[0], room, sizeof room, MSG_NOSIGNAL) == sizeof room);
    }
    EXPECT(shutdown(g_fd[0], SHUT_WR) == 0);
    return unused;
}
CHECK(splice_of_a_socket_to_a_pipe_that_fills)
{
    static char filler[61440];
    pthread_t from, to;
    long marks = 0, n;
    connected(SOCK_STREAM, g_fd);
    EXPECT(pipe2(g_pipe, O_NONBLOCK) == 0);
    pthread_create(&to, NULL, splices, NULL);
    pthread_create(&from, NULL, sends_marks, NULL);
    usleep(50000);
    (void)!write(g_pipe[1], filler, sizeof filler); /* while the splice waits: room is left for it, or (Linux) this waits, too */
    pthread_join(from, NULL);
    for (int idle = 0; idle < 50 && marks < 3 * 65536; idle++, usleep(10000))
        while ((n = read(g_pipe[0], g_back, 65536)) > 0)
            for (long i = 0; i < n; i++)
                marks += g_back[i] == 'x', idle = 0;
    EXPECT(marks == 3 * 65536);
    pthread_join(to, NULL);
    both_closed(g_fd), both_closed(g_pipe);
}
CHECK(splice_of_a_pipe_to_a_full_socket)
{
    long given = 0, taken = 0, left, n;
    int next = 0, wrong = 0;
    connected(SOCK_STREAM, g_fd);
    EXPECT(fcntl(g_fd[0], F_SETFL, O_NONBLOCK) == 0 && fcntl(g_fd[1], F_SETFL, O_NONBLOCK) == 0 && pipe(g_pipe) == 0);
    do { /* until the socket is full */
        for (size_t i = 0; i < 65536 / sizeof(int); i++)
            ((int *)g_much)[i] = next++;
        EXPECT(write(g_pipe[1], g_much, 65536) == 65536);
        for (left = 65536; left && (n = splice(g_pipe[0], NULL, g_fd[0], NULL, (size_t)left, SPLICE_F_NONBLOCK)) > 0; left -= n)
            given += n;
    } while (!left && given < 64 << 20);
    EXPECT(left > 0 && n == -1 && errno == EAGAIN);
    for (int idle = 0; idle < 500; idle++) {
        if (left && (n = splice(g_pipe[0], NULL, g_fd[0], NULL, (size_t)left, SPLICE_F_NONBLOCK)) > 0)
            left -= n, given += n;
        for (; (n = read(g_fd[1], (char *)g_back + taken % 4, 65536)) > 0; idle = 0) {
            long whole = taken % 4 + n, i = 0;
            for (; i + 4 <= whole; i += 4)
                wrong += *(int *)(void *)(g_back + i) != (int)((taken - taken % 4 + i) / 4);
            memmove(g_back, g_back + i, (size_t)(whole - i));
            taken += n;
        }
        if (!left && taken == given)
            break;
        usleep(2000);
    }
    EXPECT(!left && taken == given && given == next * 4l && !wrong);
    both_closed(g_fd), both_closed(g_pipe);
}
CHECK(sendfile_to_a_full_pipe)
{
    int from = memfd_create("from", 0);
    EXPECT(write(from, g_much, MUCH) == MUCH && lseek(from, 0, SEEK_SET) == 0 && pipe2(g_pipe, O_NONBLOCK) == 0);
    long n = sendfile(g_pipe[1], from, NULL, MUCH);
    EXPECT(n == 65536 && lseek(from, 0, SEEK_CUR) == n);
    EXPECT_ERROR(sendfile(g_pipe[1], from, NULL, MUCH), EAGAIN);
    EXPECT(lseek(from, 0, SEEK_CUR) == n);
    close(from), both_closed(g_pipe);
}
GUEST_MAIN
