/* Data of temporary files: extents of pages, sparse; MAP_SHARED gives the pages themselves. */
#include "temporary.h"
#include "../sys/sys.h"

#define GROWTH_MOST (1u << 20)
struct shared { struct shared *next; struct inode *inode; u64 address, size, offset; u32 count; };
static struct shared *g_shared;

/* First extent that ends above the offset. */
static u32 extent_after(const struct inode *i, u64 offset)
{
    u32 low = 0, high = i->extent_count;
    while (low < high) {
        u32 middle = (low + high) / 2;
        if (i->extents[middle].at + i->extents[middle].size > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static bool extents_room(struct inode *i, u32 count)
{
    if (i->extent_count + count > i->extent_room) {
        u32 room = 2 * i->extent_room + count + 2;
        struct extent *more = krealloc(i->extents, i->extent_room * sizeof *more, room * sizeof *more);
        if (!more)
            return false;
        i->extents = more;
        i->extent_room = room;
    }
    return true;
}

static bool extent_insert(struct inode *i, u32 at, struct extent e)
{
    if (!extents_room(i, 1))
        return false;
    memmove(i->extents + at + 1, i->extents + at, (i->extent_count - at) * sizeof e);
    i->extents[at] = e;
    i->extent_count++;
    return true;
}

static struct shared *shared_of(const struct inode *i, u64 from, u64 to)
{
    for (struct shared *s = g_shared; s; s = s->next)
        if (s->inode == i && s->offset < to && s->offset + s->size > from)
            return s;
    return NULL;
}

/* Takes whole pages [from, to) out of the extents, and gives their memory back. None of them is mapped. */
static bool extents_cut(struct inode *i, u64 from, u64 to)
{
    u32 at = extent_after(i, from);
    if (at < i->extent_count && i->extents[at].at < from) {
        struct extent *e = &i->extents[at];
        u64 keep = from - e->at;
        if (e->at + e->size > to && !extent_insert(i, at + 1, (struct extent){to, e->at + e->size - to, e->data + (to - e->at)}))
            return false;
        e = &i->extents[at];
        u64 gone = min64(e->size, to - e->at) - keep;
        kpages_free((u64)e->data + keep, gone);
        e->size = keep;
        at++;
    }
    while (at < i->extent_count && i->extents[at].at < to) {
        struct extent *e = &i->extents[at];
        u64 gone = min64(e->size, to - e->at);
        kpages_free((u64)e->data, gone);
        if (gone < e->size) {
            e->at += gone;
            e->data += gone;
            e->size -= gone;
            break;
        }
        memmove(e, e + 1, (i->extent_count - at - 1) * sizeof *e);
        i->extent_count--;
    }
    return true;
}

long data_read(const struct inode *i, void *to, u64 size, u64 offset)
{
    if (offset >= i->size)
        return 0;
    size = min64(size, i->size - offset);
    for (u64 done = 0; done < size;) {
        u64 at = offset + done, part = size - done;
        u32 n = extent_after(i, at);
        const struct extent *e = n < i->extent_count ? &i->extents[n] : NULL;
        if (e && e->at <= at) {
            part = min64(part, e->at + e->size - at);
            memcpy((u8 *)to + done, e->data + (at - e->at), part);
        } else {
            part = e ? min64(part, e->at - at) : part;
            memset((u8 *)to + done, 0, part);
        }
        done += part;
    }
    return (long)size;
}

/* Pages for the hole at `at`: as far as asked, and more when the file grows at its end. */
static long fill_hole(struct inode *i, u32 n, u64 at, u64 size)
{
    u64 start = page_down(at), next = n < i->extent_count ? i->extents[n].at : ~0ull;
    u64 room = page_up(at + size) - start, more = room;
    if (next == ~0ull)
        more += min64(page_down(i->size / 2), GROWTH_MOST);
    more = min64(more, next - start);
    room = min64(room, next - start);
    u64 data = kpages(more);
    if (!data)
        data = kpages(more = room);
    while (!data && room > PAGE) /* in parts, where memory is in pieces */
        data = kpages(more = room = page_down(room / 2));
    if (!data)
        return -ENOSPC;
    memset((void *)data, 0, more);
    if (n && i->extents[n - 1].at + i->extents[n - 1].size == start && i->extents[n - 1].data + i->extents[n - 1].size == (u8 *)data &&
        !shared_of(i, i->extents[n - 1].at, start))
        i->extents[n - 1].size += more;
    else if (!extent_insert(i, n, (struct extent){start, more, (u8 *)data})) {
        kpages_free(data, more);
        return -ENOSPC;
    }
    return 0;
}

long data_write(struct inode *i, const void *from, u64 size, u64 offset)
{
    u64 done = 0;
    if (offset + size < offset || offset + size > 1ull << 62)
        return -EFBIG;
    while (done < size) {
        u64 at = offset + done;
        u32 n = extent_after(i, at);
        if (n == i->extent_count || i->extents[n].at > at) {
            long bad = fill_hole(i, n, at, size - done);
            if (bad && !done)
                return bad;
            if (bad)
                break;
            continue;
        }
        struct extent *e = &i->extents[n];
        u64 part = min64(size - done, e->at + e->size - at);
        if (from)
            memcpy(e->data + (at - e->at), (const u8 *)from + done, part);
        done += part;
    }
    if (done && offset + done > i->size)
        i->size = offset + done;
    tmp_touch(i, true);
    return (long)done;
}

static void extents_zero(struct inode *i, u64 from, u64 to)
{
    for (u32 n = extent_after(i, from); n < i->extent_count && i->extents[n].at < to; n++) {
        struct extent *e = &i->extents[n];
        u64 start = e->at > from ? e->at : from;
        memset(e->data + (start - e->at), 0, min64(e->at + e->size, to) - start);
    }
}

/* The first mapping of the file that ends above the offset. */
static struct shared *shared_after(const struct inode *i, u64 offset)
{
    struct shared *first = NULL;
    for (struct shared *s = g_shared; s; s = s->next)
        if (s->inode == i && s->offset + s->size > offset && (!first || s->offset < first->offset))
            first = s;
    return first;
}

long data_resize(struct inode *i, u64 size)
{
    if (size > 1ull << 62)
        return -EFBIG;
    u64 last = i->extent_count ? i->extents[i->extent_count - 1].at + i->extents[i->extent_count - 1].size : 0;
    if (size < i->size) {
        extents_zero(i, size, page_up(size));
        for (u64 at = page_up(size), stop; at < last; at = stop) {
            struct shared *s = shared_after(i, at);
            stop = !s ? last : min64(last, s->offset > at ? s->offset : s->offset + s->size);
            if (s && s->offset <= at)
                extents_zero(i, at, stop); /* stays mapped: beyond the end Linux would raise SIGBUS */
            else if (!extents_cut(i, at, stop))
                return -ENOSPC;
        }
    }
    i->size = size;
    tmp_touch(i, true);
    return 0;
}

u64 data_pages(const struct inode *i)
{
    u64 total = 0;
    for (u32 n = 0; n < i->extent_count; n++)
        total += i->extents[n].size;
    return total;
}

u64 data_next(const struct inode *i, u64 offset, bool hole)
{
    if (offset >= i->size)
        return ~0ull;
    u32 n = extent_after(i, offset);
    if (!hole)
        return n == i->extent_count || i->extents[n].at >= i->size ? ~0ull : i->extents[n].at > offset ? i->extents[n].at : offset;
    while (n < i->extent_count && i->extents[n].at <= offset)
        offset = i->extents[n].at + i->extents[n].size, n++;
    return min64(offset, i->size);
}

void data_free(struct inode *i)
{
    for (u32 n = 0; n < i->extent_count; n++)
        kpages_free((u64)i->extents[n].data, i->extents[n].size);
    kfree(i->extents);
    i->extents = NULL;
    i->extent_count = i->extent_room = 0;
}

/* ---- MAP_SHARED ---- */
/* The file's pages [offset, offset + size) move to `to`, memory of the program; what lay there is copied first. */
static bool adopt(struct inode *i, u64 offset, u64 size, u64 to)
{
    u64 file_size = i->size;
    if (!extents_room(i, 2)) /* a split and the new one: nothing may fail later */
        return false;
    i->size = offset + size; /* all of it is read, the last page's rest too */
    data_read(i, (void *)to, size, offset);
    i->size = file_size;
    if (!extents_cut(i, offset, offset + size))
        return false;
    return extent_insert(i, extent_after(i, offset), (struct extent){offset, size, (u8 *)to});
}

long shared_map(struct inode *i, u64 size, u64 offset, u32 prot)
{
    struct shared *s = shared_of(i, offset, offset + size);
    if (s) {
        if (offset < s->offset || offset + size > s->offset + s->size)
            return -ENOMEM; /* another mapping has a part of it: one address cannot be two */
        s->count++;
        return (long)(s->address + (offset - s->offset));
    }
    if (!(s = kmalloc(sizeof *s)))
        return -ENOMEM;
    u64 to = mm_map(size, prot);
    if (!to || !adopt(i, offset, size, to)) {
        if (to)
            kpages_free(to, size);
        kfree(s);
        return -ENOMEM;
    }
    *s = (struct shared){g_shared, i, to, size, offset, 1};
    g_shared = s;
    i->refs++;
    return (long)to;
}

bool shared_at(u64 address, u64 size)
{
    for (struct shared *s = g_shared; s; s = s->next)
        if (s->address < address + size && s->address + s->size > address)
            return true;
    return false;
}

bool shared_unmap(u64 start, u64 end)
{
    for (struct shared **at = &g_shared, *s; (s = *at);) {
        u64 from = s->address > start ? s->address : start, to = min64(s->address + s->size, end);
        if (from >= to) {
            at = &s->next;
            continue;
        }
        if (s->count > 1) {
            s->count--;
            return true;
        }
        mm_to_kernel(from, to);
        struct shared *rest = NULL;
        if (from > s->address && to < s->address + s->size) { /* the middle: two remain */
            if (!(rest = kmalloc(sizeof *rest)))
                libos_bug("no memory for a mapping");
            *rest = (struct shared){s->next, s->inode, to, s->address + s->size - to, s->offset + (to - s->address), 1};
            rest->inode->refs++;
            s->next = rest;
        }
        if (from > s->address)
            s->size = from - s->address;
        else if (to < s->address + s->size) {
            s->offset += to - s->address;
            s->size -= to - s->address;
            s->address = to;
        } else {
            *at = s->next;
            tmp_drop(s->inode);
            kfree(s);
            continue;
        }
        at = &s->next;
    }
    return false;
}

long shared_move(u64 address, u64 old_size, u64 size)
{
    struct shared *s = g_shared;
    while (s && (address < s->address || address >= s->address + s->size))
        s = s->next;
    if (!s)
        return 0;
    if (s->address != address || s->size != old_size || s->count > 1 || shared_of(s->inode, s->offset + old_size, s->offset + size))
        return -ENOMEM;
    u64 to = mm_map(size, 3);
    if (!to)
        return -ENOMEM;
    mm_to_kernel(address, address + old_size);
    if (!adopt(s->inode, s->offset, size, to))
        libos_bug("no memory for a mapping");
    s->address = to;
    s->size = size;
    return (long)to;
}
