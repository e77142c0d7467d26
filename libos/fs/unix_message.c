/* AF_UNIX: queues of messages inside the enclave. */
#include <linux/fcntl.h>
#include <linux/poll.h>

#include "unix_parts.h"

enum { PEEK = 2, TRUNC = 0x20, DONTWAIT = 0x40, WAITALL = 0x100, NOSIGNAL = 0x4000 };
#define QUEUE_BYTES 212992u
#define QUEUE_COUNT 512u
#define MESSAGE_COST 512u            /* what a stream is charged for a message besides its bytes: Linux counts its buffers too */
#define POLLRDHUP_ 0x2000u

static u32 sockets_in(const struct unix_extra *extra)
{
    u32 n = 0;
    for (u32 i = 0; i < extra->file_count; i++)
        n += extra->files[i]->type == FILE_UNIX;
    return n;
}

void unix_message_free(struct message *m)
{
    if (m->extra) {
        g_unix_in_flight -= sockets_in(m->extra);
        for (u32 i = 0; i < m->extra->file_count; i++)
            file_drop(m->extra->files[i]);
    }
    kfree(m->extra);
    kfree(m);
}

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
        g_unix_in_flight += sockets_in(extra);
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
    u64 done = 0, end = 0;
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
            bad = unix_find(name, DATAGRAM, &to);
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
        bad = unix_wait(s, SENDING, &end);
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
        else {
            g_unix_in_flight -= sockets_in(extra);
            m->extra->file_count = 0;
        }
    }
    extra->from = m->from;
}

static void pop(struct unix_socket *s)
{
    struct message *m = s->first;
    if (!(s->first = m->next))
        s->last = &s->first;
    s->count--;
    unix_message_free(m);
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
    u64 done = 0, end = 0;
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
            if (done == size || !(flags & WAITALL) || flags & PEEK || (extra && extra->file_count)) /* the next one's are another call's */
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
        long bad = unix_wait(s, RECEIVING, &end);
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
