/* Guest: system calls as Linux answers them, hostile pointers among them. Runs outside too, as the control. */
#include "guest.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* ---- hostile pointers: no such memory, kernel's half, wrapping round, the end of the address space ---- */
static void *const g_bad[] = {
    (void *)8, (void *)0x7fffffffe000, (void *)0x800000000000, (void *)0xffff800000000000, (void *)0xffffffffffffff00, (void *)-1L,
};
#define EACH_BAD(p) for (size_t i_ = 0; i_ < sizeof g_bad / sizeof *g_bad; i_++) for (void *p = g_bad[i_], *once_ = p; once_; once_ = NULL)

CHECK(hostile_read_write)
{
    int fd[2];
    EXPECT(pipe(fd) == 0);
    EXPECT(write(fd[1], "hello", 5) == 5);
    EACH_BAD(p) {
        EXPECT_ERROR(read(fd[0], p, 5), EFAULT);
        EXPECT_ERROR(write(fd[1], p, 5), EFAULT);
        struct iovec v = {p, 5};
        EXPECT_ERROR(readv(fd[0], &v, 1), EFAULT);
        EXPECT_ERROR(writev(fd[1], &v, 1), EFAULT);
        EXPECT_ERROR(readv(fd[0], p, 1), EFAULT);
    }
    char room[8];
    EXPECT(read(fd[0], room, 8) == 5); /* nothing was lost */
    EXPECT(memcmp(room, "hello", 5) == 0);
    close(fd[0]);
    close(fd[1]);
}
CHECK(hostile_paths)
{
    struct stat st;
    EACH_BAD(p) {
        EXPECT_ERROR(open(p, O_RDONLY), EFAULT);
        EXPECT_ERROR(stat(p, &st), EFAULT);
        EXPECT_ERROR(stat("/tmp", p), EFAULT);
        EXPECT_ERROR(mkdir(p, 0700), EFAULT);
        EXPECT_ERROR(rename("/tmp", p), EFAULT);
        EXPECT_ERROR(symlink(p, "/tmp/x"), EFAULT);
        EXPECT_ERROR(syscall(SYS_getcwd, p, 4096), EFAULT);
        EXPECT_ERROR(chdir(p), EFAULT);
    }
    char *long_path = malloc(70000);
    memset(long_path, 'a', 69999);
    long_path[69999] = 0;
    EXPECT_ERROR(open(long_path, O_RDONLY), ENAMETOOLONG);
    free(long_path);
}
CHECK(hostile_time_and_signals)
{
    EACH_BAD(p) {
        EXPECT_ERROR(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, p), EFAULT);
        EXPECT_ERROR(syscall(SYS_nanosleep, p, NULL), EFAULT);
        EXPECT_ERROR(syscall(SYS_rt_sigprocmask, SIG_BLOCK, p, NULL, 8), EFAULT);
        EXPECT_ERROR(syscall(SYS_rt_sigaction, SIGUSR1, p, NULL, 8), EFAULT);
        EXPECT_ERROR(syscall(SYS_futex, (uintptr_t)p & ~3ul, FUTEX_WAIT, 0, NULL), EFAULT);
        EXPECT_ERROR(syscall(SYS_poll, p, 1, 0), EFAULT);
        EXPECT_ERROR(syscall(SYS_getrandom, p, 16, 0), EFAULT);
        EXPECT_ERROR(syscall(SYS_uname, p), EFAULT);
        EXPECT_ERROR(syscall(SYS_pipe2, p, 0), EFAULT);
    }
}
CHECK(hostile_descriptors)
{
    char room[4];
    int fds[] = {-1, 1 << 30, 1000000, -2147483647};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        EXPECT_ERROR(read(fds[i], room, 1), EBADF);
        EXPECT_ERROR(close(fds[i]), EBADF);
        EXPECT_ERROR(dup(fds[i]), EBADF);
        EXPECT_ERROR(fcntl(fds[i], F_GETFD), EBADF);
        EXPECT_ERROR(fsync(fds[i]), EBADF);
    }
}
CHECK(hostile_lengths)
{
    int fd = open("/tmp/lengths", O_RDWR | O_CREAT, 0600);
    EXPECT(fd >= 0);
    struct iovec v[2] = {{"a", 1}, {"b", (size_t)-1}};
    EXPECT_ERROR(writev(fd, v, 2), EINVAL);
    EXPECT_ERROR(syscall(SYS_writev, fd, v, -1), EINVAL);
    EXPECT_ERROR(pwrite(fd, "x", 1, -1), EINVAL);
    EXPECT_ERROR(lseek(fd, -1, SEEK_SET), EINVAL);
    EXPECT_ERROR(ftruncate(fd, -1), EINVAL);
    EXPECT(mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == EINVAL);
    EXPECT(mmap(NULL, (size_t)-4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED && errno == ENOMEM);
    close(fd);
    unlink("/tmp/lengths");
}

/* ---- memory ---- */
CHECK(memory_is_zero_and_again_after_use)
{
    for (int round = 0; round < 3; round++) {
        unsigned char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        EXPECT(p != MAP_FAILED);
        for (int i = 0; i < 1 << 20; i += 4096)
            EXPECT(p[i] == 0 && p[i + 4095] == 0);
        memset(p, 0xaa, 1 << 20);
        EXPECT(munmap(p, 1 << 20) == 0);
    }
}
CHECK(mremap_and_advice)
{
    char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(p + 4096, "kept");
    p = mremap(p, 8192, 1 << 20, MREMAP_MAYMOVE);
    EXPECT(p != MAP_FAILED && strcmp(p + 4096, "kept") == 0 && p[(1 << 20) - 1] == 0);
    EXPECT(madvise(p, 8192, MADV_DONTNEED) == 0);
    EXPECT(p[4096] == 0);
    munmap(p, 1 << 20);
}
CHECK(names_of_descriptors)
{
    char room[64], target[64];
    static const char *const none[] = {"", "x", "1x", "-1", "01", "4294967297", "18446744073709551617", "1024"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        snprintf(room, sizeof room, "/proc/self/fd/%s%s", none[i], *none[i] ? "" : "?");
        EXPECT_ERROR(open(room, O_RDONLY), ENOENT);
        EXPECT_ERROR(readlink(room, target, sizeof target), ENOENT);
    }
    EXPECT(readlink("/proc/self/fd/1", target, sizeof target) > 0);
}
CHECK(mapping_far_beyond_any_file)
{
    int fd = memfd_create("far", 0);
    EXPECT(write(fd, "hello", 5) == 5 && lseek(fd, 1, SEEK_SET) == 1);
    for (int shared = 0; shared < 2; shared++)
        for (long at = -8192; at < 0; at += 4096) {
            errno = 0;
            EXPECT(mmap(NULL, 8192, PROT_READ, shared ? MAP_SHARED : MAP_PRIVATE, fd, at) == MAP_FAILED && errno == EOVERFLOW);
            EXPECT(mmap(NULL, 8192, PROT_READ, shared ? MAP_SHARED : MAP_PRIVATE, fd, 0x7ffffffffffff000) == MAP_FAILED && errno == EOVERFLOW);
        }
    EXPECT(lseek(fd, 0, SEEK_CUR) == 1);
    close(fd);
}
CHECK(shared_mapping_is_the_file)
{
    int fd = open("/tmp/shared", O_RDWR | O_CREAT | O_EXCL, 0600);
    EXPECT(ftruncate(fd, 10000) == 0);
    char *p = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), *q = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096), room[6];
    EXPECT(p != MAP_FAILED && q != MAP_FAILED);
    memcpy(p + 5000, "there", 6);
    EXPECT(pread(fd, room, 6, 5000) == 6 && strcmp(room, "there") == 0);
    EXPECT(strcmp(q + 5000 - 4096, "there") == 0);
    EXPECT(pwrite(fd, "again", 6, 20) == 6 && strcmp(p + 20, "again") == 0);
    EXPECT(msync(p, 10000, MS_SYNC) == 0);
    EXPECT(munmap(q, 4096) == 0 && munmap(p, 10000) == 0);
    EXPECT(pread(fd, room, 6, 5000) == 6 && strcmp(room, "there") == 0);
    close(fd);
    unlink("/tmp/shared");
}

