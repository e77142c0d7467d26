/* The host's side of encrypted files: every answer is checked, every short transfer repeated or refused. */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "encrypted_file.h"
#include "../sys/sys.h"

#define FD_MAX (1 << 20)

static long call(long nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 limit)
{
    long ret = bounded(host_syscall((u64)nr, a, b, c, d, e, 0), limit);
    return ret == -EINTR ? -EIO : ret; /* it was repeated often enough */
}

/* Names of ours on the host are no names inside. */
bool enc_name_ok(const char *rest)
{
    for (const char *p = rest; *p;) {
        if (!strncmp(p, ENC_STAGE, sizeof ENC_STAGE - 1))
            return false;
        while (*p && *p != '/')
            p++;
        p += *p == '/';
    }
    return true;
}

/* The host's path of `path` into the call's data at `at`. */
static long put_path(const struct boot_mount *m, const char *path, u64 at)
{
    static char name[PATH_ROOM];
    const char *rest = path + strlen(boot_string(m->path));
    long n = host_path(m, rest + (*rest == '/'), name);
    if (n >= 0)
        memcpy(ocall_data() + at, name, (u64)n + 1);
    return n < 0 ? n : 0;
}

/* The mount's own folder may be a link, as its owner likes; nothing in it may. */
static int no_link(const struct boot_mount *m, const char *path, int flag) { return strcmp(path, boot_string(m->path)) ? flag : 0; }

long enc_host_open(const struct boot_mount *m, const char *path, int flags, u32 mode)
{
    long bad = put_path(m, path, 0);
    flags |= O_CLOEXEC | O_NONBLOCK | no_link(m, path, O_NOFOLLOW);
    return bad ? bad : call(__NR_openat, (u64)AT_FDCWD, host_data_address(), (u64)flags, mode, 0, FD_MAX);
}

long enc_host_type(int fd, u64 *size)
{
    long ret = call(__NR_fstat, (u64)fd, host_data_address(), 0, 0, 0, 0);
    if (ret)
        return ret;
    struct stat_k st;
    memcpy(&st, ocall_data(), sizeof st);
    *size = (u64)st.size;
    return st.mode & S_IFMT;
}

long enc_host_stat(const struct boot_mount *m, const char *path, struct stat_k *st)
{
    long bad = put_path(m, path, 1024);
    if (!bad)
        bad = call(__NR_newfstatat, (u64)AT_FDCWD, host_data_address() + 1024, host_data_address(),
                   (u64)no_link(m, path, AT_SYMLINK_NOFOLLOW), 0, 0);
    if (!bad)
        memcpy(st, ocall_data(), sizeof *st);
    return bad;
}

long enc_host_path_call(long nr, const struct boot_mount *m, const char *path, long arg)
{
    long bad = put_path(m, path, 0);
    return bad ? bad : call(nr, host_data_address(), (u64)arg, 0, 0, 0, 0);
}

long enc_host_rename(const struct boot_mount *m, const char *from, const char *to)
{
    long bad = put_path(m, from, 0);
    if (!bad)
        bad = put_path(m, to, PATH_ROOM);
    return bad ? bad : call(__NR_rename, host_data_address(), host_data_address() + PATH_ROOM, 0, 0, 0, 0);
}

long enc_host_read(int fd, void *to, u64 size, u64 at)
{
    for (u64 done = 0; done < size;) {
        u64 want = min64(size - done, DATA_MAX);
        long n = call(__NR_pread64, (u64)fd, host_data_address(), want, at + done, 0, want);
        if (n <= 0)
            return n ? n : -EIO;
        memcpy((u8 *)to + done, ocall_data(), (u64)n);
        done += (u64)n;
    }
    return 0;
}

long enc_host_write(int fd, const void *from, u64 size, u64 at)
{
    for (u64 done = 0; done < size;) {
        u64 want = min64(size - done, DATA_MAX);
        memcpy(ocall_data(), (const u8 *)from + done, want);
        long n = call(__NR_pwrite64, (u64)fd, host_data_address(), want, at + done, 0, want);
        if (n <= 0)
            return n ? n : -EIO;
        done += (u64)n;
    }
    return 0;
}

/* Ciphertext from one version to the next: by the host's kernel where it can. */
long enc_host_copy(int from, int to, u64 at, u64 size)
{
    while (size) {
        u64 want = min64(size, 1ull << 30), *offset = (u64 *)ocall_data();
        offset[0] = offset[1] = at;
        long n = call(__NR_copy_file_range, (u64)from, host_data_address(), (u64)to, host_data_address() + 8, want, want);
        if (n <= 0) { /* not between these: through our hands */
            want = min64(size, DATA_MAX);
            n = call(__NR_pread64, (u64)from, host_data_address(), want, at, 0, want);
            if (n <= 0)
                return n ? n : -EIO;
            n = call(__NR_pwrite64, (u64)to, host_data_address(), (u64)n, at, 0, (u64)n);
            if (n <= 0)
                return n ? n : -EIO;
        }
        at += (u64)n;
        size -= (u64)n;
    }
    return 0;
}

/* ---- staging: the next version, beside the file, locked while its writer lives ---- */
static char g_path[PATH_ROOM];

