/* From the first entry to the program's first instruction: checks, the stack, the auxiliary vector (System V ABI, AMD64). */
#include <linux/auxvec.h>

#include "libos.h"
#include "sys.h"

static struct start_info g_info;
const struct start_info *g_start = &g_info;
u32 g_online_cpus = 1;
struct strings_at g_arguments, g_variables;
struct elf_header {
    u8 ident[16]; uint16_t type, machine; u32 version; u64 entry, phoff, shoff; u32 flags; uint16_t ehsize, phentsize, phnum,
    shentsize, shnum, shstrndx;
};

const struct boot_info *boot(void) { return (const void *)BOOT_ADDRESS; }
const char *boot_string(u32 offset) { return (const char *)(BOOT_ADDRESS + offset); }
u32 thread_count(void) { return boot()->thread_count; }
struct thread *thread_at(u32 number) { return (void *)(boot()->thread_base + number * boot()->thread_stride + 4 * PAGE); }
int tid_of(struct thread *t) { return t->tid; }

bool random_bytes(void *to, size_t size)
{
    u8 *p = to;
    while (size) {
        u64 word;
        u8 good = 0;
        for (int tries = 0; tries < 100 && !good; tries++)
            __asm__ volatile("rdrand %0; setc %1" : "=r"(word), "=qm"(good) : : "cc");
        if (!good)
            return false;
        size_t n = size < 8 ? size : 8;
        memcpy(p, &word, n);
        p += n;
        size -= n;
    }
    return true;
}

struct strings { u64 *list; u32 count, room; char *pool; u64 used, size; };
static void add(struct strings *s, const char *text)
{
    u64 n = strlen(text) + 1;
    if (s->count == s->room || s->used + n > s->size)
        cannot_start("too many arguments or variables");
    memcpy(s->pool + s->used, text, n);
    s->list[s->count++] = s->used;
    s->used += n;
}

static bool env_allowed(const char *text)
{
    const u32 *names = (const u32 *)(BOOT_ADDRESS + boot()->envallow_off);
    size_t n = 0;
    while (text[n] && text[n] != '=')
        n++;
    if (!text[n])
        return false;
    for (u32 i = 0; i < boot()->envallow_count; i++)
        if (!strncmp(boot_string(names[i]), text, n) && !boot_string(names[i])[n])
            return true;
    return false;
}

static void strings_gather(struct strings *args, struct strings *env)
{
    const u32 *argv = (const u32 *)(BOOT_ADDRESS + boot()->argv_off), *envp = (const u32 *)(BOOT_ADDRESS + boot()->env_off);
    u64 size = min64(g_info.strings_size, 1 << 20), at = 0;
    char *copy = kmalloc(size + 1);
    if (!copy)
        cannot_start("no memory for the arguments");
    if (size && !outside(g_info.strings, size))
        cannot_start("the host's arguments are not in its memory");
    memcpy(copy, (const void *)g_info.strings, size);
    for (u32 i = 0; i < boot()->argc; i++)
        add(args, boot_string(argv[i]));
    for (u32 i = 0; i < g_info.argc && at < size; i++, at += strlen(copy + at) + 1)
        if (boot()->flags & BOOT_HOST_ARGV)
            add(args, copy + at);
        else {
            cannot_start("arguments are refused: enclave.toml does not have args = true");
        }
    for (u32 i = 0; i < boot()->envc; i++)
        add(env, boot_string(envp[i]));
    for (u32 i = 0; i < g_info.envc && at < size; i++, at += strlen(copy + at) + 1)
        if (env_allowed(copy + at))
            add(env, copy + at);
        else {
            cannot_start("a variable is refused: name it under env in enclave.toml");
        }
    kfree(copy);
}

static const struct boot_object *object_with(u32 flag)
{
    const struct boot_object *o = (const void *)(BOOT_ADDRESS + boot()->object_off);
    for (u32 i = 0; i < boot()->object_count; i++)
        if (o[i].flags & flag)
            return &o[i];
    return NULL;
}

static u64 push(u64 *sp, const void *from, u64 size)
{
    *sp -= size;
    memcpy((void *)*sp, from, size);
    return *sp;
}

