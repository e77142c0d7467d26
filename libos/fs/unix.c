/* AF_UNIX sockets (unix(7)): their lives, names and connections. What goes through them: unix_message.c. */
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "temporary.h"
#include "unix_parts.h"
#include "../sys/sys.h"


struct unix_socket *g_unix_sockets;

static struct unix_socket *socket_new(int type)
{
    struct unix_socket *s = kmalloc(sizeof *s);
    if (s) {
        s->type = type;
        s->wait_ns[RECEIVING] = s->wait_ns[SENDING] = UNIX_FOREVER;
        s->last = &s->first;
        s->name = (struct unix_name){.family = 1, .size = 2};
        s->next = g_unix_sockets;
        g_unix_sockets = s;
    }
    return s;
}

static struct file *file_of(struct unix_socket *s, u32 flags)
{
    struct file *f = file_new(FILE_UNIX, O_RDWR | (flags & O_NONBLOCK));
    if (f) {
        f->unix_socket = s;
        s->file = f;
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

void unix_drop(struct unix_socket *s)
{
    for (struct unix_socket **at = &g_unix_sockets; *at; at = &(*at)->next)
        if (*at == s) {
            *at = s->next;
            break;
        }
    for (struct unix_socket *other = g_unix_sockets; other; other = other->next)
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
        unix_message_free(m);
    }
    kfree(s);
    unix_collect();
    poll_wake();
}

/* ---- names ---- */
static bool same(const struct unix_name *a, const struct unix_name *b) { return a->size == b->size && !memcmp(a->path, b->path, a->size - 2); }

static struct unix_socket *abstract(const struct unix_name *name)
{
    for (struct unix_socket *s = g_unix_sockets; s; s = s->next)
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

long unix_find(const struct unix_name *name, int type, struct unix_socket **found)
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
u64 *unix_timeout(struct file *f, bool sending) { return &f->unix_socket->wait_ns[sending ? SENDING : RECEIVING]; }
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
long unix_wait(const struct unix_socket *s, enum unix_way way, u64 *end)
{
    u64 ns = s->wait_ns[way], now;
    if (ns == UNIX_FOREVER)
        return wait_for_change(-1);
    now = now_ns(1);
    if (!*end)
        *end = now + ns;
    if (now >= *end)
        return -EAGAIN;
    long bad = wait_for_change((long)(*end - now));
    return bad == -ERESTARTSYS ? -EINTR : bad; /* begun anew it would wait for all of its time again: signal(7) */
}

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
    u64 end = 0;
    long bad;
    if (s->type == DATAGRAM) {
        if (name && (bad = unix_find(name, DATAGRAM, &to)))
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
        if ((bad = unix_find(name, s->type, &to)))
            return bad;
        if (!to->listening || to->read_shut)
            return -ECONNREFUSED;
        if (to->pending_count <= to->backlog)
            break;
        if (f->flags & O_NONBLOCK)
            return -EAGAIN;
        if ((bad = unix_wait(s, SENDING, &end)))
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
    u64 end = 0;
    if (s->type == DATAGRAM)
        return -EOPNOTSUPP;
    if (!s->listening)
        return -EINVAL;
    while (!s->pending) {
        if (s->read_shut)
            return -EINVAL;
        if (f->flags & O_NONBLOCK)
            return -EAGAIN;
        long bad = unix_wait(s, RECEIVING, &end);
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
