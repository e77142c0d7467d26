/* What the files of AF_UNIX share: unix.c, unix_message.c, unix_collect.c. */
#ifndef STRONGROOM_UNIX_PARTS_H
#define STRONGROOM_UNIX_PARTS_H
#include "unix.h"

enum { STREAM = 1, DATAGRAM = 2, PACKETS = 5 };

struct message {
    struct message *next;
    u64 size, taken;                 /* taken: bytes of a stream that have been read */
    struct unix_extra *extra;        /* NULL: nothing but the bytes */
    struct unix_name from;
    u32 pid, uid, gid;
    u8 data[];
};
struct unix_socket {
    struct unix_socket *next;        /* g_unix_sockets */
    struct file *file;               /* NULL: not accepted yet */
    int type;
    bool bound, listening, read_shut, write_shut, peer_gone, pass_credentials, reset;
    struct unix_socket *peer;        /* connected to; a datagram socket's need not be connected back */
    struct message *first, **last;
    u64 queued; u32 count, generation;
    struct unix_socket *pending, *next_pending; u32 pending_count, backlog;
    struct unix_name name;
    struct inode *inode;
    u64 wait_ns[2];                  /* SO_RCVTIMEO, SO_SNDTIMEO; UNIX_FOREVER */
    struct unix_socket *next_todo; u32 in_flight; bool reached; /* unix_collect's */
};
extern struct unix_socket *g_unix_sockets;
extern u32 g_unix_in_flight;         /* references to sockets in messages */

long unix_find(const struct unix_name *name, int type, struct unix_socket **found);
void unix_message_free(struct message *m);
void unix_collect(void);
/* Until something changes; -EAGAIN when the socket's time is over. *end: 0 before the first wait of a call. */
enum unix_way { RECEIVING, SENDING };
long unix_wait(const struct unix_socket *s, enum unix_way way, u64 *end);
#endif
