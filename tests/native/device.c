/*
 * The device by the uapi header, a step at a time. Usage: device [FILE.sig]. Reads steps from its input, a line each,
 * numbers in hexadecimal, and prints what came of each but of those that only set something:
 *   secs OFFSET SIZE VALUE | info OFFSET VALUE | source OFFSET VALUE | from ADDRESS          (set; from 0: the source page)
 *   open FLAGS | close | create | add OFFSET LENGTH [FLAGS] | init | provisioner (opens its device) | provision FD (ffff: that) | ioctl NUMBER ARGUMENT
 *   map OFFSET LENGTH PROT FLAGS [FILE-OFFSET] | protect OFFSET LENGTH PROT | unmap OFFSET LENGTH | advise OFFSET LENGTH ADVICE
 *   orphan OFFSET LENGTH (ADD_PAGES, and in the midst of it the last descriptor is closed and others are opened)
 *   personality FLAGS | peek OFFSET WRITE | beside OFFSET LENGTH (ADD_PAGES, and in the midst of it another ioctl) | clock (milliseconds since the last one)
 */
#define _GNU_SOURCE
#include <asm/sgx.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sgx_arch.h"

#define PAGE 4096ull

_Alignas(4096) static struct sgx_secs secs = {.size = 0x100000, .ssa_frame_size = 1, .attributes = 4, .xfrm = 3};
_Alignas(4096) static uint8_t source[16 * PAGE], signature[PAGE];
_Alignas(64) static uint64_t info[8] = {0x203};
static uint64_t from;
static int fd = -1, provisioner = -1;
static sigjmp_buf again;
static volatile int seen_signal, seen_code;

static const char *told(long r) { return r < 0 ? strerrorname_np(errno) : "0"; }
static void *at(uint64_t offset) { return (void *)(secs.base + offset); }

static void on_fault(int number, siginfo_t *what, void *context)
{
    (void)context;
    seen_signal = number;
    seen_code = what->si_code;
    siglongjmp(again, 1);
}

static void peek(uint64_t offset, uint64_t write)
{
    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &a, NULL);
    sigaction(SIGBUS, &a, NULL);
    if (sigsetjmp(again, 1))
        printf("%s code %d\n", seen_signal == SIGBUS ? "SIGBUS" : "SIGSEGV", seen_code);
    else if (write)
        *(volatile uint64_t *)at(offset) = 1, printf("written\n");
    else
        printf("%#llx\n", (unsigned long long)*(volatile uint64_t *)at(offset));
}

static long add(uint64_t offset, uint64_t length, uint64_t flags, uint64_t *count)
{
    struct sgx_enclave_add_pages p = {.src = from ? from : (uint64_t)source, .offset = offset, .length = length,
                                      .secinfo = (uint64_t)info, .flags = flags, .count = ~0ull};
    long r = ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &p);
    *count = p.count;
    return r;
}

static uint64_t beside_range[2];
static volatile int beside_begun;
static void *add_beside(void *result)
{
    uint64_t count;
    beside_begun = 1;
    *(long *)result = add(beside_range[0], beside_range[1], SGX_PAGE_MEASURE, &count) ? errno : 0;
    return NULL;
}

