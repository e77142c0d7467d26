/*
 * Takes the place of strongroom-loader: a real enclave, larger than its share of the EPC, whose pages are written and
 * checked in turns until the time is up. Usage, after the descriptors (or after waiting for them, --wait-fd):
 * ... -- work MILLISECONDS PAGES. Prints "begun", then "good N" (rounds); status 3 where a page is not what was written.
 * By `exec`, as worker FILE.sgxs FILE.sig work MILLISECONDS PAGES.
 */
#define LOADER_LIBRARY
#include "../native/loader.c"

#include <sys/socket.h>
#include <time.h>

#include "enclave.h"

static vdso_sgx_enter_enclave_t enter;
static struct loaded l;

static uint64_t work(uint64_t mode, uint64_t pages, uint64_t seed)
{
    struct sgx_enclave_run run = {.tcs = l.tcs[0]};
    struct call c = {0};
    const uint64_t words[5] = {l.base + HEAP, pages, seed, 1, mode};
    memcpy(c.data, words, sizeof words);
    int r = enter(F_PAGES, (uint64_t)&c, 0, 2, 0, 0, &run);
    if (r || run.function != 4) {
        fprintf(stderr, "worker: the enclave is gone (ret %d function %u vector %u)\n", r, run.function, run.exception_vector);
        exit(4);
    }
    return c.out;
}

static void *map_fd(int fd, size_t *size)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        return NULL;
    *size = (size_t)st.st_size;
    void *p = mmap(NULL, *size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* As a loader that waits: says so, gets the descriptors (0, 1, 2, sgxs, sig, …) and the words. */
static char **await(int from, int *n, int *sgxs, int *sig)
{
    static char words[65536], *list[4096];
    union { char room[CMSG_SPACE(8 * sizeof(int))]; struct cmsghdr align; } control;
    struct iovec part = {words, sizeof words - 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    int fd[8] = {0}, k = 1;
    if (write(from, "r", 1) != 1)
        exit(0);
    ssize_t size = recvmsg(from, &m, 0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (size <= 0 || !c)
        exit(0);
    memcpy(fd, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    for (int i = 0; i < 3; i++)
        dup2(fd[i], i);
    *sgxs = fd[3], *sig = fd[4];
    list[0] = "loader";
    for (char *at = words; at < words + size && k < 4095; at += strlen(at) + 1)
        list[k++] = at;
    *n = k;
    return list;
}

int main(int n, char **a)
{
    int sgxs_fd = -1, sig_fd = -1, i = 1;
    const char *step;
    size_t size, sig_size;

    for (int k = 1; k + 1 < n; k++)
        if (!strcmp(a[k], "--wait-fd")) {
            a = await(atoi(a[k + 1]), &n, &sgxs_fd, &sig_fd);
            break;
        }
    if (n > 3 && a[1][0] == '/') {
        sgxs_fd = open(a[1], O_RDONLY), sig_fd = open(a[2], O_RDONLY);
        i = 3;
    }
    for (; i < n && strcmp(a[i], "work"); i++) {
        if (!strcmp(a[i], "--fd-sgxs"))
            sgxs_fd = atoi(a[i + 1]);
        if (!strcmp(a[i], "--fd-sig"))
            sig_fd = atoi(a[i + 1]);
    }
    if (n < i + 3)
        return 2;
    uint64_t milliseconds = strtoull(a[i + 1], NULL, 0), pages = strtoull(a[i + 2], NULL, 0), rounds = 0;
    void *sgxs = map_fd(sgxs_fd, &size), *sig = map_fd(sig_fd, &sig_size);
    enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter || sig_size != 1808)
        return 2;
    l.xfrm = 7;
    int r = load(&l, sgxs, size, sig, &step);
    if (r)
        return fprintf(stderr, "worker: %s: %s\n", step, strerrorname_np(-r)), 1;
    printf("begun\n");
    fflush(stdout);
    struct timespec now, start;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        work(PAGES_FILL, pages, ++rounds);
        if (work(PAGES_CHECK, pages, rounds))
            return fprintf(stderr, "worker: pages are not what was written\n"), 3;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((uint64_t)((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000) < milliseconds);
    printf("good %llu\n", (unsigned long long)rounds);
    return 0;
}
