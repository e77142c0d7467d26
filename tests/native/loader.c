/*
 * An SGX loader written from the kernel's uapi header alone: loads FILE.sgxs with FILE.sig, enters the
 * first TCS through the vDSO, prints what comes back. Usage: loader FILE.sgxs FILE.sig [FUNCTION [ARGUMENT]]
 */
#define _GNU_SOURCE
#include <asm/sgx.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096ull
#define LOAD_TCS_MAX 64

struct loaded { int fd; uint64_t base, size, tcs[LOAD_TCS_MAX], xfrm, attributes, misc; int tcs_count; uint8_t config[66]; };

__attribute__((unused)) static void *read_file(const char *path, size_t *size)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &st))
        return NULL;
    void *p = mmap(NULL, (size_t)st.st_size + 1, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    close(fd);
    *size = (size_t)st.st_size;
    return p == MAP_FAILED ? NULL : p;
}

static void *vdso_symbol(const char *name)
{
    uint8_t *base = (uint8_t *)getauxval(AT_SYSINFO_EHDR);
    Elf64_Ehdr *ehdr = (Elf64_Ehdr *)base;
    if (!base)
        return NULL;
    Elf64_Phdr *phdr = (Elf64_Phdr *)(base + ehdr->e_phoff);
    Elf64_Dyn *dynamic = NULL;
    Elf64_Sym *symbols = NULL;
    char *strings = NULL;
    uint32_t *hash = NULL;
    for (int i = 0; i < ehdr->e_phnum; i++)
        if (phdr[i].p_type == PT_DYNAMIC)
            dynamic = (Elf64_Dyn *)(base + phdr[i].p_offset);
    for (; dynamic && dynamic->d_tag; dynamic++) {
        if (dynamic->d_tag == DT_SYMTAB)
            symbols = (Elf64_Sym *)(base + dynamic->d_un.d_ptr);
        if (dynamic->d_tag == DT_STRTAB)
            strings = (char *)(base + dynamic->d_un.d_ptr);
        if (dynamic->d_tag == DT_HASH)
            hash = (uint32_t *)(base + dynamic->d_un.d_ptr);
    }
    for (uint32_t i = 0; hash && i < hash[1]; i++)
        if (!strcmp(strings + symbols[i].st_name, name))
            return base + symbols[i].st_value;
    return NULL;
}

