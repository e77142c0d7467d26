/* Open files and the table of descriptors; reading and writing by type. */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/stat.h>

#include "temporary.h"
#include "terminal.h"
#include "../sys/sys.h"

static struct { struct file *file; bool cloexec; } g_fd[FILES_MAX];
static struct file g_reserved; /* stands where a call has a number and waits for what it will name */

struct file *file_new(enum file_type type, u32 flags)
{
    static u64 serials;
    struct file *f = kmalloc(sizeof *f);
    if (f) {
        f->type = type;
        f->serial = ++serials;
        f->flags = flags & ~(u32)(O_CLOEXEC | O_CREAT | O_EXCL | O_TRUNC | O_NOCTTY);
        f->refs = 1;
        f->host_fd = -1;
    }
    return f;
}

struct file *file_named(enum file_type type, const char *path, u32 flags)
{
    struct file *f = file_new(type, flags);
    if (f && !(f->path = kmalloc(strlen(path) + 1))) {
        kfree(f);
        return NULL;
    }
    if (f)
        memcpy(f->path, path, strlen(path) + 1);
    return f;
}

void names_forget(struct file *f)
{
    for (u32 i = 0; i < f->name_count; i++)
        kfree(f->names[i]);
    kfree(f->names);
    f->names = NULL;
    f->name_count = 0;
}

static void file_end(struct file *f)
{
    if (f->in)
        pipe_drop(f->in, false);
    if (f->out)
        pipe_drop(f->out, true);
    if (f->unix_socket)
        unix_drop(f->unix_socket);
    if (f->type == FILE_TERMINAL)
        terminal_drop(f);
    if (f->host_fd > 2)
        host(__NR_close, f->host_fd);
    if (f->inode)
        tmp_drop(f->inode);
    if (f->encrypted)
        enc_drop(f->encrypted);
    names_forget(f);
    kfree(f->items);
    if (f->buffer)
        memset(f->buffer, 0, f->buffer_size > f->buffer_room ? f->buffer_size : f->buffer_room); /* a key, perhaps */
    kfree(f->buffer);
    kfree(f->path);
    kfree(f);
}

/* One after the other, however deep sockets lie in each other's queues: the LibOS's stack is small. */
void file_drop(struct file *f)
{
    static struct file *ended;
    static bool busy;
    if (--f->refs)
        return;
    f->next_ended = ended;
    ended = f;
    if (busy)
        return;
    busy = true;
    while ((f = ended)) {
        ended = f->next_ended;
        file_end(f);
    }
    busy = false;
}

struct file *file_get(int fd) { return fd >= 0 && fd < FILES_MAX && g_fd[fd].file != &g_reserved ? g_fd[fd].file : NULL; }

int fd_number(const char *digits)
{
    int fd = 0;
    for (const char *p = digits; *p || p == digits; p++) {
        if (*p < '0' || *p > '9' || (p > digits && !fd) || fd >= FILES_MAX)
            return -1;
        fd = fd * 10 + *p - '0';
    }
    return fd;
}

static long fd_free(int lowest) /* the next one that nothing uses, or -EMFILE */
{
    int most = (int)files_limit();
    for (int fd = lowest; fd < most; fd++)
        if (!g_fd[fd].file)
            return fd;
    return -EMFILE;
}

long file_install(struct file *f, int lowest, bool cloexec)
{
    if (!f)
        return -ENOMEM;
    long fd = fd_free(lowest);
    if (fd < 0) {
        file_drop(f);
        return fd;
    }
    g_fd[fd].file = f;
    g_fd[fd].cloexec = cloexec;
    return fd;
}

long fd_reserve(void)
{
    long fd = fd_free(0);
    if (fd >= 0)
        g_fd[fd].file = &g_reserved;
    return fd;
}

long fd_fill(long fd, long error, struct file *f, bool cloexec)
{
    g_fd[fd].file = error ? NULL : f;
    g_fd[fd].cloexec = cloexec;
    return error ? error : fd;
}

long fd_close(int fd)
{
    struct file *f = file_get(fd);
    if (!f)
        return -EBADF;
    long ret = f->refs == 1 && f->encrypted ? enc_close(f->encrypted) : 0;
    g_fd[fd].file = NULL;
    file_drop(f);
    return ret;
}

