/* Waiting for descriptors: poll, select, epoll, eventfd. Inside ones are looked at here, host ones asked of the host. */
#include <asm/unistd.h>
#include <linux/eventpoll.h>
#include <linux/fcntl.h>
#include <linux/poll.h>

#include "libos.h"
#include "sys.h"

#define POLL_MOST 1024u
#define ALWAYS (POLLERR | POLLHUP | POLLNVAL)

void poll_wake(void)
{
    for (u32 i = 0; i < thread_count(); i++) {
        struct thread *t = thread_at(i);
        if (t->polling && t->state == THREAD_RUNNING && t != self())
            unpark(t);
    }
}

/* The file of an epoll's item while its descriptor is open. A later file may have the number, and the place in memory too. */
static struct file *item_file(const struct epoll_item *item)
{
    struct file *f = file_get(item->fd);
    return f == item->file && f && f->serial == item->serial ? f : NULL;
}

/* Whether an epoll's list is another one than at `change`, or an edge that was told is there anew. */
static bool epoll_changed(const struct file *e, u32 change)
{
    bool edge = e->changes != change;
    for (u32 i = 0; i < e->item_count && !edge; i++)
        edge = e->items[i].seen && item_file(&e->items[i]) &&
               file_generation(e->items[i].file) != e->items[i].generation;
    return edge;
}

/* timeout in ns, -1 for ever. Fills got; count of ready ones, or -EINTR; 0, too, when the epoll (may be NULL) changed. */
static long poll_files(struct file **files, u32 *wanted, u32 *got, u32 count, long timeout_ns, const struct file *epoll)
{
    u64 end = timeout_ns > 0 ? now_ns(1) + (u64)timeout_ns : 0;
    long ret, left = timeout_ns;
    u32 change = epoll ? epoll->changes : 0;
    self()->polling = true;
    for (;;) {
        u32 ready = 0, hosts = 0;
        struct pollfd *p = (struct pollfd *)ocall_data();
        for (u32 i = 0; i < count; i++) {
            got[i] = 0;
            if (!files[i])
                continue;
            u32 now = file_poll(files[i]);
            if (now == ~0u) {
                p[hosts++] = (struct pollfd){files[i]->host_fd, (short)wanted[i], 0};
                continue;
            }
            got[i] = now & (wanted[i] | ALWAYS);
            ready += got[i] != 0;
        }
        ret = 0;
        if (hosts || !ready) {
            if (!hosts && left == 0)
                break;
            ret = park(ready ? 0 : left, hosts);
            if (ret == -EINTR && !ready)
                break;
            for (u32 i = 0, h = 0; i < count && ret > 0; i++)
                if (files[i] && file_poll(files[i]) == ~0u && h < hosts) {
                    got[i] = (u32)(uint16_t)((volatile struct pollfd *)p)[h++].revents & (wanted[i] | ALWAYS);
                    ready += got[i] != 0;
                }
        }
        ret = ready;
        if (ready || left == 0 || (epoll && epoll_changed(epoll, change)))
            break;
        if (timeout_ns > 0) {
            u64 now = now_ns(1);
            left = now >= end ? 0 : (long)(end - now);
        }
    }
    self()->polling = false;
    return ret;
}

