/* Guest: what only the inside has: the LibOS's own memory, and no more than a few MiB of it. No control outside. */
#include "guest.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- a key that is no longer needed ---- */
#define MASK 0x5a5a5a5a5a5a5a5aull
static sigjmp_buf g_end;
static void ended(int number) { (void)number; siglongjmp(g_end, 1); }

/* How often the two words stand in the heap, from `at` on to its end. They are masked: the search itself is no find. */
static int found(const uint64_t *at, const uint64_t masked[2])
{
    volatile int count = 0;
    const uint64_t *volatile place = at;
    signal(SIGSEGV, ended);
    if (!sigsetjmp(g_end, 1))
        for (;; place++)
            if ((place[0] ^ MASK) == masked[0] && (place[1] ^ MASK) == masked[1])
                count++;
    signal(SIGSEGV, SIG_DFL);
    return count;
}
CHECK(sealing_key_is_wiped)
{
    uint64_t key[2], masked[2];
    int fd = open("/dev/attestation/keys/_sgx_mrenclave", O_RDONLY);
    EXPECT(fd >= 0 && read(fd, key, 16) == 16);
    uint64_t *from = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* above it are older ones, and the LibOS's */
    for (int i = 0; i < 2; i++)
        masked[i] = key[i] ^ MASK;
    EXPECT(key[0] != 0);
    memset(key, 0, sizeof key);
    __asm__ volatile("" : : "r"(key) : "memory");
    EXPECT(found(from, masked) >= 1); /* the descriptor's own */
    close(fd);
    EXPECT(found(from, masked) == 0);
    munmap(from, 4096);
}

/* ---- no memory ---- */
static void *g_taken[4096];
static size_t g_sizes[4096];
static int take_all(void)
{
    int n = 0;
    for (size_t size = 64 << 20; size >= 4096; size /= 2)
        while (n < 4096 && (g_taken[n] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED)
            g_sizes[n++] = size;
    return n;
}
static long names(int folder)
{
    static char room[32768];
    long n, count = 0;
    while ((n = syscall(SYS_getdents64, folder, room, sizeof room)) > 0)
        for (long at = 0; at < n; at += *(uint16_t *)(room + at + 16))
            count++;
    return n < 0 ? n : count;
}
CHECK(half_a_folder_is_none)
{
    char path[64];
    EXPECT(mkdir("/tmp/many", 0700) == 0);
    for (int i = 0; i < 2000; i++) {
        snprintf(path, sizeof path, "/tmp/many/name-of-some-length-%d", i);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        EXPECT(fd >= 0);
        close(fd);
    }
    int folder = open("/tmp/many", O_RDONLY | O_DIRECTORY), again = open("/tmp/many", O_RDONLY | O_DIRECTORY);
    int taken = take_all();
    EXPECT(names(folder) == -1 && errno == ENOMEM);
    EXPECT(names(folder) == -1 && errno == ENOMEM); /* and no part of it the second time */
    EXPECT(names(again) == -1 && errno == ENOMEM && close(again) == 0);
    for (int i = 0; i < taken; i++)
        munmap(g_taken[i], g_sizes[i]);
    EXPECT(names(folder) == 2002);
    close(folder);
}

CHECK(connection_without_memory)
{
    struct sockaddr_un to = {AF_UNIX, "\0memory"};
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), client = socket(AF_UNIX, SOCK_STREAM, 0), fds[1000], n = 0, fd;
    EXPECT(bind(listening, (void *)&to, 9) == 0 && listen(listening, 4) == 0 && connect(client, (void *)&to, 9) == 0);
    int taken = take_all();
    while (n < 1000 && (fds[n] = epoll_create1(0)) >= 0) /* what is left for descriptors */
        n++;
    EXPECT(n < 1000 && errno == ENOMEM);
    EXPECT_ERROR(accept(listening, NULL, NULL), ENOMEM);
    while (n > 0)
        close(fds[--n]);
    EXPECT((fd = accept(listening, NULL, NULL)) >= 0); /* it was still there */
    for (int i = 0; i < taken; i++)
        munmap(g_taken[i], g_sizes[i]);
    close(fd), close(client), close(listening);
}

CHECK(connection_of_the_host_without_memory)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof name;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), client = socket(AF_INET, SOCK_STREAM, 0), fds[1000], n = 0, fd;
    char byte = 0;
    EXPECT(bind(listening, (void *)&name, size) == 0 && getsockname(listening, (void *)&name, &size) == 0);
    EXPECT(listen(listening, 4) == 0 && connect(client, (void *)&name, size) == 0 && write(client, "x", 1) == 1);
    int taken = take_all();
    while (n < 1000 && (fds[n] = epoll_create1(0)) >= 0)
        n++;
    EXPECT(n < 1000 && errno == ENOMEM);
    EXPECT_ERROR(accept(listening, NULL, NULL), ENOMEM);
    while (n > 0)
        close(fds[--n]);
    EXPECT((fd = accept(listening, NULL, NULL)) >= 0 && read(fd, &byte, 1) == 1 && byte == 'x');
    for (int i = 0; i < taken; i++)
        munmap(g_taken[i], g_sizes[i]);
    close(fd), close(client), close(listening);
}

/* ---- sockets in sockets' queues ---- */
CHECK(descriptors_in_flight_however_deep)
{
    int inner = dup(0), depth = 0;
    for (; depth < 3000; depth++) {
        int fd[2];
        char byte = 'x';
        union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {{0}};
        struct iovec part = {&byte, 1};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, fd))
            break;
        memcpy(CMSG_DATA(c), &inner, sizeof inner);
        EXPECT(sendmsg(fd[0], &message, 0) == 1);
        close(inner), close(fd[0]);
        inner = fd[1];
    }
    EXPECT(depth == 3000);
    close(inner); /* all of them go */
    int fd[2];
    EXPECT(pipe(fd) == 0 && write(fd[1], "x", 1) == 1);
    close(fd[0]), close(fd[1]);
}
GUEST_MAIN