bool fd_cloexec(int fd, int set)
{
    if (set >= 0)
        g_fd[fd].cloexec = set;
    return g_fd[fd].cloexec;
}

long fd_replace(int fd, struct file *f, bool cloexec)
{
    struct file *old = g_fd[fd].file;
    if (old == &g_reserved) {
        file_drop(f);
        return -EBUSY;
    }
    g_fd[fd].file = f;
    g_fd[fd].cloexec = cloexec;
    if (old && old->refs == 1 && old->encrypted)
        enc_close(old->encrypted); /* dup2 does not say how closing went */
    if (old)
        file_drop(old);
    return fd;
}

int fd_next(int after)
{
    for (int fd = after; fd < FILES_MAX; fd++)
        if (file_get(fd))
            return fd;
    return -1;
}

long fd_fresh(long host_fd)
{
    if (host_fd < 0)
        return host_fd;
    if (host_fd <= 2 || host_fd == g_start->quote_fd || host_fd == g_start->channel_fd)
        return -EIO;
    for (int fd = 0; fd < FILES_MAX; fd++)
        if (g_fd[fd].file && g_fd[fd].file->host_fd == host_fd)
            return -EIO;
    return host_fd;
}

void files_start(int quote_fd, int channel_fd)
{
    (void)quote_fd, (void)channel_fd;
    static const u32 modes[] = {O_RDONLY, O_WRONLY, O_WRONLY};
    for (int fd = 0; fd < 3; fd++) {
        struct file *f = file_new(FILE_HOST, modes[fd]);
        if (!f)
            libos_bug("no memory");
        f->host_fd = fd;
        file_install(f, fd, false);
    }
}

/* ---- the host's descriptors ---- */
static long host_read(struct file *f, u8 *to, u64 size, long at)
{
    u64 want = min64(size, DATA_MAX);
    long n = at < 0 ? host_wait(__NR_read, (u64)f->host_fd, host_data_address(), want, 0, 0, 0, want)
                    : host_wait(__NR_pread64, (u64)f->host_fd, host_data_address(), want, (u64)at, 0, 0, want);
    if (n > 0)
        memcpy(to, ocall_data(), (u64)n);
    return restart(f, false, n);
}

static long host_write(struct file *f, const u8 *from, u64 size, long at)
{
    u64 done = 0;
    while (done < size || !size) {
        u64 part = min64(size - done, DATA_MAX);
        memcpy(ocall_data(), from + done, part);
        long n = at < 0 ? host_wait(__NR_write, (u64)f->host_fd, host_data_address(), part, 0, 0, 0, part)
                        : host_wait(__NR_pwrite64, (u64)f->host_fd, host_data_address(), part, (u64)at + done, 0, 0, part);
        if (!n && part)
            n = -EIO; /* Linux takes some of it or says why not: who believes this writes for ever */
        if (n < 0) {
            if (n == -EPIPE && !done)
                signal_send(self(), 13, 0, 0);
            return done ? (long)done : restart(f, true, n);
        }
        done += (u64)n;
        if (done < size && !user_held_ok())
            break; /* it has waited, and the rest of the program's memory is gone */
        if (!size || ((u64)n < part && f->socket_type != 1))
            break; /* a stream socket's short answer: the next one waits, or says EAGAIN */
    }
    return (long)done;
}

u32 file_generation(const struct file *f)
{
    return f->generation + (f->in ? f->in->generation : 0) + (f->out ? f->out->generation : 0) +
           (f->unix_socket ? unix_generation(f->unix_socket) : 0) + (f->type == FILE_TERMINAL ? terminal_generation(f) : 0);
}

void file_used(struct file *f)
{
    f->generation++;
    if (f->edges)
        poll_wake();
}