static long do_poll(u64 at, u64 count, long timeout_ns)
{
    u64 size = count * sizeof(struct pollfd);
    if (count > POLL_MOST)
        return -EINVAL;
    if (!user_write_ok(at, size))
        return -EFAULT;
    struct file **files = kmalloc(count * (sizeof(struct file *) + 8) + size + 1);
    if (!files)
        return -ENOMEM;
    u32 *wanted = (u32 *)(files + count), *got = wanted + count, bad = 0;
    struct pollfd *p = (struct pollfd *)(got + count); /* our own copy */
    memcpy(p, (void *)at, size);
    for (u64 i = 0; i < count; i++) {
        files[i] = p[i].fd < 0 ? NULL : file_get(p[i].fd);
        wanted[i] = (uint16_t)p[i].events;
        if (p[i].fd >= 0 && !files[i])
            bad++;
        if (files[i])
            files[i]->refs++;
    }
    long ret = poll_files(files, wanted, got, (u32)count, bad ? 0 : timeout_ns, NULL);
    bool there = user_write_ok(at, size); /* it has waited */
    for (u64 i = 0; i < count; i++) {
        if (there)
            ((struct pollfd *)at)[i].revents = p[i].fd >= 0 && !files[i] ? POLLNVAL : ret < 0 ? 0 : (short)got[i];
        if (files[i])
            file_drop(files[i]);
    }
    kfree(files);
    return !there ? -EFAULT : ret < 0 ? ret : ret + bad;
}
long sys_poll(const long *a) { return do_poll((u64)a[0], (u32)a[1], (int)a[2] < 0 ? -1 : (long)(int)a[2] * 1000000); }
static long masked(u64 mask_at, long (*f)(const long *), const long *a)
{
    struct thread *t = self();
    u64 saved = t->mask;
    if (mask_at) {
        if (!user_read_ok(mask_at, 8))
            return -EFAULT;
        t->mask = *(u64 *)mask_at & ~((1ull << 8) | (1ull << 18));
    }
    long ret = f(a);
    if (mask_at) {
        if (ret == -EINTR) {
            t->saved_mask = saved;
            t->restore_mask = true;
        } else
            t->mask = saved;
    }
    return ret;
}
static long ppoll_inner(const long *a) { return do_poll((u64)a[0], (u32)a[1], a[2]); }
long sys_ppoll(const long *a)
{
    long bad = 0, timeout = a[2] ? (long)timespec_ns((u64)a[2], &bad) : -1;
    return bad ? bad : masked((u64)a[3], ppoll_inner, (long[]){a[0], a[1], timeout});
}

static long select_inner(const long *a)
{
    u32 n = (u32)a[0], count = 0;
    u64 words = (n + 63) / 64, sets[3][POLL_MOST / 64] = {0}; /* our own copies */
    static const u32 want[3] = {POLLIN | POLLRDNORM, POLLOUT | POLLWRNORM, POLLPRI};
    static const u32 yes[3] = {POLLIN | POLLRDNORM | POLLHUP | POLLERR, POLLOUT | POLLWRNORM | POLLERR, POLLPRI};
    if (n > POLL_MOST)
        return -EINVAL;
    for (int s = 0; s < 3; s++) {
        if (!user_write_ok((u64)a[1 + s], a[1 + s] ? words * 8 : 0))
            return -EFAULT;
        if (a[1 + s])
            memcpy(sets[s], (void *)a[1 + s], words * 8);
    }
    struct file **files = kmalloc((u64)n * (sizeof(struct file *) + 8) + 1);
    if (!files)
        return -ENOMEM;
    u32 *wanted = (u32 *)(files + n), *got = wanted + n;
    for (u32 i = 0; i < n; i++) {
        for (int s = 0; s < 3; s++)
            if (sets[s][i / 64] >> (i % 64) & 1)
                wanted[i] |= want[s];
        if (!wanted[i])
            continue;
        if (!(files[i] = file_get((int)i))) {
            kfree(files);
            return -EBADF;
        }
    }
    for (u32 i = 0; i < n; i++)
        if (files[i])
            files[i]->refs++;
    long ret = poll_files(files, wanted, got, n, a[4], NULL);
    for (u32 i = 0; i < n; i++) {
        for (int s = 0; s < 3; s++) {
            u64 bit = 1ull << (i % 64);
            if (!(sets[s][i / 64] & bit))
                continue;
            if (got[i] & yes[s])
                count++;
            else
                sets[s][i / 64] &= ~bit;
        }
        if (files[i])
            file_drop(files[i]);
    }
    kfree(files);
    for (int s = 0; s < 3 && ret >= 0; s++)
        if (!user_write_ok((u64)a[1 + s], a[1 + s] ? words * 8 : 0)) /* it has waited */
            ret = -EFAULT;
    for (int s = 0; s < 3 && ret >= 0; s++)
        if (a[1 + s])
            memcpy((void *)a[1 + s], sets[s], words * 8);
    return ret < 0 ? ret : (long)count;
}
long sys_pselect6(const long *a)
{
    long bad = 0, timeout = a[4] ? (long)timespec_ns((u64)a[4], &bad) : -1;
    u64 mask = 0;
    if (bad)
        return bad;
    if (a[5]) {
        if (!user_read_ok((u64)a[5], 16))
            return -EFAULT;
        mask = *(u64 *)a[5];
    }
    return masked(mask, select_inner, (long[]){a[0], a[1], a[2], a[3], timeout});
}
long sys_select(const long *a)
{
    long timeout = -1;
    if (a[4]) {
        if (!user_read_ok((u64)a[4], 16))
            return -EFAULT;
        long seconds = ((volatile long *)a[4])[0], us = ((volatile long *)a[4])[1];
        if (seconds < 0 || us < 0)
            return -EINVAL;
        timeout = seconds > 1l << 32 || us > 1l << 52 ? 1l << 62 : seconds * 1000000000 + us * 1000;
    }
    return select_inner((long[]){a[0], a[1], a[2], a[3], timeout});
}

