/* What is said of files: links, modes, owners, times, sizes, attributes. Of temporary files; trusted ones are read-only. */
#include <linux/falloc.h>
#include <linux/fcntl.h>
#include <linux/stat.h>
#include <linux/xattr.h>

#include "sys.h"
#include "temporary.h"

struct identity g_identity = {.umask = 022};
u32 umask_of(u32 mode) { return mode & 07777 & ~g_identity.umask; }

#define NOT_KEPT 1 /* of encrypted files: one mode and owner for all, nobody else is inside */

/* The temporary file that a path names, or the error that Linux has for it. */
static long inode_at(long dirfd, long path_at, bool follow, struct inode **found)
{
    char path[PATH_ROOM];
    struct stat_k st;
    long ret = path_followed(dirfd, path_at, follow, path);
    if (ret)
        return ret;
    if ((*found = tmp_find(path, NULL, NULL, NULL)))
        return 0;
    ret = fs_stat(path, follow, &st);
    return ret ? ret : enc_mount(mount_of(path, NULL)) ? NOT_KEPT : -EROFS;
}

static long inode_of(long fd, struct inode **found)
{
    struct file *f = file_get((int)fd);
    if (!f || f->flags & O_PATH)
        return -EBADF;
    *found = f->inode;
    if (f->type == FILE_ENCRYPTED)
        return NOT_KEPT;
    return f->inode ? 0 : f->type == FILE_PACK || f->type == FILE_DIR ? -EROFS : -EINVAL;
}

/* A path, or with AT_EMPTY_PATH and an empty one the descriptor itself. */
static long inode_or_self(long dirfd, long path, long flags, struct inode **found)
{
    if (flags & AT_EMPTY_PATH && user_read_ok((u64)path, 1) && !*(char *)path && dirfd != AT_FDCWD) {
        struct file *f = file_get((int)dirfd);
        *found = f ? f->inode : NULL;
        return !f ? -EBADF : *found ? 0 : -EROFS;
    }
    return inode_at(dirfd, path, !(flags & AT_SYMLINK_NOFOLLOW), found);
}

/* ---- names ---- */
/* Where a new name goes: its directory and the name itself, in `path`. */
static long place_for(long dirfd, long path_at, char *path, struct inode **parent, const char **name)
{
    struct stat_k st;
    long ret = path_followed(dirfd, path_at, false, path);
    if (ret)
        return ret;
    if (!fs_stat(path, false, &st))
        return -EEXIST;
    if (!mount_of(path, NULL))
        return fs_missing(path) == -ENOTDIR ? -ENOTDIR : -EROFS;
    *parent = NULL;
    tmp_find(path, NULL, parent, name);
    return *parent ? 0 : fs_missing(path);
}

long sys_symlinkat(const long *a)
{
    char target[PATH_ROOM], path[PATH_ROOM];
    struct inode *parent, *i;
    const char *name;
    long n = user_string((u64)a[0], target, sizeof target);
    if (n <= 0)
        return n ? n : -ENOENT;
    long ret = place_for(a[1], a[2], path, &parent, &name);
    if (ret)
        return ret;
    char *copy = kmalloc((u64)n + 1);
    if (!copy || !(i = tmp_create(parent, name, S_IFLNK | 0777))) {
        kfree(copy);
        return -ENOSPC;
    }
    memcpy(copy, target, (u64)n + 1);
    i->target = copy;
    return 0;
}
long sys_symlink(const long *a) { return sys_symlinkat((long[]){a[0], AT_FDCWD, a[1]}); }

