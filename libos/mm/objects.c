/* Pre-laid ELF objects: their text is measured in place; ld.so's mappings are answered with them, data copied from the pack. */
#include <linux/mman.h>

#include "libos.h"

static const struct boot_object *objects(void) { return (const void *)(BOOT_ADDRESS + boot()->object_off); }
static const struct boot_segment *segments(const struct boot_object *o) { return (const void *)(BOOT_ADDRESS + o->segment_off); }

const struct boot_object *object_of(const char *path)
{
    for (u32 i = 0; i < boot()->object_count; i++)
        if (!strcmp(boot_string(objects()[i].path), path))
            return &objects()[i];
    return NULL;
}

u64 object_low(const struct boot_object *o)
{
    u64 low = ~0ull;
    for (u32 i = 0; i < o->segment_count; i++)
        low = min64(low, page_down(o->base + segments(o)[i].vaddr));
    return low;
}

const struct boot_object *object_at(u64 address)
{
    for (u32 i = 0; i < boot()->object_count; i++) {
        const struct boot_object *o = &objects()[i];
        if (address >= o->base && address < o->base + o->span && address >= object_low(o))
            return o;
    }
    return NULL;
}

static const struct boot_segment *segment_at(const struct boot_object *o, u64 address)
{
    const struct boot_segment *s = segments(o);
    for (u32 i = 0; i < o->segment_count; i++)
        if (address >= page_down(o->base + s[i].vaddr) && address < page_up(o->base + s[i].vaddr + s[i].memsz))
            return &s[i];
    return NULL;
}

static bool is_text(const struct boot_object *o, u64 page)
{
    const struct boot_segment *s = segment_at(o, page);
    return s && s->measured;
}

/* Whether all of [address, address + size) has pages, of data only where `write`: between segments there are none. */
bool object_holds(const struct boot_object *o, u64 address, u64 size, bool write)
{
    const struct boot_segment *s;
    if (address < object_low(o) || address - o->base > o->span || size > o->base + o->span - address)
        return false;
    for (u64 at = page_down(address); at < address + size; at = page_up(o->base + s->vaddr + s->memsz))
        if (!(s = segment_at(o, at)) || (write && s->measured))
            return false;
    return true;
}

/* Writes [from, to) of the file at `address`, zero beyond the file's end, around measured pages. */
static long fill(const struct boot_object *o, const struct pack_entry *e, u64 address, u64 size, u64 offset)
{
    for (u64 done = 0; done < size;) {
        u64 run = 0;
        while (done + run < size && !is_text(o, address + done + run))
            run += PAGE;
        if (!run) {
            done += PAGE;
            continue;
        }
        if (run > size - done)
            run = size - done;
        long n = e && offset + done < e->size ? pack_read(e, (void *)(address + done), run, offset + done) : 0;
        if (n < 0)
            return n;
        memset((void *)(address + done + (u64)n), 0, run - (u64)n);
        done += run;
    }
    return 0;
}

long object_load(const struct boot_object *o)
{
    const struct pack_entry *e = pack_find(boot_string(o->path));
    const struct boot_segment *s = segments(o);
    if (!e)
        return -ENOENT;
    for (u32 i = 0; i < o->segment_count; i++) {
        if (s[i].measured)
            continue;
        u64 at = o->base + s[i].vaddr, page = page_down(at);
        long bad = fill(o, e, page, page_up(at + s[i].filesz) - page, s[i].fileoff - (at - page));
        if (bad)
            return bad;
        if (!(s[i].prot & 2)) /* the tail of the last page is the file's, as mmap shows it */
            continue;
        u64 end = at + s[i].filesz;
        memset((void *)end, 0, page_up(at + s[i].memsz) - end);
    }
    return 0;
}

/* The first mapping of an object: its span is reserved, the first segment's pages come with it. */
long object_map(const struct boot_object *o, u64 length)
{
    u64 low = object_low(o), end = o->base + o->span;
    const struct boot_segment *s = segments(o);
    if (length > end - low)
        return -ENOMEM;
    long bad = fill(o, pack_find(boot_string(o->path)), low, min64(length, page_up(o->base + s[0].vaddr + s[0].filesz) - low),
                    page_down(s[0].fileoff));
    return bad ? bad : (long)low;
}

long object_map_fixed(const struct boot_object *o, u64 address, u64 length, int prot, struct file *file, u64 offset)
{
    if (address & (PAGE - 1) || !object_holds(o, address, length, false))
        return -ENOMEM;
    if (prot & PROT_EXEC) {
        for (u64 page = address; page < address + length; page += PAGE)
            if (!is_text(o, page))
                return -EACCES;
        return file && file->object == o ? (long)address : -EACCES;
    }
    if (file && !file->entry)
        return -EACCES;
    long bad = fill(o, file ? file->entry : NULL, address, length, offset);
    return bad ? bad : (long)address;
}

long object_protect(const struct boot_object *o, u64 address, u64 length, int prot)
{
    if (length > page_up(o->base + o->span) - address || (prot != PROT_NONE && !object_holds(o, address, length, false)))
        return -ENOMEM;
    for (u64 page = address; page < address + length; page += PAGE)
        if ((prot & PROT_WRITE && is_text(o, page)) || (prot & PROT_EXEC && !is_text(o, page)))
            return -EACCES;
    return 0;
}

int objects_list(char *to, size_t size)
{
    int n = 0;
    for (u32 i = 0; i < boot()->object_count; i++) {
        const struct boot_object *o = &objects()[i];
        const struct boot_segment *s = segments(o);
        for (u32 k = 0; k < o->segment_count; k++)
            n += format(to + n, size - (size_t)n, "%lx-%lx %c%c%cp %08lx 00:00 %u %s\n", page_down(o->base + s[k].vaddr),
                        page_up(o->base + s[k].vaddr + s[k].memsz), s[k].prot & 4 ? 'r' : '-', s[k].prot & 2 ? 'w' : '-',
                        s[k].prot & 1 ? 'x' : '-', page_down(s[k].fileoff), i + 1, boot_string(o->path));
    }
    return n;
}
