/*
 * The enclave's heap: [main stack][brk ...][free][mappings, from the top down][LibOS's own pages].
 * On SGX1 its pages were not measured: what is in them first is the host's choice, so all of it is zeroed before use. On SGX2
 * (edmm.c) a page comes zero at its first use.
 */
#include <linux/mman.h>

#include "libos.h"
#include "temporary.h"
#include "../sys/sys.h"

#define REGIONS 4096
#define STACK_ZEROED 0x10000ull /* of a thread's stack only the top must be zero: glibc keeps its TLS there */
enum { R_DIRTY = 1, R_STACK = 2, R_KERNEL = 4 };
struct region { u64 start, end; u32 prot, flags; };
static struct region *g_region;
static u32 g_regions;
static u64 g_low, g_high, g_stack, g_stack_size, g_brk_start, g_brk, g_brk_zero;
static u64 g_lacking; /* bytes for which there was no room, last */

static void bad(void) { libos_bug("out of regions in the heap"); }

static void region_insert(u32 at, struct region r)
{
    if (at && g_region[at - 1].end == r.start && g_region[at - 1].prot == r.prot && g_region[at - 1].flags == r.flags) {
        g_region[at - 1].end = r.end;
        return;
    }
    if (at < g_regions && g_region[at].start == r.end && g_region[at].prot == r.prot && g_region[at].flags == r.flags) {
        g_region[at].start = r.start;
        return;
    }
    if (g_regions == REGIONS)
        bad();
    memmove(g_region + at + 1, g_region + at, (g_regions - at) * sizeof r);
    g_region[at] = r;
    g_regions++;
}

