/* The library's start, run by the injector before the program's first instruction. */
#include "library.h"

#include <cpuid.h>
#include <linux/elf.h>

#include "vdso_symbols.h"

static const char *const FORWARDS[] = {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time",
                                       "__vdso_clock_getres", "__vdso_getcpu", "__vdso_getrandom"};

static bool text_equal(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* Fills our vDSO's slots with the kernel's functions of the same names. */
static void vdso_forward(uint64_t kernel)
{
    uint64_t *slots = (uint64_t *)(vdso_image + VDSO_SLOTS_OFFSET);
    const Elf64_Ehdr *ehdr = (void *)kernel;
    const Elf64_Phdr *phdr = (void *)(kernel + ehdr->e_phoff);
    const Elf64_Dyn *dynamic = NULL;
    const Elf64_Sym *symbols = NULL;
    const char *strings = NULL;
    const uint32_t *hash = NULL, *gnu = NULL;
    uint64_t bias = 0;
    uint32_t count = 0;

    for (int i = 0; i < ehdr->e_phnum; i++) {
        if (phdr[i].p_type == PT_LOAD)
            bias = kernel - phdr[i].p_vaddr + phdr[i].p_offset;
        if (phdr[i].p_type == PT_DYNAMIC)
            dynamic = (void *)(kernel + phdr[i].p_offset);
    }
    for (; dynamic && dynamic->d_tag; dynamic++) {
        if (dynamic->d_tag == DT_SYMTAB)
            symbols = (void *)(bias + dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == DT_STRTAB)
            strings = (void *)(bias + dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == DT_HASH)
            hash = (void *)(bias + dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == 0x6ffffef5 /* DT_GNU_HASH */)
            gnu = (void *)(bias + dynamic->d_un.d_ptr);
    }
    if (!symbols || !strings)
        return;
    if (hash) {
        count = hash[1];
    } else if (gnu) { /* the chain of the highest bucket ends at the last symbol */
        const uint32_t *buckets = gnu + 4 + gnu[2] * 2, *chain = buckets + gnu[0];
        for (uint32_t i = 0; i < gnu[0]; i++)
            if (buckets[i] > count)
                count = buckets[i];
        if (count)
            while (!(chain[count++ - gnu[1]] & 1))
                ;
    }
    for (uint32_t i = 0; i < count; i++)
        for (size_t f = 0; f < sizeof FORWARDS / sizeof FORWARDS[0]; f++)
            if (symbols[i].st_value && text_equal(strings + symbols[i].st_name, FORWARDS[f]))
                slots[f] = bias + symbols[i].st_value;
}

static void processor_start(const struct inject_block *block)
{
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    if (!(c & 1u << 27))
        fatal("the processor has no XSAVE: there is no enclave state to save");
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    g.xcr0 = ((uint64_t)d << 32 | a) & 0xe7;
    for (unsigned i = 2; i < 63; i++)
        if (g.xcr0 >> i & 1) {
            __cpuid_count(0xd, i, a, b, c, d);
            g.xstate_size[i] = a;
            g.xstate_offset[i] = b;
        }
    g.fsgsbase = (block->hwcap2 & 2) && !(block->flags & INJECT_NO_FSGSBASE);
    sha256_select(!(block->flags & INJECT_NO_SHANI));
}

static int move_fd(int fd)
{
    static const int places[] = {900, 200, 3};
    for (int i = 0; i < 3; i++) {
        long r = sys(__NR_fcntl, fd, F_DUPFD_CLOEXEC, places[i]);
        if (r >= 0) {
            sys(__NR_close, fd);
            return (int)r;
        }
    }
    return fd;
}

/* CAP_IPC_LOCK lifts the limit on locked memory in the initial user namespace alone, which maps all numbers. */
static bool initial_user_namespace(void)
{
    static const char all[] = "4294967295";
    char text[64] = {0};
    long fd = sys(__NR_open, "/proc/self/uid_map", O_RDONLY | O_CLOEXEC), n = fd;
    if (fd >= 0) {
        n = sys(__NR_read, fd, text, sizeof text - 1);
        sys(__NR_close, fd);
    }
    for (long i = 0; i + (long)sizeof all - 1 <= n; i++)
        if (!memcmp(text + i, all, sizeof all - 1))
            return true;
    return false;
}

static void limits_start(void)
{
    struct { uint64_t soft, hard; } limit = {0, 0};
    struct { uint32_t version; int pid; } header = {0x20080522, 0};
    struct { uint32_t effective, permitted, inheritable; } caps[2] = {{0, 0, 0}, {0, 0, 0}};
    sys(__NR_prlimit64, 0, 8 /* RLIMIT_MEMLOCK */, NULL, &limit);
    sys(__NR_capget, &header, caps);
    bool exempt = caps[0].effective & 1u << 14 /* CAP_IPC_LOCK */ && initial_user_namespace();
    g.memlock_limited = limit.soft != ~0ull && !exempt;
    g.memlock_left = g.memlock_limited ? limit.soft : ~0ull;
}

static const char *package_start(int rpc_fd, int epc_fd)
{
    struct rpc_hello hello = {.abi = 1, .pid = (uint32_t)sys(__NR_getpid, 0)};
    g.rpc_fd = move_fd(rpc_fd);
    long map = sys(__NR_mmap, 0, sizeof(struct epc_shared), PROT_READ | PROT_WRITE, MAP_SHARED, epc_fd, 0);
    sys(__NR_close, epc_fd);
    g.epc = (struct epc_shared *)map;
    if ((unsigned long)map >= -4095ul || g.epc->magic != EPC_MAGIC)
        return "the EPC counters are not there: has the daemon ended, or is it of another version?";
    if (rpc_call(RPC_HELLO, &hello, sizeof hello, &g.package, sizeof g.package))
        return "the software package does not answer: has the daemon ended, or is it of another version?";
    if (g.package.slot >= EPC_SLOTS)
        return "the software package gave no place in the EPC: is it of another version?";
    return NULL;
}

bool package_line(void)
{
    int32_t rpc, epc;
    lock(&g.memory_lock);
    if (g.rpc_fd < 0 && follow_line(&rpc, &epc)) {
        const char *why = package_start(rpc, epc);
        if (why)
            fatal(why);
    }
    bool there = g.rpc_fd >= 0;
    unlock(&g.memory_lock);
    return there;
}

void library_init(const struct inject_block *block)
{
    static char fork_page[4096] __attribute__((aligned(4096)));

    if (block->magic != INJECT_MAGIC)
        fatal("the injector speaks another version: rebuild both");
    g.flags = block->flags;
    g.level = block->level;
    g.pid = (uint32_t)sys(__NR_getpid, 0);
    processor_start(block);
    limits_start();
    g.rpc_fd = -1;
    memcpy(g.follow, block->follow, sizeof g.follow);
    const char *why = block->rpc_fd >= 0 ? package_start(block->rpc_fd, block->epc_fd) : NULL;
    if (why)
        fatal(why);
    if (!(block->flags & INJECT_NO_SECRETMEM)) {
        long fd = sys(447 /* memfd_secret */, O_CLOEXEC);
        g.secret_memory = fd >= 0;
        if (fd >= 0)
            sys(__NR_close, fd);
    }
    if (g.fsgsbase)
        *(uint64_t *)(vdso_image + VDSO_SLOTS_OFFSET + 8 * 6) = (uint64_t)enter_call;
    if (block->kernel_vdso)
        vdso_forward(block->kernel_vdso);
    sys(__NR_mprotect, vdso_image, page_up((uint64_t)(vdso_image_end - vdso_image)), PROT_READ | PROT_EXEC);
    g.fork_word = (_Atomic uint32_t *)(void *)fork_page;
    sys(__NR_madvise, g.fork_word, SGX_PAGE_SIZE, 18 /* MADV_WIPEONFORK */);
    atomic_store(g.fork_word, 1);
    if (g.level != LEVEL_FAITHFUL && !(g.flags & INJECT_DEBUG))
        sys(__NR_prctl, 4 /* PR_SET_DUMPABLE */, 0);
    signals_start();
    warm_start((block->warm & 0xffff) * 16ull, (block->warm >> 16) * 16ull);
    if (!(block->flags & INJECT_HAVE_FILTER))
        filter_install();
}
