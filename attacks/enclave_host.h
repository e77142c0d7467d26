/*
 * What the attacks within a process share: an enclave of four pages, started by Linux's SGX interface alone.
 * Pages: TCS, SSA frame, code, data; they go to BASE and on. A program that wants more names ELRANGE and HEAP_PAGES first:
 * so many pages of zeros go to HEAP.
 */
#ifndef ATTACKS_ENCLAVE_HOST_H
#define ATTACKS_ENCLAVE_HOST_H
#define _GNU_SOURCE
#include <asm/sgx.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ull
#ifndef HEAP_PAGES
#define ELRANGE (2ull << 20)
#define HEAP_PAGES 0ull
#endif
#define HEAP 0x100000ull
#define BASE 0x10000ull
#define DATA (BASE + 3 * PAGE)
#define EENTER 2
#define EEXIT 4

typedef unsigned long long ull;
static void *find(const char *name)
{
    uint8_t *image = (uint8_t *)getauxval(AT_SYSINFO_EHDR);
    Elf64_Ehdr *ehdr = (Elf64_Ehdr *)image;
    Elf64_Sym *symbols = NULL;
    const char *strings = NULL;
    const uint32_t *hash = NULL;
    if (!image)
        return NULL;
    Elf64_Phdr *phdr = (Elf64_Phdr *)(image + ehdr->e_phoff);
    for (int i = 0; i < ehdr->e_phnum; i++) {
        if (phdr[i].p_type != PT_DYNAMIC)
            continue;
        for (Elf64_Dyn *d = (Elf64_Dyn *)(image + phdr[i].p_offset); d->d_tag; d++) {
            if (d->d_tag == DT_SYMTAB)
                symbols = (Elf64_Sym *)(image + d->d_un.d_ptr);
            if (d->d_tag == DT_STRTAB)
                strings = (char *)(image + d->d_un.d_ptr);
            if (d->d_tag == DT_HASH)
                hash = (uint32_t *)(image + d->d_un.d_ptr);
        }
    }
    for (uint32_t i = 0; hash && symbols && strings && i < hash[1]; i++)
        if (!strcmp(strings + symbols[i].st_name, name))
            return image + symbols[i].st_value;
    return NULL;
}

static int fail(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static vdso_sgx_enter_enclave_t entry;

/* The vDSO keeps RBX and RBP; after an asynchronous exit the enclave's or no values are in all other registers. */
__attribute__((unused)) static int call(uint64_t function, void *argument, unsigned leaf, uint64_t tcs,
                                        struct sgx_enclave_run *run)
{
    int r;
    uint64_t rdx = 0;
    register uint64_t r8 __asm__("r8") = 0, r9 __asm__("r9") = 0;
    *run = (struct sgx_enclave_run){.tcs = tcs};
    __asm__ volatile("push %%rbp; mov %%rsp, %%rbp; sub $256, %%rsp; and $-16, %%rsp; push $0; push %[run]; call *%[f];"
                     "mov %%rbp, %%rsp; pop %%rbp"
                     : "=a"(r), "+D"(function), "+S"(argument), "+c"(leaf), "+d"(rdx), "+r"(r8), "+r"(r9)
                     : [run] "b"(run), [f] "a"(entry)
                     : "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
                       "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    return r;
}

/* Pages of zeros of which EADD alone counts. */
static int load_heap(int fd)
{
    uint64_t size = HEAP_PAGES * PAGE;
    _Alignas(64) uint64_t secinfo[8] = {0x203};
    if (!size)
        return 0;
    void *zeros = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sgx_enclave_add_pages add = {.src = (uint64_t)zeros, .offset = HEAP, .length = size, .secinfo = (uint64_t)secinfo};
    if (zeros == MAP_FAILED || ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add) || add.count != size)
        return fail("SGX_IOC_ENCLAVE_ADD_PAGES, heap");
    munmap(zeros, size);
    return 0;
}

static int load(uint8_t *pages, void *sigstruct)
{
    static uint8_t secs[PAGE] __attribute__((aligned(4096)));
    static const uint64_t kinds[4] = {0x100, 0x203, 0x205, 0x203}; /* TCS; REG R W; REG R X; REG R W */
    uint64_t size = ELRANGE, attributes = 4 /* MODE64BIT */, xfrm = 3;
    uint32_t frame = 1;
    int fd = open("/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail("open /dev/sgx_enclave");
    memcpy(secs, &size, 8);
    memcpy(secs + 16, &frame, 4);
    memcpy(secs + 48, &attributes, 8);
    memcpy(secs + 56, &xfrm, 8);
    struct sgx_enclave_create create = {(uint64_t)secs};
    if (ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create))
        return fail("SGX_IOC_ENCLAVE_CREATE");
    for (uint64_t i = 0; i < 4; i++) {
        _Alignas(64) uint64_t secinfo[8] = {kinds[i]};
        struct sgx_enclave_add_pages add = {.src = (uint64_t)pages + i * PAGE, .offset = BASE + i * PAGE,
                                            .length = PAGE, .secinfo = (uint64_t)secinfo, .flags = SGX_PAGE_MEASURE};
        if (ioctl(fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add) || add.count != PAGE)
            return fail("SGX_IOC_ENCLAVE_ADD_PAGES");
    }
    if (load_heap(fd))
        return 1;
    struct sgx_enclave_init init = {(uint64_t)sigstruct};
    if (ioctl(fd, SGX_IOC_ENCLAVE_INIT, &init))
        return fail("SGX_IOC_ENCLAVE_INIT");
    for (uint64_t i = 0; i < 4; i++) {
        int prot = i == 2 ? PROT_READ | PROT_EXEC : PROT_READ | PROT_WRITE;
        if (mmap((void *)(BASE + i * PAGE), PAGE, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            return fail("mmap");
    }
    if (HEAP_PAGES && mmap((void *)HEAP, HEAP_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        return fail("mmap, heap");
    return 0;
}

/* The two files of the command line: four pages, and their SIGSTRUCT. */
static int read_image(const char *pages_file, const char *sigstruct_file, uint8_t *pages, uint8_t *sigstruct)
{
    int a = open(pages_file, O_RDONLY | O_CLOEXEC), b = open(sigstruct_file, O_RDONLY | O_CLOEXEC);
    if (read(a, pages, 4 * PAGE) != 4 * PAGE || read(b, sigstruct, PAGE) != 1808)
        return fail("read");
    close(a);
    close(b);
    return 0;
}

/* What every one of these programs does first: read the two files, find the vDSO's entry point; 0, or 1 and a word. */
static int prepare(const char *pages_file, const char *sigstruct_file, uint8_t *pages, uint8_t *sigstruct)
{
    if (read_image(pages_file, sigstruct_file, pages, sigstruct))
        return 1;
    entry = (vdso_sgx_enter_enclave_t)find("__vdso_sgx_enter_enclave");
    return entry ? 0 : fail("no __vdso_sgx_enter_enclave");
}

static void attempt(const char *name, const char *result, const char *text, int last)
{
    printf("{\"name\": \"%s\", \"result\": \"%s\", \"text\": \"%s\"}%s", name, result, text, last ? "" : ", ");
}
#endif