static u32 region_after(u64 address) /* first region that ends above the address */
{
    u32 low = 0, high = g_regions;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (g_region[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool split(u64 address)
{
    u32 i = region_after(address);
    if (i < g_regions && g_region[i].start < address) {
        if (g_regions >= REGIONS - 2)
            return false;
        struct region second = g_region[i];
        second.start = address;
        g_region[i].end = address;
        memmove(g_region + i + 2, g_region + i + 1, (g_regions - i - 1) * sizeof second);
        g_region[i + 1] = second;
        g_regions++;
    }
    return true;
}

static bool take_out(u64 start, u64 end)
{
    if (!split(start) || !split(end))
        return false;
    u32 i = region_after(start), j = i;
    while (j < g_regions && g_region[j].start < end)
        j++;
    memmove(g_region + i, g_region + j, (g_regions - j) * sizeof *g_region);
    g_regions -= j - i;
    edmm_unused(start, end);
    return true;
}

/* The program's part of it; what the LibOS keeps (pages of files that were mapped) stays. */
static bool take_out_user(u64 start, u64 end)
{
    for (u32 i = region_after(start); i < g_regions && g_region[i].start < end; i = region_after(start)) {
        u64 from = g_region[i].start > start ? g_region[i].start : start, to = min64(g_region[i].end, end);
        if (!(g_region[i].flags & R_KERNEL) && !take_out(from, to))
            return false;
        start = to;
    }
    return true;
}

static u64 find(u64 size) /* highest gap; 0: none */
{
    u64 top = g_high;
    for (u32 i = g_regions; i-- > 0;) {
        if (top - g_region[i].end >= size)
            return top - size;
        top = g_region[i].start;
    }
    u64 floor = page_up(g_brk);
    return top > floor && top - floor >= size ? top - size : 0;
}

/* A call answers ENOMEM. Said once: what a library makes of it ("failed to map segment", an abort) rarely leads to the manifest. */
void mm_say_lacking(void)
{
    static bool said;
    u64 most = 0, top = g_high, used = mm_used(), total = boot()->heap_size;
    if (said || !g_lacking)
        return;
    said = true;
    for (u32 i = g_regions; i-- > 0; top = g_region[i].start)
        most = top - g_region[i].end > most ? top - g_region[i].end : most;
    if (top > page_up(g_brk) && top - page_up(g_brk) > most)
        most = top - page_up(g_brk);
    say("strongroom: out of memory: %lu KiB are asked for, %lu KiB are free, %lu KiB of them together: raise memory in enclave.toml (it is %lu KiB)",
        g_lacking >> 10, used < total ? (total - used) >> 10 : 0, most >> 10, total >> 10);
}

static u64 place(u64 size, u32 prot, u32 flags)
{
    size = page_up(size);
    if (g_regions >= REGIONS - 4)
        return 0;
    u64 at = size ? find(size) : 0;
    g_lacking = at ? 0 : size;
    if (at) {
        region_insert(region_after(at), (struct region){at, at + size, prot, flags});
        edmm_used(at, at + size);
    }
    return at;
}

void mm_start(void)
{
    const struct boot_info *b = boot();
    u64 table = page_up(REGIONS * sizeof(struct region));
    g_low = b->heap_base;
    g_high = b->heap_base + b->heap_size;
    g_stack_size = page_down(b->heap_size / 16);
    if (g_stack_size > 8 << 20)
        g_stack_size = 8 << 20;
    if (g_stack_size < 256 << 10)
        g_stack_size = 256 << 10;
    g_stack = g_low; /* below it is nothing: running over faults */
    g_brk_start = g_brk = g_brk_zero = g_low + g_stack_size;
    g_high = edmm_start(g_low, g_high) - table;
    g_region = (struct region *)g_high;
    memset(g_region, 0, sizeof *g_region);
    late_start();
}
u64 mm_stack_base(void) { return g_stack; }
u64 mm_stack_size(void) { return g_stack_size; }
u64 mm_used(void)
{
    u64 used = g_stack_size + (g_brk - g_brk_start);
    for (u32 i = 0; i < g_regions; i++)
        used += g_region[i].end - g_region[i].start;
    return used;
}

u64 mm_map(u64 size, u32 prot) { return place(size, prot, R_DIRTY); }
void mm_to_kernel(u64 start, u64 end)
{
    if (!split(start) || !split(end))
        bad();
    for (u32 i = region_after(start); i < g_regions && g_region[i].start < end; i++)
        g_region[i].flags |= R_KERNEL;
}
u64 kpages(u64 size) { return place(size, PROT_READ | PROT_WRITE, R_KERNEL); }
void kpages_free(u64 address, u64 size) { take_out(address, address + page_up(size)); }

static bool heap_range(u64 address, u64 size)
{
    return address >= g_low && address <= g_high && size <= g_high - address;
}

static bool has_kernel(u64 address, u64 size)
{
    for (u32 i = region_after(address); i < g_regions && g_region[i].start < address + size; i++)
        if (g_region[i].flags & R_KERNEL)
            return true;
    return false;
}

/* All of it is the program's: stack and brk, then mappings without a gap. */
static bool mapped(u64 at, u64 size)
{
    u64 end = at + size, low = page_up(g_brk);
    if (at < low)
        at = min64(end, low);
    for (u32 i = region_after(at); at < end; at = g_region[i++].end)
        if (i >= g_regions || g_region[i].start > at || g_region[i].flags & R_KERNEL)
            return false;
    return true;
}

bool user_read_ok(u64 address, u64 size)
{
    if (!size)
        return true;
    if (heap_range(address, size))
        return mapped(address, size);
    if (late_at(address))
        return late_used(address, size);
    const struct boot_object *o = object_at(address);
    return o && object_holds(o, address, size, false);
}

bool user_write_ok(u64 address, u64 size)
{
    if (!size || heap_range(address, size) || late_at(address))
        return user_read_ok(address, size);
    const struct boot_object *o = object_at(address);
    return o && object_holds(o, address, size, true);
}

bool user_held_ok(void)
{
    const struct thread *t = self();
    return t->held_write ? user_write_ok(t->held, t->held_size) : user_read_ok(t->held, t->held_size);
}
bool user_hold(u64 address, u64 size, bool write)
{
    struct thread *t = self();
    t->held = address;
    t->held_size = size;
    t->held_write = write;
    return user_held_ok();
}
void user_release(void) { user_hold(0, 0, false); }

long user_string(u64 address, char *to, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if ((!i || !((address + i) & (PAGE - 1))) && !user_read_ok(address + i, 1))
            return -EFAULT;
        if (!(to[i] = ((const char *)address)[i]))
            return (long)i;
    }
    return -ENAMETOOLONG;
}

/* ---- system calls ---- */
#define USER_TOP 0x7ffffffff000ull /* TASK_SIZE: no address of a program is above */

long sys_brk(const long *a)
{
    u64 want = (u64)a[0];
    if (want < g_brk_start || want > g_high)
        return (long)g_brk;
    u64 top = g_regions ? g_region[0].start : g_high;
    if (page_up(want) > top)
        return (long)g_brk;
    if (want > g_brk_zero) {
        mm_zero(g_brk_zero, page_up(want) - g_brk_zero);
        g_brk_zero = page_up(want);
    } else if (want < g_brk)
        g_brk_zero = page_up(want);
    return (long)(g_brk = want);
}

static long fill(u64 at, u64 size, u32 prot, u32 flags, struct file *f, u64 offset)
{
    if (!f) {
        if (!(flags & R_DIRTY))
            return 0;
        if (flags & R_STACK && size > STACK_ZEROED)
            mm_zero(at + size - STACK_ZEROED, STACK_ZEROED);
        else
            mm_zero(at, size);
        return 0;
    }
    (void)prot;
    u64 done = 0;
    user_hold(at, size, true);
    while (done < size) {
        long n = file_read(f, (void *)(at + done), size - done, (long)(offset + done));
        if (n < 0)
            return n;
        if (!n)
            break;
        done += (u64)n;
    }
    mm_zero(at + done, size - done);
    return 0;
}

long sys_mmap(const long *a)
{
    u64 hint = (u64)a[0], size = (u64)a[1], offset = (u64)a[5];
    u32 prot = (u32)a[2], flags = (u32)a[3];
    struct file *f = NULL;
    bool reserved = prot == PROT_NONE || flags & MAP_NORESERVE; /* who tries that has another way */
    if (!size || offset & (PAGE - 1))
        return -EINVAL;
    if (!(flags & MAP_ANONYMOUS) && !(f = file_get((int)a[4])))
        return -EBADF;
    if (f && (f->flags & 3) == 1) /* O_WRONLY */
        return -EACCES;
    if (f && f->type == FILE_DEVICE && f->device == DEV_ZERO)
        f = NULL;
    if (size > 1ull << 47)
        return -ENOMEM;
    size = page_up(size);
    if (f && ((long)offset < 0 || (long)(offset + size) < 0)) /* -1 would be the file's own place */
        return -EOVERFLOW;
    if (f && f->object && f->object->path && !(flags & MAP_FIXED) && flags & 0x800 /* MAP_DENYWRITE: a dynamic linker */)
        return object_map(f->object, size);
    if (flags & MAP_FIXED || flags & MAP_FIXED_NOREPLACE) {
        const struct boot_object *o = object_at(hint);
        if (o && hint >= object_low(o))
            return object_map_fixed(o, hint, size, (int)prot, f, offset);
    }
    bool library = f && flags & 0x800 && (f->type == FILE_TMP || f->type == FILE_PACK); /* a dynamic linker's, not of the image's objects */
    bool late = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) ? late_at(hint) : late_there() && (prot & PROT_EXEC || library);
    if (late && f)
        f->refs++;
    long late_answer = late ? late_map(hint, size, prot, flags, f, offset) : 0;
    if (late && f)
        file_drop(f);
    if (late && late_answer != -EACCES) {
        g_lacking = 0; /* of the heap */
        return late_answer;
    }
    bool fixed_heap = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) && heap_range(hint, size);
    if (late || (prot & PROT_EXEC && !(fixed_heap && edmm_may_execute() && late_good(f, flags))))
        return late_refuse(f, flags & MAP_SHARED); /* measured pages only: SGX1 cannot make others executable */
    if (size > g_high - g_low) {
        g_lacking = reserved ? 0 : size;
        return -ENOMEM;
    }
    if (f && f->type != FILE_ENCRYPTED && f->type != FILE_PACK && f->type != FILE_TMP && f->type != FILE_HOST && f->type != FILE_BUFFER)
        return -ENODEV;
    if (f && flags & MAP_SHARED && prot & PROT_WRITE && (f->flags & 3) != 2 /* O_RDWR */)
        return -EACCES;
    if (f && f->type == FILE_TMP && flags & MAP_SHARED && !(flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)))
        return shared_map(f->inode, size, offset, prot);
    if (f && flags & MAP_SHARED && prot & PROT_WRITE)
        return -ENODEV; /* changes would not reach the file */
    u64 at;
    u32 kind = prot == PROT_NONE && !f ? 0 : R_DIRTY;
    if (flags & MAP_STACK)
        kind |= R_STACK;
    if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
        if (hint & (PAGE - 1))
            return -EINVAL;
        if (hint < page_up(g_brk) || !heap_range(hint, size) || has_kernel(hint, size))
            return flags & MAP_FIXED_NOREPLACE ? -EEXIST : -ENOMEM;
        u32 i = region_after(hint);
        if (flags & MAP_FIXED_NOREPLACE && i < g_regions && g_region[i].start < hint + size)
            return -EEXIST;
        if (shared_unmap(hint, hint + size) || !take_out_user(hint, hint + size) || has_kernel(hint, size))
            return -ENOMEM;
        at = hint;
        region_insert(region_after(at), (struct region){at, at + size, prot, kind});
        edmm_used(at, at + size);
    } else if (!(at = place(size, prot, kind))) {
        if (reserved)
            g_lacking = 0;
        return -ENOMEM;
    }
    if (f)
        f->refs++; /* reading it may wait */
    long bad_fill = fill(at, size, prot, kind, f, offset);
    if (f)
        file_drop(f);
    if (bad_fill) {
        take_out_user(at, at + size); /* what another thread has put there meanwhile goes, too, but nothing of the LibOS's */
        return bad_fill;
    }
    long no_code = prot & PROT_EXEC ? edmm_execute(at, size) : 0;
    return no_code ? no_code : (long)at;
}

