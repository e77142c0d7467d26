/* Paths and opening: nodes (/dev, /proc, /sys), then mounts, then the pack. */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "temporary.h"
#include "terminal.h"
#include "../sys/sys.h"

#define TRUSTED_TIME 315619200ull /* 2 January 1980: one date for all that was measured, and the first that ZIP can say */
static char g_cwd[PATH_ROOM] = "/";

const char *fs_cwd(void) { return g_cwd; }
void fs_set_cwd(const char *path) { memcpy(g_cwd, path, strlen(path) + 1); }

static const char *link_target(const char *path, char *to);

/*
 * Resolves an absolute path, name by name, into `to`: no link, ".", ".." or double slash is left, but for a link as the
 * last name unless `last`. Links are followed here only, and never by recursion. What ".." leaves must be a directory.
 */
static long walk(const char *path, bool last, char *to)
{
    char rest[PATH_ROOM], target[PATH_ROOM];
    size_t n = 0, at = 0, size = strlen(path) + 1;
    int links = 0;
    if (size > sizeof rest)
        return -ENAMETOOLONG;
    memcpy(rest, path, size);
    for (;;) {
        while (rest[at] == '/')
            at++;
        size_t end = at, before = n;
        while (rest[end] && rest[end] != '/')
            end++;
        size_t part = end - at, more = end;
        while (rest[more] == '/')
            more++;
        if (!part)
            break;
        if (part == 1 && rest[at] == '.')
            ;
        else if (part == 2 && rest[at] == '.' && rest[at + 1] == '.') {
            struct stat_k st;
            to[n] = 0;
            long bad = n ? fs_stat(to, true, &st) : 0;
            if (bad || (n && (st.mode & S_IFMT) != S_IFDIR))
                return bad ? bad : -ENOTDIR;
            while (n && to[--n] != '/')
                ;
        } else {
            if (n + part + 2 > PATH_ROOM || part > 255)
                return -ENAMETOOLONG;
            to[n++] = '/';
            memcpy(to + n, rest + at, part);
            n += part;
            to[n] = 0;
            if ((rest[more] || last) && link_target(to, target)) {
                size_t whole = strlen(target), tail = strlen(rest + end) + 1;
                if (++links > 40)
                    return -ELOOP;
                if (!whole || whole + tail > sizeof rest)
                    return whole ? -ENAMETOOLONG : -ENOENT;
                memmove(rest + whole, rest + end, tail);
                memcpy(rest, target, whole);
                at = 0;
                n = target[0] == '/' ? 0 : before;
                continue;
            }
        }
        at = end;
    }
    if (!n)
        to[n++] = '/';
    to[n] = 0;
    return 0;
}

static bool has_parent(const char *path) /* a name of it is ".." */
{
    for (const char *p = path; *p; p++)
        if ((p == path || p[-1] == '/') && p[0] == '.' && p[1] == '.' && (!p[2] || p[2] == '/'))
            return true;
    return false;
}

long path_absolute(int dirfd, const char *path, char *to)
{
    const char *base = "/";
    size_t n;
    if (path[0] != '/') {
        base = g_cwd;
        if (dirfd != AT_FDCWD) {
            struct file *f = file_get(dirfd);
            if (!f)
                return -EBADF;
            if (f->type != FILE_DIR)
                return -ENOTDIR;
            base = f->path;
        }
    }
    if (has_parent(path)) { /* of where a link leads, not of where it stands */
        char whole[PATH_ROOM];
        n = strlen(base);
        if (n + strlen(path) + 2 > sizeof whole)
            return -ENAMETOOLONG;
        format(whole, sizeof whole, "%s/%s", base, path);
        return walk(whole, false, to);
    }
    n = strlen(base);
    memcpy(to, base, n + 1);
    if (n == 1)
        n = 0;
    for (const char *p = path; *p;) {
        while (*p == '/')
            p++;
        const char *end = p;
        while (*end && *end != '/')
            end++;
        size_t part = (size_t)(end - p);
        if (part && !(part == 1 && p[0] == '.')) {
            if (n + part + 2 > PATH_ROOM || part > 255)
                return -ENAMETOOLONG;
            to[n++] = '/';
            memcpy(to + n, p, part);
            n += part;
        }
        p = end;
    }
    if (!n)
        to[n++] = '/';
    to[n] = 0;
    return 0;
}

const struct boot_mount *mount_of(const char *path, const char **rest)
{
    const struct boot_mount *m = (const void *)(BOOT_ADDRESS + boot()->mount_off), *best = NULL;
    size_t best_length = 0;
    for (u32 i = 0; i < boot()->mount_count; i++) {
        const char *at = boot_string(m[i].path);
        size_t n = strlen(at);
        if (n >= best_length && !strncmp(path, at, n) && (!path[n] || path[n] == '/' || n == 1)) {
            best = &m[i];
            best_length = n;
        }
    }
    if (best && rest)
        *rest = path + best_length + (path[best_length] == '/');
    return best && best->kind != BOOT_MOUNT_TRUSTED ? best : NULL;
}