long sys_linkat(const long *a)
{
    char path[PATH_ROOM];
    struct inode *parent, *i;
    const char *name;
    if (a[4] & ~(long)(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    long ret = inode_or_self(a[0], a[1], (a[4] & AT_EMPTY_PATH) | (a[4] & AT_SYMLINK_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW), &i);
    if (ret)
        return ret == -EROFS ? -EXDEV : ret == NOT_KEPT ? -EPERM : ret;
    if (is_directory(i))
        return -EPERM;
    if ((ret = place_for(a[2], a[3], path, &parent, &name)))
        return ret;
    if (parent->mount != i->mount)
        return -EXDEV;
    return tmp_link(parent, name, i) ? 0 : -ENOSPC;
}
long sys_link(const long *a) { return sys_linkat((long[]){AT_FDCWD, a[0], AT_FDCWD, a[1], 0}); }

long sys_mknodat(const long *a)
{
    char path[PATH_ROOM];
    struct inode *parent;
    const char *name;
    u32 kind = (u32)a[2] & S_IFMT;
    if (kind == S_IFCHR || kind == S_IFBLK)
        return -EPERM; /* there are no devices but those of /dev */
    if (kind && kind != S_IFREG && kind != S_IFIFO && kind != S_IFSOCK)
        return -EINVAL;
    long ret = place_for(a[0], a[1], path, &parent, &name);
    if (ret)
        return ret;
    return tmp_create(parent, name, (kind ? kind : S_IFREG) | umask_of((u32)a[2])) ? 0 : -ENOSPC;
}
long sys_mknod(const long *a) { return sys_mknodat((long[]){AT_FDCWD, a[0], a[1], a[2]}); }

long sys_memfd_create(const long *a)
{
    char name[256];
    long n = user_string((u64)a[0], name, 250);
    if (n < 0)
        return n == -ENAMETOOLONG ? -EINVAL : n;
    if (a[1] & ~0x1fl)
        return -EINVAL;
    struct inode *i = tmp_new(S_IFREG | 0777);
    struct file *f = i ? file_new(FILE_TMP, O_RDWR) : NULL;
    if (!f || !(f->path = kmalloc((u64)n + 32))) {
        kfree(f);
        kfree(i);
        return -ENOMEM;
    }
    format(f->path, (u64)n + 32, "/memfd:%s (deleted)", name);
    f->inode = i;
    i->refs++;
    return file_install(f, 0, a[1] & 1);
}

/* ---- mode and owner ---- */
static long change_mode(long ret, struct inode *i, long mode)
{
    if (ret)
        return ret == NOT_KEPT ? 0 : ret;
    i->mode = (i->mode & S_IFMT) | ((u32)mode & 07777);
    tmp_touch(i, false);
    return 0;
}
long sys_fchmodat(const long *a)
{
    struct inode *i = NULL;
    long ret = inode_at(a[0], a[1], true, &i);
    return change_mode(ret, i, a[2]);
}
long sys_chmod(const long *a) { return sys_fchmodat((long[]){AT_FDCWD, a[0], a[1]}); }
long sys_fchmod(const long *a)
{
    struct inode *i = NULL;
    long ret = inode_of(a[0], &i);
    return change_mode(ret, i, a[1]);
}

static long change_owner(long ret, struct inode *i, long uid, long gid)
{
    if (ret)
        return ret == NOT_KEPT ? 0 : ret;
    if ((u32)uid != ~0u)
        i->uid = (u32)uid;
    if ((u32)gid != ~0u)
        i->gid = (u32)gid;
    if (!is_directory(i) && ((u32)uid != ~0u || (u32)gid != ~0u))
        i->mode &= ~(u32)(S_ISUID | (i->mode & 010 ? S_ISGID : 0));
    tmp_touch(i, false);
    return 0;
}
long sys_fchownat(const long *a)
{
    struct inode *i = NULL;
    if (a[4] & ~(long)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    long ret = inode_or_self(a[0], a[1], a[4], &i);
    return change_owner(ret, i, a[2], a[3]);
}
long sys_chown(const long *a) { return sys_fchownat((long[]){AT_FDCWD, a[0], a[1], a[2], 0}); }
long sys_lchown(const long *a) { return sys_fchownat((long[]){AT_FDCWD, a[0], a[1], a[2], AT_SYMLINK_NOFOLLOW}); }
long sys_fchown(const long *a)
{
    struct inode *i = NULL;
    long ret = inode_of(a[0], &i);
    return change_owner(ret, i, a[1], a[2]);
}

/* ---- times ---- */
/* Of an encrypted file the time of change is kept, and authentic. */
static long encrypted_time(long dirfd, long path_at, u64 mtime_ns)
{
    char path[PATH_ROOM];
    if (!path_at) {
        enc_set_mtime(file_get((int)dirfd)->encrypted, mtime_ns);
        return 0;
    }
    long ret = path_followed(dirfd, path_at, true, path);
    return ret ? ret : enc_touch(mount_of(path, NULL), path, mtime_ns);
}

long sys_utimensat(const long *a)
{
    struct inode *i = NULL;
    long ns[2] = {0x3fffffff, 0x3fffffff}; /* UTIME_NOW */
    u64 at[2], now = now_ns(0);
    if (a[3] & ~(long)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    if (a[2] && !user_read_ok((u64)a[2], 32))
        return -EFAULT;
    for (int k = 0; k < 2; k++) {
        long seconds = a[2] ? ((long *)a[2])[2 * k] : 0;
        if (a[2])
            ns[k] = ((long *)a[2])[2 * k + 1];
        if (ns[k] != 0x3fffffff && ns[k] != 0x3ffffffe && (ns[k] < 0 || ns[k] >= 1000000000))
            return -EINVAL;
        seconds = seconds < 0 ? 0 : seconds > 1l << 33 ? 1l << 33 : seconds; /* as far as such a file system keeps them */
        at[k] = ns[k] == 0x3fffffff ? now : (u64)seconds * 1000000000 + (u64)ns[k];
    }
    long ret = a[1] ? inode_or_self(a[0], a[1], a[3], &i) : inode_of(a[0], &i);
    if (ret == NOT_KEPT)
        return ns[1] == 0x3ffffffe ? 0 : encrypted_time(a[0], a[1], at[1]);
    if (ret)
        return ret;
    if (ns[0] != 0x3ffffffe) /* UTIME_OMIT */
        i->atime = at[0];
    if (ns[1] != 0x3ffffffe)
        i->mtime = at[1];
    i->ctime = now;
    return 0;
}

/* ---- sizes ---- */
long sys_truncate(const long *a)
{
    char path[PATH_ROOM];
    struct file *f = NULL;
    if (a[1] < 0)
        return -EINVAL;
    long ret = path_arg(AT_FDCWD, a[0], path);
    if (!ret)
        ret = fs_open(path, O_RDWR | O_NONBLOCK, 0, &f);
    if (ret)
        return ret;
    ret = file_resize(f, (u64)a[1]);
    if (!ret && f->type == FILE_ENCRYPTED)
        ret = enc_commit(f->encrypted, true);
    file_drop(f);
    return ret;
}
long sys_fallocate(const long *a)
{
    struct file *f = file_get((int)a[0]);
    if (!f || !writable(f))
        return -EBADF;
    if (a[2] < 0 || a[3] <= 0)
        return -EINVAL;
    if (f->type != FILE_TMP)
        return f->type == FILE_PIPE ? -ESPIPE : f->type == FILE_DIR ? -EISDIR : f->type == FILE_DEVICE ? -ENODEV : -EOPNOTSUPP;
    if (a[1] & ~(long)FALLOC_FL_KEEP_SIZE)
        return -EOPNOTSUPP;
    if (a[2] + a[3] < 0)
        return -EFBIG;
    u64 size = f->inode->size, end = (u64)(a[2] + a[3]);
    long n = data_write(f->inode, NULL, (u64)a[3], (u64)a[2]); /* room only */
    if (n == a[3] && !(a[1] & FALLOC_FL_KEEP_SIZE)) {
        if (end > f->inode->size)
            f->inode->size = end;
        return 0;
    }
    f->inode->size = size;
    return n == a[3] ? 0 : -ENOSPC;
}
long sys_fadvise64(const long *a)
{
    struct file *f = file_get((int)a[0]);
    if (!f)
        return -EBADF;
    if (f->type == FILE_PIPE || f->socket)
        return -ESPIPE;
    return a[3] < 0 || a[3] > 5 || a[2] < 0 ? -EINVAL : 0;
}

static void fill_statfs(u64 *w, bool read_only)
{
    memset(w, 0, 120);
    w[0] = 0x01021994; /* TMPFS_MAGIC */
    w[1] = PAGE;
    w[2] = boot()->heap_size / PAGE;
    w[3] = w[4] = (boot()->heap_size - mm_used()) / PAGE;
    w[5] = 1 << 20;
    w[6] = (1 << 20) - 1000;
    w[8] = 255;
    w[9] = PAGE;
    w[10] = 0x20 | (read_only ? 1 : 0); /* ST_VALID, ST_RDONLY */
}
long sys_statfs(const long *a)
{
    char path[PATH_ROOM];
    struct stat_k st;
    long ret = path_stat(a[0], path, &st);
    if (ret)
        return ret;
    if (!user_write_ok((u64)a[1], 120))
        return -EFAULT;
    fill_statfs((u64 *)a[1], !mount_of(path, NULL));
    return 0;
}
long sys_fstatfs(const long *a)
{
    struct file *f = file_get((int)a[0]);
    if (!f)
        return -EBADF;
    if (!user_write_ok((u64)a[1], 120))
        return -EFAULT;
    fill_statfs((u64 *)a[1], f->type == FILE_PACK);
    return 0;
}

/* ---- extended attributes: user.* (and trusted.*: the program is root) of temporary files and directories ---- */
#define NAME_MOST 256u
#define VALUE_MOST 65536u
static long attribute_name(long at, char *name)
{
    long n = user_string((u64)at, name, NAME_MOST);
    if (n == -ENAMETOOLONG || n == 0)
        return -ERANGE;
    if (n < 0)
        return n;
    return !strncmp(name, "user.", 5) || !strncmp(name, "trusted.", 8) ? 0 : -EOPNOTSUPP;
}
static struct attribute **attribute_of(struct inode *i, const char *name)
{
    struct attribute **at = &i->attributes;
    while (*at && strcmp((*at)->name, name))
        at = &(*at)->next;
    return at;
}
static long attribute_set(long ret, struct inode *i, const long *a)
{
    char name[NAME_MOST];
    if (ret || (ret = attribute_name(a[1], name)))
        return ret == NOT_KEPT ? -EOPNOTSUPP : ret;
    if (a[4] & ~(long)(XATTR_CREATE | XATTR_REPLACE))
        return -EINVAL;
    if ((u64)a[3] > VALUE_MOST)
        return -E2BIG;
    if (!user_read_ok((u64)a[2], (u64)a[3]))
        return -EFAULT;
    if (!strncmp(name, "user.", 5) && (i->mode & S_IFMT) != S_IFREG && !is_directory(i))
        return -EPERM;
    struct attribute **at = attribute_of(i, name), *one = *at;
    if (one ? a[4] & XATTR_CREATE : a[4] & XATTR_REPLACE)
        return one ? -EEXIST : -ENODATA;
    u8 *value = kmalloc((u64)a[3] + 1);
    if (!value)
        return -ENOSPC;
    memcpy(value, (void *)a[2], (u64)a[3]);
    if (!one) {
        if (!(one = kmalloc(sizeof *one)) || !(one->name = kmalloc(strlen(name) + 1))) {
            kfree(one);
            kfree(value);
            return -ENOSPC;
        }
        memcpy(one->name, name, strlen(name) + 1);
        *at = one;
    }
    kfree(one->value);
    one->value = value;
    one->size = (u32)a[3];
    tmp_touch(i, false);
    return 0;
}
static long attribute_get(long ret, struct inode *i, const long *a)
{
    char name[NAME_MOST];
    if (ret == -EROFS || ret == NOT_KEPT)
        return -ENODATA;
    if (ret || (ret = attribute_name(a[1], name)))
        return ret == NOT_KEPT ? -EOPNOTSUPP : ret;
    const struct attribute *one = *attribute_of(i, name);
    if (!one)
        return -ENODATA;
    if (!a[3])
        return one->size;
    if ((u64)a[3] < one->size)
        return -ERANGE;
    if (!user_write_ok((u64)a[2], one->size))
        return -EFAULT;
    memcpy((void *)a[2], one->value, one->size);
    return one->size;
}
static long attribute_list(long ret, struct inode *i, const long *a)
{
    u64 total = 0;
    if (ret == -EROFS || ret == NOT_KEPT)
        return 0;
    if (ret)
        return ret;
    for (struct attribute *one = i->attributes; one; one = one->next)
        total += strlen(one->name) + 1;
    if (!a[2])
        return (long)total;
    if ((u64)a[2] < total)
        return -ERANGE;
    if (!user_write_ok((u64)a[1], total))
        return -EFAULT;
    u64 at = (u64)a[1];
    for (struct attribute *one = i->attributes; one; one = one->next) {
        memcpy((void *)at, one->name, strlen(one->name) + 1);
        at += strlen(one->name) + 1;
    }
    return (long)total;
}
static long attribute_remove(long ret, struct inode *i, const long *a)
{
    char name[NAME_MOST];
    if (ret || (ret = attribute_name(a[1], name)))
        return ret == NOT_KEPT ? -EOPNOTSUPP : ret;
    struct attribute **at = attribute_of(i, name), *one = *at;
    if (!one)
        return -ENODATA;
    *at = one->next;
    kfree(one->name);
    kfree(one->value);
    kfree(one);
    tmp_touch(i, false);
    return 0;
}
#define ATTRIBUTE_CALLS(verb, does) \
    long sys_##verb##xattr(const long *a) { struct inode *i = NULL; long ret = inode_at(AT_FDCWD, a[0], true, &i); return does(ret, i, a); } \
    long sys_l##verb##xattr(const long *a) { struct inode *i = NULL; long ret = inode_at(AT_FDCWD, a[0], false, &i); return does(ret, i, a); } \
    long sys_f##verb##xattr(const long *a) { struct inode *i = NULL; long ret = inode_of(a[0], &i); return does(ret, i, a); }
ATTRIBUTE_CALLS(set, attribute_set)
ATTRIBUTE_CALLS(get, attribute_get)
ATTRIBUTE_CALLS(list, attribute_list)
ATTRIBUTE_CALLS(remove, attribute_remove)