/* ---- files ---- */
CHECK(sparse_file)
{
    struct stat st;
    char room[4] = "xyz";
    int fd = open("/tmp/sparse", O_RDWR | O_CREAT, 0600);
    EXPECT(pwrite(fd, "end", 3, 3l << 30) == 3);
    EXPECT(fstat(fd, &st) == 0 && st.st_size == (3l << 30) + 3 && st.st_blocks * 512 < 1 << 20);
    EXPECT(pread(fd, room, 3, 1l << 30) == 3 && memcmp(room, "\0\0\0", 3) == 0);
    EXPECT(pread(fd, room, 3, 3l << 30) == 3 && memcmp(room, "end", 3) == 0);
    EXPECT(lseek(fd, 0, SEEK_DATA) == 3l << 30);
    EXPECT(ftruncate(fd, 5) == 0 && ftruncate(fd, 4l << 30) == 0);
    EXPECT(pread(fd, room, 3, 3l << 30) == 3 && memcmp(room, "\0\0\0", 3) == 0);
    close(fd);
    unlink("/tmp/sparse");
}
CHECK(links_and_rename)
{
    struct stat one, two;
    char room[64];
    mkdir("/tmp/d", 0700);
    close(open("/tmp/d/a", O_RDWR | O_CREAT, 0600));
    EXPECT(link("/tmp/d/a", "/tmp/d/b") == 0 && stat("/tmp/d/a", &one) == 0 && stat("/tmp/d/b", &two) == 0);
    EXPECT(one.st_ino == two.st_ino && one.st_nlink == 2);
    EXPECT(symlink("a", "/tmp/d/l") == 0 && readlink("/tmp/d/l", room, 64) == 1 && lstat("/tmp/d/l", &two) == 0 && S_ISLNK(two.st_mode));
    EXPECT(stat("/tmp/d/l", &two) == 0 && two.st_ino == one.st_ino);
    EXPECT(symlink("loop", "/tmp/d/loop") == 0);
    EXPECT_ERROR(open("/tmp/d/loop", O_RDONLY), ELOOP);
    EXPECT_ERROR(open("/tmp/d/l", O_RDONLY | O_NOFOLLOW), ELOOP);
    EXPECT_ERROR(open("/tmp/d/a/x", O_RDONLY), ENOTDIR);
    EXPECT_ERROR(rename("/tmp/d", "/tmp/d/inside"), EINVAL);
    EXPECT(mkdir("/tmp/e", 0700) == 0);
    EXPECT_ERROR(rename("/tmp/d/a", "/tmp/e"), EISDIR);
    EXPECT_ERROR(rename("/tmp/e", "/tmp/d/a"), ENOTDIR);
    EXPECT_ERROR(rename("/tmp/e", "/tmp/d"), ENOTEMPTY);
    EXPECT_ERROR(open("/tmp/d/a/", O_RDONLY), ENOTDIR);
    EXPECT_ERROR(open("/tmp/d/new/", O_RDWR | O_CREAT, 0600), EISDIR);
    EXPECT(rmdir("/tmp/e") == 0);
    EXPECT_ERROR(rmdir("/tmp/d"), ENOTEMPTY);
    EXPECT(rename("/tmp/d/a", "/tmp/d/c") == 0 && unlink("/tmp/d/b") == 0 && stat("/tmp/d/c", &one) == 0 && one.st_nlink == 1);
    EXPECT(unlink("/tmp/d/c") == 0 && unlink("/tmp/d/l") == 0 && unlink("/tmp/d/loop") == 0 && rmdir("/tmp/d") == 0);
}
CHECK(open_that_fails_changes_nothing)
{
    struct rlimit limit, low;
    int fd = open("/tmp/kept", O_RDWR | O_CREAT, 0600);
    char room[5];
    EXPECT(write(fd, "hello", 5) == 5 && getrlimit(RLIMIT_NOFILE, &limit) == 0);
    low = (struct rlimit){(rlim_t)fd, limit.rlim_max};
    EXPECT(setrlimit(RLIMIT_NOFILE, &low) == 0);
    EXPECT_ERROR(open("/tmp/kept", O_WRONLY | O_TRUNC), EMFILE);
    EXPECT_ERROR(open("/tmp/new", O_WRONLY | O_CREAT, 0600), EMFILE);
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    EXPECT(pread(fd, room, 5, 0) == 5 && !memcmp(room, "hello", 5));
    EXPECT_ERROR(access("/tmp/new", F_OK), ENOENT);
    close(fd), unlink("/tmp/kept");
}
CHECK(unlinked_file_lives_while_open)
{
    char room[4];
    int fd = open("/tmp/gone", O_RDWR | O_CREAT, 0600);
    EXPECT(unlink("/tmp/gone") == 0 && write(fd, "abc", 3) == 3 && pread(fd, room, 3, 0) == 3);
    close(fd);
    fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    EXPECT(fd >= 0 && write(fd, "abc", 3) == 3);
    close(fd);
}
CHECK(times_modes_owners)
{
    struct stat st;
    struct timespec times[2] = {{1000, 5}, {2000, 7}};
    mode_t old = umask(027);
    close(open("/tmp/m", O_RDWR | O_CREAT, 0666));
    umask(old);
    EXPECT(stat("/tmp/m", &st) == 0 && (st.st_mode & 0777) == 0640);
    EXPECT(chmod("/tmp/m", 04711) == 0 && stat("/tmp/m", &st) == 0 && (st.st_mode & 07777) == 04711);
    EXPECT(utimensat(AT_FDCWD, "/tmp/m", times, 0) == 0 && stat("/tmp/m", &st) == 0);
    EXPECT(st.st_atim.tv_sec == 1000 && st.st_atim.tv_nsec == 5 && st.st_mtim.tv_sec == 2000 && st.st_mtim.tv_nsec == 7);
    times[0].tv_nsec = UTIME_OMIT, times[1].tv_nsec = 2000000000;
    EXPECT_ERROR(utimensat(AT_FDCWD, "/tmp/m", times, 0), EINVAL);
    EXPECT(truncate("/tmp/m", 77) == 0 && stat("/tmp/m", &st) == 0 && st.st_size == 77);
    unlink("/tmp/m");
}
CHECK(sendfile_and_copy)
{
    char room[8] = {0};
    int one = open("/tmp/1", O_RDWR | O_CREAT, 0600), two = open("/tmp/2", O_RDWR | O_CREAT, 0600);
    EXPECT(write(one, "abcdefg", 7) == 7);
    off_t at = 2;
    EXPECT(sendfile(two, one, &at, 3) == 3 && at == 5 && pread(two, room, 8, 0) == 3 && strcmp(room, "cde") == 0);
    loff_t from = 0;
    EXPECT(copy_file_range(one, &from, two, NULL, 7, 0) == 7 && from == 7);
    EXPECT(pread(two, room, 8, 3) == 7 && memcmp(room, "abcdefg", 7) == 0);
    close(one), close(two), unlink("/tmp/1"), unlink("/tmp/2");
}

