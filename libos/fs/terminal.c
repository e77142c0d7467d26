/*
 * Pseudo-terminals: two queues and a line discipline (termios(3)): canonical lines, echo, erase, signals' characters, CR and
 * NL. No job control: the program is the only one of its session.
 */
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <linux/fcntl.h>
#include <linux/poll.h>
#include <linux/stat.h>

#include "terminal.h"
#include "../sys/sys.h"

#define TERMINALS 16u
#define QUEUE 8192u
#define LINE 1024u
struct queue { u8 data[QUEUE]; u32 start, used; };
struct terminal {
    bool used;
    u32 masters, slaves, generation;
    bool had_slave, locked;
    struct termios settings;
    struct { uint16_t rows, columns, x, y; } window;
    struct queue input, output;  /* to the slave's reader; to the master's */
    u8 line[LINE]; u32 line_size; /* of canonical input, until it ends */
    u32 lines, ends;             /* complete lines in `input`; ends of file among them */
};
static struct terminal *g_terminals[TERMINALS];

static struct terminal *of(const struct file *f) { return g_terminals[f->terminal]; }

static bool queue_put(struct queue *q, u8 byte)
{
    if (q->used == QUEUE)
        return false;
    q->data[(q->start + q->used++) % QUEUE] = byte;
    return true;
}
static u8 queue_take(struct queue *q)
{
    u8 byte = q->data[q->start];
    q->start = (q->start + 1) % QUEUE;
    q->used--;
    return byte;
}

static bool output(struct terminal *t, u8 byte)
{
    if (byte == '\n' && (t->settings.c_oflag & (OPOST | ONLCR)) == (OPOST | ONLCR)) {
        if (QUEUE - t->output.used < 2)
            return false;
        queue_put(&t->output, '\r');
    }
    return queue_put(&t->output, byte);
}

static void line_ends(struct terminal *t)
{
    for (u32 i = 0; i < t->line_size; i++)
        queue_put(&t->input, t->line[i]);
    t->lines++;
    t->line_size = 0;
}

/* One byte typed at the master. False: no room. */
static bool typed(struct terminal *t, u8 byte)
{
    const struct termios *s = &t->settings;
    if (byte == '\r' && s->c_iflag & IGNCR)
        return true;
    if (byte == '\r' && s->c_iflag & ICRNL)
        byte = '\n';
    else if (byte == '\n' && s->c_iflag & INLCR)
        byte = '\r';
    if (s->c_lflag & ISIG)
        for (int i = 0; i < 2; i++)
            if (byte && byte == s->c_cc[i ? VQUIT : VINTR]) {
                signal_send(NULL, i ? 3 : 2, 0x80, 0);
                t->line_size = 0;
                return true;
            }
    if (!(s->c_lflag & ICANON)) {
        if (!queue_put(&t->input, byte))
            return false;
    } else if (byte && byte == s->c_cc[VERASE]) {
        if (t->line_size) {
            t->line_size--;
            if (s->c_lflag & ECHO)
                output(t, '\b'), output(t, ' '), output(t, '\b');
        }
        return true;
    } else if (byte && byte == s->c_cc[VKILL]) {
        t->line_size = 0;
        return true;
    } else {
        bool end = byte && byte == s->c_cc[VEOF];
        if (QUEUE - t->input.used < t->line_size + 1 || (t->line_size == LINE - 1 && byte != '\n'))
            return false;
        if (end && !t->line_size) {
            t->ends++;
            return true;
        }
        if (!end)
            t->line[t->line_size++] = byte;
        if (end || byte == '\n' || (byte && byte == s->c_cc[VEOL]))
            line_ends(t);
        if (end)
            return true;
    }
    if (s->c_lflag & ECHO || (s->c_lflag & ECHONL && byte == '\n'))
        output(t, byte);
    return true;
}

static bool readable_now(const struct terminal *t, bool master)
{
    if (master)
        return t->output.used;
    return t->settings.c_lflag & ICANON ? t->lines || t->ends : t->input.used;
}

