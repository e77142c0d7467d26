/* Files: descriptors, reading, writing, paths. */
#include <asm/ioctls.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "sys.h"
#include "temporary.h"
#include "terminal.h"
#include "unix.h"

#define FILE_OR_BAD(fd) ({ struct file *file_ = file_get((int)(fd)); if (!file_) return -EBADF; file_; })

/* slash: it ends in one, as in what is read here. */
static long path_given(long dirfd, long path, char *to, bool *slash)
{
    char given[PATH_ROOM];
    long n = user_string((u64)path, given, sizeof given);
    if (n < 0)
        return n;
    if (!n)
        return -ENOENT;
    long bad = path_absolute((int)dirfd, given, to);
    *slash = n > 1 && given[n - 1] == '/';
    if (bad || given[n - 1] != '/')
        return bad;
    struct stat_k st; /* a slash at the end: a directory, or what a link leads to */
    bad = fs_follow(to, true);
    if (!bad && !fs_stat(to, true, &st) && (st.mode & S_IFMT) != S_IFDIR)
        return -ENOTDIR;
    return bad;
}
long path_arg(long dirfd, long path, char *to)
{
    bool slash;
    return path_given(dirfd, path, to, &slash);
}

long path_followed(long dirfd, long path, bool last, char *to)
{
    long ret = path_arg(dirfd, path, to);
    return ret ? ret : fs_follow(to, last);
}

/* The file or folder that a path leads to, and what it is. */
long path_stat(long path_at, char *path, struct stat_k *st)
{
    long ret = path_followed(AT_FDCWD, path_at, true, path);
    return ret ? ret : fs_stat(path, true, st);
}

bool readable(struct file *f) { return !(f->flags & O_PATH) && ((f->flags & O_ACCMODE) != O_WRONLY || (f->type == FILE_HOST && f->host_fd <= 2)); }
bool writable(struct file *f) { return !(f->flags & O_PATH) && ((f->flags & O_ACCMODE) != O_RDONLY || f->type == FILE_EVENT || f->socket); }

long sys_read(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    if (!readable(f))
        return -EBADF;
    if (!user_hold((u64)a[1], (u64)a[2], true))
        return -EFAULT;
    return file_read(f, (void *)a[1], (u64)a[2], -1);
}
long sys_write(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    if (!writable(f))
        return -EBADF;
    if (!user_hold((u64)a[1], (u64)a[2], false))
        return -EFAULT;
    return file_write(f, (const void *)a[1], (u64)a[2], -1);
}
bool seekable(struct file *f) { return f->type == FILE_PACK || f->type == FILE_TMP || f->type == FILE_ENCRYPTED || f->type == FILE_BUFFER || (f->type == FILE_HOST && !f->socket) || f->type == FILE_DEVICE; }
long sys_pread64(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    if (!readable(f))
        return -EBADF;
    if (!user_hold((u64)a[1], (u64)a[2], true))
        return -EFAULT;
    if (a[3] < 0)
        return -EINVAL;
    return seekable(f) || f->type == FILE_DIR ? file_read(f, (void *)a[1], (u64)a[2], a[3]) : -ESPIPE;
}
long sys_pwrite64(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    if (!writable(f))
        return -EBADF;
    if (!user_hold((u64)a[1], (u64)a[2], false))
        return -EFAULT;
    if (a[3] < 0)
        return -EINVAL;
    return seekable(f) ? file_write(f, (const void *)a[1], (u64)a[2], a[3]) : -ESPIPE;
}

long sys_openat(const long *a)
{
    char path[PATH_ROOM];
    struct file *f = NULL;
    bool slash;
    long fd, ret = path_given(a[0], a[1], path, &slash);
    if (ret)
        return ret;
    if (a[2] & O_CREAT && slash)
        return -EISDIR;
    if ((fd = fd_reserve()) < 0) /* before O_CREAT and O_TRUNC have done what cannot be taken back */
        return fd;
    ret = fs_open(path, (int)a[2], (u32)a[3], &f); /* may wait: a FIFO */
    return fd_fill(fd, ret, f, a[2] & O_CLOEXEC);
}
long sys_open(const long *a) { return sys_openat((long[]){AT_FDCWD, a[0], a[1], a[2]}); }
long sys_close(const long *a) { return fd_close((int)a[0]); }

