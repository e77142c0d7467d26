/*
 * Inside of the LibOS: what its files share. Freestanding, no vector registers (the program's stay live in
 * them during a system call), no stack protector, no TLS; GS base is struct thread.
 *
 * Locks: g_lock, one for all, held by every system call handler and given up around whatever may wait (park, host_wait,
 * host_slow); what of the program's memory is used afterwards is checked again (user_hold). The handler at CSSA 1 takes no
 * lock: it sets signal bits and rewrites the saved frame.
 */
#ifndef STRONGROOM_LIBOS_H
#define STRONGROOM_LIBOS_H
#include <linux/errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot.h"
#include "ocall.h"
#include "pack.h"
#include "sgx.h"

struct file;
#define PAGE 4096ull
#define EXCEPTION_STACK 0x1c000 /* below the stack's top; entry.S */
#define ERESTARTSYS 512
typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

static inline u64 page_down(u64 a) { return a & ~(PAGE - 1); }
static inline u64 page_up(u64 a) { return (a + PAGE - 1) & ~(PAGE - 1); }
static inline u64 min64(u64 a, u64 b) { return a < b ? a : b; }

/* Registers of the program, at stack top - 160 while the LibOS serves it; order is entry.S's. */
struct regs {
    u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, rflags, rsp;
};
_Static_assert(sizeof(struct regs) == 152, "regs");

struct fault { int signal, code, vector; u32 error; u64 address; };
struct sigaltstack_k { u64 sp; int flags; int pad; u64 size; };

enum thread_state { THREAD_FREE = 0, THREAD_STARTING = 1, THREAD_RUNNING = 2 };

/* The thread page: the first 40 bytes are measured (builder), offsets up to 152 are known to entry.S. */
struct thread {
    u64 self, stack_top, tcs, ssa;
    u32 number, ssa_frames;
    u64 user_rsp, exit_rip;              /* 40, 48 */
    u64 ocall_rsp;                       /* 56: not 0 while an OCALL is out */
    u64 fs_base;                         /* 64: the program's */
    u64 host_rsp, host_rbp, host_return; /* 72, 80, 88 */
    u64 block;                           /* 96: struct ocall_block, outside */
    u64 event_rsp, event_rbp, event_return; /* 104, 112, 120: of the entry at CSSA 1 */
    u32 signal_work;                     /* 128: look for signals before going back to the program */
    u32 state;                           /* 132 */
    u64 reserved[2];
    struct regs start;                   /* of a new thread */
    u64 clear_tid, robust_list;
    int tid;                             /* never given twice, as long as numbers last */
    u64 mask, pending, saved_mask;
    bool restore_mask, has_fault;
    struct fault fault;
    struct sigaltstack_k altstack;
    /* waiting */
    u64 futex;                           /* address waited for, 0: not waiting */
    u32 futex_bits;
    bool woken, polling;
    struct thread *next_waiter;
    u64 held, held_size; bool held_write; /* user_hold */
    char name[16];
    int pending_code[65], pending_value[65];
};
_Static_assert(offsetof(struct thread, ocall_rsp) == 56 && offsetof(struct thread, block) == 96 &&
                   offsetof(struct thread, event_rsp) == 104 && offsetof(struct thread, signal_work) == 128 &&
                   offsetof(struct thread, state) == 132, "thread");
_Static_assert(sizeof(struct thread) <= 4096, "struct thread fits its page");

static inline struct thread *self(void)
{
    struct thread *t;
    __asm__("mov %%gs:0, %0" : "=r"(t));
    return t;
}

/* ---- entry/ ---- */
extern char libos_text_begin[], libos_text_end[], libos_exit_begin[], libos_exit_end[];
void libos_syscall_entry(void);
void libos_resume_entry(void);
void libos_ocall_exit(void);                                  /* entry.S: EEXIT, and back by ECALL_RETURN */
__attribute__((noreturn)) void libos_leave(u32 *state);       /* entry.S: state = 0, EEXIT for good */
__attribute__((noreturn)) void libos_go(struct regs *regs);   /* entry.S: into the program */
u64 libos_enclu(u64 leaf, const void *rbx, const void *rcx, void *rdx);

