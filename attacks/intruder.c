/*
 * Attack 4, from within: a host program that starts an enclave, then reads and overwrites its memory with plain loads
 * and stores, as any code in the process might. The enclave counts its entries in its own memory.
 *
 * Usage: intruder PAGES SIGSTRUCT. PAGES holds four pages: TCS, SSA frame, code, data; they go to BASE and on. Prints
 * one JSON document, as the other attacks do. Only Linux's SGX interface is used.
 */
#define _GNU_SOURCE
#include <asm/sgx.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ull
#define ELRANGE (2ull << 20)
#define BASE 0x10000ull
#define DATA (BASE + 3 * PAGE)
#define JUNK 0x4a554e4b4a554e4bull
#define EENTER 2
#define EEXIT 4

typedef unsigned long long ull;
static sigjmp_buf back;

static void on_fault(int number)
{
    siglongjmp(back, number);
}

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
    fprintf(stderr, "intruder: %s: %s\n", what, strerror(errno));
    return 1;
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
    struct sgx_enclave_init init = {(uint64_t)sigstruct};
    if (ioctl(fd, SGX_IOC_ENCLAVE_INIT, &init))
        return fail("SGX_IOC_ENCLAVE_INIT");
    for (uint64_t i = 0; i < 4; i++) {
        int prot = i == 2 ? PROT_READ | PROT_EXEC : PROT_READ | PROT_WRITE;
        if (mmap((void *)(BASE + i * PAGE), PAGE, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            return fail("mmap");
    }
    return 0;
}

/* 0 where the enclave was entered and left by EEXIT; else what came of it, in words (an entry that faults returns 0). */
static int enter(vdso_sgx_enter_enclave_t entry, uint64_t *counter, char *words, size_t size)
{
    struct sgx_enclave_run run = {.tcs = BASE};
    *counter = 0;
    int r = entry((unsigned long)counter, 0, 0, EENTER, 0, 0, &run);
    if (!r && run.function == EEXIT)
        return 0;
    snprintf(words, size, "%s returned %d: %s faulted, vector %u, error code %#x", "__vdso_sgx_enter_enclave", r,
             run.function == EENTER ? "EENTER" : "the enclave", run.exception_vector, run.exception_error_code);
    return 1;
}

static void attempt(const char *name, const char *result, const char *text, int last)
{
    printf("{\"name\": \"%s\", \"result\": \"%s\", \"text\": \"%s\"}%s", name, result, text, last ? "" : ", ");
}

int main(int argc, char **argv)
{
    static uint8_t pages[4 * PAGE] __attribute__((aligned(4096))), sigstruct[PAGE] __attribute__((aligned(4096)));
    const char *reads = "a load by the host part", *writes = "a store by the host part";
    uint64_t counter;
    char words[200] = "", text[400];
    if (argc != 3)
        return 2;
    int a = open(argv[1], O_RDONLY | O_CLOEXEC), b = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (read(a, pages, sizeof pages) != sizeof pages || read(b, sigstruct, sizeof sigstruct) != 1808)
        return fail("read");
    vdso_sgx_enter_enclave_t entry = (vdso_sgx_enter_enclave_t)find("__vdso_sgx_enter_enclave");
    if (!entry)
        return fail("no __vdso_sgx_enter_enclave");
    if (load(pages, sigstruct))
        return 1;
    if (enter(entry, &counter, words, sizeof words) || counter != 1) {
        fprintf(stderr, "intruder: the enclave does not work before the attack: %s\n", words);
        return 1;
    }
    struct sigaction action = {.sa_handler = on_fault};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);

    printf("{\"attempts\": [");
    int fault = sigsetjmp(back, 1);
    if (!fault) {
        uint64_t seen = *(volatile uint64_t *)DATA;
        snprintf(text, sizeof text, "the load gave %#llx", (ull)seen);
        attempt(reads, seen == 1 ? "got" : "refused", text, 0);
    } else {
        snprintf(text, sizeof text, "the load faulted (signal %d)", fault);
        attempt(reads, "refused", text, 0);
    }
    fault = sigsetjmp(back, 1);
    if (!fault)
        *(volatile uint64_t *)DATA = JUNK;
    const char *how = fault ? "the store faulted" : "the store went without a fault";
    int first = enter(entry, &counter, words, sizeof words);
    uint64_t after = counter;
    int again = enter(entry, &counter, words, sizeof words);
    if (first && again)
        snprintf(text, sizeof text, "%s; the enclave is disabled, each later entry is refused: %s", how, words);
    else if (!first && after == 2)
        snprintf(text, sizeof text, "%s; it was dropped: the enclave counts on as before", how);
    else
        snprintf(text, sizeof text, "%s; the enclave computes with it: counter %#llx", how, (ull)after);
    attempt(writes, !first && after != 2 ? "got" : "refused", text, 1);
    printf("]}\n");
    return 0;
}