static long stat_out(long ret, const struct stat_k *st, long to)
{
    if (ret)
        return ret;
    if (!user_write_ok((u64)to, sizeof *st))
        return -EFAULT;
    memcpy((void *)to, st, sizeof *st);
    return 0;
}

static long stat_at(long dirfd, long path_at, long flags, struct stat_k *st)
{
    char path[PATH_ROOM];
    if (flags & AT_EMPTY_PATH && (!path_at || (user_read_ok((u64)path_at, 1) && !*(char *)path_at))) {
        if (dirfd == AT_FDCWD)
            return fs_stat(fs_cwd(), true, st);
        struct file *f = FILE_OR_BAD(dirfd);
        return file_stat(f, st);
    }
    long ret = path_arg(dirfd, path_at, path);
    return ret ? ret : fs_stat(path, !(flags & AT_SYMLINK_NOFOLLOW), st);
}
long sys_newfstatat(const long *a)
{
    struct stat_k st;
    return stat_out(stat_at(a[0], a[1], a[3], &st), &st, a[2]);
}
long sys_stat(const long *a) { return sys_newfstatat((long[]){AT_FDCWD, a[0], a[1], 0}); }
long sys_lstat(const long *a) { return sys_newfstatat((long[]){AT_FDCWD, a[0], a[1], AT_SYMLINK_NOFOLLOW}); }
long sys_fstat(const long *a)
{
    struct stat_k st;
    struct file *f = FILE_OR_BAD(a[0]);
    return stat_out(file_stat(f, &st), &st, a[1]);
}
long sys_statx(const long *a)
{
    struct stat_k st;
    long ret = stat_at(a[0], a[1], a[2], &st);
    if (ret)
        return ret;
    if (!user_write_ok((u64)a[4], sizeof(struct statx)))
        return -EFAULT;
    struct statx *x = (void *)a[4];
    memset(x, 0, sizeof *x);
    x->stx_mask = STATX_BASIC_STATS;
    x->stx_blksize = (u32)st.blksize;
    x->stx_nlink = (u32)st.nlink;
    x->stx_uid = st.uid;
    x->stx_gid = st.gid;
    x->stx_mode = (uint16_t)st.mode;
    x->stx_ino = st.ino;
    x->stx_size = (u64)st.size;
    x->stx_blocks = (u64)st.blocks;
    x->stx_atime.tv_sec = (long)st.atime;
    x->stx_atime.tv_nsec = (u32)st.atime_ns;
    x->stx_mtime.tv_sec = (long)st.mtime;
    x->stx_mtime.tv_nsec = (u32)st.mtime_ns;
    x->stx_ctime.tv_sec = (long)st.ctime;
    x->stx_ctime.tv_nsec = (u32)st.ctime_ns;
    x->stx_rdev_major = (u32)(st.rdev >> 8 & 0xfff);
    x->stx_rdev_minor = (u32)((st.rdev & 0xff) | (st.rdev >> 12 & 0xfff00));
    x->stx_dev_minor = (u32)st.dev;
    return 0;
}
long sys_faccessat(const long *a)
{
    struct stat_k st;
    char path[PATH_ROOM];
    long ret = stat_at(a[0], a[1], 0, &st);
    if (ret)
        return ret;
    if (a[2] & 2) {
        const struct boot_mount *m = !path_arg(a[0], a[1], path) ? mount_of(path, NULL) : NULL;
        if (!m && strncmp(path, "/dev/", 5))
            return -EROFS;
    }
    return a[2] & 1 && !(st.mode & 0111) ? -EACCES : 0;
}
long sys_access(const long *a) { return sys_faccessat((long[]){AT_FDCWD, a[0], a[1], 0}); }