/* ---- epoll: a list of descriptors, looked at by poll's means ---- */
struct event { u32 events; u64 data; } __attribute__((packed));
long sys_epoll_create1(const long *a) { return file_install(file_new(FILE_EPOLL, O_RDWR), 0, a[0] & O_CLOEXEC); }
long sys_epoll_create(const long *a) { (void)a; return sys_epoll_create1((long[]){0}); }

long sys_epoll_ctl(const long *a)
{
    struct file *e = file_get((int)a[0]), *f = file_get((int)a[2]);
    struct event event = {0, 0};
    u32 i = 0;
    if (!e || !f)
        return -EBADF;
    if (e->type != FILE_EPOLL || e == f)
        return -EINVAL;
    if (f->type == FILE_PACK || f->type == FILE_TMP || f->type == FILE_ENCRYPTED || f->type == FILE_DIR)
        return -EPERM;
    if (a[1] != EPOLL_CTL_DEL) {
        if (!user_read_ok((u64)a[3], sizeof event))
            return -EFAULT;
        memcpy(&event, (void *)a[3], sizeof event);
    }
    while (i < e->item_count && e->items[i].fd != (int)a[2])
        i++;
    if (i < e->item_count && !item_file(&e->items[i])) { /* closed since: no item of the file that has the number now */
        e->items[i] = e->items[--e->item_count];
        i = e->item_count;
    }
    switch (a[1]) {
    case EPOLL_CTL_ADD:
        if (i < e->item_count)
            return -EEXIST;
        if (i == e->item_room) {
            struct epoll_item *items = krealloc(e->items, e->item_room * sizeof *items, (2 * e->item_room + 8) * sizeof *items);
            if (!items)
                return -ENOMEM;
            e->items = items;
            e->item_room = 2 * e->item_room + 8;
        }
        e->items[e->item_count++] = (struct epoll_item){.fd = (int)a[2], .events = event.events, .data = event.data, .serial = f->serial, .file = f};
        break;
    case EPOLL_CTL_MOD:
        if (i == e->item_count)
            return -ENOENT;
        e->items[i].events = event.events;
        e->items[i].data = event.data;
        e->items[i].seen = 0;
        break;
    case EPOLL_CTL_DEL:
        if (i == e->item_count)
            return -ENOENT;
        e->items[i] = e->items[--e->item_count];
        break;
    default:
        return -EINVAL;
    }
    e->changes++; /* who waits looks at the list again */
    poll_wake();
    return 0;
}

bool epoll_ready(struct file *e)
{
    for (u32 i = 0; i < e->item_count; i++) {
        struct file *f = item_file(&e->items[i]);
        if (f && f->type != FILE_EPOLL) {
            u32 now = file_poll(f);
            if (now != ~0u && now & (e->items[i].events | ALWAYS))
                return true;
        }
    }
    return false;
}

