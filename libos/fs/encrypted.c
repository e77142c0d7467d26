/* Encrypted mounts: names, which stay plain on the host, and what the rest of the file system asks of them. */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "encrypted_file.h"
#include "../sys/sys.h"

#define DIRECTORIES 16

bool enc_mount(const struct boot_mount *m)
{
    return m && (m->kind == BOOT_MOUNT_RELEASE || m->kind == BOOT_MOUNT_SEALED || m->kind == BOOT_MOUNT_SEALED_MRENCLAVE);
}

static bool has_aes(void)
{
    static u32 known;
    if (!known) {
        u32 a = 1, b, c = 0, d;
        __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
        known = 1 + ((c >> 25 & 1) && (c >> 1 & 1) && (c >> 9 & 1)); /* AES-NI, PCLMULQDQ, SSSE3 */
    }
    return known == 2;
}

/* The host's path names, once a run for each directory that is written to: what dead writers left goes. */
static void sweep_once(const struct boot_mount *m, const char *path)
{
    static u8 done[DIRECTORIES][32];
    static u32 next;
    static char directory[PATH_ROOM];
    u8 digest[32];
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] != '/')
        n--;
    memcpy(directory, path, n);
    directory[n > 1 ? n - 1 : n] = 0;
    sha256(directory, strlen(directory), digest);
    for (u32 i = 0; i < DIRECTORIES; i++)
        if (!memcmp(done[i], digest, 32))
            return;
    memcpy(done[next++ % DIRECTORIES], digest, 32);
    enc_sweep(m, directory);
}

long enc_open(const struct boot_mount *m, const char *path, const char *rest, int flags, struct file **file)
{
    struct file *f;
    struct stat_k st;
    if (!has_aes())
        return -EOPNOTSUPP;
    if (enc_locked(m))
        return -ENOKEY;
    if (!enc_name_ok(rest))
        return -ENOENT;
    long ret = enc_find(path) ? 0 : enc_host_stat(m, path, &st);
    if (!ret && flags & O_CREAT && flags & O_EXCL)
        return -EEXIST;
    if (!ret && !enc_find(path) && (st.mode & S_IFMT) == S_IFDIR) {
        if ((flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC))
            return -EISDIR;
        return (*file = file_named(FILE_DIR, path, (u32)flags)) ? 0 : -ENOMEM;
    }
    if (!ret && flags & O_DIRECTORY)
        return -ENOTDIR;
    bool create = ret == -ENOENT && flags & O_CREAT && !(flags & O_DIRECTORY);
    if (ret && !create)
        return ret;
    if (!(f = file_named(FILE_ENCRYPTED, path, (u32)flags))) /* first: what fails afterwards must not leave the file emptied */
        return -ENOMEM;
    if (create || flags & O_TRUNC)
        sweep_once(m, path);
    ret = create ? enc_create(m, path, &f->encrypted) : enc_load(m, path, &f->encrypted);
    if (!ret && flags & O_TRUNC) /* on Linux this truncates what is opened for reading, too */
        ret = enc_resize(f->encrypted, 0);
    if (ret)
        file_drop(f);
    else
        *file = f;
    return ret;
}

/* A number for a path: what the host says of its own would be the host's to make equal. */
static u64 number(const char *path)
{
    u8 digest[32];
    u64 word;
    sha256(path, strlen(path), digest);
    memcpy(&word, digest, 8);
    return (word >> 1) | 1;
}

static void fill_stat(struct stat_k *st, const char *path, u32 mode, u64 size, u64 mtime_ns)
{
    memset(st, 0, sizeof *st);
    st->dev = 6;
    st->ino = number(path);
    st->nlink = 1;
    st->mode = mode;
    st->size = (long)size;
    st->blksize = ENC_CHUNK;
    st->blocks = (long)((size + 511) / 512);
    st->mtime = st->atime = st->ctime = mtime_ns / 1000000000;
    st->mtime_ns = st->ctime_ns = st->atime_ns = mtime_ns % 1000000000;
}