static long read_held(struct file *f, void *to, u64 size, long at)
{
    u64 offset = at < 0 ? f->offset : (u64)at;
    long n = 0;
    switch (f->type) {
    case FILE_DIR:
        return -EISDIR;
    case FILE_PACK:
        n = pack_read(f->entry, to, size, offset);
        break;
    case FILE_TMP:
        n = data_read(f->inode, to, size, offset);
        break;
    case FILE_ENCRYPTED:
        n = enc_read(f->encrypted, to, size, offset);
        break;
    case FILE_BUFFER:
        n = offset >= f->buffer_size ? 0 : (long)min64(size, f->buffer_size - offset);
        memcpy(to, f->buffer + offset, (u64)n);
        break;
    case FILE_HOST:
        return host_read(f, to, size, at);
    case FILE_PIPE:
        return pipe_read(f, to, size);
    case FILE_UNIX:
        return unix_read(f, to, size);
    case FILE_TERMINAL:
        return terminal_read(f, to, size);
    case FILE_DEVICE:
        if (f->device == DEV_NULL)
            return 0;
        if (f->device == DEV_RANDOM)
            return random_bytes(to, size) ? (long)size : -EIO;
        memset(to, 0, size);
        return (long)size;
    case FILE_EVENT:
    case FILE_TIMER:
        return event_read(f, to, size);
    default:
        return -EINVAL;
    }
    if (n > 0 && at < 0)
        f->offset += (u64)n;
    return n;
}

long file_read(struct file *f, void *to, u64 size, long at)
{
    f->refs++;
    long n = read_held(f, to, size, at);
    file_used(f);
    file_drop(f);
    return n;
}

static long write_held(struct file *f, const void *from, u64 size, long at)
{
    u64 offset = at < 0 ? f->offset : (u64)at;
    long n;
    switch (f->type) {
    case FILE_TMP:
        if (f->flags & O_APPEND)
            offset = f->inode->size;
        n = data_write(f->inode, from, size, offset);
        if (n < 0)
            return n;
        size = (u64)n;
        break;
    case FILE_ENCRYPTED: {
        if (f->flags & O_APPEND)
            offset = enc_size(f->encrypted);
        long n = enc_write(f->encrypted, from, size, offset);
        if (n > 0 && at < 0)
            f->offset = offset + (u64)n;
        return n;
    }
    case FILE_BUFFER:
        if (!f->commit || offset + size < offset || offset + size > f->buffer_room)
            return -EINVAL;
        memcpy(f->buffer + offset, from, size);
        if (offset + size > f->buffer_size)
            f->buffer_size = offset + size;
        long bad = f->commit(f);
        if (bad)
            return bad;
        break;
    case FILE_HOST:
        return host_write(f, from, size, at);
    case FILE_PIPE:
        return pipe_write(f, from, size);
    case FILE_UNIX:
        return unix_write(f, from, size);
    case FILE_TERMINAL:
        return terminal_write(f, from, size);
    case FILE_DEVICE:
        return f->device == DEV_FULL ? -ENOSPC : (long)size;
    case FILE_EVENT:
        return event_write(f, from, size);
    default:
        return -EBADF;
    }
    if (at < 0)
        f->offset = offset + size;
    return (long)size;
}

long file_write(struct file *f, const void *from, u64 size, long at)
{
    f->refs++;
    long n = write_held(f, from, size, at);
    file_used(f);
    file_drop(f);
    return n;
}

u32 file_poll(struct file *f)
{
    u32 now = 0;
    switch (f->type) {
    case FILE_HOST:
        return ~0u;
    case FILE_PIPE:
        if (f->in)
            now |= (f->in->used ? POLLIN | POLLRDNORM : 0) | (f->in->writers || !f->in->had_writer ? 0 : POLLHUP);
        if (f->out)
            now |= (f->out->readers ? 0 : POLLERR) | (pipe_room(f->out) >= 4096 ? POLLOUT | POLLWRNORM : 0);
        return now;
    case FILE_UNIX:
        return unix_poll(f->unix_socket);
    case FILE_TERMINAL:
        return terminal_poll(f);
    case FILE_EVENT:
    case FILE_TIMER:
        return event_poll(f);
    case FILE_EPOLL:
        return epoll_ready(f) ? POLLIN : 0;
    case FILE_PROCESS: /* readable when the process has ended: who asks is that process */
        return 0;
    default:
        return POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
    }
}