/* ---- entry/ocall.c ---- */
#define DATA_MAX OCALL_DATA
struct ocall_block *ocall_block(void);
u8 *ocall_data(void);
bool outside(u64 address, u64 size); /* wholly outside ELRANGE, no wrap */
long ocall(u64 op, u64 number, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f);
#define host(nr, ...) HOST_FILL(nr, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define host_zero(...) bounded(host(__VA_ARGS__), 0) /* of calls that answer 0 or an error */
#define HOST_FILL(nr, a, b, c, d, e, f, ...) \
    host_syscall(nr, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), (u64)(f))
/* Answers are in [-EHWPOISON, limit] or become -EIO: a host may answer anything. */
long host_syscall(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f);
/* Gives up g_lock meanwhile. -EFAULT, too, where memory that is held for writing has gone; who reads on asks user_held_ok. */
long host_wait(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f, u64 limit);
/* Gives up g_lock, too; no signal ends it. */
long host_slow(u64 nr, u64 a);
long bounded(long ret, u64 limit);
/* Gives up g_lock; >= 0, -EINTR when a signal is due, -EFAULT when held memory has gone; count pollfds in data. */
long park(long timeout_ns, u32 count);
void unpark(struct thread *t);
void kick(struct thread *t);
void take_host_signals(struct thread *t);
__attribute__((noreturn)) void die(int status);
__attribute__((noreturn)) void libos_bug(const char *what);
__attribute__((noreturn)) void cannot_start(const char *what); /* status 125: the program has not run */
u64 host_data_address(void);

/* ---- lock ---- */
void lock(void);
void unlock(void);

/* ---- lib/ ---- */
void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
size_t strlen(const char *s);
size_t strnlen(const char *s, size_t most);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);
/* %s %d %u %x %lx %ld %lu %c; bytes written without the NUL, never more than size - 1. */
int format(char *to, size_t size, const char *f, ...) __attribute__((format(printf, 3, 4)));
int vformat(char *to, size_t size, const char *f, __builtin_va_list list);
void say(const char *f, ...) __attribute__((format(printf, 1, 2))); /* a line to the host's standard error */
void sha256(const void *data, size_t size, u8 digest[32]);
bool random_bytes(void *to, size_t size);

/* ---- mm/ ---- */
void mm_start(void);
void *kmalloc(size_t size); /* zeroed; NULL when there is no memory */
void kfree(void *p);
void *krealloc(void *p, size_t old_size, size_t size);
u64 kpages(u64 size);       /* whole pages, not zeroed; 0 when there are none */
void kpages_free(u64 address, u64 size);
u64 mm_map(u64 size, u32 prot);           /* the program's, not zeroed; 0: no room */
void mm_to_kernel(u64 start, u64 end);    /* the program's pages become the LibOS's */
bool user_read_ok(u64 address, u64 size);
bool user_write_ok(u64 address, u64 size);
/*
 * The program's memory that this system call still uses when it has waited: checked now, and again after every wait, since
 * another thread may have unmapped it and the LibOS taken it for itself. One range at a time, until the call ends; false: EFAULT.
 */
