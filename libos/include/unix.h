/*
 * AF_UNIX inside the enclave: streams, datagrams and packets between its own threads, by name or in pairs, with
 * descriptors and credentials. Nothing of it reaches the host. Under g_lock.
 */
#ifndef STRONGROOM_UNIX_H
#define STRONGROOM_UNIX_H
#include "libos.h"

#define UNIX_PATH 108u
#define UNIX_FILES 253u              /* SCM_MAX_FD */
struct unix_name { uint16_t family; char path[UNIX_PATH + 2]; u32 size; }; /* size 2: none; path[0] 0: abstract */

/* One message's parts besides its bytes. files: references that belong to whoever holds the struct. */
struct unix_extra {
    struct file *files[UNIX_FILES]; u32 file_count;
    u32 pid, uid, gid; bool credentials;
    struct unix_name from;
    u32 flags;                       /* MSG_TRUNC */
};

struct file *unix_new(int type, u32 flags);
long unix_pair(int type, u32 flags, struct file **one, struct file **two);
long unix_bind(struct file *f, const struct unix_name *name);
long unix_listen(struct file *f, long backlog);
long unix_connect(struct file *f, const struct unix_name *name);
long unix_accept(struct file *f, u32 flags, struct file **file);
long unix_shutdown(struct file *f, long how);
/* extra and to may be NULL; takes extra's files over when it succeeds. */
long unix_send(struct file *f, const void *from, u64 size, u32 flags, struct unix_extra *extra, const struct unix_name *to);
long unix_receive(struct file *f, void *to, u64 size, u32 flags, struct unix_extra *extra);
void unix_name_of(struct file *f, struct unix_name *to);
bool unix_peer_name(struct file *f, struct unix_name *to); /* false: not connected */
int unix_type(struct file *f);
bool unix_listening(struct file *f);
u64 unix_waiting(struct file *f);    /* FIONREAD */
bool *unix_pass_credentials(struct file *f);
#define UNIX_FOREVER (~0ull)
u64 *unix_timeout(struct file *f, bool sending); /* ns a call waits at most; 0: not at all */
u32 unix_error(struct file *f);      /* SO_ERROR: told once */
#endif
