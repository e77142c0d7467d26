/* What the loader is asked: arguments, or a message to one that waits. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loader.h"

int number_of(const char *text)
{
    char *end;
    long n = text ? strtol(text, &end, 10) : -1;
    if (n < 0 || n > 1 << 20 || *end)
        fail("expected a descriptor's number, got %s", text ? text : "nothing");
    return (int)n;
}

void options_parse(struct options *o, int argc, char **argv)
{
    int i = 0;
    o->env = calloc((size_t)argc + 1, sizeof *o->env);
    if (!o->env)
        fail("no memory");
    for (; i < argc; i++) {
        const char *a = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (!strcmp(a, "--")) { i++; break; }
        if (!strcmp(a, "--fd-sgxs")) o->fd[0] = number_of(next), i++;
        else if (!strcmp(a, "--fd-sig")) o->fd[1] = number_of(next), i++;
        else if (!strcmp(a, "--fd-pack")) o->fd[2] = number_of(next), i++;
        else if (!strcmp(a, "--quote-fd")) o->quote = number_of(next), i++;
        else if (!strcmp(a, "--channel-fd")) o->channel = number_of(next), i++;
        else if (!strcmp(a, "--env") && next) o->env[o->env_count++] = next, i++;
        else if (!strcmp(a, "--trace")) o->trace = true;
        else if (!strcmp(a, "--timing")) o->timing = true;
        else if (a[0] == '-' && a[1]) fail("unknown option %s; use: strongroom-loader [options] BUILD_DIR [-- ARGS]", a);
        else if (!o->directory) o->directory = a;
        else break;
    }
    o->rest = argv + i;
    o->rest_count = argc - i;
}

/*
 * --wait-fd: all is ready but the image. Says so, and waits for one message: options and arguments, each ended by a NUL;
 * descriptors 0, 1, 2 and the image's three, then the channel's where there is one.
 */
void options_await(struct options *o, int from)
{
    union { char room[CMSG_SPACE(7 * sizeof(int))]; struct cmsghdr align; } control;
    int fd[7];
    char probe;
    (void)!write(from, "r", 1);
    ssize_t size = recv(from, &probe, 1, MSG_PEEK | MSG_TRUNC);
    if (size <= 0)
        _exit(0); /* nobody needs us */
    char *words = malloc((size_t)size + 1), **argv = calloc((size_t)size + 1, sizeof *argv);
    if (!words || !argv)
        fail("no memory");
    struct iovec part = {words, (size_t)size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    if (recvmsg(from, &message, 0) != size || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        fail("the request is damaged");
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    size_t count = c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS ? (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;
    if (count != 6 && count != 7)
        fail("the request is damaged");
    memcpy(fd, CMSG_DATA(c), count * sizeof(int));
    for (int n = 0; n < 3; n++) {
        if (dup2(fd[n], n) < 0)
            fail("%s", strerror(errno));
        close(fd[n]);
        o->fd[n] = fd[n + 3];
    }
    o->channel = count == 7 ? fd[6] : -1;
    close(from);
    words[size] = 0;
    int argc = 0;
    for (char *at = words; at < words + size; at += strlen(at) + 1)
        argv[argc++] = at;
    options_parse(o, argc, argv);
}
