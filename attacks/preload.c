/*
 * The control of attacks/liar.c: the same lies told to an ordinary program, by a library that is loaded before libc.
 * LIE in the environment names the lie.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static bool is(const char *name)
{
    const char *lie = getenv("LIE");
    return lie && !strcmp(lie, name);
}

ssize_t readv(int fd, const struct iovec *v, int count)
{
    if (is("interrupted")) {
        errno = EINTR;
        return -1;
    }
    ssize_t n = syscall(SYS_readv, fd, v, count);
    if (n > 0 && is("long"))
        return n + 1000;
    if (n > 0 && is("pointers")) /* the answer is written somewhere else */
        memset((char *)v[0].iov_base - 16, 'L', 16);
    return n;
}

ssize_t read(int fd, void *to, size_t size)
{
    static const char word[] = "trusted-constant-";
    ssize_t n = syscall(SYS_read, fd, to, size);
    char *at = n > 0 ? memmem(to, (size_t)n, word, sizeof word - 1) : NULL;
    if (at && is("flips"))
        *at ^= 1;
    if (at && is("short"))
        return n / 2;
    return n;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    static _Atomic long calls;
    long ret = syscall(SYS_clock_gettime, clock, t);
    if (is("time"))
        t->tv_sec -= calls++ % 1000;
    return (int)ret;
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    long ret = syscall(SYS_poll, fds, count, timeout);
    if (!is("poll"))
        return (int)ret;
    for (nfds_t i = 0; i < count; i++)
        fds[i].revents = -1;
    return (int)count;
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    long ret = syscall(SYS_accept4, fd, address, size, flags);
    return ret >= 0 && is("descriptors") ? fd : (int)ret;
}

int stat64(const char *path, struct stat64 *st) /* programs for large files call this one */
{
    long ret = syscall(SYS_stat, path, st);
    if (!ret && is("sizes"))
        st->st_size = -1;
    return (int)ret;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *argument)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    if (is("threads"))
        real(thread, attr, start, argument);
    return real(thread, attr, start, argument);
}