long terminal_read(struct file *f, void *to, u64 size)
{
    struct terminal *t = of(f);
    bool master = f->terminal_master;
    u64 done = 0;
    if (!size)
        return 0;
    while (!readable_now(t, master)) {
        if (master ? t->had_slave && !t->slaves : !t->masters)
            return master ? -EIO : 0;
        if (f->flags & O_NONBLOCK)
            return -EAGAIN;
        long bad = wait_for_change(-1);
        if (bad)
            return bad;
    }
    if (master)
        while (done < size && t->output.used)
            ((u8 *)to)[done++] = queue_take(&t->output);
    else if (t->settings.c_lflag & ICANON) {
        if (!t->lines) {
            t->ends--;
            return 0;
        }
        while (done < size && t->input.used) {
            u8 byte = ((u8 *)to)[done++] = queue_take(&t->input);
            if (byte == '\n' || (byte && byte == t->settings.c_cc[VEOL]) || !t->input.used) {
                t->lines--;
                break;
            }
        }
    } else
        while (done < size && t->input.used)
            ((u8 *)to)[done++] = queue_take(&t->input);
    t->generation++;
    poll_wake();
    return (long)done;
}

long terminal_write(struct file *f, const void *from, u64 size)
{
    struct terminal *t = of(f);
    bool master = f->terminal_master;
    u64 done = 0;
    while (done < size) {
        if (!master && !t->masters)
            return done ? (long)done : -EIO;
        if (master ? typed(t, ((const u8 *)from)[done]) : t->settings.c_oflag & OPOST ? output(t, ((const u8 *)from)[done])
                                                                                   : queue_put(&t->output, ((const u8 *)from)[done])) {
            done++;
            continue;
        }
        poll_wake();
        if (f->flags & O_NONBLOCK)
            return done ? (long)done : -EAGAIN;
        long bad = wait_for_change(-1);
        if (bad)
            return done ? (long)done : bad;
    }
    t->generation++;
    poll_wake();
    return (long)done;
}

u32 terminal_poll(struct file *f)
{
    const struct terminal *t = of(f);
    bool master = f->terminal_master, alone = master ? t->had_slave && !t->slaves : !t->masters;
    u32 now = readable_now(t, master) ? POLLIN | POLLRDNORM : 0;
    if (alone)
        return now | POLLHUP | (master ? 0 : POLLIN);
    return now | (QUEUE - (master ? t->input.used + t->line_size : t->output.used) > 256 ? POLLOUT | POLLWRNORM : 0);
}
u32 terminal_generation(const struct file *f) { return of(f)->generation; }

static const struct termios g_sane = {
    .c_iflag = ICRNL | IXON, .c_oflag = OPOST | ONLCR, .c_cflag = B38400 | CS8 | CREAD,
    .c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
    .c_cc = {3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22},
};

static long open_end(u32 number, bool master, int flags, struct file **file)
{
    struct terminal *t = g_terminals[number];
    struct file *f = file_new(FILE_TERMINAL, (u32)flags);
    if (!f || !(f->path = kmalloc(24))) {
        kfree(f);
        return -ENOMEM;
    }
    format(f->path, 24, master ? "/dev/ptmx" : "/dev/pts/%u", number);
    f->terminal = number;
    f->terminal_master = master;
    if (master)
        t->masters++;
    else
        t->slaves++, t->had_slave = true;
    t->generation++;
    poll_wake();
    *file = f;
    return 0;
}

static long number_in(const char *path)
{
    if (strncmp(path, "/dev/pts/", 9) || !path[9] || path[10 + (path[10] != 0)])
        return -ENOENT;
    u32 number = 0;
    for (const char *p = path + 9; *p; p++) {
        if (*p < '0' || *p > '9')
            return -ENOENT;
        number = number * 10 + (u32)(*p - '0');
    }
    return number < TERMINALS && g_terminals[number] && g_terminals[number]->masters ? (long)number : -ENOENT;
}

long terminal_open(const char *path, int flags, struct file **file)
{
    if (!strcmp(path, "/dev/ptmx")) {
        u32 i = 0;
        while (i < TERMINALS && g_terminals[i])
            i++;
        if (i == TERMINALS)
            return -ENOSPC;
        if (!(g_terminals[i] = kmalloc(sizeof **g_terminals)))
            return -ENOMEM;
        g_terminals[i]->settings = g_sane;
        g_terminals[i]->locked = true;
        long bad = open_end(i, true, flags, file);
        if (bad) {
            kfree(g_terminals[i]);
            g_terminals[i] = NULL;
        }
        return bad;
    }
    long number = number_in(path);
    if (number < 0)
        return number;
    return g_terminals[number]->locked ? -EIO : open_end((u32)number, false, flags, file);
}

