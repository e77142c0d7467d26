/* AF_UNIX sockets (unix(7)): queues of messages inside the enclave. */
#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/stat.h>

#include "temporary.h"
#include "unix.h"
#include "../sys/sys.h"

enum { STREAM = 1, DATAGRAM = 2, PACKETS = 5 };
enum { PEEK = 2, TRUNC = 0x20, DONTWAIT = 0x40, WAITALL = 0x100, NOSIGNAL = 0x4000 };
#define QUEUE_BYTES 212992u
#define QUEUE_COUNT 512u
#define MESSAGE_COST 512u            /* what a stream is charged for a message besides its bytes: Linux counts its buffers too */
#define POLLRDHUP_ 0x2000u

struct message {
    struct message *next;
    u64 size, taken;                 /* taken: bytes of a stream that have been read */
    struct unix_extra *extra;        /* NULL: nothing but the bytes */
    struct unix_name from;
    u32 pid, uid, gid;
    u8 data[];
};
struct unix_socket {
    struct unix_socket *next;        /* g_sockets */
    int type;
    bool bound, listening, read_shut, write_shut, peer_gone, pass_credentials, reset;
    struct unix_socket *peer;        /* connected to; a datagram socket's need not be connected back */
    struct message *first, **last;
    u64 queued; u32 count, generation;
    struct unix_socket *pending, *next_pending; u32 pending_count, backlog;
    struct unix_name name;
    struct inode *inode;
};
static struct unix_socket *g_sockets;

static struct unix_socket *socket_new(int type)
{
    struct unix_socket *s = kmalloc(sizeof *s);
    if (s) {
        s->type = type;
        s->last = &s->first;
        s->name = (struct unix_name){.family = 1, .size = 2};
        s->next = g_sockets;
        g_sockets = s;
    }
    return s;
}

static struct file *file_of(struct unix_socket *s, u32 flags)
{
    struct file *f = file_new(FILE_UNIX, O_RDWR | (flags & O_NONBLOCK));
    if (f) {
        f->unix_socket = s;
        f->socket = true;
    }
    return f;
}
struct file *unix_new(int type, u32 flags)
{
    struct unix_socket *s = socket_new(type);
    struct file *f = s ? file_of(s, flags) : NULL;
    if (s && !f)
        unix_drop(s);
    return f;
}

long unix_pair(int type, u32 flags, struct file **one, struct file **two)
{
    *one = unix_new(type, flags);
    *two = *one ? unix_new(type, flags) : NULL;
    if (!*two) {
        if (*one)
            file_drop(*one);
        return -ENOMEM;
    }
    (*one)->unix_socket->peer = (*two)->unix_socket;
    (*two)->unix_socket->peer = (*one)->unix_socket;
    return 0;
}

static void message_free(struct message *m)
{
    if (m->extra)
        for (u32 i = 0; i < m->extra->file_count; i++)
            file_drop(m->extra->files[i]);
    kfree(m->extra);
    kfree(m);
}

