/* Directories: making, removing and renaming in them, and listing. */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "sys.h"
#include "temporary.h"

#define FILE_OR_BAD(fd) ({ struct file *file_ = file_get((int)(fd)); if (!file_) return -EBADF; file_; })

/* ---- changing directories: temporary mounts, and allowed ones by the host ---- */
static long host_at(long nr, const struct boot_mount *m, const char *rest, long arg)
{
    char name[PATH_ROOM];
    long n = host_path(m, rest, name);
    if (n < 0)
        return n;
    memcpy(ocall_data(), name, (u64)n + 1);
    return host_zero(nr, host_data_address(), arg);
}

long sys_mkdirat(const long *a)
{
    char path[PATH_ROOM];
    const char *rest, *name = NULL;
    struct inode *parent = NULL;
    struct stat_k st;
    long ret = path_followed(a[0], a[1], false, path);
    if (ret)
        return ret;
    const struct boot_mount *m = mount_of(path, &rest);
    if (m && m->kind == BOOT_MOUNT_ALLOWED)
        return host_at(__NR_mkdir, m, rest, a[2] & 0777);
    if (enc_mount(m))
        return enc_mkdir(m, path, rest);
    if (!fs_stat(path, false, &st))
        return -EEXIST;
    if (!m)
        return -EROFS;
    if (tmp_find(path, NULL, &parent, &name) || !parent)
        return fs_missing(path);
    return tmp_create(parent, name, S_IFDIR | umask_of((u32)a[2] & 01777) | (parent->mode & S_ISGID)) ? 0 : -ENOSPC;
}
long sys_mkdir(const long *a) { return sys_mkdirat((long[]){AT_FDCWD, a[0], a[1]}); }

long sys_unlinkat(const long *a)
{
    char path[PATH_ROOM];
    const char *rest;
    bool is_mount;
    struct stat_k st;
    struct inode *parent = NULL;
    const char *name = NULL;
    long ret = a[2] & ~(long)AT_REMOVEDIR ? -EINVAL : path_followed(a[0], a[1], false, path);
    if (ret)
        return ret;
    const struct boot_mount *m = mount_of(path, &rest);
    if (m && m->kind == BOOT_MOUNT_ALLOWED)
        return host_at(a[2] & AT_REMOVEDIR ? __NR_rmdir : __NR_unlink, m, rest, 0);
    if (enc_mount(m))
        return enc_unlink(m, path, rest, a[2] & AT_REMOVEDIR);
    struct inode *i = m ? tmp_find(path, &is_mount, &parent, &name) : NULL;
    if (!i)
        return (ret = fs_stat(path, false, &st)) ? ret : -EROFS;
    bool directory = is_directory(i);
    if (is_mount)
        return -EBUSY;
    if (a[2] & AT_REMOVEDIR ? !directory : directory)
        return directory ? -EISDIR : -ENOTDIR;
    if (i->entries)
        return -ENOTEMPTY;
    tmp_unlink(parent, i, name);
    return 0;
}
long sys_unlink(const long *a) { return sys_unlinkat((long[]){AT_FDCWD, a[0], 0}); }
long sys_rmdir(const long *a) { return sys_unlinkat((long[]){AT_FDCWD, a[0], AT_REMOVEDIR}); }

long sys_renameat2(const long *a)
{
    char from[PATH_ROOM], to[PATH_ROOM];
    const char *from_rest, *to_rest, *name = NULL, *from_name = NULL;
    struct inode *parent = NULL, *from_parent = NULL;
    struct stat_k st;
    if (a[4] & ~1l) /* RENAME_NOREPLACE only */
        return -EINVAL;
    long ret = path_arg(a[0], a[1], from);
    if (!ret)
        ret = path_arg(a[2], a[3], to);
    if (!ret)
        ret = fs_follow(from, false);
    if (!ret)
        ret = fs_follow(to, false);
    if (ret)
        return ret;
    const struct boot_mount *m = mount_of(from, &from_rest), *n = mount_of(to, &to_rest);
    if (!m || !n)
        return (ret = fs_stat(from, false, &st)) ? ret : m == n ? -EROFS : -EXDEV;
    if (m->kind != n->kind)
        return (ret = fs_stat(from, false, &st)) ? ret : -EXDEV;
    if (enc_mount(m))
        return enc_rename(m, n, from, to, a[4] & 1);
    if (m->kind == BOOT_MOUNT_ALLOWED) {
        char host_name[PATH_ROOM];
        long x = host_path(m, from_rest, host_name);
        if (x < 0)
            return x;
        memcpy(ocall_data(), host_name, (u64)x + 1);
        long y = host_path(n, to_rest, host_name);
        if (y < 0)
            return y;
        memcpy(ocall_data() + PATH_ROOM, host_name, (u64)y + 1);
        return host_zero(__NR_renameat2, AT_FDCWD, host_data_address(), AT_FDCWD, host_data_address() + PATH_ROOM, a[4]);
    }
    bool mounts[2];
    struct inode *i = tmp_find(from, &mounts[0], &from_parent, &from_name), *old = tmp_find(to, &mounts[1], &parent, &name);
    if (!i)
        return fs_missing(from);
    if (mounts[0] || mounts[1])
        return -EBUSY;
    if (!parent)
        return fs_missing(to);
    if (m != n)
        return -EXDEV;
    if (old && a[4])
        return -EEXIST;
    if (old == i)
        return 0;
    for (struct inode *up = parent; up; up = up->parent)
        if (up == i)
            return -EINVAL;
    if (old) {
        if (is_directory(old) != is_directory(i))
            return is_directory(old) ? -EISDIR : -ENOTDIR;
        if (old->entries)
            return -ENOTEMPTY;
    }
    if (!tmp_link(parent, name, i)) /* for a moment it has both names: nothing can be lost */
        return -ENOSPC;
    if (old)
        tmp_unlink(parent, old, name);
    struct inode *above = i->parent;
    tmp_unlink(from_parent, i, from_name);
    i->parent = above;
    return 0;
}
long sys_renameat(const long *a) { return sys_renameat2((long[]){a[0], a[1], a[2], a[3], 0}); }
long sys_rename(const long *a) { return sys_renameat2((long[]){AT_FDCWD, a[0], AT_FDCWD, a[1], 0}); }

