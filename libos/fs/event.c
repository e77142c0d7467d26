/* eventfd: a counter that can be waited for. */
#include <linux/fcntl.h>
#include <linux/poll.h>

#include "libos.h"
#include "../sys/sys.h"

#define MOST (~0ull - 1)

long sys_eventfd2(const long *a)
{
    if (a[1] & ~(long)(1 /* EFD_SEMAPHORE */ | O_CLOEXEC | O_NONBLOCK))
        return -EINVAL;
    struct file *f = file_new(FILE_EVENT, O_RDWR | ((u32)a[1] & O_NONBLOCK));
    if (!f)
        return -ENOMEM;
    f->count = (u32)a[0];
    f->semaphore = a[1] & 1;
    return file_install(f, 0, a[1] & O_CLOEXEC);
}
long sys_eventfd(const long *a) { return sys_eventfd2((long[]){a[0], 0}); }

long event_read(struct file *f, void *to, u64 size)
{
    if (size < 8)
        return -EINVAL;
    while (!f->count) {
        if (f->flags & O_NONBLOCK)
            return -EAGAIN;
        long bad = wait_for_change(-1);
        if (bad)
            return bad;
    }
    u64 n = f->semaphore ? 1 : f->count;
    f->count -= n;
    memcpy(to, &n, 8);
    poll_wake();
    return 8;
}

long event_write(struct file *f, const void *from, u64 size)
{
    u64 n;
    if (size < 8)
        return -EINVAL;
    memcpy(&n, from, 8);
    if (n == ~0ull)
        return -EINVAL;
    while (n > MOST - f->count) {
        if (f->flags & O_NONBLOCK)
            return -EAGAIN;
        long bad = wait_for_change(-1);
        if (bad)
            return bad;
    }
    f->count += n;
    f->generation++;
    poll_wake();
    return 8;
}

u32 event_poll(struct file *f) { return (f->count ? POLLIN | POLLRDNORM : 0) | (f->count < MOST ? POLLOUT | POLLWRNORM : 0); }
