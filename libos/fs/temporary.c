/* Temporary mounts: the tree of names and inodes. Data: extents.c. */
#include <linux/stat.h>

#include "temporary.h"
#include "../sys/sys.h"

struct mounted { const struct boot_mount *mount; struct inode *root; };
static struct mounted g_mounted[32];
static u64 g_number = 0x10000;

bool is_directory(const struct inode *i) { return (i->mode & S_IFMT) == S_IFDIR; }

struct inode *tmp_new(u32 mode)
{
    struct inode *i = kmalloc(sizeof *i);
    if (i) {
        i->mode = mode;
        i->uid = g_identity.uid[1];
        i->gid = g_identity.gid[1];
        i->number = g_number++;
        i->atime = i->mtime = i->ctime = now_ns(0);
    }
    return i;
}

static struct inode *root_of(const struct boot_mount *m)
{
    for (u32 i = 0; i < sizeof g_mounted / sizeof *g_mounted; i++) {
        if (g_mounted[i].mount == m)
            return g_mounted[i].root;
        if (!g_mounted[i].mount) {
            struct inode *root = tmp_new(S_IFDIR | 01777);
            if (root) {
                root->mount = m;
                root->links = 1;
                g_mounted[i] = (struct mounted){m, root};
            }
            return root;
        }
    }
    return NULL;
}

static struct entry *entry_of(struct inode *directory, const char *name, size_t length)
{
    for (struct entry *e = directory->entries; e; e = e->next)
        if (!strncmp(e->name, name, length) && !e->name[length])
            return e;
    return NULL;
}

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
        if (!is_directory(at))
            return NULL;
        if (!*end && parent) {
            *parent = at;
            *last = rest;
        }
        struct entry *e = entry_of(at, rest, (size_t)(end - rest));
        at = e ? e->inode : NULL;
        rest = *end ? end + 1 : end;
    }
    return at;
}

void tmp_touch(struct inode *i, bool modified)
{
    i->ctime = now_ns(0);
    if (modified)
        i->mtime = i->ctime;
}

bool tmp_link(struct inode *parent, const char *name, struct inode *i)
{
    struct entry *e = kmalloc(sizeof *e);
    if (!e || !(e->name = kmalloc(strlen(name) + 1))) {
        kfree(e);
        return false;
    }
    memcpy(e->name, name, strlen(name) + 1);
    e->inode = i;
    e->next = parent->entries;
    parent->entries = e;
    i->links++;
    i->mount = parent->mount;
    if (is_directory(i))
        i->parent = parent;
    tmp_touch(i, false);
    tmp_touch(parent, true);
    return true;
}

static void tmp_free(struct inode *i)
{
    data_free(i);
    for (struct attribute *a = i->attributes, *next; a; a = next) {
        next = a->next;
        kfree(a->name);
        kfree(a->value);
        kfree(a);
    }
    kfree(i->target);
    kfree(i);
}

struct inode *tmp_create(struct inode *parent, const char *name, u32 mode)
{
    struct inode *i = tmp_new(mode);
    if (i && parent->mode & S_ISGID)
        i->gid = parent->gid;
    if (i && !tmp_link(parent, name, i)) {
        tmp_free(i);
        return NULL;
    }
    return i;
}

void tmp_unlink(struct inode *parent, struct inode *i, const char *name)
{
    for (struct entry **at = &parent->entries, *e; (e = *at); at = &e->next)
        if (e->inode == i && !strcmp(e->name, name)) {
            *at = e->next;
            kfree(e->name);
            kfree(e);
            tmp_touch(parent, true);
            tmp_touch(i, false);
            if (is_directory(i))
                i->parent = NULL;
            if (--i->links == 0 && !i->refs)
                tmp_free(i);
            return;
        }
}

void tmp_drop(struct inode *i)
{
    if (--i->refs == 0 && !i->links)
        tmp_free(i);
}