/* ---- listing ---- */
static bool memchr_ok(const u8 *p, u64 size)
{
    for (u64 i = 0; i < size; i++)
        if (!p[i])
            return true;
    return false;
}

static bool name_add_as(struct file *f, const char *name, u32 length, u8 kind, u64 number)
{
    if (!(f->name_count & (f->name_count + 1)) || !f->names) { /* 0, 1, 3, 7, ...: room for twice as many */
        u32 room = 2 * f->name_count + 2;
        struct name **more = krealloc(f->names, f->name_count * sizeof *f->names, room * sizeof *f->names);
        if (!more)
            return false;
        f->names = more;
    }
    struct name *one = kmalloc(sizeof *one + length + 1);
    if (!one)
        return false;
    memcpy(one->text, name, length);
    one->kind = kind;
    one->number = number;
    f->names[f->name_count++] = one;
    return true;
}

static bool name_add(struct file *f, const char *name, u32 length, u8 kind) { return name_add_as(f, name, length, kind, f->name_count + 1); }

static long list(struct file *f)
{
    const struct pack_entry *p;
    const char *name;
    u32 index = 0, length;
    u8 kind;
    char path[PATH_ROOM];
    struct stat_k st = {0};
    file_stat(f, &st);
    bool good = name_add_as(f, ".", 1, 4, st.ino) && name_add(f, "..", 2, 4);
    const struct boot_mount *m = mount_of(f->path, NULL);
    if (enc_mount(m)) {
        long bad = good ? enc_list(m, f->path, f, name_add) : -ENOMEM;
        if (bad)
            return bad;
    }
    if (f->inode)
        for (struct entry *e = f->inode->entries; e && good; e = e->next)
            good = name_add_as(f, e->name, (u32)strlen(e->name), (u8)(e->inode->mode >> 12), e->inode->number);
    else {
        while (good && pack_next_child(f->path, &index, &p, &name, &length))
            good = name_add_as(f, name, length, p->kind == PACK_FILE ? 8 : p->kind == PACK_DIRECTORY ? 4 : 10, pack_number(p));
        for (u32 i = 0; good && node_child(f->path, i, &name, &kind); i++) {
            format(path, sizeof path, "%s/%s", f->path, name);
            good = name_add_as(f, name, (u32)strlen(name), kind, node_stat(path, &st) ? i + 1 : st.ino);
        }
    }
    return good ? 0 : -ENOMEM;
}

long sys_getdents64(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    u64 done = 0, size = (u64)a[2];
    if (f->type != FILE_DIR)
        return -ENOTDIR;
    if (!user_write_ok((u64)a[1], size))
        return -EFAULT;
    if (f->host_fd >= 0) {
        size = min64(size, DATA_MAX);
        long n = bounded(host(__NR_getdents64, f->host_fd, host_data_address(), size), size);
        if (n > 0)
            memcpy((void *)a[1], ocall_data(), (u64)n);
        for (u64 at = 0; n > 0 && at < (u64)n;) { /* records must stay in the answer */
            u64 record = (u64)n - at < 24 ? 0 : *(uint16_t *)(a[1] + (long)at + 16);
            if (record < 24 || record > (u64)n - at || !memchr_ok((u8 *)a[1] + at + 19, record - 19))
                return -EIO;
            at += record;
        }
        return n;
    }
    if (!f->offset && !f->name_count) {
        long bad = list(f);
        if (bad) {
            names_forget(f); /* half a folder is none */
            return bad;
        }
    }
    for (; f->offset < f->name_count; f->offset++) {
        const char *name = f->names[f->offset]->text;
        u64 record = (19 + strlen(name) + 1 + 7) & ~7ull;
        if (done + record > size)
            return done ? (long)done : -EINVAL;
        u8 *to = (u8 *)a[1] + done;
        memset(to, 0, record);
        *(u64 *)to = f->names[f->offset]->number;
        *(u64 *)(to + 8) = f->offset + 1;
        *(uint16_t *)(to + 16) = (uint16_t)record;
        to[18] = f->names[f->offset]->kind;
        memcpy(to + 19, name, strlen(name));
        done += record;
    }
    return (long)done;
}