void enc_file_stat(struct enc_file *e, struct stat_k *st) { fill_stat(st, e->path, S_IFREG | 0644, e->size, e->mtime_ns); }

long enc_stat(const struct boot_mount *m, const char *path, const char *rest, struct stat_k *st)
{
    struct enc_header h;
    struct enc_keys keys;
    struct stat_k host_st;
    struct enc_file *e = enc_find(path);
    if (!has_aes())
        return -EOPNOTSUPP;
    if (*rest && enc_locked(m))
        return -ENOKEY;
    if (!enc_name_ok(rest))
        return -ENOENT;
    if (e) {
        enc_file_stat(e, st);
        return 0;
    }
    long ret = enc_host_stat(m, path, &host_st);
    if (ret)
        return ret;
    if ((host_st.mode & S_IFMT) == S_IFDIR) { /* a directory's times are the host's: they say when to list again, no more */
        u64 seconds = host_st.mtime > 1ull << 33 ? 0 : host_st.mtime, ns = host_st.mtime_ns < 1000000000 ? host_st.mtime_ns : 0;
        fill_stat(st, path, S_IFDIR | 0755, 4096, seconds * 1000000000 + ns);
        return 0;
    }
    long fd = enc_host_open(m, path, O_RDONLY, 0);
    if (fd < 0)
        return fd == -ELOOP ? enc_refused(path, "the host shows a link") : fd;
    ret = enc_head(m, path, (int)fd, &h, &keys);
    host(__NR_close, fd);
    memset(&keys, 0, sizeof keys);
    if (!ret)
        enc_seen(path, &h);
    if (!ret)
        fill_stat(st, path, S_IFREG | 0644, h.size, h.mtime_ns);
    return ret;
}

/* What the host shows under a name that is about to go: a host that keeps it cannot bring it back in this run. */
static void remember(const struct boot_mount *m, const char *path)
{
    struct enc_header h;
    struct enc_keys keys;
    if (enc_find(path))
        return;
    long fd = enc_host_open(m, path, O_RDONLY, 0);
    if (fd < 0)
        return;
    if (!enc_head(m, path, (int)fd, &h, &keys))
        enc_seen(path, &h);
    host(__NR_close, fd);
    memset(&keys, 0, sizeof keys);
}

long enc_unlink(const struct boot_mount *m, const char *path, const char *rest, bool directory)
{
    if (!*rest)
        return -EBUSY;
    if (enc_locked(m))
        return -ENOKEY;
    if (!enc_name_ok(rest))
        return -ENOENT;
    if (directory)
        enc_sweep(m, path);
    else
        remember(m, path);
    long ret = enc_host_path_call(directory ? __NR_rmdir : __NR_unlink, m, path, 0);
    struct enc_file *e = ret || directory ? NULL : enc_find(path);
    if (!ret && !directory)
        enc_forget(path);
    if (e)
        enc_gone(e);
    return ret;
}

long enc_mkdir(const struct boot_mount *m, const char *path, const char *rest)
{
    return enc_locked(m) ? -ENOKEY : enc_name_ok(rest) ? enc_host_path_call(__NR_mkdir, m, path, 0755) : -EINVAL;
}

static bool below(const char *path, const char *directory)
{
    size_t n = strlen(directory);
    return !strncmp(path, directory, n) && path[n] == '/';
}

/*
 * The path is bound into a file, so a file that is renamed is written again under its new name, then the old one goes: a
 * crash between leaves both. A folder's files would all have to be: EXDEV, as between file systems, and callers copy.
 */