bool user_hold(u64 address, u64 size, bool write);
bool user_held_ok(void);
void user_release(void);
long user_string(u64 address, char *to, size_t size); /* length, -EFAULT, -ENAMETOOLONG */
u64 mm_stack_base(void);
u64 mm_stack_size(void);
u64 mm_used(void);
void mm_say_lacking(void);      /* once, where room was lacking */
void mm_zero(u64 at, u64 size); /* of the heap; what never came stays away */
/* mm/edmm.c */
u64 edmm_start(u64 low, u64 high);
enum edmm_answer { EDMM_NOT_MINE, EDMM_AGAIN, EDMM_LOST };
enum edmm_answer edmm_fault(u64 address, u32 error);
void edmm_used(u64 at, u64 end);
void edmm_unused(u64 from, u64 to);
bool edmm_may_execute(void);              /* late_code on SGX2: the heap's pages can become executable, too */
long edmm_execute(u64 at, u64 size);
int mm_list(char *to, size_t size);
/* mm/late.c: code made at run time */
void late_start(void);
bool late_there(void);
bool late_at(u64 address);
bool late_used(u64 address, u64 size);
long late_map(u64 hint, u64 size, u32 prot, u32 flags, struct file *f, u64 offset); /* -EACCES: late_refuse says why */
void late_unmap(u64 at, u64 size);
long late_protect(u64 at, u64 size, u32 prot);
void late_zero(u64 at, u64 size);
int late_list(char *to, size_t size);
bool late_good(const struct file *f, u32 flags); /* whether what is mapped so may be code */
long late_full(void);
long late_refuse(const struct file *f, bool shared);
void objects_start(void);
const struct boot_object *object_of(const char *path);
const struct boot_object *object_at(u64 address);
u64 object_low(const struct boot_object *o);
bool object_holds(const struct boot_object *o, u64 address, u64 size, bool write);
long object_load(const struct boot_object *o); /* all of it, from the pack */
long object_map(const struct boot_object *o, u64 length);
long object_map_fixed(const struct boot_object *o, u64 address, u64 length, int prot, struct file *file, u64 offset);
long object_protect(const struct boot_object *o, u64 address, u64 length, int prot);
int objects_list(char *to, size_t size);

/* ---- fs/ ---- */
struct inode;
enum file_type {
    FILE_PACK, FILE_DIR, FILE_TMP, FILE_HOST, FILE_PIPE, FILE_EVENT, FILE_EPOLL, FILE_DEVICE, FILE_BUFFER, FILE_TIMER,
    FILE_UNIX, FILE_PROCESS, FILE_TERMINAL, FILE_ENCRYPTED,
};
enum device { DEV_NULL = 1, DEV_ZERO, DEV_RANDOM, DEV_FULL };
struct pipe {
    u8 *data; u32 size, start, used, generation; int readers, writers;
    u32 promised;                       /* room that a splice under way will fill, or may have to put back into */
    bool had_writer;                    /* a FIFO that nobody has opened for writing yet does not hang up */
    struct inode *inode;                /* the FIFO's */
};
struct epoll_item { int fd; u32 events; u64 data, serial; struct file *file; u32 seen, generation; }; /* seen: told, of EPOLLET */
struct file {
    enum file_type type;
    int refs;
    u32 flags;                          /* O_* */
    u64 serial;                         /* of no other file, before or after */
    u32 generation;                     /* goes on with each use and each arrival: what EPOLLET calls an edge */
    u32 edges;                          /* epoll_waits that wait for its next edge (host's files: the host knows of none) */
    u64 offset;
    const struct pack_entry *entry;     /* FILE_PACK */
    const struct boot_object *object;
    struct inode *inode;                /* FILE_TMP, FILE_DIR of a temporary mount */
    struct enc_file *encrypted;         /* FILE_ENCRYPTED */
    char *path;                         /* absolute, inside */
    int host_fd;                        /* FILE_HOST */
    bool socket, append_only;
    int socket_type;                    /* of the host: SOCK_STREAM and so on */
    bool timed[2];                      /* it has SO_RCVTIMEO, SO_SNDTIMEO: a signal ends a call for good (signal(7)) */
    struct pipe *in, *out;              /* FILE_PIPE: a FIFO opened O_RDWR has both */
    struct unix_socket *unix_socket;    /* FILE_UNIX */
    u32 terminal; bool terminal_master; /* FILE_TERMINAL: its number, which end */
    u64 count; bool semaphore;          /* FILE_EVENT */
    struct epoll_item *items; u32 item_count, item_room, changes; /* FILE_EPOLL; changes: by epoll_ctl */
    enum device device;
    u8 *buffer; u64 buffer_size, buffer_room;
    long (*commit)(struct file *f);     /* FILE_BUFFER: after a write */
    const struct boot_mount *key_mount; /* FILE_BUFFER of /dev/attestation/keys/NAME */
    u64 timer_next, timer_every; int timer_clock;
    struct name **names; u32 name_count; /* directory, at first getdents64 */
    struct file *next_ended;
};
struct name { u64 number; u8 kind; char text[]; };
#define FILES_MAX 1024
struct file *file_new(enum file_type type, u32 flags);
struct file *file_named(enum file_type type, const char *path, u32 flags); /* with a copy of the path */
void file_drop(struct file *f);
void names_forget(struct file *f);
struct file *file_get(int fd); /* borrowed, until something waits (g_lock is given up); NULL: EBADF */
int fd_number(const char *digits); /* of a name in /proc/self/fd; -1: none */
long file_install(struct file *f, int lowest, bool cloexec); /* takes the reference; fd or -EMFILE */
/* A number before the wait, so that nothing is taken that has no place then; fd_fill gives it its file, or back with the error. */
long fd_reserve(void);
long fd_fill(long fd, long error, struct file *f, bool cloexec);
long fd_close(int fd);
bool fd_cloexec(int fd, int set); /* set -1: ask */
long fd_replace(int fd, struct file *f, bool cloexec);
/* at -1: at the file's offset. They hold f while they wait; a caller that looks at f afterwards holds it, too. */
static inline long restart(const struct file *f, bool sending, long n) { return n == -EINTR && !f->timed[sending] ? -ERESTARTSYS : n; }
long file_read(struct file *f, void *to, u64 size, long at);
long file_write(struct file *f, const void *from, u64 size, long at);
u32 file_poll(struct file *f); /* POLL* ready now, of files inside; ~0u: ask the host (host_fd) */
void poll_wake(void);
u32 file_generation(const struct file *f);
void file_used(struct file *f); /* a use has ended: EPOLLET is armed again, also for who waits already */
void files_start(int quote_fd, int channel_fd);
int fd_next(int after);
long fd_fresh(long host_fd); /* a descriptor that the host gave: itself, or -EIO where it is in use here already */

