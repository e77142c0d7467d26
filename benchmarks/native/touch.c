/* The first touch of a page of secret memory, or of a memfd where the kernel offers none: µs. argv: pages. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

int main(int argc, char **argv)
{
    size_t pages = argc > 1 ? (size_t)atol(argv[1]) : 256;
    struct timespec a, b;
    for (int secret = 1; secret >= 0; secret--) { /* a locked-memory limit may refuse the first kind */
        int fd = secret ? (int)syscall(SYS_memfd_secret, 0) : memfd_create("touch", 0);
        if (fd < 0 || ftruncate(fd, (off_t)(pages * 4096)))
            continue;
        volatile char *p = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            continue;
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (size_t i = 0; i < pages; i++)
            p[i * 4096] = 1;
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("%.4f\n", ((double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3) / (double)pages);
        return 0;
    }
    return 1;
}