static const char *link_target(const char *path, char *to)
{
    const char *node = node_link(path);
    if (node)
        return memcpy(to, node, strlen(node) + 1);
    const struct pack_entry *e = pack_find(path);
    if (e && e->kind == PACK_SYMLINK && e->target_len < PATH_ROOM) {
        memcpy(to, pack_string(e->target), e->target_len);
        to[e->target_len] = 0;
        return to;
    }
    struct inode *i = !e && mount_of(path, NULL) ? tmp_find(path, NULL, NULL, NULL) : NULL;
    if (i && i->target)
        return memcpy(to, i->target, strlen(i->target) + 1);
    return NULL;
}

/* Resolves symbolic links of `path` (PATH_ROOM bytes) in place; the last part's too where `last`. */
long fs_follow(char *path, bool last)
{
    char found[PATH_ROOM];
    const struct pack_entry *e = pack_find(path);
    if (e && e->kind != PACK_SYMLINK)
        return 0;
    long bad = walk(path, last, found);
    if (!bad)
        memcpy(path, found, strlen(found) + 1);
    return bad;
}

long host_path(const struct boot_mount *m, const char *rest, char *to)
{
    const char *at = boot_string(m->host_path);
    int n = format(to, PATH_ROOM, "%s%s%s", at, *rest ? "/" : "", rest);
    return n >= PATH_ROOM - 1 ? -ENAMETOOLONG : n;
}

static long open_allowed(const struct boot_mount *m, const char *path, const char *rest, int flags, u32 mode, struct file **file)
{
    char name[PATH_ROOM];
    long n = host_path(m, rest, name);
    if (n < 0)
        return n;
    struct file *f = file_named(FILE_HOST, path, (u32)flags); /* before the host has made or emptied anything */
    if (!f)
        return -ENOMEM;
    memcpy(ocall_data(), name, (size_t)n + 1);
    /* A FIFO waits for its other end, which may be another thread's to open. */
    long fd = fd_fresh(host_wait(__NR_openat, (u64)AT_FDCWD, host_data_address(), (u32)flags | O_CLOEXEC, mode, 0, 0, 1 << 20));
    struct stat_k st;
    if (fd == -EINTR && (fs_stat(path, true, &st) || (st.mode & S_IFMT) != S_IFIFO)) { /* a signal ends no other open */
        memcpy(ocall_data(), name, (size_t)n + 1);
        fd = fd_fresh(bounded(host(__NR_openat, AT_FDCWD, host_data_address(), flags | O_CLOEXEC, mode), 1 << 20));
    }
    if (fd < 0) {
        file_drop(f);
        return fd == -EINTR ? -ERESTARTSYS : fd;
    }
    f->host_fd = (int)fd;
    if (!file_stat(f, &st) && (st.mode & S_IFMT) == S_IFDIR)
        f->type = FILE_DIR;
    *file = f;
    return 0;
}

static struct inode *unnamed(struct inode *directory, u32 mode)
{
    struct inode *i = is_directory(directory) ? tmp_new(S_IFREG | umask_of(mode)) : NULL;
    if (i)
        i->mount = directory->mount;
    return i;
}