void terminal_drop(struct file *f)
{
    struct terminal *t = of(f);
    if (f->terminal_master)
        t->masters--;
    else
        t->slaves--;
    t->generation++;
    if (!t->masters && !t->slaves) {
        kfree(t);
        g_terminals[f->terminal] = NULL;
    }
    poll_wake();
}

static void describe(struct stat_k *st, bool master, u32 number)
{
    memset(st, 0, sizeof *st);
    st->dev = master ? 5 : 24;
    st->ino = master ? 0x5000 : number + 3;
    st->nlink = 1;
    st->mode = S_IFCHR | (master ? 0666 : 0620);
    st->rdev = master ? 0x502 : 0x8800 + number;
    st->blksize = 1024;
}
long terminal_stat(const char *path, struct stat_k *st)
{
    if (!strcmp(path, "/dev/ptmx")) {
        describe(st, true, 0);
        return 0;
    }
    long number = number_in(path);
    if (number >= 0)
        describe(st, false, (u32)number);
    return number < 0 ? number : 0;
}
void terminal_file_stat(struct file *f, struct stat_k *st) { describe(st, f->terminal_master, f->terminal); }

static long give(u64 to, const void *what, u64 size)
{
    if (!user_write_ok(to, size))
        return -EFAULT;
    memcpy((void *)to, what, size);
    return 0;
}
static long take(u64 from, void *to, u64 size)
{
    if (!user_read_ok(from, size))
        return -EFAULT;
    memcpy(to, (const void *)from, size);
    return 0;
}

long terminal_ioctl(struct file *f, u32 request, u64 argument)
{
    struct terminal *t = of(f);
    int value = 0;
    long bad;
    switch (request) {
    case TIOCGPTN: return f->terminal_master ? give(argument, &f->terminal, 4) : -ENOTTY;
    case TIOCSPTLCK:
        if (!f->terminal_master)
            return -ENOTTY;
        if ((bad = take(argument, &value, 4)))
            return bad;
        t->locked = value != 0;
        return 0;
    case TIOCGPTLCK:
        value = t->locked;
        return give(argument, &value, 4);
    case TIOCGPTPEER: {
        struct file *slave;
        if (!f->terminal_master)
            return -EIO;
        bad = open_end(f->terminal, false, (int)argument, &slave);
        return bad ? bad : file_install(slave, 0, argument & O_CLOEXEC);
    }
    case TCGETS: return give(argument, &t->settings, sizeof t->settings);
    case TCSETS: case TCSETSW: case TCSETSF: {
        struct termios new;
        if ((bad = take(argument, &new, sizeof new)))
            return bad;
        if (request == TCSETSF)
            t->input.used = t->line_size = t->lines = t->ends = 0;
        if (t->settings.c_lflag & ICANON && !(new.c_lflag & ICANON) && t->line_size)
            line_ends(t); /* what stands in the line is there to read */
        if (new.c_lflag & ICANON && !(t->settings.c_lflag & ICANON))
            t->lines = t->input.used != 0;
        t->settings = new;
        poll_wake();
        return 0;
    }
    case TIOCGWINSZ: return give(argument, &t->window, sizeof t->window);
    case TIOCSWINSZ: return take(argument, &t->window, sizeof t->window);
    case TIOCGPGRP: case TIOCGSID:
        value = PID;
        return give(argument, &value, 4);
    case TIOCSPGRP: case TIOCSCTTY: case TIOCNOTTY: case TCSBRK: case TCXONC: return 0;
    case TCFLSH:
        if (argument != TCOFLUSH)
            t->input.used = t->line_size = t->lines = t->ends = 0;
        if (argument != TCIFLUSH)
            t->output.used = 0;
        poll_wake();
        return 0;
    case FIONREAD:
        value = (int)(f->terminal_master ? t->output.used : t->input.used);
        return give(argument, &value, 4);
    case TIOCOUTQ:
        value = (int)(f->terminal_master ? t->input.used : t->output.used);
        return give(argument, &value, 4);
    }
    return -ENOTTY;
}