long sys_lseek(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    long base, size = 0;
    if (f->type == FILE_HOST)
        return f->socket ? -ESPIPE : host(__NR_lseek, f->host_fd, a[1], (int)a[2]);
    if (f->type == FILE_DIR) {
        if (a[2] == 1 && !a[1])
            return (long)f->offset;
        if (a[2] || a[1] < 0)
            return -EINVAL;
        if (!a[1])
            names_forget(f); /* rewinddir: what is there now */
        f->offset = (u64)a[1];
        return a[1];
    }
    if (!seekable(f))
        return -ESPIPE;
    if (f->type == FILE_PACK)
        size = (long)f->entry->size;
    else if (f->type == FILE_TMP)
        size = (long)f->inode->size;
    else if (f->type == FILE_ENCRYPTED)
        size = (long)enc_size(f->encrypted);
    else if (f->type == FILE_BUFFER)
        size = (long)f->buffer_size;
    switch (a[2]) {
    case 0: base = 0; break;
    case 1: base = (long)f->offset; break;
    case 2: base = size; break;
    case 3: case 4: /* SEEK_DATA, SEEK_HOLE */
        if (a[1] < 0 || a[1] >= size)
            return -ENXIO;
        u64 found = f->type == FILE_TMP ? data_next(f->inode, (u64)a[1], a[2] == 4) : a[2] == 4 ? (u64)size : (u64)a[1];
        return found == ~0ull ? -ENXIO : (long)(f->offset = found);
    default: return -EINVAL;
    }
    long to;
    if (__builtin_add_overflow(base, a[1], &to) || to < 0)
        return -EINVAL;
    return (long)(f->offset = (u64)to);
}

long sys_dup(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    f->refs++;
    return file_install(f, 0, false);
}
long sys_dup3(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    if (a[0] == a[1])
        return -EINVAL;
    if (a[1] < 0 || a[1] >= FILES_MAX)
        return -EBADF;
    f->refs++;
    return fd_replace((int)a[1], f, a[2] & O_CLOEXEC);
}
long sys_dup2(const long *a)
{
    (void)FILE_OR_BAD(a[0]);
    return a[0] == a[1] ? a[1] : sys_dup3((long[]){a[0], a[1], 0});
}

long sys_fcntl(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    switch (a[1]) {
    case F_DUPFD: case F_DUPFD_CLOEXEC:
        if (a[2] < 0 || a[2] >= FILES_MAX)
            return -EINVAL;
        f->refs++;
        return file_install(f, (int)a[2], a[1] == F_DUPFD_CLOEXEC);
    case F_GETFD: return fd_cloexec((int)a[0], -1);
    case F_SETFD: fd_cloexec((int)a[0], a[2] & 1); return 0;
    case F_GETFL: return f->flags;
    case F_SETFL:
        f->flags = (f->flags & ~(u32)(O_APPEND | O_NONBLOCK)) | ((u32)a[2] & (O_APPEND | O_NONBLOCK));
        if (f->type == FILE_HOST && f->host_fd > 2)
            return host_zero(__NR_fcntl, f->host_fd, F_SETFL, f->flags);
        return 0;
    case F_SETLK: case F_SETLKW: case 37: case 38: /* and those of open files: nobody else is inside */
        return user_read_ok((u64)a[2], 32) ? 0 : -EFAULT;
    case F_GETLK: case 36:
        if (!user_write_ok((u64)a[2], 32))
            return -EFAULT;
        *(short *)a[2] = F_UNLCK;
        return 0;
    case F_GETPIPE_SZ: return f->type == FILE_PIPE ? 65536 : -EBADF;
    case F_SETPIPE_SZ: return f->type != FILE_PIPE ? -EBADF : (u64)a[2] > 65536 ? -EPERM : 65536;
    case F_GETOWN: return 0;
    case F_SETOWN: return 0;
    }
    return -EINVAL;
}

/* Of the host's interfaces, by a socket of its own: glibc asks on an AF_UNIX one. `at`: struct ifreq. */
static long interface_name(u32 request, u64 at)
{
    if (!(boot()->flags & BOOT_NETWORK))
        return -ENODEV;
    if (!user_write_ok(at, 40))
        return -EFAULT;
    long fd = fd_fresh(bounded(host(__NR_socket, 2, 2 | O_CLOEXEC, 0), 1 << 20));
    if (fd < 0)
        return fd;
    bool by_name = request == 0x8933; /* SIOCGIFINDEX; what the program has in the rest of its ifreq stays inside */
    u8 *there = ocall_data(), *here = (u8 *)at;
    memset(there, 0, 40);
    memcpy(there + (by_name ? 0 : 16), here + (by_name ? 0 : 16), by_name ? strnlen((char *)here, 15) : 4);
    long n = host_zero(__NR_ioctl, fd, request, host_data_address());
    if (!n && by_name)
        memcpy(here + 16, there + 16, 4);
    else if (!n) {
        memcpy(here, there, 16);
        here[15] = 0;
    }
    host(__NR_close, fd);
    return n;
}