static const char *beside(const char *path, const char *name)
{
    size_t n = strlen(path);
    while (n && path[n - 1] != '/')
        n--;
    if (n + strlen(name) + 1 > PATH_ROOM)
        return NULL;
    memcpy(g_path, path, n);
    memcpy(g_path + n, name, strlen(name) + 1);
    return g_path;
}

long enc_stage_open(struct enc_file *e)
{
    u64 word;
    char number[20];
    if (!strcmp(e->path, boot_string(e->mount->path)))
        return -EACCES; /* a mount that is a single file: there is no place beside it */
    if (!random_bytes(&word, 8))
        return -EIO;
    format(number, sizeof number, "%lx", word >> 8);
    memcpy(e->stage_name, ENC_STAGE, sizeof ENC_STAGE);
    memcpy(e->stage_name + sizeof ENC_STAGE - 1, number, min64(strlen(number), 13) + 1);
    e->stage_name[sizeof e->stage_name - 1] = 0;
    const char *path = beside(e->path, e->stage_name);
    if (e->gone && path) /* its folder may be gone, too */
        format(g_path, sizeof g_path, "%s/%s", boot_string(e->mount->path), e->stage_name);
    if (!path)
        return -ENAMETOOLONG;
    long fd = enc_host_open(e->mount, path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return fd;
    call(__NR_flock, (u64)fd, 2 | 4, 0, 0, 0, 0); /* LOCK_EX | LOCK_NB: says that it is in use, see enc_sweep */
    e->stage = (int)fd;
    if (e->gone)
        enc_host_path_call(__NR_unlink, e->mount, path, 0);
    return 0;
}

/* The file's name is taken away while it is open: it lives on without one, and leaves nothing. */
void enc_gone(struct enc_file *e)
{
    const char *path = e->stage >= 0 && !e->gone ? beside(e->path, e->stage_name) : NULL;
    if (path)
        enc_host_path_call(__NR_unlink, e->mount, path, 0);
    e->gone = true;
}

void enc_stage_drop(struct enc_file *e)
{
    if (e->stage < 0)
        return;
    const char *path = e->gone ? NULL : beside(e->path, e->stage_name);
    if (path)
        enc_host_path_call(__NR_unlink, e->mount, path, 0);
    host(__NR_close, e->stage);
    e->stage = -1;
}

/* The staged version takes the file's place: whole even after a power cut (an empty one only if `durable`: it has nothing to lose). */
long enc_stage_publish(struct enc_file *e, bool durable)
{
    const char *stage = beside(e->path, e->stage_name);
    long ret = stage ? 0 : -ENAMETOOLONG;
    if (!ret && (e->size || durable))
        ret = call(__NR_fdatasync, (u64)e->stage, 0, 0, 0, 0, 0);
    if (!ret)
        ret = enc_host_rename(e->mount, stage, e->path);
    if (!ret) {
        e->synced = e->size || durable;
        e->named = false;
    }
    return ret;
}

long enc_directory_sync(const struct boot_mount *m, const char *path)
{
    long fd = enc_host_open(m, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd; /* removed while it is open: nothing to keep */
    long ret = call(__NR_fsync, (u64)fd, 0, 0, 0, 0, 0);
    host(__NR_close, fd);
    return ret == -EINVAL ? 0 : ret; /* a file system without it */
}

/* What is published, whoever published it and when, is not undone by a power cut. */
long enc_durable(struct enc_file *e)
{
    static char directory[PATH_ROOM];
    long ret = 0;
    if (!e->synced && !(ret = call(__NR_fdatasync, (u64)e->old, 0, 0, 0, 0, 0)))
        e->synced = true;
    if (ret || e->named)
        return ret;
    size_t n = strlen(e->path), mount = strlen(boot_string(e->mount->path));
    while (n > mount && e->path[n - 1] != '/')
        n--;
    if (n > mount) { /* else the mount is a file: its folder is not ours */
        memcpy(directory, e->path, n - 1);
        directory[n - 1] = 0;
        ret = enc_directory_sync(e->mount, directory);
    }
    e->named = !ret;
    return ret;
}

/* Removes what writers that died have left in a directory. */
void enc_sweep(const struct boot_mount *m, const char *directory)
{
    static u8 records[4096];
    static char path[PATH_ROOM];
    long dir = enc_host_open(m, directory, O_RDONLY | O_DIRECTORY, 0), n;
    if (dir < 0)
        return;
    while ((n = call(__NR_getdents64, (u64)dir, host_data_address(), sizeof records, 0, 0, sizeof records)) > 0) {
        memcpy(records, ocall_data(), (u64)n);
        for (u64 at = 0; at + 24 <= (u64)n;) {
            u64 record = *(uint16_t *)(records + at + 16);
            if (record < 24 || record > (u64)n - at)
                break;
            const char *name = (const char *)records + at + 19;
            size_t length = strnlen(name, record - 19), base = strlen(directory);
            if (length < record - 19 && !strncmp(name, ENC_STAGE, sizeof ENC_STAGE - 1) && base + length + 2 < PATH_ROOM) {
                format(path, sizeof path, "%s/%s", directory, name);
                long fd = enc_host_open(m, path, O_RDONLY, 0);
                if (fd >= 0) {
                    if (!call(__NR_flock, (u64)fd, 2 | 4, 0, 0, 0, 0))
                        enc_host_path_call(__NR_unlink, m, path, 0);
                    host(__NR_close, fd);
                }
            }
            at += record;
        }
    }
    host(__NR_close, dir);
}