/* Once through the list: events told, 0 after the timeout or when the list changed, or an error. */
static long epoll_once(struct file *e, struct event *to, u32 most, long timeout_ns)
{
    u32 n = 0;
    for (u32 i = 0; i < e->item_count;) /* closed ones leave the list */
        if (!item_file(&e->items[i]))
            e->items[i] = e->items[--e->item_count];
        else
            i++;
    u32 count = e->item_count;
    struct file **files = kmalloc((u64)count * (2 * sizeof(struct file *) + 12) + 1), **told = files + count;
    if (!files)
        return -ENOMEM;
    u32 *wanted = (u32 *)(told + count), *got = wanted + count, *number = got + count;
    for (u32 i = 0; i < count; i++) {
        struct epoll_item *item = &e->items[i];
        u32 generation = file_generation(item->file);
        if (generation != item->generation) /* used or fed since: a new edge, at worst one too many */
            item->seen = 0;
        item->generation = generation;
        number[i] = (u32)item->fd; /* a file may be in the list by two descriptors */
        wanted[i] = item->events & 0x3fff & ~item->seen;
        /* Oneshot items that fired, and edges of ends that were told: poll would report the end again and again. */
        files[i] = !item->events || item->seen & ALWAYS ? NULL : item->file;
        if (files[i])
            files[i]->refs++;
        if (item->seen) { /* who uses it wakes this thread */
            told[i] = item->file;
            told[i]->refs++;
            told[i]->edges++;
        }
    }
    long ret = poll_files(files, wanted, got, count, timeout_ns, e);
    if (ret > 0 && !user_write_ok((u64)to, most * sizeof *to)) /* it has waited */
        ret = -EFAULT;
    for (u32 i = 0; i < count && ret >= 0 && n < most; i++)
        if (got[i])
            for (u32 k = 0; k < e->item_count; k++)
                if (e->items[k].file == files[i] && (u32)e->items[k].fd == number[i] && e->items[k].events) {
                    struct event out = {got[i], e->items[k].data};
                    memcpy(to + n++, &out, sizeof out);
                    if (e->items[k].events & EPOLLET)
                        e->items[k].seen |= got[i];
                    if (e->items[k].events & EPOLLONESHOT)
                        e->items[k].events = 0;
                    break;
                }
    for (u32 i = 0; i < count; i++) {
        if (files[i])
            file_drop(files[i]);
        if (told[i]) {
            told[i]->edges--;
            file_drop(told[i]);
        }
    }
    kfree(files);
    return ret < 0 ? ret : (long)n;
}

static long epoll_inner(const long *a)
{
    struct file *e = file_get((int)a[0]);
    if (!e)
        return -EBADF;
    if (e->type != FILE_EPOLL || a[2] <= 0)
        return -EINVAL;
    u32 most = (u32)min64((u64)a[2], POLL_MOST), change;
    if (!user_write_ok((u64)a[1], most * sizeof(struct event)))
        return -EFAULT;
    u64 end = a[3] > 0 ? now_ns(1) + (u64)a[3] : 0;
    long ret, left = a[3];
    e->refs++;
    for (;;) {
        change = e->changes;
        ret = epoll_once(e, (struct event *)a[1], most, left);
        if (ret || !left || !epoll_changed(e, change))
            break;
        if (left > 0) {
            u64 now = now_ns(1);
            left = now >= end ? 0 : (long)(end - now);
        }
    }
    file_drop(e);
    return ret;
}
long sys_epoll_wait(const long *a)
{
    return epoll_inner((long[]){a[0], a[1], (int)a[2], (int)a[3] < 0 ? -1 : (long)(int)a[3] * 1000000});
}
long sys_epoll_pwait(const long *a)
{
    return masked((u64)a[4], epoll_inner, (long[]){a[0], a[1], (int)a[2], (int)a[3] < 0 ? -1 : (long)(int)a[3] * 1000000});
}