long enc_rename(const struct boot_mount *m, const struct boot_mount *n, const char *from, const char *to, bool keep)
{
    struct stat_k old, new;
    struct enc_file *e, *there;
    const char *from_rest = from + strlen(boot_string(m->path)), *to_rest = to + strlen(boot_string(n->path));
    if (!*from_rest || !*to_rest)
        return -EBUSY;
    if (m != n)
        return -EXDEV;
    if (enc_locked(m))
        return -ENOKEY;
    if (!enc_name_ok(from_rest + 1) || !enc_name_ok(to_rest + 1))
        return -EINVAL;
    long ret = enc_host_stat(m, from, &old), missing = enc_host_stat(n, to, &new);
    if (ret) { /* which of the two paths is at fault first is the host's to say */
        long said = enc_host_rename(m, from, to);
        return said ? said : ret;
    }
    if (missing && missing != -ENOENT)
        return missing;
    if (!strcmp(from, to))
        return 0;
    if (below(from, to))
        return -ENOTEMPTY;
    if (!missing && keep)
        return -EEXIST;
    bool directory = (old.mode & S_IFMT) == S_IFDIR;
    if (!missing && directory != ((new.mode & S_IFMT) == S_IFDIR))
        return directory ? -ENOTDIR : -EISDIR;
    if (directory)
        return below(to, from) ? -EINVAL : -EXDEV;
    if ((ret = enc_load(m, from, &e)))
        return ret;
    char *path = kmalloc(strlen(to) + 1), *was = e->path;
    if (!path) {
        enc_drop(e);
        return -ENOMEM;
    }
    memcpy(path, to, strlen(to) + 1);
    there = enc_find(to);
    if (!missing)
        remember(m, to);
    if (!(ret = enc_commit(e, false))) {
        e->path = path;
        e->dirty = true;
        if ((ret = enc_commit(e, false))) {
            enc_stage_drop(e);
            e->path = was;
            e->dirty = false;
            if (enc_table_load(e))
                enc_gone(e);
        }
    }
    if (ret)
        kfree(path);
    else {
        if (there)
            enc_gone(there);
        enc_forget(was);
        ret = enc_host_path_call(__NR_unlink, m, was, 0);
        kfree(was);
    }
    enc_drop(e);
    return ret;
}

long enc_touch(const struct boot_mount *m, const char *path, u64 mtime_ns)
{
    struct stat_k st;
    struct enc_file *e;
    const char *rest = path + strlen(boot_string(m->path));
    long ret = enc_stat(m, path, rest + (*rest == '/'), &st);
    if (ret || (st.mode & S_IFMT) == S_IFDIR)
        return ret;
    if ((ret = enc_load(m, path, &e)))
        return ret;
    enc_set_mtime(e, mtime_ns);
    ret = enc_commit(e, false);
    enc_drop(e);
    return ret;
}

/* Names in a directory, for getdents64: what the host says, without ours. `add` is false when there is no memory. */
long enc_list(const struct boot_mount *m, const char *path, struct file *f, bool (*add)(struct file *, const char *, u32, u8))
{
    static u8 records[16384];
    long dir = enc_host_open(m, path, O_RDONLY | O_DIRECTORY, 0), n;
    if (dir < 0)
        return dir;
    while ((n = bounded(host(__NR_getdents64, dir, host_data_address(), sizeof records), sizeof records)) > 0) {
        memcpy(records, ocall_data(), (u64)n);
        for (u64 at = 0; at < (u64)n;) {
            u64 left = (u64)n - at, record = left >= 24 ? *(uint16_t *)(records + at + 16) : 0;
            const char *name = (const char *)records + at + 19;
            size_t length = record >= 24 && record <= left ? strnlen(name, record - 19) : 0;
            u8 kind = records[at + 18];
            if (!length || length == record - 19 || length > 255) {
                n = -EIO;
                goto done;
            }
            bool slash = false;
            for (size_t i = 0; i < length; i++)
                slash |= name[i] == '/';
            if (!slash && strcmp(name, ".") && strcmp(name, "..") && enc_name_ok(name) && (kind == 4 || kind == 8 || kind == 0) &&
                !add(f, name, (u32)length, kind)) {
                n = -ENOMEM;
                goto done;
            }
            at += record;
        }
    }
done:
    host(__NR_close, dir);
    return n < 0 ? n : 0;
}