/* ---- pipes and sockets ---- */
CHECK(pipe_ends)
{
    int fd[2];
    char room[8];
    EXPECT(pipe2(fd, O_NONBLOCK) == 0);
    EXPECT_ERROR(read(fd[0], room, 1), EAGAIN);
    char *big = calloc(1, 1 << 20);
    long n = write(fd[1], big, 1 << 20);
    EXPECT(n == 65536);
    EXPECT_ERROR(write(fd[1], big, 1), EAGAIN);
    while (read(fd[0], big, 1 << 20) > 0)
        ;
    close(fd[1]);
    EXPECT(read(fd[0], room, 1) == 0);
    close(fd[0]);
    free(big);
    signal(SIGPIPE, SIG_IGN);
    EXPECT(pipe(fd) == 0);
    close(fd[0]);
    EXPECT_ERROR(write(fd[1], "x", 1), EPIPE);
    close(fd[1]);
    signal(SIGPIPE, SIG_DFL);
}
CHECK(descriptors_over_a_socket)
{
    int pair[2], fd[2], got = -1;
    EXPECT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 && pipe(fd) == 0);
    union { char room[CMSG_SPACE(4)]; struct cmsghdr align; } control = {{0}};
    char byte = 'x';
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(4);
    memcpy(CMSG_DATA(c), &fd[1], 4);
    EXPECT(sendmsg(pair[0], &m, 0) == 1);
    close(fd[1]);
    memset(&control, 0, sizeof control);
    m.msg_controllen = sizeof control;
    EXPECT(recvmsg(pair[1], &m, 0) == 1 && m.msg_controllen == CMSG_SPACE(4));
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&m)), 4);
    char room[3];
    EXPECT(write(got, "abc", 3) == 3 && read(fd[0], room, 3) == 3);
    close(got);
    EXPECT(read(fd[0], room, 3) == 0); /* the last writer is gone */
    close(fd[0]), close(pair[0]), close(pair[1]);
}
CHECK(packets_by_name)
{
    struct sockaddr_un a = {AF_UNIX, "/tmp/socket"};
    struct stat st;
    char room[16];
    int one = socket(AF_UNIX, SOCK_DGRAM, 0), two = socket(AF_UNIX, SOCK_DGRAM, 0);
    EXPECT(bind(one, (void *)&a, sizeof a) == 0 && stat("/tmp/socket", &st) == 0 && S_ISSOCK(st.st_mode));
    EXPECT_ERROR(bind(two, (void *)&a, sizeof a), EADDRINUSE);
    EXPECT(sendto(two, "first", 5, 0, (void *)&a, sizeof a) == 5 && sendto(two, "second", 6, 0, (void *)&a, sizeof a) == 6);
    EXPECT(recv(one, room, 3, MSG_TRUNC) == 5 && recv(one, room, 16, 0) == 6 && memcmp(room, "second", 6) == 0);
    EXPECT_ERROR(recv(one, room, 16, MSG_DONTWAIT), EAGAIN);
    close(one);
    EXPECT_ERROR(sendto(two, "x", 1, 0, (void *)&a, sizeof a), ECONNREFUSED);
    close(two);
    EXPECT(unlink("/tmp/socket") == 0);
}
static void *serve(void *fd)
{
    int client = accept(*(int *)fd, NULL, NULL);
    char room[32];
    for (long n; (n = read(client, room, sizeof room)) > 0;)
        if (write(client, room, (size_t)n) != n)
            break;
    close(client);
    return NULL;
}
CHECK(stream_by_abstract_name)
{
    struct sockaddr_un a = {AF_UNIX, "\0strongroom-guest"};
    socklen_t size = offsetof(struct sockaddr_un, sun_path) + 17;
    int server = socket(AF_UNIX, SOCK_STREAM, 0), client = socket(AF_UNIX, SOCK_STREAM, 0);
    pthread_t thread;
    char room[8];
    EXPECT_ERROR(connect(client, (void *)&a, size), ECONNREFUSED);
    EXPECT(bind(server, (void *)&a, size) == 0 && listen(server, 5) == 0);
    pthread_create(&thread, NULL, serve, &server);
    EXPECT(connect(client, (void *)&a, size) == 0 && write(client, "echo", 4) == 4 && read(client, room, 8) == 4);
    EXPECT(shutdown(client, SHUT_WR) == 0 && read(client, room, 8) == 0);
    pthread_join(thread, NULL);
    close(client), close(server);
}
CHECK(epoll_of_a_number_used_again)
{
    int e = epoll_create1(0), first[2], again[2];
    struct epoll_event want = {EPOLLIN, {.u32 = 1}}, got[4];
    for (int i = 0; i < 3; i++) {
        EXPECT(pipe(first) == 0 && epoll_ctl(e, EPOLL_CTL_ADD, first[0], &want) == 0);
        EXPECT(close(first[0]) == 0 && close(first[1]) == 0 && pipe(again) == 0 && again[0] == first[0]);
        want.data.u32 = 2;
        if (i) {
            EXPECT_ERROR(epoll_ctl(e, EPOLL_CTL_MOD, again[0], &want), ENOENT);
            EXPECT_ERROR(epoll_ctl(e, EPOLL_CTL_DEL, again[0], &want), ENOENT);
        }
        EXPECT(write(again[1], "x", 1) == 1 && epoll_wait(e, got, 4, 0) == 0);
        EXPECT(epoll_ctl(e, EPOLL_CTL_ADD, again[0], &want) == 0);
        EXPECT(epoll_wait(e, got, 4, 0) == 1 && got[0].data.u32 == 2);
        EXPECT(close(again[0]) == 0 && close(again[1]) == 0);
        want.data.u32 = 1;
    }
    close(e);
}

