/* What has been written outlasts a power cut: fsync, sync, syncfs. Trusted and temporary files have no disk behind them. */
#include <asm/unistd.h>
#include <linux/fcntl.h>

#include "sys.h"

long sys_fsync(const long *a)
{
    struct file *f = file_get((int)a[0]);
    if (!f)
        return -EBADF;
    if (f->type == FILE_ENCRYPTED)
        return enc_commit(f->encrypted, true);
    const struct boot_mount *m = f->type == FILE_DIR && f->host_fd < 0 ? mount_of(f->path, NULL) : NULL;
    if (enc_mount(m))
        return enc_directory_sync(m, f->path);
    return f->host_fd >= 0 ? host_slow(__NR_fsync, (u64)f->host_fd) : 0;
}

/* Everything of a mount, open here or not: encrypted files are published, then the host's file system under it is written. */
static long mount_sync(const struct boot_mount *m)
{
    char path[PATH_ROOM];
    if (m->kind == BOOT_MOUNT_TRUSTED || m->kind == BOOT_MOUNT_TEMPORARY)
        return 0;
    long published = enc_mount(m) ? enc_commit_all(m, true) : 0, n = host_path(m, "", path);
    if (n < 0)
        return n;
    memcpy(ocall_data(), path, (u64)n + 1);
    long fd = fd_fresh(bounded(host(__NR_openat, AT_FDCWD, host_data_address(), O_RDONLY | O_CLOEXEC | O_NONBLOCK), 1 << 20));
    if (fd < 0)
        return fd;
    long ret = host_slow(__NR_syncfs, (u64)fd);
    host(__NR_close, fd);
    return published ? published : ret;
}

long sys_sync(const long *a)
{
    const struct boot_mount *m = (const void *)(BOOT_ADDRESS + boot()->mount_off);
    (void)a;
    for (u32 i = 0; i < boot()->mount_count; i++)
        mount_sync(&m[i]);
    return 0;
}

long sys_syncfs(const long *a)
{
    struct file *f = file_get((int)a[0]);
    if (!f || f->flags & O_PATH)
        return -EBADF;
    const struct boot_mount *m = f->path ? mount_of(f->path, NULL) : NULL;
    return m ? mount_sync(m) : 0;
}