static long open_temporary(const char *path, int flags, u32 mode, struct file **file)
{
    struct inode *parent = NULL;
    const char *name = NULL;
    struct inode *i = tmp_find(path, NULL, &parent, &name);
    if (!i) {
        if (!(flags & O_CREAT) || !parent)
            return fs_missing(path);
        if (!(i = tmp_create(parent, name, S_IFREG | umask_of(mode))))
            return -ENOSPC;
    } else if (flags & O_CREAT && flags & O_EXCL)
        return -EEXIST;
    else if ((flags & O_TMPFILE) == O_TMPFILE) {
        if (!is_directory(i))
            return -ENOTDIR;
        if ((flags & O_ACCMODE) == O_RDONLY)
            return -EINVAL;
        if (!(i = unnamed(i, mode)))
            return -ENOSPC;
        flags &= ~O_TMPFILE;
    }
    if ((i->mode & S_IFMT) == S_IFLNK && !(flags & O_PATH))
        return -ELOOP; /* O_NOFOLLOW */
    if (is_directory(i) && ((flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT))
        return -EISDIR;
    if (flags & O_DIRECTORY && !is_directory(i))
        return -ENOTDIR;
    if ((i->mode & S_IFMT) == S_IFSOCK && !(flags & O_PATH))
        return -ENXIO;
    if ((i->mode & S_IFMT) == S_IFIFO && !(flags & O_PATH))
        return fifo_open(i, path, flags, file);
    i->refs++; /* of a file without a name the only one */
    struct file *f = file_named(is_directory(i) ? FILE_DIR : FILE_TMP, path, (u32)flags);
    if (!f) {
        tmp_drop(i);
        return -ENOMEM;
    }
    if (flags & O_TRUNC && f->type == FILE_TMP)
        data_resize(i, 0);
    f->inode = i;
    *file = f;
    return 0;
}

long fs_open(const char *given, int flags, u32 mode, struct file **file)
{
    char path[PATH_ROOM];
    const char *rest;
    memcpy(path, given, strlen(given) + 1);
    long ret = fs_follow(path, !(flags & O_NOFOLLOW) && !(flags & O_CREAT && flags & O_EXCL));
    if (ret)
        return ret;
    ret = node_open(path, flags, file);
    if (ret != -ENOENT)
        return ret;
    const struct boot_mount *m = mount_of(path, &rest);
    if (m && m->kind == BOOT_MOUNT_ALLOWED)
        return open_allowed(m, path, rest, flags, mode, file);
    if (m && m->kind == BOOT_MOUNT_TEMPORARY)
        return open_temporary(path, flags, mode, file);
    if (m)
        return enc_open(m, path, rest, flags, file);
    const struct pack_entry *e = pack_find(path);
    struct stat_k st;
    if (!e) {
        ret = fs_stat(path, true, &st);
        if (ret)
            return ret == -ENOENT && flags & O_CREAT ? -EROFS : ret;
    } else {
        if (flags & O_CREAT && flags & O_EXCL)
            return -EEXIST;
        if (e->kind == PACK_SYMLINK)
            return -ELOOP;
    }
    bool directory = !e || e->kind == PACK_DIRECTORY;
    if ((flags & O_ACCMODE) != O_RDONLY)
        return directory ? -EISDIR : -EROFS;
    if (flags & O_DIRECTORY && !directory)
        return -ENOTDIR;
    struct file *f = file_named(directory ? FILE_DIR : FILE_PACK, path, (u32)flags);
    if (!f)
        return -ENOMEM;
    f->entry = directory ? NULL : e;
    f->object = directory ? NULL : object_of(path);
    *file = f;
    return 0;
}

static void stat_simple(struct stat_k *st, u32 mode, u64 number, u64 size)
{
    memset(st, 0, sizeof *st);
    st->dev = 1;
    st->ino = number;
    st->nlink = 1;
    st->mode = mode;
    st->size = (long)size;
    st->blksize = PACK_CHUNK;
    st->blocks = (long)((size + 511) / 512);
    st->atime = st->mtime = st->ctime = TRUSTED_TIME;
}

static void stat_pack(struct stat_k *st, const struct pack_entry *e)
{
    static const u32 kinds[] = {0, S_IFREG, S_IFDIR, S_IFLNK};
    stat_simple(st, kinds[e->kind & 3] | (e->mode & 07777), pack_number(e), e->kind == PACK_SYMLINK ? e->target_len : e->size);
}

static void stat_inode(struct stat_k *st, struct inode *i)
{
    stat_simple(st, i->mode, i->number, i->target ? strlen(i->target) : i->size);
    st->dev = 2;
    st->uid = i->uid;
    st->gid = i->gid;
    st->rdev = i->rdev;
    st->nlink = i->links + (is_directory(i) ? 1 : 0);
    for (struct entry *e = i->entries; e; e = e->next)
        st->nlink += is_directory(e->inode);
    st->blocks = (long)(data_pages(i) / 512);
    st->blksize = PAGE;
    st->atime = i->atime / 1000000000;
    st->mtime = i->mtime / 1000000000;
    st->ctime = i->ctime / 1000000000;
    st->atime_ns = i->atime % 1000000000;
    st->mtime_ns = i->mtime % 1000000000;
    st->ctime_ns = i->ctime % 1000000000;
}

/* The host's answer about its own file: sizes are for its own descriptor only, nothing inside hangs on them. */
static long stat_host(struct stat_k *st, long ret)
{
    if ((ret = bounded(ret, 0)))
        return ret;
    memcpy(st, ocall_data(), sizeof *st);
    if (st->size < 0 || st->blksize < 0)
        return -EIO;
    st->dev |= 1ull << 32;
    return 0;
}

long fs_stat(const char *given, bool follow, struct stat_k *st)
{
    char path[PATH_ROOM], name[PATH_ROOM];
    const char *rest;
    const struct pack_entry *e = pack_find(given);
    if (e && e->kind != PACK_SYMLINK && !mount_of(given, NULL)) {
        stat_pack(st, e);
        return 0;
    }
    memcpy(path, given, strlen(given) + 1);
    long ret = fs_follow(path, follow);
    if (ret)
        return ret;
    if (!(ret = node_stat(path, st)))
        return 0;
    const struct boot_mount *m = mount_of(path, &rest);
    if (m && m->kind == BOOT_MOUNT_TEMPORARY) {
        struct inode *i = tmp_find(path, NULL, NULL, NULL);
        if (!i)
            return fs_missing(path);
        stat_inode(st, i);
        return 0;
    }
    if (m && m->kind == BOOT_MOUNT_ALLOWED) {
        long n = host_path(m, rest, name);
        if (n < 0)
            return n;
        memcpy(ocall_data() + 1024, name, (size_t)n + 1);
        return stat_host(st, host(__NR_newfstatat, AT_FDCWD, host_data_address() + 1024, host_data_address(),
                                  follow ? 0 : AT_SYMLINK_NOFOLLOW));
    }
    if (m)
        return enc_stat(m, path, rest, st);
    if ((e = pack_find(path))) {
        stat_pack(st, e);
        return 0;
    }
    u32 index = 0, length;
    const char *child;
    if (pack_next_child(path, &index, &e, &child, &length)) {
        stat_simple(st, S_IFDIR | 0755, 4, 0);
        return 0;
    }
    return fs_missing(path);
}

long fs_missing(const char *path)
{
    char up[PATH_ROOM];
    for (size_t n = 1; path[n]; n++) {
        if (path[n] != '/')
            continue;
        memcpy(up, path, n);
        up[n] = 0;
        const struct pack_entry *e = pack_find(up);
        const struct inode *i = e ? NULL : tmp_find(up, NULL, NULL, NULL);
        if ((e && e->kind == PACK_FILE) || (i && !is_directory(i)))
            return -ENOTDIR;
    }
    return -ENOENT;
}

long file_stat(struct file *f, struct stat_k *st)
{
    switch (f->type) {
    case FILE_PACK:
        stat_pack(st, f->entry);
        return 0;
    case FILE_TMP:
        stat_inode(st, f->inode);
        return 0;
    case FILE_ENCRYPTED:
        enc_file_stat(f->encrypted, st);
        return 0;
    case FILE_DIR:
        if (f->inode)
            stat_inode(st, f->inode);
        else if (fs_stat(f->path, true, st) || (st->mode & S_IFMT) != S_IFDIR) {
            stat_simple(st, S_IFDIR | 0755, 3, 0); /* removed while it is open */
            st->nlink = 0;
        }
        return 0;
    case FILE_HOST:
        return stat_host(st, host(__NR_fstat, f->host_fd, host_data_address()));
    case FILE_DEVICE:
        stat_simple(st, S_IFCHR | 0666, 0x100 + f->device, 0);
        st->rdev = f->device == DEV_NULL ? 0x103 : f->device == DEV_ZERO ? 0x105 : f->device == DEV_FULL ? 0x107 : 0x109;
        return 0;
    case FILE_PIPE:
        if (f->inode)
            stat_inode(st, f->inode);
        else
            stat_simple(st, S_IFIFO | 0600, 0x10000000 + (((u64)(f->in ? f->in : f->out) & 0xffffffff) >> 4), 0);
        return 0;
    case FILE_TERMINAL:
        terminal_file_stat(f, st);
        return 0;
    case FILE_UNIX:
        stat_simple(st, S_IFSOCK | 0777, 0x20000000 + (((u64)f->unix_socket & 0xffffffff) >> 4), 0);
        return 0;
    case FILE_BUFFER:
        stat_simple(st, S_IFREG | 0444, 0x300, 0);
        return 0;
    default:
        stat_simple(st, 0600, 0x400, 0);
        return 0;
    }
}

long fs_readlink(const char *given, char *to, u64 size)
{
    char path[PATH_ROOM], target[PATH_ROOM];
    const char *name = node_path(given, target);
    memcpy(path, name, strlen(name) + 1);
    long ret = fs_follow(path, false);
    if (ret)
        return ret;
    if (!strncmp(path, "/proc/self/fd/", 14)) {
        struct file *f = file_get(fd_number(path + 14));
        if (!f)
            return -ENOENT;
        const char *name = f->path ? f->path : f->type == FILE_PIPE ? "pipe:[512]" : "anon:[file]";
        u64 n = min64(size, strlen(name));
        memcpy(to, name, n);
        return (long)n;
    }
    if (!link_target(path, target)) {
        struct stat_k st;
        return fs_stat(path, false, &st) ? -ENOENT : -EINVAL;
    }
    u64 n = min64(size, strlen(target));
    memcpy(to, target, n);
    return (long)n;
}