struct stat_k { /* struct stat of x86-64 */
    u64 dev, ino, nlink; u32 mode, uid, gid, pad; u64 rdev; long size, blksize, blocks;
    u64 atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns; long unused[3];
};
_Static_assert(sizeof(struct stat_k) == 144, "stat");
long path_absolute(int dirfd, const char *path, char *to); /* normalised, PATH_MAX; follows no link */
#define PATH_ROOM 4096
long fs_open(const char *path, int flags, u32 mode, struct file **file);
long fs_stat(const char *path, bool follow, struct stat_k *st);
long fs_readlink(const char *path, char *to, u64 size);
long fs_follow(char *path, bool last); /* resolves links in place */
long fs_missing(const char *path); /* -ENOTDIR where something on the way is not a directory, else -ENOENT */
long file_stat(struct file *f, struct stat_k *st);
void fs_start(void);

/* fs/pipe.c */
long pipe_read(struct file *f, void *to, u64 size);
long pipe_write(struct file *f, const void *from, u64 size);
void pipe_drop(struct pipe *p, bool writer);
static inline u64 pipe_room(const struct pipe *p) { return p->size - p->used - p->promised; }
void pipe_back(struct pipe *p, const void *from, u64 size); /* what was read last, in front again; the room was promised */
long fifo_open(struct inode *i, const char *path, int flags, struct file **file);
long wait_for_change(long timeout_ns);  /* until poll_wake() or the time (-1: none) is over; 0, -ERESTARTSYS or -EFAULT; hold a reference to what is waited for */
long pair_out(struct file *one, struct file *two, long to, bool cloexec);

/* fs/unix.c: AF_UNIX, all of it inside the enclave */
struct unix_socket;
long unix_read(struct file *f, void *to, u64 size);
long unix_write(struct file *f, const void *from, u64 size);
u32 unix_poll(struct unix_socket *s);
u32 unix_generation(const struct unix_socket *s);
void unix_drop(struct unix_socket *s);

/* fs/pack.c */
void pack_start(u64 address, u64 size);
const struct pack_entry *pack_find(const char *path);
long pack_read(const struct pack_entry *e, void *to, u64 size, u64 offset); /* checked against the hashes */
const char *pack_string(u32 offset);
u32 pack_count(void);
const struct pack_entry *pack_at(u32 index);
static inline u64 pack_number(const struct pack_entry *e) { return (u64)(e - pack_at(0)) + 16; } /* st_ino */
/* Children of a directory: *index runs; name not terminated. false at the end. */
bool pack_next_child(const char *dir, u32 *index, const struct pack_entry **e, const char **name, u32 *name_len);

