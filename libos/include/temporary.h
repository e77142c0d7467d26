/*
 * Temporary mounts: a tree in the enclave's memory, gone with it. Names and files are apart (hard links); data are
 * extents of whole pages, holes between them are zero. While a file is mapped MAP_SHARED the mapping's pages are the
 * file's own: what either side writes the other sees. All of it is under g_lock.
 */
#ifndef STRONGROOM_TEMPORARY_H
#define STRONGROOM_TEMPORARY_H
#include "libos.h"

struct extent { u64 at, size; u8 *data; };  /* offset in the file, both multiples of a page */
struct attribute { struct attribute *next; char *name; u8 *value; u32 size; };
struct entry { struct entry *next; struct inode *inode; char *name; };
struct inode {
    u32 mode, uid, gid;
    u32 refs, links;                        /* freed when both are 0; refs: open files and mappings */
    u64 number, size, rdev;
    u64 atime, mtime, ctime;
    struct extent *extents; u32 extent_count, extent_room;
    struct entry *entries;                  /* a directory's */
    struct inode *parent;                   /* a directory's; NULL: a mount's root, or removed */
    const struct boot_mount *mount;
    char *target;                           /* a symbolic link's */
    struct pipe *pipe;                      /* a FIFO's, while it is open */
    struct attribute *attributes;
    void *bound;                            /* a socket's: struct unix_socket that is bound here, fs/unix.c */
};

/* ---- fs/temporary.c: the tree ---- */
/* NULL when there is none; *parent then holds where it would be, *last its name (within path). Follows no link. */
struct inode *tmp_find(const char *path, bool *is_mount, struct inode **parent, const char **last);
struct inode *tmp_new(u32 mode);            /* refs 0, links 0 */
struct inode *tmp_create(struct inode *parent, const char *name, u32 mode);
bool tmp_link(struct inode *parent, const char *name, struct inode *i);
void tmp_unlink(struct inode *parent, struct inode *i, const char *name);
void tmp_drop(struct inode *i);             /* gives a reference back */
void tmp_touch(struct inode *i, bool modified);
/* mode, owner and so on of new files: the program's umask and identity */
u32 umask_of(u32 mode);
bool is_directory(const struct inode *i);

/* ---- fs/extents.c: the data ---- */
long data_read(const struct inode *i, void *to, u64 size, u64 offset);   /* within the file's size */
long data_write(struct inode *i, const void *from, u64 size, u64 offset); /* grows it; `from` NULL: only room */
long data_resize(struct inode *i, u64 size);
u64 data_pages(const struct inode *i);      /* bytes of memory behind it */
u64 data_next(const struct inode *i, u64 offset, bool hole); /* SEEK_DATA, SEEK_HOLE; ~0: none */
void data_free(struct inode *i);

/* ---- MAP_SHARED of such a file ---- */
long shared_map(struct inode *i, u64 size, u64 offset, u32 prot);        /* address or -errno */
bool shared_at(u64 address, u64 size);      /* whether such a mapping is in there */
/* Before [start, end) leaves the program's memory: pages that are a file's become the LibOS's. True: all of it stays mapped. */
bool shared_unmap(u64 start, u64 end);
long shared_move(u64 address, u64 old_size, u64 size); /* mremap that grows; 0: not a shared mapping */
#endif