long sys_munmap(const long *a)
{
    u64 at = (u64)a[0], size = page_up((u64)a[1]);
    if (at & (PAGE - 1) || !size || size > USER_TOP || at > USER_TOP - size)
        return -EINVAL;
    if (late_at(at))
        late_unmap(at, size);
    if (!heap_range(at, size))
        return 0; /* objects stay where they are */
    if (has_kernel(at, size))
        return -EINVAL;
    if (shared_unmap(at, at + size))
        return 0; /* mapped once more */
    return take_out_user(at, at + size) ? 0 : -ENOMEM;
}

long sys_mprotect(const long *a)
{
    u64 at = (u64)a[0], size = page_up((u64)a[1]);
    u32 prot = (u32)a[2] & 7;
    const struct boot_object *o = object_at(at);
    if (at & (PAGE - 1))
        return -EINVAL;
    if (!a[1])
        return 0;
    if (!size || at + size <= at)
        return -ENOMEM;
    if (a[2] & ~0xfl) /* PROT_SEM is nothing */
        return -EINVAL;
    if (o && at >= object_low(o))
        return object_protect(o, at, size, (int)prot);
    if (late_at(at))
        return late_protect(at, size, prot);
    if (!heap_range(at, size) || !mapped(at, size))
        return -ENOMEM;
    long no_code = prot & PROT_EXEC ? edmm_execute(at, size) : 0;
    if (no_code)
        return no_code == -EACCES ? late_refuse(NULL, false) : no_code;
    if (at < g_brk)
        return 0;
    /* A reservation that becomes memory is zeroed now. */
    if (prot == PROT_NONE)
        return 0;
    if (!split(at) || !split(at + size))
        return -ENOMEM;
    for (u32 i = region_after(at); i < g_regions && g_region[i].start < at + size; i++) {
        struct region *r = &g_region[i];
        r->prot = prot;
        if (!(r->flags & R_DIRTY)) {
            r->flags |= R_DIRTY;
            fill(r->start, r->end - r->start, prot, r->flags, NULL, 0);
        }
    }
    return 0;
}

