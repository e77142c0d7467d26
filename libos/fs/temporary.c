/* Temporary mounts: files in the enclave's memory, gone with it. */
#include <linux/stat.h>

#include "libos.h"

struct mounted { const struct boot_mount *mount; struct inode *root; };
static struct mounted g_mounted[16];
static u64 g_number = 0x10000;

static struct inode *inode_new(u32 mode)
{
    struct inode *i = kmalloc(sizeof *i);
    if (i) {
        i->mode = mode;
        i->number = g_number++;
        i->mtime = now_ns(0);
    }
    return i;
}

static struct inode *root_of(const struct boot_mount *m)
{
    for (u32 i = 0; i < 16; i++) {
        if (g_mounted[i].mount == m)
            return g_mounted[i].root;
        if (!g_mounted[i].mount) {
            g_mounted[i].mount = m;
            return g_mounted[i].root = inode_new(S_IFDIR | 01777);
        }
    }
    return NULL;
}

static struct inode *child(struct inode *dir, const char *name, size_t length)
{
    for (struct inode *i = dir->children; i; i = i->next)
        if (!strncmp(i->name, name, length) && !i->name[length])
            return i;
    return NULL;
}

/* NULL when there is none; *parent then holds where it would be, *last its name (within path). */
struct inode *tmp_find(const char *path, bool *is_mount, struct inode **parent, const char **last)
{
    const char *rest;
    const struct boot_mount *m = mount_of(path, &rest);
    struct inode *at = m && m->kind == BOOT_MOUNT_TEMPORARY ? root_of(m) : NULL;
    if (is_mount)
        *is_mount = at && !*rest;
    while (at && *rest) {
        const char *end = rest;
        while (*end && *end != '/')
            end++;
        if ((at->mode & S_IFMT) != S_IFDIR)
            return NULL;
        if (!*end && parent) {
            *parent = at;
            *last = rest;
        }
        at = child(at, rest, (size_t)(end - rest));
        rest = *end ? end + 1 : end;
    }
    return at;
}

struct inode *tmp_create(struct inode *parent, const char *name, u32 mode)
{
    struct inode *i = inode_new(mode);
    if (!i || !(i->name = kmalloc(strlen(name) + 1)))
        return NULL;
    memcpy(i->name, name, strlen(name) + 1);
    i->parent = parent;
    i->next = parent->children;
    parent->children = i;
    parent->mtime = i->mtime;
    return i;
}

static void tmp_free(struct inode *i)
{
    if (i->data)
        kpages_free((u64)i->data, i->room);
    kfree(i->target);
    kfree(i->name);
    kfree(i);
}

void tmp_detach(struct inode *i)
{
    struct inode **at = &i->parent->children;
    while (*at != i)
        at = &(*at)->next;
    *at = i->next;
    i->next = NULL;
}

void tmp_attach(struct inode *i, struct inode *parent)
{
    i->parent = parent;
    i->next = parent->children;
    parent->children = i;
}

void tmp_remove(struct inode *i)
{
    tmp_detach(i);
    i->gone = true;
    if (!i->refs)
        tmp_free(i);
}

void tmp_drop(struct inode *i)
{
    if (--i->refs == 0 && i->gone)
        tmp_free(i);
}

long tmp_resize(struct inode *i, u64 size)
{
    if (size > i->room) {
        u64 room = page_up(size > 2 * i->room ? size : 2 * i->room), data = kpages(room);
        if (!data && !(data = kpages(room = page_up(size))))
            return -ENOSPC;
        memcpy((void *)data, i->data, i->size);
        if (i->data)
            kpages_free((u64)i->data, i->room);
        i->data = (u8 *)data;
        i->room = room;
    }
    if (size > i->size)
        memset(i->data + i->size, 0, size - i->size);
    i->size = size;
    i->mtime = now_ns(0);
    return 0;
}