CHECK(poll_select_epoll_eventfd)
{
    int event = eventfd(0, 0), fd[2], e = epoll_create1(0);
    uint64_t one = 1;
    EXPECT(pipe(fd) == 0);
    struct pollfd p[2] = {{event, POLLIN | POLLOUT, 0}, {fd[0], POLLIN, 0}};
    EXPECT(poll(p, 2, 0) == 1 && p[0].revents == POLLOUT && !p[1].revents);
    struct epoll_event want = {EPOLLIN | EPOLLET, {.u32 = 7}}, got[4];
    EXPECT(epoll_ctl(e, EPOLL_CTL_ADD, event, &want) == 0);
    EXPECT_ERROR(epoll_ctl(e, EPOLL_CTL_ADD, event, &want), EEXIST);
    EXPECT(epoll_wait(e, got, 4, 0) == 0);
    EXPECT(write(event, &one, 8) == 8 && epoll_wait(e, got, 4, 1000) == 1 && got[0].data.u32 == 7);
    EXPECT(epoll_wait(e, got, 4, 0) == 0); /* an edge is told once */
    EXPECT(write(event, &one, 8) == 8 && epoll_wait(e, got, 4, 0) == 1);
    want = (struct epoll_event){EPOLLIN | EPOLLONESHOT, {.u32 = 9}};
    EXPECT(epoll_ctl(e, EPOLL_CTL_ADD, fd[0], &want) == 0 && write(fd[1], "x", 1) == 1);
    EXPECT(epoll_wait(e, got, 4, 0) == 1 && got[0].data.u32 == 9 && epoll_wait(e, got, 4, 0) == 0);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd[0], &set);
    FD_SET(event, &set);
    struct timeval none = {0, 0};
    EXPECT(select(event > fd[0] ? event + 1 : fd[0] + 1, &set, NULL, NULL, &none) == 2);
    EXPECT(read(event, &one, 8) == 8 && one == 2);
    close(event), close(fd[0]), close(fd[1]), close(e);
}