long sys_mremap(const long *a)
{
    u64 at = (u64)a[0], old_size = page_up((u64)a[1]), size = page_up((u64)a[2]);
    if (at & (PAGE - 1) || !size || a[3] & ~(long)MREMAP_MAYMOVE)
        return -EINVAL;
    if (!user_read_ok(at, PAGE))
        return -EFAULT;
    if (!old_size || old_size > USER_TOP)
        return -EINVAL;
    if (!heap_range(at, old_size) || has_kernel(at, old_size))
        return -EFAULT;
    if (size > g_high - g_low)
        return -ENOMEM;
    if (size <= old_size) {
        if (size < old_size && !shared_unmap(at + size, at + old_size))
            take_out_user(at + size, at + old_size);
        return (long)at;
    }
    if (!mapped(at, old_size))
        return -EFAULT;
    long moved = shared_move(at, old_size, size);
    if (moved)
        return moved;
    if (shared_at(at, old_size)) /* a part of it is a file's own pages: more than one mapping, as Linux has it */
        return -EFAULT;
    u32 i = region_after(at);
    if (i >= g_regions || g_region[i].start > at)
        return -EFAULT;
    u32 prot = g_region[i].prot;
    u32 next = region_after(at + old_size);
    u64 limit = next < g_regions ? g_region[next].start : g_high;
    if (limit >= at + size && g_region[i].end == at + old_size) {
        region_insert(next, (struct region){at + old_size, at + size, prot, R_DIRTY});
        mm_zero(at + old_size, size - old_size);
        return (long)at;
    }
    if (!(a[3] & MREMAP_MAYMOVE))
        return -ENOMEM;
    u64 to = place(size, prot, R_DIRTY);
    if (!to)
        return -ENOMEM;
    memcpy((void *)to, (void *)at, old_size);
    mm_zero(to + old_size, size - old_size);
    take_out(at, at + old_size);
    return (long)to;
}