void unix_drop(struct unix_socket *s)
{
    for (struct unix_socket **at = &g_sockets; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    for (struct unix_socket *other = g_sockets; other; other = other->next)
        if (other->peer == s) {
            other->peer = NULL;
            other->peer_gone = true;
            other->reset |= s->first != NULL; /* what it had sent was not read */
        }
    if (s->inode) {
        s->inode->bound = NULL;
        tmp_drop(s->inode);
    }
    while (s->pending) {
        struct unix_socket *waiting = s->pending;
        s->pending = waiting->next_pending;
        unix_drop(waiting);
    }
    for (struct message *m = s->first, *next; m; m = next) {
        next = m->next;
        message_free(m);
    }
    kfree(s);
    poll_wake();
}

/* ---- names ---- */
static bool same(const struct unix_name *a, const struct unix_name *b) { return a->size == b->size && !memcmp(a->path, b->path, a->size - 2); }

static struct unix_socket *abstract(const struct unix_name *name)
{
    for (struct unix_socket *s = g_sockets; s; s = s->next)
        if (s->bound && !s->inode && same(&s->name, name))
            return s;
    return NULL;
}

static long resolve(const struct unix_name *name, char *path)
{
    char given[UNIX_PATH + 1] = {0};
    memcpy(given, name->path, min64(name->size - 2, UNIX_PATH));
    return path_absolute(AT_FDCWD, given, path);
}

static long find(const struct unix_name *name, int type, struct unix_socket **found)
{
    char path[PATH_ROOM];
    if (name->size <= 2)
        return -EINVAL;
    if (name->path[0]) {
        long bad = resolve(name, path);
        if (!bad)
            bad = fs_follow(path, true);
        if (bad)
            return bad;
        struct inode *i = tmp_find(path, NULL, NULL, NULL);
        struct stat_k st;
        if (!i)
            return (bad = fs_stat(path, true, &st)) ? bad : -ECONNREFUSED;
        *found = (i->mode & S_IFMT) == S_IFSOCK ? i->bound : NULL;
    } else
        *found = abstract(name);
    if (!*found)
        return -ECONNREFUSED;
    return (*found)->type == type ? 0 : -EPROTOTYPE;
}

long unix_bind(struct file *f, const struct unix_name *name)
{
    struct unix_socket *s = f->unix_socket;
    char path[PATH_ROOM];
    static u32 next_name;
    if (s->name.size > 2)
        return -EINVAL;
    if (name->size <= 2) { /* a name of the kernel's choice */
        struct unix_name own = {.family = 1, .size = 2 + 6};
        do
            format(own.path + 1, 6, "%lx", 0x10000ul | (next_name++ & 0xffff));
        while (abstract(&own));
        s->name = own;
        s->bound = true;
        return 0;
    }
    if (!name->path[0]) {
        if (abstract(name))
            return -EADDRINUSE;
        s->name = *name;
        s->bound = true;
        return 0;
    }
    struct inode *parent = NULL, *i;
    const char *last = NULL;
    struct stat_k st;
    long bad = resolve(name, path);
    if (!bad)
        bad = fs_follow(path, false);
    if (bad)
        return bad;
    if (!fs_stat(path, false, &st))
        return -EADDRINUSE;
    if (!mount_of(path, NULL))
        return -EROFS;
    if (tmp_find(path, NULL, &parent, &last) || !parent)
        return fs_missing(path);
    if (!(i = tmp_create(parent, last, S_IFSOCK | umask_of(0777))))
        return -ENOMEM;
    i->bound = s;
    i->refs++;
    s->inode = i;
    s->name = *name;
    s->bound = true;
    return 0;
}

void unix_name_of(struct file *f, struct unix_name *to) { *to = f->unix_socket->name; }
bool unix_peer_name(struct file *f, struct unix_name *to)
{
    struct unix_socket *s = f->unix_socket;
    if (!s->peer)
        return false;
    *to = s->peer->name;
    return true;
}
int unix_type(struct file *f) { return f->unix_socket->type; }
bool unix_listening(struct file *f) { return f->unix_socket->listening; }
bool *unix_pass_credentials(struct file *f) { return &f->unix_socket->pass_credentials; }
u64 unix_waiting(struct file *f)
{
    struct unix_socket *s = f->unix_socket;
    return s->type == STREAM ? s->queued : s->first ? s->first->size : 0;
}
u32 unix_error(struct file *f)
{
    bool was = f->unix_socket->reset;
    f->unix_socket->reset = false;
    return was ? ECONNRESET : 0;
}

/* ---- connections ---- */
long unix_listen(struct file *f, long backlog)
{
    struct unix_socket *s = f->unix_socket;
    if (s->type == DATAGRAM)
        return -EOPNOTSUPP;
    if (s->name.size <= 2 || s->peer)
        return -EINVAL;
    s->listening = true;
    s->backlog = (u32)backlog > 4096 ? 4096 : (u32)backlog;
    return 0;
}

long unix_connect(struct file *f, const struct unix_name *name)
{
    struct unix_socket *s = f->unix_socket, *to;
    long bad;
    if (s->type == DATAGRAM) {
        if (name && (bad = find(name, DATAGRAM, &to)))
            return bad;
        s->peer = name ? to : NULL;
        s->peer_gone = false;
        return 0;
    }
    if (!name)
        return -EINVAL;
    for (;;) {
        if (s->peer || s->peer_gone)
            return -EISCONN;
        if (s->listening)
            return -EINVAL;
        if ((bad = find(name, s->type, &to)))
            return bad;
        if (!to->listening || to->read_shut)
            return -ECONNREFUSED;
        if (to->pending_count <= to->backlog)
            break;
        if (f->flags & O_NONBLOCK)
            return -EAGAIN;
        if ((bad = wait_for_change()))
            return bad;
    }
    struct unix_socket *server = socket_new(s->type);
    if (!server)
        return -ENOMEM;
    server->peer = s;
    server->name = to->name;
    s->peer = server;
    struct unix_socket **at = &to->pending;
    while (*at)
        at = &(*at)->next_pending;
    *at = server;
    to->pending_count++;
    to->generation++;
    poll_wake();
    return 0;
}

long unix_accept(struct file *f, u32 flags, struct file **file)
{
    struct unix_socket *s = f->unix_socket;
    if (s->type == DATAGRAM)
        return -EOPNOTSUPP;
    if (!s->listening)
        return -EINVAL;
    while (!s->pending) {
        if (s->read_shut)
            return -EINVAL;
        if (f->flags & O_NONBLOCK)
            return -EAGAIN;
        long bad = wait_for_change();
        if (bad)
            return bad;
    }
    struct unix_socket *server = s->pending;
    if (!(*file = file_of(server, flags)))
        return -ENOMEM; /* the connection stays */
    s->pending = server->next_pending;
    s->pending_count--;
    server->next_pending = NULL;
    poll_wake();
    return 0;
}

long unix_shutdown(struct file *f, long how)
{
    struct unix_socket *s = f->unix_socket;
    if (how < 0 || how > 2)
        return -EINVAL;
    if (!s->peer && !s->listening && !s->peer_gone && s->type != DATAGRAM)
        return -ENOTCONN;
    if (how != 1)
        s->read_shut = true;
    if (how != 0)
        s->write_shut = true;
    if (s->peer && s->type != DATAGRAM) {
        if (how != 1)
            s->peer->write_shut = true;
        if (how != 0)
            s->peer->read_shut = true;
    }
    poll_wake();
    return 0;
}

/* ---- messages ---- */
static u64 stream_room(const struct unix_socket *to)
{
    u64 charge = to->queued + MESSAGE_COST * (to->count + 1ull);
    return charge < QUEUE_BYTES ? QUEUE_BYTES - charge : 0;
}

static bool full(const struct unix_socket *to, u64 size)
{
    if (to->type == STREAM)
        return !stream_room(to);
    return to->count >= QUEUE_COUNT || (to->queued && to->queued + size > QUEUE_BYTES);
}

static long put(struct unix_socket *s, struct unix_socket *to, const void *from, u64 size, struct unix_extra *extra)
{
    struct message *m = kmalloc(sizeof *m + size);
    if (!m)
        return -ENOBUFS;
    memcpy(m->data, from, size);
    m->size = size;
    m->from = s->name;
    m->pid = PID;
    m->uid = g_identity.uid[0];
    m->gid = g_identity.gid[0];
    if (extra && extra->file_count) {
        if (!(m->extra = kmalloc(sizeof *extra))) {
            kfree(m);
            return -ENOBUFS;
        }
        *m->extra = *extra;
        extra->file_count = 0;
    }
    *to->last = m;
    to->last = &m->next;
    to->queued += size;
    to->count++;
    to->generation++;
    poll_wake();
    return (long)size;
}

long unix_send(struct file *f, const void *from, u64 size, u32 flags, struct unix_extra *extra, const struct unix_name *name)
{
    struct unix_socket *s = f->unix_socket;
    u64 done = 0;
    if (flags & 1) /* MSG_OOB */
        return -EOPNOTSUPP;
    if (s->type != DATAGRAM && name)
        return s->peer ? -EISCONN : -EOPNOTSUPP;
    if (s->type != STREAM && size > QUEUE_BYTES - 32)
        return -EMSGSIZE;
    for (;;) {
        struct unix_socket *to = s->peer;
        long bad = 0;
        if (name)
            bad = find(name, DATAGRAM, &to);
        else if (!to && s->type == DATAGRAM)
            bad = s->peer_gone ? -ECONNREFUSED : -ENOTCONN;
        if (bad)
            return bad;
        if (s->write_shut || (s->type != DATAGRAM && !to) || (to && to->read_shut)) {
            if (!s->write_shut && s->type != DATAGRAM && !to && !s->peer_gone)
                return -ENOTCONN;
            if (!(flags & NOSIGNAL) && s->type != DATAGRAM)
                signal_send(self(), 13, 0, 0);
            return done ? (long)done : -EPIPE;
        }
        if (s->type == STREAM && !size)
            return 0;
        if (!full(to, size)) {
            u64 part = s->type == STREAM ? min64(min64(size - done, 32768), stream_room(to)) : size;
            long n = put(s, to, (const u8 *)from + done, part, extra);
            if (n < 0)
                return done ? (long)done : n;
            done += (u64)n;
            if (done >= size)
                return (long)done;
            continue;
        }
        if (f->flags & O_NONBLOCK || flags & DONTWAIT)
            return done ? (long)done : -EAGAIN;
        bad = wait_for_change();
        if (bad)
            return done ? (long)done : bad;
    }
}

static void take_extra(struct unix_socket *s, struct message *m, struct unix_extra *extra, bool keep)
{
    if (!extra)
        return;
    if (s->pass_credentials) {
        extra->credentials = true;
        extra->pid = m->pid, extra->uid = m->uid, extra->gid = m->gid;
    }
    if (m->extra) {
        memcpy(extra->files, m->extra->files, sizeof extra->files);
        extra->file_count = m->extra->file_count;
        if (keep)
            for (u32 i = 0; i < extra->file_count; i++)
                extra->files[i]->refs++;
        else
            m->extra->file_count = 0;
    }
    extra->from = m->from;
}

static void pop(struct unix_socket *s)
{
    struct message *m = s->first;
    if (!(s->first = m->next))
        s->last = &s->first;
    s->count--;
    message_free(m);
}

/* Bytes of a stream: of one message after the other, but never past one that brought descriptors. */
static u64 take_stream(struct unix_socket *s, u8 *to, u64 size, bool peek, struct unix_extra *extra)
{
    u64 done = 0;
    for (struct message *m = s->first, *next; m && done < size; m = next) {
        u64 part = min64(size - done, m->size - m->taken);
        next = m->next;
        memcpy(to + done, m->data + m->taken, part);
        done += part;
        bool files = m->extra && m->extra->file_count;
        if (!m->taken || files)
            take_extra(s, m, extra, peek);
        if (!peek) {
            m->taken += part;
            s->queued -= part;
            if (m->taken == m->size)
                pop(s);
        }
        if (files || (next && next->extra && next->extra->file_count))
            break;
    }
    return done;
}

long unix_receive(struct file *f, void *to, u64 size, u32 flags, struct unix_extra *extra)
{
    struct unix_socket *s = f->unix_socket;
    u64 done = 0;
    if (flags & 1)
        return -EOPNOTSUPP;
    if (s->type != DATAGRAM && !s->peer && !s->peer_gone)
        return s->listening ? -EINVAL : -ENOTCONN;
    if (s->type == STREAM && !size)
        return 0;
    for (;;) {
        if (s->first && s->type == STREAM) {
            done += take_stream(s, (u8 *)to + done, size - done, flags & PEEK, extra);
            poll_wake();
            if (done == size || !(flags & WAITALL) || flags & PEEK)
                return (long)done;
        } else if (s->first) {
            struct message *m = s->first;
            u64 n = min64(size, m->size), whole = m->size;
            memcpy(to, m->data, n);
            take_extra(s, m, extra, flags & PEEK);
            if (extra && n < whole)
                extra->flags |= TRUNC;
            if (!(flags & PEEK)) {
                s->queued -= whole;
                pop(s);
                poll_wake();
            }
            return (long)(flags & TRUNC ? whole : n);
        }
        if (s->reset && !done) {
            s->reset = false;
            return -ECONNRESET;
        }
        if (s->read_shut || (s->type != DATAGRAM && s->peer_gone))
            return (long)done;
        if (f->flags & O_NONBLOCK || flags & DONTWAIT)
            return done ? (long)done : -EAGAIN;
        long bad = wait_for_change();
        if (bad)
            return done ? (long)done : bad;
    }
}

long unix_read(struct file *f, void *to, u64 size) { return unix_receive(f, to, size, 0, NULL); }
long unix_write(struct file *f, const void *from, u64 size) { return unix_send(f, from, size, 0, NULL, NULL); }

u32 unix_generation(const struct unix_socket *s) { return s->generation; }

u32 unix_poll(struct unix_socket *s)
{
    u32 now = 0;
    if (s->listening)
        return s->pending ? POLLIN | POLLRDNORM : 0;
    bool gone = s->type != DATAGRAM && s->peer_gone, fresh = s->type != DATAGRAM && !s->peer && !s->peer_gone;
    if (s->first || s->read_shut || gone)
        now |= POLLIN | POLLRDNORM;
    if (s->read_shut || gone)
        now |= POLLRDHUP_;
    if (gone || fresh || (s->read_shut && s->write_shut))
        now |= POLLHUP;
    if (s->reset)
        now |= POLLERR;
    if (s->type == DATAGRAM && !s->peer)
        now |= POLLOUT | POLLWRNORM;
    else if (gone || fresh || (s->peer && !full(s->peer, 4096)))
        now |= POLLOUT | POLLWRNORM;
    return now;
}