/* ---- threads ---- */
static int g_count;
static pthread_mutex_t g_mutex = PTHREAD_MUTEX_INITIALIZER;
static __thread int t_own;
static void *count(void *unused)
{
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&g_mutex);
        g_count++;
        pthread_mutex_unlock(&g_mutex);
        t_own++;
    }
    return (void *)(long)(t_own + (unused != NULL));
}
CHECK(threads_and_mutex)
{
    pthread_t thread[4];
    for (int round = 0; round < 3; round++) { /* slots are used again */
        for (int i = 0; i < 4; i++)
            EXPECT(pthread_create(&thread[i], NULL, count, NULL) == 0);
        for (int i = 0; i < 4; i++) {
            void *own;
            EXPECT(pthread_join(thread[i], &own) == 0 && own == (void *)2000);
        }
    }
    EXPECT(g_count == 3 * 4 * 2000 && t_own == 0);
}
CHECK(timed_waits)
{
    struct timespec now, end;
    sem_t sem;
    sem_init(&sem, 0, 0);
    clock_gettime(CLOCK_REALTIME, &now);
    now.tv_nsec += 30000000;
    if (now.tv_nsec >= 1000000000)
        now.tv_sec++, now.tv_nsec -= 1000000000;
    EXPECT_ERROR(sem_timedwait(&sem, &now), ETIMEDOUT);
    clock_gettime(CLOCK_REALTIME, &end);
    EXPECT(end.tv_sec > now.tv_sec || (end.tv_sec == now.tv_sec && end.tv_nsec >= now.tv_nsec));
}