/* MADV_NORMAL to DONTNEED, FREE to COLLAPSE, and the kernel's own tests (HWPOISON, SOFT_OFFLINE) not. */
static bool advice_known(int advice) { return (advice >= 0 && advice <= 4) || (advice >= 8 && advice <= 25); }

long sys_madvise(const long *a)
{
    u64 at = (u64)a[0], size = page_up((u64)a[1]);
    if (at & (PAGE - 1) || (a[1] && !size) || at + size < at || !advice_known((int)a[2]))
        return -EINVAL;
    if (!size)
        return 0;
    if (late_used(at, size)) {
        if (a[2] == MADV_DONTNEED)
            late_zero(at, size);
        return 0;
    }
    if (!heap_range(at, size))
        return user_read_ok(at, size) ? 0 : -ENOMEM;
    if (has_kernel(at, size))
        return -ENOMEM;
    if (a[2] == MADV_DONTNEED && !shared_at(at, size)) {
        for (u32 i = region_after(at); i < g_regions && g_region[i].start < at + size; i++) {
            u64 from = g_region[i].start > at ? g_region[i].start : at, to = min64(g_region[i].end, at + size);
            if (g_region[i].flags & R_STACK)
                continue; /* glibc gives back a finished thread's stack: never read again as zero */
            if (g_region[i].flags & R_DIRTY)
                mm_zero(from, to - from);
        }
    }
    return mapped(at, size) ? 0 : -ENOMEM;
}

long sys_msync(const long *a)
{
    u64 at = (u64)a[0], size = page_up((u64)a[1]);
    if (at & (PAGE - 1) || a[2] & ~7l || (a[2] & 5) == 5)
        return -EINVAL;
    return !size || user_read_ok(at, size) ? 0 : -ENOMEM;
}

long sys_mincore(const long *a)
{
    u64 at = (u64)a[0], size = page_up((u64)a[1]), end = at + size;
    if (at & (PAGE - 1))
        return -EINVAL;
    if ((u64)a[1] > USER_TOP || at > USER_TOP - size)
        return -ENOMEM;
    if (!user_write_ok((u64)a[2], size / PAGE))
        return -EFAULT;
    for (u8 *to = (u8 *)a[2]; at < end; at += PAGE, to++) {
        if (!user_read_ok(at, PAGE))
            return -ENOMEM;
        *to = 1; /* evicted or not, the processor does not tell */
    }
    return 0;
}

/* mlock and munlock: whole pages around the range, all of them mapped; nothing else to do. A length that wraps to 0 is none in Linux, too. */
long sys_mlock(const long *a)
{
    u64 at = page_down((u64)a[0]), size = page_up((u64)a[1] + ((u64)a[0] & (PAGE - 1)));
    if (at + size < at)
        return -EINVAL;
    return user_read_ok(at, size) ? 0 : -ENOMEM;
}
long sys_mlock2(const long *a) { return (int)a[2] & ~1 /* MLOCK_ONFAULT */ ? -EINVAL : sys_mlock(a); }
long sys_mlockall(const long *a)
{
    u32 flags = (u32)a[0];
    return !flags || flags & ~7u || flags == 4 /* MCL_ONFAULT alone */ ? -EINVAL : 0;
}

long sys_zero_ok(const long *a) { (void)a; return 0; }

int mm_list(char *to, size_t size)
{
    int n = format(to, size, "%lx-%lx rw-p 00000000 00:00 0 [stack]\n%lx-%lx rw-p 00000000 00:00 0 [heap]\n", g_stack,
                   g_stack + g_stack_size, g_brk_start, page_up(g_brk));
    for (u32 i = 0; i < g_regions; i++)
        if (!(g_region[i].flags & R_KERNEL))
            n += format(to + n, size - (size_t)n, "%lx-%lx %c%c-p 00000000 00:00 0\n", g_region[i].start, g_region[i].end,
                        g_region[i].prot & 1 ? 'r' : '-', g_region[i].prot & 2 ? 'w' : '-');
    return n;
}
