/*
 * Code made at run time: a region of pages that can be written and executed, in the image only where the manifest asks
 * (late_code). mmap with PROT_EXEC is answered from it, and so is the dynamic linker's first mapping of a library that was
 * not laid out by the builder: its other segments lie at fixed distances. A program's permissions are kept for
 * /proc/self/maps. All of it is under g_lock.
 */
#include <linux/mman.h>

#include "libos.h"

enum { LATE_USED = 0x80, LATE_DIRTY = 0x40, LATE_PROT = 7 };
static u8 *g_page; /* one byte a page; NULL: no region */

static u64 pages(void) { return boot()->late_size / PAGE; }
static u8 *page_of(u64 address) { return g_page + (address - boot()->late_base) / PAGE; }

void late_start(void)
{
    if (pages() && !(g_page = kmalloc(pages())))
        cannot_start("no memory for the table of late code");
}

bool late_there(void) { return g_page; }
bool late_at(u64 address) { return g_page && address - boot()->late_base < boot()->late_size; }

static bool inside(u64 address, u64 size) { return late_at(address) && size <= boot()->late_base + boot()->late_size - address; }

/* Whether the program has all of it mapped. */
bool late_used(u64 address, u64 size)
{
    if (!inside(address, size))
        return false;
    for (u64 at = page_down(address); at < address + size; at += PAGE)
        if (!(*page_of(at) & LATE_USED))
            return false;
    return true;
}

static u64 find(u64 size) /* the lowest gap; 0: none */
{
    u64 free = 0, need = size / PAGE;
    for (u64 i = 0; i < pages(); i++) {
        free = g_page[i] & LATE_USED ? 0 : free + 1;
        if (free == need)
            return boot()->late_base + (i + 1 - need) * PAGE;
    }
    return 0;
}

static void take(u64 at, u64 size, u32 prot)
{
    for (u64 page = at; page < at + size; page += PAGE) {
        u8 *p = page_of(page);
        if (*p & LATE_DIRTY)
            memset((void *)page, 0, PAGE);
        *p = (u8)(LATE_USED | (*p & LATE_DIRTY) | (prot & LATE_PROT) | (prot ? LATE_DIRTY : 0));
    }
}

void late_unmap(u64 at, u64 size)
{
    for (u64 page = at; page < at + size && late_at(page); page += PAGE)
        *page_of(page) &= LATE_DIRTY;
}

/* Native code of these is as good as data: measured with the image, or made inside. An encrypted file's would not stay secret. */
bool late_good(const struct file *f, u32 flags)
{
    /* A mapping is a copy: what another mapping of the file writes would not be seen. */
    return !f || ((f->type == FILE_PACK || f->type == FILE_TMP) && !(flags & MAP_SHARED));
}

/* Said once. */
long late_full(void)
{
    static bool said;
    if (!said)
        say("strongroom: late_code is full: write a larger one than %lu KiB in enclave.toml", boot()->late_size >> 10);
    said = true;
    return -ENOMEM;
}

long late_map(u64 hint, u64 size, u32 prot, u32 flags, struct file *f, u64 offset)
{
    bool fixed = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    if (!late_good(f, flags))
        return -EACCES;
    if (fixed && (hint & (PAGE - 1) || !inside(hint, size)))
        return -ENOMEM;
    for (u64 at = hint; flags & MAP_FIXED_NOREPLACE && at < hint + size; at += PAGE)
        if (*page_of(at) & LATE_USED)
            return -EEXIST;
    u64 at = fixed ? hint : find(size);
    if (!at)
        return late_full();
    take(at, size, prot);
    user_hold(at, size, true); /* reading may wait */
    for (u64 done = 0; f && done < size;) {
        long n = file_read(f, (void *)(at + done), size - done, (long)(offset + done));
        if (n < 0) {
            late_unmap(at, size);
            return n;
        }
        if (!n)
            break;
        done += (u64)n;
    }
    return (long)at;
}

long late_protect(u64 at, u64 size, u32 prot)
{
    if (!late_used(at, size))
        return -ENOMEM;
    for (u64 page = at; page < at + size; page += PAGE)
        *page_of(page) = (u8)((*page_of(page) & ~LATE_PROT) | (prot & LATE_PROT) | (prot ? LATE_DIRTY : 0));
    return 0;
}

void late_zero(u64 at, u64 size)
{
    for (u64 page = at; page < at + size; page += PAGE)
        if (*page_of(page) & LATE_DIRTY)
            memset((void *)page, 0, PAGE);
}

int late_list(char *to, size_t size)
{
    int n = 0;
    for (u64 i = 0, end; i < pages(); i = end) {
        for (end = i + 1; end < pages() && !((g_page[end] ^ g_page[i]) & (LATE_USED | LATE_PROT)); end++)
            ;
        if (g_page[i] & LATE_USED)
            n += format(to + n, size - (size_t)n, "%lx-%lx %c%c%cp 00000000 00:00 0\n", (u64)(boot()->late_base + i * PAGE),
                        (u64)(boot()->late_base + end * PAGE), g_page[i] & PROT_READ ? 'r' : '-', g_page[i] & PROT_WRITE ? 'w' : '-',
                        g_page[i] & PROT_EXEC ? 'x' : '-');
    }
    return n;
}

/* Why there is no executable memory: once, with what to do. A second mapping of what is mapped writable is another way to the same. */
long late_refuse(const struct file *f, bool shared)
{
    static bool said;
    if (shared)
        f = NULL;
    if (f && f->object) /* measured text a second time: libffi's static trampolines, which then do without */
        return -EACCES;
    if (f && f->path && f->type == FILE_ENCRYPTED)
        say("strongroom: %s cannot be run: encrypted native code would not stay secret; it is measured when the image is built", f->path);
    else if (f && f->path && f->type == FILE_HOST)
        say("strongroom: %s cannot be run: an allowed file is the host's, native code is measured when the image is built", f->path);
    else if (f && f->path && !g_page)
        say("strongroom: %s cannot be run: native code is measured when the image is built; late_code = \"1M\" in enclave.toml lets later "
            "code run", f->path);
    else if (f && f->path)
        say("strongroom: %s cannot be run: its segments ask for an alignment that a late library cannot have", f->path);
    else if (!said) {
        said = true;
        if (g_page)
            say("strongroom: memory that was not mapped with PROT_EXEC cannot be made executable on SGX1 (a just-in-time compiler?): edmm = true and an SGX2 size can");
        else
            say("strongroom: code made at run time is refused (a callback of ctypes or cffi, a just-in-time compiler): "
                "late_code = \"1M\" in enclave.toml lets it run");
    }
    return -EACCES;
}