void start_main(struct thread *t, const struct start_info *from)
{
    g_info = *from;
    const struct boot_info *b = boot();
    if (b->magic != BOOT_MAGIC || b->version != BOOT_VERSION || b->flags == ~0u)
        cannot_start("the boot information is of another version");
    g_trace = g_info.flags & START_TRACE && b->flags & BOOT_DEBUG;
    g_online_cpus = g_info.cpus && g_info.cpus <= 1024 ? g_info.cpus : 1;
    mm_start();
    signals_start();
    lock();
    pack_start(g_info.pack, g_info.pack_size);
    files_start(g_info.quote_fd, g_info.channel_fd);
    fs_set_cwd(boot_string(b->cwd_path));

    const struct boot_object *main = object_with(BOOT_OBJECT_MAIN), *interp = object_with(BOOT_OBJECT_INTERPRETER);
    struct elf_header head, interp_head = {0};
    long bad = main ? object_load(main) : -ENOENT;
    if (!bad && interp)
        bad = object_load(interp);
    if (!bad) {
        bad = pack_read(pack_find(boot_string(main->path)), &head, sizeof head, 0) != sizeof head;
        if (interp)
            bad |= pack_read(pack_find(boot_string(interp->path)), &interp_head, sizeof interp_head, 0) != sizeof head;
    }
    if (bad)
        {
        say("strongroom: LibOS: loading %s: %ld", main ? boot_string(main->path) : "no program", bad);
        cannot_start("the program cannot be loaded from files.pack");
    }

    u64 phdr = main->base + head.phoff;
    const struct boot_segment *s = (const void *)(BOOT_ADDRESS + main->segment_off);
    for (u32 i = 0; i < main->segment_count; i++)
        if (head.phoff >= s[i].fileoff && head.phoff < s[i].fileoff + s[i].filesz)
            phdr = main->base + s[i].vaddr + head.phoff - s[i].fileoff;

    u64 pool_size = 2 << 20, pool = kpages(pool_size);
    static u64 lists[2][2048];
    if (!pool) {
        pool_size = 64 << 10;
        pool = kpages(pool_size);
    }
    if (!pool)
        cannot_start("no memory for the arguments");
    struct strings args = {lists[0], 0, 2048, (char *)pool, 0, pool_size / 2};
    struct strings env = {lists[1], 0, 2048, (char *)pool + pool_size / 2, 0, pool_size / 2};
    strings_gather(&args, &env);

    u64 sp = mm_stack_base() + mm_stack_size();
    memset((void *)(sp - 4 * PAGE), 0, 4 * PAGE);
    if (args.used + env.used + 8 * (args.count + env.count) + 4096 > mm_stack_size() / 2)
        cannot_start("arguments are too long for the stack");
    u64 exec_name = push(&sp, boot_string(b->program_path), strlen(boot_string(b->program_path)) + 1);
    u64 env_at = push(&sp, env.pool, env.used), args_at = push(&sp, args.pool, args.used);
    g_arguments = (struct strings_at){args_at, args.used};
    g_variables = (struct strings_at){env_at, env.used};
    u64 platform = push(&sp, "x86_64", 7);
    u8 random[16];
    if (!random_bytes(random, 16))
        cannot_start("RDRAND does not work on this processor");
    u64 random_at = push(&sp, random, 16);
    u32 hwcap = 0, eax = 1, ebx, ecx = 0;
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(hwcap));
    const u64 aux[][2] = {
        {AT_PHDR, phdr}, {AT_PHENT, 56}, {AT_PHNUM, head.phnum}, {AT_PAGESZ, 4096}, {AT_CLKTCK, 100},
        {AT_BASE, interp ? interp->base : 0}, {AT_FLAGS, 0}, {AT_ENTRY, main->base + head.entry}, {AT_UID, 0}, {AT_EUID, 0},
        {AT_GID, 0}, {AT_EGID, 0}, {AT_SECURE, 0}, {AT_RANDOM, random_at}, {AT_HWCAP, hwcap}, {AT_HWCAP2, 2 /* FSGSBASE */},
        {AT_EXECFN, exec_name}, {AT_PLATFORM, platform}, {AT_NULL, 0},
    };
    u64 words = 1 + args.count + 1 + env.count + 1;
    sp = ((sp - sizeof aux - 8 * words) & ~15ull);
    u64 *w = (u64 *)sp;
    *w++ = args.count;
    for (u32 i = 0; i < args.count; i++)
        *w++ = args_at + args.list[i];
    *w++ = 0;
    for (u32 i = 0; i < env.count; i++)
        *w++ = env_at + env.list[i];
    *w++ = 0;
    memcpy(w, aux, sizeof aux);
    kpages_free(pool, pool_size);

    struct regs regs = {.rip = interp ? interp->base + interp_head.entry : main->base + head.entry, .rsp = sp, .rflags = 0x202};
    t->fs_base = 0;
    t->tid = PID;
    const char *name = boot_string(b->program_path), *last = name;
    for (const char *p = name; *p; p++)
        last = *p == '/' ? p + 1 : last;
    memcpy(t->name, last, strnlen(last, sizeof t->name - 1)); /* the rest is zero */
    unlock();
    libos_go(&regs);
}