/* ---- time ---- */
CHECK(clocks_go_forward)
{
    struct timespec one, two, sleep = {0, 20000000};
    for (int clock = 0; clock < 2; clock++)
        for (int i = 0; i < 100; i++) {
            EXPECT(clock_gettime(clock, &one) == 0 && clock_gettime(clock, &two) == 0);
            EXPECT(two.tv_sec > one.tv_sec || (two.tv_sec == one.tv_sec && two.tv_nsec >= one.tv_nsec));
        }
    clock_gettime(CLOCK_MONOTONIC, &one);
    EXPECT(nanosleep(&sleep, NULL) == 0);
    clock_gettime(CLOCK_MONOTONIC, &two);
    EXPECT((two.tv_sec - one.tv_sec) * 1000000000l + two.tv_nsec - one.tv_nsec >= 20000000);
    EXPECT_ERROR(clock_gettime(99, &one), EINVAL);
    sleep.tv_nsec = 1000000000;
    EXPECT_ERROR(nanosleep(&sleep, NULL), EINVAL);
}

/* ---- signals ---- */
static volatile int g_signal, g_code;
static sigjmp_buf g_jump;
static void on_signal(int n, siginfo_t *info, void *context)
{
    (void)context;
    g_signal = n;
    g_code = info->si_code;
}
static void on_fault(int n, siginfo_t *info, void *context)
{
    on_signal(n, info, context);
    siglongjmp(g_jump, 1);
}
static void take(int n, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct sigaction act = {.sa_flags = SA_SIGINFO | flags};
    act.sa_sigaction = handler;
    sigaction(n, &act, NULL);
}
CHECK(signals_blocked_and_delivered)
{
    sigset_t set, pending;
    take(SIGUSR1, on_signal, 0);
    sigemptyset(&set), sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    g_signal = 0;
    EXPECT(raise(SIGUSR1) == 0 && g_signal == 0 && sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    EXPECT(g_signal == SIGUSR1 && g_code == SI_TKILL);
    EXPECT(kill(getpid(), SIGUSR1) == 0 && g_code == SI_USER);
    struct timespec none = {0, 0};
    sigprocmask(SIG_BLOCK, &set, NULL);
    EXPECT(kill(getpid(), SIGUSR1) == 0 && sigtimedwait(&set, NULL, &none) == SIGUSR1);
    EXPECT_ERROR(sigtimedwait(&set, NULL, &none), EAGAIN);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}
CHECK(interrupted_and_restarted)
{
    struct itimerval soon = {{0, 0}, {0, 20000}};
    int fd[2];
    char room[2];
    EXPECT(pipe(fd) == 0);
    take(SIGALRM, on_signal, 0);
    setitimer(ITIMER_REAL, &soon, NULL);
    EXPECT_ERROR(read(fd[0], room, 1), EINTR);
    EXPECT(g_signal == SIGALRM);
    setitimer(ITIMER_REAL, &soon, NULL);
    struct timespec second = {5, 0}, left = {0, 0};
    EXPECT_ERROR(nanosleep(&second, &left), EINTR);
    EXPECT(left.tv_sec == 4);
    close(fd[0]), close(fd[1]);
}
CHECK(faults_are_signals)
{
    stack_t alternate = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&alternate, NULL);
    take(SIGSEGV, on_fault, SA_ONSTACK);
    take(SIGFPE, on_fault, 0);
    take(SIGILL, on_fault, 0);
    take(SIGTRAP, on_signal, 0);
    if (!sigsetjmp(g_jump, 1))
        *(volatile int *)8 = 1;
    EXPECT(g_signal == SIGSEGV && g_code == SEGV_MAPERR);
    if (!sigsetjmp(g_jump, 1))
        __asm__ volatile("xor %%ecx, %%ecx; div %%ecx" : : : "eax", "ecx", "edx");
    EXPECT(g_signal == SIGFPE && g_code == FPE_INTDIV);
    if (!sigsetjmp(g_jump, 1))
        __asm__ volatile("ud2");
    EXPECT(g_signal == SIGILL);
    __asm__ volatile("int3");
    EXPECT(g_signal == SIGTRAP);
    signal(SIGSEGV, SIG_DFL);
}
CHECK(vector_registers_survive_a_handler)
{
    double sum = 0;
    take(SIGVTALRM, on_signal, SA_RESTART);
    struct itimerval often = {{0, 1000}, {0, 1000}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_VIRTUAL, &often, NULL);
    for (int i = 1; i <= 20000000; i++)
        sum += 1.0 / i;
    setitimer(ITIMER_VIRTUAL, &off, NULL);
    EXPECT(g_signal == SIGVTALRM);
    EXPECT(sum > 17.3884 && sum < 17.3886);
}

/* ---- identity, limits, attributes ---- */
CHECK(attributes_and_limits)
{
    char room[8];
    struct rlimit limit;
    int fd = open("/tmp/x", O_RDWR | O_CREAT, 0600);
    if (setxattr("/tmp/x", "user.one", "1", 1, 0) == 0 || errno != EOPNOTSUPP) { /* older tmpfs has none */
        EXPECT(fgetxattr(fd, "user.one", room, 8) == 1 && room[0] == '1');
        EXPECT_ERROR(getxattr("/tmp/x", "user.two", room, 8), ENODATA);
        EXPECT_ERROR(setxattr("/tmp/x", "user.one", "2", 1, XATTR_CREATE), EEXIST);
    }
    close(fd), unlink("/tmp/x");
    EXPECT(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur >= 1024);
    EXPECT_ERROR(getpriority(99, 0), EINVAL);
}
GUEST_MAIN