/* fs/temporary.c, fs/extents.c: include/temporary.h */
const struct boot_mount *mount_of(const char *path, const char **rest);

/* fs/nodes.c: /dev, /proc, /sys: generated files; -ENOENT when there is no such node */
const char *node_path(const char *path, char *to); /* /proc/PID as /proc/self; `to` has PATH_ROOM bytes, and may be the answer */
const char *node_link(const char *path); /* where it leads; NULL: it is no link */
long node_open(const char *path, int flags, struct file **file);
long node_stat(const char *path, struct stat_k *st);
bool node_child(const char *dir, u32 index, const char **name, u8 *kind);
long attestation_open(const char *path, int flags, struct file **file);
u64 attestation_seal_key(u32 policy, uint16_t isvsvn, const u8 cpusvn[16], const u8 keyid[32], u8 key[16]); /* 0 or SGX's error */
void attestation_versions(uint16_t *isvsvn, u8 cpusvn[16]);

/* fs/encrypted*.c: encrypted mounts. `rest` is the path below the mount. */
struct enc_file;
bool enc_mount(const struct boot_mount *m);
long enc_open(const struct boot_mount *m, const char *path, const char *rest, int flags, struct file **file);
long enc_stat(const struct boot_mount *m, const char *path, const char *rest, struct stat_k *st);
void enc_file_stat(struct enc_file *e, struct stat_k *st);
long enc_unlink(const struct boot_mount *m, const char *path, const char *rest, bool directory);
long enc_mkdir(const struct boot_mount *m, const char *path, const char *rest);
long enc_rename(const struct boot_mount *m, const struct boot_mount *n, const char *from, const char *to, bool keep);
long enc_list(const struct boot_mount *m, const char *path, struct file *f, bool (*add)(struct file *, const char *, u32, u8));
long enc_read(struct enc_file *e, void *to, u64 size, u64 offset);
long enc_write(struct enc_file *e, const void *from, u64 size, u64 offset);
long enc_resize(struct enc_file *e, u64 size);
u64 enc_size(const struct enc_file *e);
void enc_set_mtime(struct enc_file *e, u64 mtime_ns);
long enc_touch(const struct boot_mount *m, const char *path, u64 mtime_ns);
long enc_commit(struct enc_file *e, bool durable);
long enc_directory_sync(const struct boot_mount *m, const char *path);
long enc_close(struct enc_file *e);
void enc_drop(struct enc_file *e); /* gives a reference back; commit first */
long enc_commit_all(const struct boot_mount *m, bool durable); /* of one mount, or NULL: all; the first error */
bool enc_key_node(const char *name);
long enc_key_open(const char *name, int flags, struct file **file);

/* ---- sys/ ---- */
long libos_dispatch(struct regs *r);
extern const struct start_info *g_start; /* our own copy */
const struct boot_info *boot(void);
const char *boot_string(u32 offset);
struct thread *thread_at(u32 number);
u32 thread_count(void);
int tid_of(struct thread *t);
#define PID 1000
/* Who the program says it is: numbers, no right hangs on them. Real, effective, saved. */
struct identity { u32 uid[3], gid[3], groups[32], group_count, umask; };
extern struct identity g_identity;
void signals_start(void);
void signals_refresh(struct thread *t);
bool signal_due(struct thread *t);
void signal_send(struct thread *t, int number, int code, int value); /* t NULL: to the process */
void signals_deliver(struct regs *r);
long futex_wake(u64 address, int count, u32 bits);
void robust_exit(struct thread *t);
u64 now_ns(int clock); /* never runs backwards (CPU time apart) */
u64 clock_begin(void); /* CLOCK_MONOTONIC as it was first asked for: about the program's start */
/* The time stamp counter; 0 where RDTSC is illegal inside (entry.S, ecall.c). */
u64 libos_rdtsc(void);
extern char libos_rdtsc_none[];
void start_program(void);
extern bool g_trace;
struct strings_at { u64 at, size; };
extern struct strings_at g_arguments, g_variables; /* on the first stack, as the program was started */
extern u32 g_online_cpus;
#endif