long sys_ioctl(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    switch ((u32)a[1]) {
    case FIOCLEX: fd_cloexec((int)a[0], 1); return 0;
    case FIONCLEX: fd_cloexec((int)a[0], 0); return 0;
    case FIONBIO:
        if (!user_read_ok((u64)a[2], 4))
            return -EFAULT;
        f->flags = *(int *)a[2] ? f->flags | O_NONBLOCK : f->flags & ~(u32)O_NONBLOCK;
        return f->type == FILE_HOST && f->host_fd > 2 ? host_zero(__NR_fcntl, f->host_fd, F_SETFL, f->flags) : 0;
    }
    if (f->type == FILE_TERMINAL)
        return terminal_ioctl(f, (u32)a[1], (u64)a[2]);
    switch ((u32)a[1]) {
    case FIONREAD: {
        long n = -ENOTTY;
        if (!user_write_ok((u64)a[2], 4))
            return -EFAULT;
        if (f->type == FILE_HOST && !(n = host_zero(__NR_ioctl, f->host_fd, FIONREAD, host_data_address())))
            *(int *)a[2] = *(volatile int *)ocall_data() & 0x7fffffff;
        else if (f->type == FILE_PIPE && f->in) {
            *(u32 *)a[2] = f->in->used;
            n = 0;
        } else if (f->type == FILE_UNIX) {
            *(u32 *)a[2] = (u32)unix_waiting(f);
            n = 0;
        } else if (f->type == FILE_TMP || f->type == FILE_PACK) {
            u64 size = f->type == FILE_TMP ? f->inode->size : f->entry->size;
            *(u32 *)a[2] = size > f->offset ? (u32)(size - f->offset) : 0;
            n = 0;
        }
        return n;
    }
    case 0x8933: case 0x8910: return f->socket ? interface_name((u32)a[1], (u64)a[2]) : -ENOTTY; /* SIOCGIFINDEX, SIOCGIFNAME */
    case TCGETS: case TIOCGWINSZ: {
        u64 size = a[1] == TCGETS ? 36 : 8;
        if (f->type != FILE_HOST)
            return -ENOTTY;
        if (!user_write_ok((u64)a[2], size))
            return -EFAULT;
        long n = host_zero(__NR_ioctl, f->host_fd, (u32)a[1], host_data_address());
        if (!n)
            memcpy((void *)a[2], ocall_data(), size);
        return n;
    }
    }
    return -ENOTTY;
}

long file_resize(struct file *f, u64 size)
{
    switch (f->type) {
    case FILE_HOST: return host_zero(__NR_ftruncate, f->host_fd, size);
    case FILE_ENCRYPTED: return enc_resize(f->encrypted, size);
    case FILE_TMP: return data_resize(f->inode, size);
    default: return -EINVAL;
    }
}
long sys_ftruncate(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    return a[1] < 0 || !writable(f) ? -EINVAL : file_resize(f, (u64)a[1]);
}

long sys_getcwd(const long *a)
{
    u64 n = strlen(fs_cwd()) + 1;
    if (n > (u64)a[1])
        return -ERANGE;
    if (!user_write_ok((u64)a[0], n))
        return -EFAULT;
    memcpy((void *)a[0], fs_cwd(), n);
    return (long)n;
}
long sys_chdir(const long *a)
{
    char path[PATH_ROOM];
    struct stat_k st;
    long ret = path_stat(a[0], path, &st);
    if (ret)
        return ret;
    if ((st.mode & S_IFMT) != S_IFDIR)
        return -ENOTDIR;
    fs_set_cwd(path);
    return 0;
}
long sys_fchdir(const long *a)
{
    struct file *f = FILE_OR_BAD(a[0]);
    if (f->type != FILE_DIR)
        return -ENOTDIR;
    fs_set_cwd(f->path);
    return 0;
}

long sys_readlinkat(const long *a)
{
    char path[PATH_ROOM], target[PATH_ROOM];
    long ret = path_arg(a[0], a[1], path);
    if (ret)
        return ret;
    if (a[3] <= 0)
        return -EINVAL;
    ret = fs_readlink(path, target, sizeof target);
    if (ret < 0)
        return ret;
    if (ret > a[3])
        ret = a[3];
    if (!user_write_ok((u64)a[2], (u64)ret))
        return -EFAULT;
    memcpy((void *)a[2], target, (u64)ret);
    return ret;
}
long sys_readlink(const long *a) { return sys_readlinkat((long[]){AT_FDCWD, a[0], a[1], a[2]}); }
