/* What the files of encrypted files share. All of it under g_lock, kept through every OCALL. */
#ifndef STRONGROOM_ENCRYPTED_FILE_H
#define STRONGROOM_ENCRYPTED_FILE_H
#include "encrypted.h"
#include "libos.h"

#define ENC_SLOTS 8 /* chunks in clear, for each open file */
enum enc_where { ENC_OLD, ENC_STAGED, ENC_HOLE };

/* An encrypted file in use, however many descriptors it has. */
struct enc_file {
    struct enc_file *next;
    const struct boot_mount *mount;
    char *path;            /* absolute, inside: bound into the root */
    u32 refs;
    bool gone, dirty;      /* unlinked; differs from what is on the host */
    bool synced, named;    /* the host's version, and its name in the folder, outlast a power cut: what fsync owes */
    int old, stage;        /* host descriptors: the version on the host, the next one; -1 */
    char stage_name[24];
    u64 size, mtime_ns;
    struct enc_header head; /* of the version on the host; of a file that has none: size 0 */
    struct enc_keys keys, stage_keys;
    struct enc_header stage_head;
    struct enc_tag *tag;
    u8 *where;             /* enum enc_where of each chunk */
    u64 room;              /* of both, in chunks */
    struct { u64 chunk; u8 *data; bool used, dirty; u32 time; } slot[ENC_SLOTS];
};

/* encrypted_keys.c: -ENOKEY where the owner has not released the key, -EACCES where it cannot be had. */
long enc_key_of(const struct boot_mount *m, const struct enc_header *h, const char *path, struct enc_keys *keys);
long enc_key_new(const struct boot_mount *m, struct enc_header *h, struct enc_keys *keys); /* fills h's kind, request, file_id */
bool enc_locked(const struct boot_mount *m);
bool enc_key_current(const struct enc_header *h); /* sealed at the versions of now */

/* encrypted_host.c: paths inside; answers checked, interrupted calls repeated. */
#define ENC_STAGE ".sr-stage-"
bool enc_name_ok(const char *rest);
long enc_host_open(const struct boot_mount *m, const char *path, int flags, u32 mode);
long enc_host_type(int fd, u64 *size); /* S_IF* */
long enc_host_stat(const struct boot_mount *m, const char *path, struct stat_k *st);
long enc_host_path_call(long nr, const struct boot_mount *m, const char *path, long arg);
long enc_host_rename(const struct boot_mount *m, const char *from, const char *to);
long enc_host_read(int fd, void *to, u64 size, u64 at);          /* all of it, or an error */
long enc_host_write(int fd, const void *from, u64 size, u64 at); /* the same */
long enc_host_copy(int from, int to, u64 at, u64 size);
long enc_stage_open(struct enc_file *e);
void enc_stage_drop(struct enc_file *e);
void enc_gone(struct enc_file *e);
long enc_stage_publish(struct enc_file *e, bool durable);
long enc_durable(struct enc_file *e);
void enc_sweep(const struct boot_mount *m, const char *directory);

/* encrypted_seen.c: within one run no older version of a file is taken. enc_forget: it was removed. */
bool enc_seen_ok(const char *path, const struct enc_header *h);
void enc_seen(const char *path, const struct enc_header *h);
u64 enc_seen_generation(const char *path);
void enc_forget(const char *path);

/* encrypted_file.c */
struct enc_file *enc_find(const char *path);
long enc_load(const struct boot_mount *m, const char *path, struct enc_file **e); /* takes a reference */
long enc_create(const struct boot_mount *m, const char *path, struct enc_file **e);
long enc_head(const struct boot_mount *m, const char *path, int fd, struct enc_header *h, struct enc_keys *keys);
long enc_commit(struct enc_file *e, bool durable);
long enc_table_load(struct enc_file *e);
long enc_refused(const char *path, const char *why);
#endif