/* ECREATE of an ELRANGE without further attributes; the descriptor, or -1. */
__attribute__((unused)) static int create_enclave(uint64_t base, uint64_t size)
{
    _Alignas(4096) static uint8_t secs[PAGE];
    uint64_t attributes = 4, xfrm = 3;
    uint32_t frame = 1;
    memcpy(secs, &size, 8);
    memcpy(secs + 8, &base, 8);
    memcpy(secs + 16, &frame, 4);
    memcpy(secs + 48, &attributes, 8);
    memcpy(secs + 56, &xfrm, 8);
    int fd = open("/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
    struct sgx_enclave_create create = {(uint64_t)secs};
    return fd < 0 || ioctl(fd, SGX_IOC_ENCLAVE_CREATE, &create) ? -1 : fd;
}

/* One page to the driver; 0 or -errno. */
static int add_page(struct loaded *l, uint64_t offset, uint64_t flags, void *data, int measured)
{
    static uint8_t zero[PAGE] __attribute__((aligned(4096)));
    _Alignas(64) uint64_t secinfo[8] = {flags};
    struct sgx_enclave_add_pages add = {.src = (uint64_t)(data ? data : zero), .offset = offset, .length = PAGE,
                                        .secinfo = (uint64_t)secinfo, .flags = measured ? SGX_PAGE_MEASURE : 0};
    if (ioctl(l->fd, SGX_IOC_ENCLAVE_ADD_PAGES, &add))
        return -errno;
    if (flags >> 8 == 1 && l->tcs_count < LOAD_TCS_MAX)
        l->tcs[l->tcs_count++] = l->base + offset;
    return add.count == PAGE ? 0 : -EIO;
}

static int map_page_run(struct loaded *l, uint64_t start, uint64_t end, uint64_t flags)
{
    int prot = flags >> 8 == 1 ? PROT_READ | PROT_WRITE : (int)(flags & 7); /* SECINFO's R, W, X are PROT_'s */
    return mmap((void *)(l->base + start), end - start, prot, MAP_SHARED | MAP_FIXED, l->fd, 0) == MAP_FAILED ? -errno : 0;
}

/* Steps: "create", "add", "init", "map"; *step names the one that failed. */
static int load(struct loaded *l, const uint8_t *sgxs, size_t size, const void *sig, const char **step)
{
    static uint8_t page[PAGE] __attribute__((aligned(4096)));
    _Alignas(4096) static uint8_t secs[PAGE];
    struct { uint64_t start, end, flags; } run[256] = {{0, 0, 0}};
    size_t at = 64, runs = 0;
    int r;

    *step = "create";
    memset(secs, 0, sizeof secs);
    if (size < 64 || memcmp(sgxs, "ECREATE", 8))
        return -EINVAL;
    memcpy(secs + 16, sgxs + 8, 4);
    memcpy(secs, sgxs + 12, 8);
    memcpy(secs + 20, &l->misc, 4);
    l->size = *(uint64_t *)secs;
    if (size > 80 && !*(const uint64_t *)(sgxs + 72)) { /* a page at 0 goes elsewhere; other images want base 0 */
        uint8_t *room = mmap(NULL, 2 * l->size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (room == MAP_FAILED)
            return -errno;
        l->base = ((uint64_t)room + l->size - 1) & ~(l->size - 1);
    }
    memcpy(secs + 8, &l->base, 8);
    uint64_t attributes = 4 | l->attributes, xfrm = l->xfrm ? l->xfrm : 3;
    memcpy(secs + 48, &attributes, 8);
    memcpy(secs + 56, &xfrm, 8);
    memcpy(secs + 192, l->config, 64); /* CONFIGID, CONFIGSVN */
    memcpy(secs + 260, l->config + 64, 2);
    l->fd = open("/dev/sgx_enclave", O_RDWR | O_CLOEXEC);
    struct sgx_enclave_create create = {(uint64_t)secs};
    if (l->fd < 0 || ioctl(l->fd, SGX_IOC_ENCLAVE_CREATE, &create))
        return -errno;
    *step = "add";
    while (at + 64 <= size) {
        uint64_t offset, flags, chunks = 0;
        int measured = 0;
        if (memcmp(sgxs + at, "EADD\0\0\0", 8))
            return -EINVAL;
        memcpy(&offset, sgxs + at + 8, 8);
        memcpy(&flags, sgxs + at + 16, 8);
        for (at += 64; at + 320 <= size; at += 320, chunks++) {
            if (memcmp(sgxs + at, "EEXTEND", 8) && memcmp(sgxs + at, "UNMEASRD", 8))
                break;
            measured = sgxs[at] == 'E';
            memcpy(page + (*(uint64_t *)(sgxs + at + 8) & (PAGE - 1)), sgxs + at + 64, 256);
        }
        r = add_page(l, offset, flags, chunks ? page : NULL, measured);
        if (r)
            return r;
        if (runs && run[runs - 1].end == offset && run[runs - 1].flags == flags)
            run[runs - 1].end += PAGE;
        else if (runs < 256)
            run[runs].start = offset, run[runs].end = offset + PAGE, run[runs++].flags = flags;
    }
    *step = "init";
    struct sgx_enclave_init init = {(uint64_t)sig};
    if (ioctl(l->fd, SGX_IOC_ENCLAVE_INIT, &init))
        return -errno;
    *step = "map";
    for (size_t i = 0; i < runs; i++)
        if ((r = map_page_run(l, run[i].start, run[i].end, run[i].flags)))
            return r;
    return 0;
}

#ifndef LOADER_LIBRARY
int main(int argc, char **argv)
{
    struct loaded l = {0};
    struct sgx_enclave_run run = {0};
    uint64_t call[16] = {argc > 4 ? strtoull(argv[4], NULL, 0) : 0};
    const char *step;
    size_t size, sig_size;

    if (argc < 3)
        return 2;
    void *sgxs = read_file(argv[1], &size), *sig = read_file(argv[2], &sig_size);
    vdso_sgx_enter_enclave_t enter = (vdso_sgx_enter_enclave_t)vdso_symbol("__vdso_sgx_enter_enclave");
    if (!sgxs || !sig || !enter || sig_size != 1808)
        return fprintf(stderr, "loader: no file, or no SGX vDSO\n"), 1;
    memcpy(&l.misc, (uint8_t *)sig + 900, 4); /* SIGSTRUCT: MISCSELECT, ATTRIBUTES.FLAGS, ATTRIBUTES.XFRM */
    memcpy(&l.attributes, (uint8_t *)sig + 928, 8);
    memcpy(&l.xfrm, (uint8_t *)sig + 936, 8);
    int r = load(&l, sgxs, size, sig, &step);
    if (r)
        return fprintf(stderr, "loader: %s: %s\n", step, strerrorname_np(-r)), 1;
    run.tcs = l.tcs[0];
    r = enter(argc > 3 ? strtoull(argv[3], NULL, 0) : 0, (uint64_t)call, 0, 2 /* EENTER */, 0, 0, &run);
    printf("ret %d function %u vector %u error %#x addr %#llx out %#llx\n", r, run.function, run.exception_vector,
           run.exception_error_code, (unsigned long long)run.exception_addr, (unsigned long long)call[1]);
    fflush(stdout);
    if (argc > 5 && (!fork() || wait(NULL) > 0)) /* with the enclave there: a program in a child, and in its own place */
        execv(argv[5], argv + 5);
    return 0;
}
#endif
