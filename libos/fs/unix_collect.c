/*
 * Sockets that nobody can reach any more: every reference to them is a descriptor in a message that waits in a socket of the
 * same kind. Linux collects them (net/unix/garbage.c), at the next end of a socket; so does this. Under g_lock.
 */
#include "unix_parts.h"

u32 g_unix_in_flight;

static struct unix_socket *carried(const struct message *m, u32 i) /* NULL: another kind of file */
{
    const struct file *f = m->extra->files[i];
    return f->type == FILE_UNIX ? f->unix_socket : NULL;
}

static void reach(struct unix_socket *s, struct unix_socket **todo)
{
    if (s->reached)
        return;
    s->reached = true;
    s->next_todo = *todo;
    *todo = s;
}

/* A descriptor, or a call that waits, holds a reference besides those in flight: from there, what can be received is followed. */
static void mark(void)
{
    struct unix_socket *todo = NULL, *s, *to;
    for (s = g_unix_sockets; s; s = s->next)
        s->in_flight = 0, s->reached = false;
    for (s = g_unix_sockets; s; s = s->next)
        for (const struct message *m = s->first; m; m = m->next)
            for (u32 i = 0; m->extra && i < m->extra->file_count; i++)
                if ((to = carried(m, i)))
                    to->in_flight++;
    for (s = g_unix_sockets; s; s = s->next)
        if (s->file && (u32)s->file->refs > s->in_flight)
            reach(s, &todo);
    while ((s = todo)) {
        todo = s->next_todo;
        for (struct unix_socket *waiting = s->pending; waiting; waiting = waiting->next_pending) /* to be accepted */
            reach(waiting, &todo);
        for (const struct message *m = s->first; m; m = m->next)
            for (u32 i = 0; m->extra && i < m->extra->file_count; i++)
                if ((to = carried(m, i)))
                    reach(to, &todo);
    }
}

/* All their messages go; with those go the last references, and file_drop ends the sockets. */
void unix_collect(void)
{
    struct message *dead = NULL;
    if (!g_unix_in_flight)
        return;
    mark();
    for (struct unix_socket *s = g_unix_sockets; s; s = s->next)
        if (!s->reached && s->first) {
            *s->last = dead;
            dead = s->first;
            s->first = NULL;
            s->last = &s->first;
            s->queued = s->count = 0;
        }
    for (struct message *m = dead, *next; m; m = next) {
        next = m->next;
        unix_message_free(m);
    }
}