static void beside(uint64_t offset, uint64_t length, int orphan)
{
    pthread_t t;
    long result = -1;
    void *much = mmap(NULL, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int busy = 0, other = 0;
    from = (uint64_t)much;
    beside_range[0] = offset, beside_range[1] = length;
    pthread_create(&t, NULL, add_beside, &result);
    while (!beside_begun)
        ;
    usleep(20000);
    if (orphan)
        close(fd);
    while (__atomic_load_n(&result, __ATOMIC_SEQ_CST) == -1) {
        if (orphan)
            close(open("/dev/sgx_enclave", O_RDWR)), other++;
        else if (ioctl(fd, SGX_IOC_ENCLAVE_PROVISION, NULL) == -1 && errno == EBUSY)
            busy++;
        else
            other++;
        usleep(1000);
    }
    pthread_join(t, NULL);
    from = 0;
    printf("%s %s %d\n", result ? strerrorname_np((int)result) : "0", orphan ? "others" : "busy", orphan ? other > 0 : busy > 0 && other <= 2);
}

static uint64_t milliseconds(void)
{
    static uint64_t last;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000, since = now - last;
    last = now;
    return since;
}

static void step(const char *verb, const uint64_t *a)
{
    uint64_t count = 0;
    if (!strcmp(verb, "secs"))
        memcpy((uint8_t *)&secs + a[0], &a[2], a[1]);
    else if (!strcmp(verb, "info"))
        memcpy((uint8_t *)info + a[0], &a[1], 8);
    else if (!strcmp(verb, "source"))
        memcpy(source + a[0], &a[1], 8);
    else if (!strcmp(verb, "from"))
        from = a[0];
    else if (!strcmp(verb, "open"))
        printf("%s\n", told(fd = open("/dev/sgx_enclave", (int)a[0])));
    else if (!strcmp(verb, "close"))
        printf("%s\n", told(close(fd)));
    else if (!strcmp(verb, "create"))
        printf("%s\n", told(ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &(struct sgx_enclave_create){(uint64_t)&secs})));
    else if (!strcmp(verb, "add")) {
        long r = add(a[0], a[1], a[2], &count);
        printf("%s count %lld\n", told(r), (long long)count);
    } else if (!strcmp(verb, "init"))
        printf("%s\n", told(ioctl(fd, SGX_IOC_ENCLAVE_INIT, &(struct sgx_enclave_init){(uint64_t)signature})));
    else if (!strcmp(verb, "provisioner"))
        printf("%s\n", told(provisioner = open("/dev/sgx_provision", O_RDWR)));
    else if (!strcmp(verb, "provision")) {
        struct sgx_enclave_provision p = {a[0] == 0xffff ? (uint64_t)provisioner : a[0]};
        printf("%s\n", told(ioctl(fd, SGX_IOC_ENCLAVE_PROVISION, &p)));
    }
    else if (!strcmp(verb, "ioctl"))
        printf("%s\n", told(ioctl(fd, _IOW(SGX_MAGIC, a[0], uint64_t), a[1])));
    else if (!strcmp(verb, "map"))
        printf("%s\n", told(syscall(SYS_mmap, at(a[0]), a[1], a[2], a[3], fd, a[4]) == -1 ? -1 : 0));
    else if (!strcmp(verb, "protect"))
        printf("%s\n", told(mprotect(at(a[0]), a[1], (int)a[2])));
    else if (!strcmp(verb, "unmap"))
        printf("%s\n", told(munmap(at(a[0]), a[1])));
    else if (!strcmp(verb, "advise"))
        printf("%s\n", told(madvise(at(a[0]), a[1], (int)a[2])));
    else if (!strcmp(verb, "personality"))
        printf("%s\n", told(personality((unsigned)a[0])));
    else if (!strcmp(verb, "peek"))
        peek(a[0], a[1]);
    else if (!strcmp(verb, "beside"))
        beside(a[0], a[1], 0);
    else if (!strcmp(verb, "orphan"))
        beside(a[0], a[1], 1);
    else if (!strcmp(verb, "clock"))
        printf("%llu\n", (unsigned long long)milliseconds());
    else
        printf("?\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    char line[256], verb[32];
    if (argc > 1) {
        int file = open(argv[1], O_RDONLY);
        if (read(file, signature, sizeof signature) != 1808)
            return 2;
        close(file);
    }
    while (fgets(line, sizeof line, stdin)) {
        unsigned long long a[5] = {0};
        if (sscanf(line, "%31s %llx %llx %llx %llx %llx", verb, &a[0], &a[1], &a[2], &a[3], &a[4]) >= 1)
            step(verb, (const uint64_t[5]){a[0], a[1], a[2], a[3], a[4]});
    }
    return 0;
}
