/*
 * Inside of the machine library: what its files share. The library is freestanding (no libc, no TLS,
 * no stack protector): its handlers start with the enclave's FS base.
 *
 * Locks, in this order: enclave ioctl flag (one ioctl at a time, as in Linux) > g.memory_lock (enclave
 * table, mappings, thread slots) > g.rpc_lock, the queue of measuring.c. All code runs with every asynchronous signal blocked, so
 * a lock's holder is never interrupted by a handler of the same thread.
 */
#ifndef STRONGROOM_LIBRARY_H
#define STRONGROOM_LIBRARY_H

#include <linux/types.h>
#include <linux/signal.h>
#include <asm/sgx.h>
#include <asm/sigcontext.h>
#include <asm/stat.h>
#include <asm/ucontext.h>
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/memfd.h>
#include <linux/errno.h>
#include <linux/mman.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "sgx_arch.h"
#include "wire.h"

#pragma GCC visibility push(hidden) /* extern too: nothing goes through a GOT */

typedef struct ucontext ucontext_kernel;

/* ---- freestanding helpers (device/support.c, processor/entry.S) ---- */
static inline long sys6(long n, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long ret;
    __asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}
#define sys(n, ...) SYS_PICK(__VA_ARGS__, 0, 0, 0, 0, 0, 0)(n, __VA_ARGS__)
#define SYS_PICK(a, b, c, d, e, f, ...) SYS_FILL
#define SYS_FILL(n, ...) SYS_SIX(n, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define SYS_SIX(n, a, b, c, d, e, f, ...) \
    sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
/* Copies that survive a fault on either side; 0, or -EFAULT. */
long copy_host(void *to, const void *from, size_t size);
/* 1 for a page of zeros, 0, or -EFAULT. Clobbers vector registers: for handlers, whose caller's are saved. */
long zero_host(const void *page);
void lock(_Atomic uint32_t *word);
void unlock(_Atomic uint32_t *word);
/* One line to descriptor 2, then exit_group(125). For the library's own fatal errors only. */
__attribute__((noreturn)) void fatal(const char *what);
void note(const char *what); /* the line alone */
/* Calls fn(argument) on another stack (processor/entry.S). */
long call_on_stack(uint64_t stack_top, long (*fn)(void *), void *argument);
/* A thread of this process that runs `fn` on its own stack; its number, or -errno. */
long thread_clone(uint64_t stack_top, void (*fn)(void));

static inline bool all_zero(const void *p, size_t size)
{
    const uint8_t *bytes = p; /* reserved fields lie where they lie: not at multiples of eight */
    uint64_t any = 0, word;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        __builtin_memcpy(&word, bytes + i, 8);
        any |= word;
    }
    for (; i < size; i++)
        any |= bytes[i];
    return !any;
}
#define MAPPED(r) ((unsigned long)(r) < -4095ul) /* of an mmap or mremap */
#define RFLAGS_TF 0x100ull
static inline uint64_t page_down(uint64_t a) { return a & ~(SGX_PAGE_SIZE - 1); }
static inline uint64_t page_up(uint64_t a) { return page_down(a + SGX_PAGE_SIZE - 1); }
/* PROT_ bit that an access needs, by its page fault error code. */
static inline int access_of(uint64_t error) { return error & 16 ? PROT_EXEC : error & 2 ? PROT_WRITE : PROT_READ; }
static inline bool page_aligned(uint64_t a) { return (a & (SGX_PAGE_SIZE - 1)) == 0; }

/* ---- measuring (processor/sha256.c, processor/measure.c) ---- */
struct sha256 { uint32_t h[8]; uint64_t blocks; };
void sha256_select(bool allow_shani);
void sha256_start(struct sha256 *s);
void sha256_blocks(struct sha256 *s, const void *data, size_t blocks);
#define SHA256_HEADED 4u
/* `count` times a block of heads and four of data. */
void sha256_headed(struct sha256 *s, const void *heads, const void *data, size_t count);
void sha256_finish(struct sha256 *s, uint8_t digest[32]);
void measure_ecreate(struct sha256 *s, const struct sgx_secs *secs);
void measure_eadd(struct sha256 *s, uint64_t offset, const struct sgx_secinfo *secinfo);
void measure_eextend_page(struct sha256 *s, uint64_t offset, const void *page);

/* ---- paging's cipher (processor/aesgcm.c) ---- */
/* The caller's x87 and XMM registers, around what uses them where no handler's frame keeps them. */
struct vector_state { uint8_t bytes[512]; } __attribute__((aligned(16)));
static inline void vector_save(struct vector_state *state) { __asm__ volatile("fxsave64 %0" : "=m"(*state) : : "memory"); }
static inline void vector_restore(const struct vector_state *state) { __asm__ volatile("fxrstor64 %0" : : "m"(*state) : "memory"); }

struct gcm_key { uint8_t words[19 * 16]; } __attribute__((aligned(16)));
bool gcm_available(void);
void gcm_key_set(struct gcm_key *key, const uint8_t bytes[16]);
/* One page; `iv` 12 bytes, `aad` 32, `tag` 16. On a stack in secret memory only: plaintext may spill. */
void gcm_page_seal(const struct gcm_key *key, const uint8_t iv[12], const uint8_t aad[32], const void *page, void *cipher,
                   uint8_t tag[16]);
bool gcm_page_open(const struct gcm_key *key, const uint8_t iv[12], const uint8_t aad[32], const void *cipher,
                   const uint8_t tag[16], void *page);

/* ---- enclaves ---- */
#define ENCLAVES_MAX 256
#define EPCM_VALID   0x001ull
#define EPCM_R       0x002ull
#define EPCM_W       0x004ull
#define EPCM_X       0x008ull
#define EPCM_TCS     0x010ull
#define EPCM_EXEC    0x020ull /* backed by the sealed executable memfd */
#define EPCM_OUT     0x040ull /* evicted */
#define EPCM_REST    0x080ull /* in the EPC, closed to the program to see whether it is used */
#define EPCM_PENDING  0x100ull /* SGX2: added or changed, until the enclave accepts it */
#define EPCM_MODIFIED 0x200ull
#define EPCM_PR       0x400ull
#define EPCM_TRIM     0x800ull
#define EPCM_BLOCKING (EPCM_PENDING | EPCM_MODIFIED | EPCM_TRIM) /* no access while one of these is set */
#define EPCM_MAX_R    (1ull << 48) /* what the kernel lets the program map: SECINFO's permissions at EADD */
#define EPCM_MAX_W    (1ull << 49)
#define EPCM_MAX_X    (1ull << 50)
/* what an evicted page is bound to */
#define EPCM_SEALED_FLAGS (EPCM_VALID | EPCM_R | EPCM_W | EPCM_X | EPCM_TCS | EPCM_EXEC | EPCM_BLOCKING | EPCM_PR)
#define EPCM_STAYS (1ull << 51) /* executable memory that is mapped writable too (device/code.c) */
#define EPCM_ABORT (1ull << 52) /* a page of ones is in its place for a moment (device/keys.c) */
#define EPCM_ADDRESS 0x0000fffffffff000ull /* the library's own view of the page */

struct enclave_vma { uint64_t start, end; uint32_t prot; }; /* what the program mapped of the device */
#define VMAS_MAX 8192

struct extent { uint64_t base, size, used; bool exec, secret; };

enum enclave_flag { ENCLAVE_CREATED = 1, ENCLAVE_INITIALIZED = 2, ENCLAVE_LOST = 4, ENCLAVE_BROKEN = 8 };

struct enclave {
    _Atomic uint32_t live;         /* slot in use */
    _Atomic uint32_t ioctl_busy;
    _Atomic uint32_t flags;
    _Atomic int32_t inside;        /* threads in enclave mode */
    int32_t watch_fd;              /* our end of the pipe whose other end is the program's descriptor */
    uint64_t device, inode;        /* identity of the program's descriptor */
    uint64_t attributes_mask;
    uint32_t mode;                 /* O_ACCMODE of the program's descriptor */
    uint64_t id;                   /* the package's number for it */
    struct sgx_secs secs;
    struct sha256 measurement;
    _Atomic uint64_t *epcm;        /* one word a page, sparse */
    uint64_t *present[6];          /* device/present.c: which pages exist */
    uint32_t present_levels;
    uint64_t pages, exist;         /* EPC pages charged; pages that exist, evicted ones too */
    struct extent data, exec;      /* where the next pages of each kind go */
    _Atomic uint32_t closed;       /* idle: the program's mappings are without rights (device/tamper.c) */
    uint32_t abort_pages;          /* pages of ones that stand in the program's mappings meanwhile */
    uint64_t close_last, close_cost, close_credit; /* time stamp counter */
    uint64_t hint[2];              /* pages that the ioctl under way still brings: data, executable */
    uint64_t refused_secret;       /* pages that got ordinary memory for lack of RLIMIT_MEMLOCK */
    uint64_t serial;               /* of this process's enclaves, never the same twice */
    struct cluster *cluster, *clusters; /* device/paging.c: by offset in secret memory; those in use */
    uint64_t cluster_size;
    bool cluster_secret;
    struct both *both;             /* device/code.c: backings of pages of code made at run time, by number */
    uint8_t **store;               /* evicted pages, by gigabyte: ciphertext and tags, in ordinary memory */
    struct extent held[4096];      /* all extents, for the unmapping */
    uint32_t held_count;
    struct enclave_vma vma[VMAS_MAX];
    uint32_t vma_count;
};

/* ---- threads ---- */
#define THREAD_SLOT 0x10000ull
#define THREADS_MAX 2048
#define STEPS_MAX 4u
#define THREAD_MAGIC 0x5344485252545353ull
struct thread {
    uint64_t magic;
    _Atomic uint32_t tid;    /* 0: free */
    uint32_t inside;         /* in enclave mode */
    struct enclave *enclave;
    struct sgx_tcs *tcs;
    uint64_t tcs_address;
    uint64_t host_fs, host_gs, host_rsp, host_rbp, host_tf;
    uint64_t blocked_six, pending_six; /* virtual mask of the signals that are never really blocked */
    uint64_t entry[18];      /* registers at the enclave's entry point, for the call by the vDSO (entry.S) */
    stack_t stack;           /* the host's own alternate stack */
    struct { uint64_t at, serial; struct enclave *enclave; } step[STEPS_MAX]; /* device/keys.c */
    uint64_t step_tf;
    uint32_t steps;
    _Atomic int32_t deferred; /* an asynchronous signal that came while the library was at work */
    siginfo_t deferred_info, pending_info;
};
_Static_assert(sizeof(struct thread) <= 4096, "struct thread fits its page");

struct action { uint64_t handler, flags, restorer, mask; };

struct global {
    uint32_t flags, level;
    int32_t rpc_fd;
    uint32_t pid;
    _Atomic uint32_t memory_lock, rpc_lock, signal_lock;
    _Atomic uint32_t *fork_word;   /* in a page that a forked child sees as zero */
    struct epc_shared *epc;
    struct rpc_hello_reply package;
    char follow[56];             /* name of the injector's socket; empty where nobody follows */
    uint64_t xcr0;
    uint32_t xstate_offset[64], xstate_size[64];
    _Atomic uint32_t production; /* an enclave that is not DEBUG was initialised */
    uint64_t memlock_left;       /* bytes of secret memory that RLIMIT_MEMLOCK still allows; under memory_lock */
    int32_t key, key_step;         /* protection keys of all enclaves' pages, and of a page of ones; 0: none */
    bool fsgsbase, secret_memory, memlock_limited;
    bool leader_left;              /* the first thread has left by exit(2), with this status */
    int32_t exit_status;
    _Atomic uint32_t thread_left;
    struct action action[65];
    struct enclave *enclave[ENCLAVES_MAX];
    _Atomic uint32_t enclave_count;
};
extern struct global g;

/* device/epc.c: the quota */
#define CLUSTER_PAGES 16u
struct epc_slot *epc_own(void);
long epc_charge(struct enclave *e, uint64_t pages);
void epc_return(struct enclave *e, uint64_t pages);
void epc_demand(int64_t pages);
bool epc_backing_take(uint64_t pages, uint64_t back);
void epc_backing_return(uint64_t pages);
void epc_thread_start(void);
void epc_thread_nudge(void);
void epc_forget(void);
bool epc_thread_runs(void);
void epc_thread_wake(void); /* for the work of measuring.c */
__attribute__((noreturn)) void epc_thread(void);
uint64_t clock_ns(void);
/* device/measuring.c: EADD of `pages` pages, or EADD and EEXTENDs of the one at `page`, which does not change until then */
void measuring_add(struct enclave *e, uint64_t offset, uint64_t flags, const uint8_t *page, uint64_t pages);
bool measuring_waits(void);
bool measuring_step(void);
void measuring_settle(void);
void measuring_forget(struct enclave *e);
void measuring_reset(void);
/* device/store.c: where the evicted page at an offset lies, once there is room for it */
bool store_ready(struct enclave *e, uint64_t offset);
uint8_t *store_cipher(struct enclave *e, uint64_t offset);
uint8_t *store_tag(struct enclave *e, uint64_t offset);
void store_release(struct enclave *e);
/* device/paging.c: eviction and reload */
bool paging_start(struct enclave *e);
uint64_t paging_evict(uint64_t pages);
long paging_in(struct enclave *e, uint64_t offset);
void paging_added(struct enclave *e, uint64_t offset);
void paging_removed(struct enclave *e, uint64_t offset);
bool paging_fault(struct enclave *e, uint64_t address, uint64_t error);
void paging_release(struct enclave *e);
void paging_forget(void);
/* device/present.c: which pages of ELRANGE exist, by number */
uint64_t present_size(uint64_t pages);
void present_start(struct enclave *e, uint64_t *table, uint64_t pages);
void present_set(struct enclave *e, uint64_t page);
void present_clear(struct enclave *e, uint64_t page);
uint64_t present_next(struct enclave *e, uint64_t page, uint64_t end);
/* device/memory.c: an enclave's pages. Lengths are bytes, offsets from the enclave's base. */
void *memory_add(struct enclave *e, uint64_t offset, uint64_t epcm_flags);
#define ADD_AT_ONCE 16384u /* pages of ADD_PAGES under one hold of the lock */
void memory_hint(struct enclave *e, uint64_t offset, uint64_t pages, bool exec);
void memory_seal(struct enclave *e);
uint64_t memory_tables(uint64_t size);
void memory_release(struct enclave *e);
/* Shared memory of `size` bytes, secret where possible, its descriptor already closed; 0 when refused. */
uint64_t memory_shared(uint64_t size, uint64_t at, bool want_secret, bool *secret);
/* Of what it gave without `at`. */
void memory_return(uint64_t base, uint64_t size, bool secret);
/* The library's own view of a page with at least these EPCM flags; 0 when there is none. */
void *memory_page(struct enclave *e, uint64_t address, uint64_t need);
uint32_t memory_error(struct enclave *e, uint64_t address, uint32_t access);
/* Caller holds g.memory_lock; pages that are out come in. */
long memory_read(struct enclave *e, uint64_t address, void *to, size_t size);
long memory_write(struct enclave *e, uint64_t address, const void *from, size_t size);

uint64_t memory_backing(struct enclave *e, bool exec); /* a page's own place in the library's view; 0: no memory */
/* SGX2. EAUG at `address`, as the kernel does at a fault; EREMOVE. */
bool memory_augment(struct enclave *e, uint64_t address);
void memory_remove(struct enclave *e, uint64_t offset);
/* device/view.c: the program's view of them */
long memory_map(struct enclave *e, uint64_t address, uint64_t size, int prot);
long memory_protect(struct enclave *e, uint64_t address, uint64_t size, int prot);
void memory_unmap(struct enclave *e, uint64_t address, uint64_t size);
void memory_show(struct enclave *e, uint64_t offset, uint64_t size);
void memory_hide(struct enclave *e, uint64_t offset, uint64_t size);
bool memory_refresh(struct enclave *e, uint64_t offset, uint64_t size);
int memory_permits(uint64_t entry, int prot); /* of the rights asked: what the EPCM gives, the page being in the EPC */
bool memory_allows(struct enclave *e, uint64_t address, uint64_t error);
void memory_close(struct enclave *e);
void memory_open(struct enclave *e, bool remap);
uint32_t memory_vma_prot(struct enclave *e, uint64_t address);
/* device/code.c: pages that are written and executed */
bool code_fault(struct enclave *e, uint64_t address, uint64_t error);
bool code_to_data(struct enclave *e, uint64_t offset);
uint64_t code_removed(struct enclave *e, uint64_t offset);
void code_release(struct enclave *e);
/* device/warm.c: memory made ready ahead, for `data_pages` and `exec_pages` that will be added. */
void warm_start(uint64_t data_pages, uint64_t exec_pages);
/* Backing of at most `*size` bytes, which becomes what it is; 0 when there is none. */
uint64_t warm_take(uint64_t *size, bool exec);
/* Whether the page was touched ahead and holds zeros all the same. */
bool warm_zero(uint64_t view);
/* Puts the second mapping of warm pages at `at`, with PROT_NONE; false where they have none any more. */
bool warm_show(uint64_t view, uint64_t size, uint64_t at);
/* Before the library's mapping goes: so does what of the second one was not shown. */
void warm_drop(uint64_t view, uint64_t size);
/* device/keys.c: protection keys */
void keys_start(void);
long keys_protect(uint64_t at, uint64_t size, int prot);
bool keys_may_refuse(uint64_t address);
void keys_switch(ucontext_kernel *uc, bool inside);
void keys_enter(void);
bool keys_step(struct thread *t, ucontext_kernel *uc, struct enclave *e, uint64_t address);
void keys_step_end(struct thread *t, ucontext_kernel *uc);
/* device/tamper.c */
void tamper_open(struct enclave *e);
void tamper_left(struct enclave *e);
int tamper_fault(struct thread *t, ucontext_kernel *uc);
/* device/enclaves.c */
struct enclave *enclave_at(uint64_t address);
struct enclave *enclave_of_fd(int fd);
bool enclave_touches(uint64_t address, uint64_t size, struct enclave **found);
long enclave_open(int flags);
uint32_t enclaves_touched(uint64_t address, uint64_t size);
long enclaves_may_cut(uint64_t address, uint64_t size);
bool enclaves_cut(uint64_t address, uint64_t size, struct enclave *except);
void enclave_sweep(void);
long provision_open(int flags);
bool provision_is(int fd);
void enclaves_forget(void);
/* device/ioctl.c */
bool range_good(struct enclave *e, uint64_t offset, uint64_t length);
long device_ioctl(int fd, uint32_t command, void *argument);
/* device/ioctl_sgx2.c */
long ioctl_restrict(struct enclave *e, void *user);
long ioctl_types(struct enclave *e, void *user);
long ioctl_remove(struct enclave *e, struct sgx_enclave_remove_pages *user);
/* device/filter.c */
void filter_install(void);
void filter_cover(uint64_t base, uint64_t size);
/* device/syscalls.c */
void syscall_trapped(struct thread *t, siginfo_t *info, ucontext_kernel *uc);
/* device/signals.c */
void signals_start(void);
long signal_action(int number, const struct action *act, struct action *old, size_t size);
void signal_deliver(struct thread *t, int number, siginfo_t *info, ucontext_kernel *uc);
void host_exception(struct thread *t, ucontext_kernel *uc, int vector, uint32_t error, uint64_t address,
                    siginfo_t *info);
void signal_entry(int number, siginfo_t *info, ucontext_kernel *uc);
/* device/threads.c */
struct thread *thread_here(void);
struct thread *thread_find(uint32_t tid);
bool thread_has_tcs(struct enclave *e, uint64_t offset);
/* The alternate stack of a thread, as the kernel is told of it. */
void thread_stack(struct thread *t, stack_t *stack);
struct thread *thread_ensure(ucontext_kernel *uc, bool *on_stack);
/* The calling thread is about to exit on the stack in its slot. */
void thread_leave(struct thread *t);
void threads_forget(void);
/* device/rpc.c: status of the reply, or RPC_STATUS_ERRNO | errno. */
uint32_t rpc_call(uint16_t op, const void *request, uint32_t size, void *reply, uint32_t reply_size);
/* device/follow.c */
long follow_exec(ucontext_kernel *uc);
bool follow_line(int32_t *rpc, int32_t *epc);
/* device/init.c: the line to the package is there, or is made now. */
bool package_line(void);
/* device/fork.c */
bool fork_check(void);

/* processor/ */
void enclu_inside(struct thread *t, ucontext_kernel *uc);
void enclu_outside(struct thread *t, ucontext_kernel *uc);
uint64_t *enter_by_call(uint64_t *registers);
void enter_complete(struct thread *t, ucontext_kernel *uc);
struct exit_event { int vector; uint32_t error; uint64_t address; };
/* processor/enclu.c: operands in the enclave */
bool inside_elrange(struct enclave *e, uint64_t address, uint64_t size, uint64_t align);
bool operand_read(struct enclave *e, uint64_t address, void *to, size_t size, struct exit_event *fault);
struct exit_event enclu_edmm(struct thread *t, struct sigcontext *r);
/* Asynchronous exit; event is NULL for an interrupt. */
void aex(struct thread *t, ucontext_kernel *uc, const struct exit_event *event);
uint64_t xstate_mask_size(uint64_t xfrm);
void base_read(uint64_t *fs, uint64_t *gs);
void base_write(uint64_t fs, uint64_t gs);

void library_init(const struct inject_block *block);

/* asm symbols */
extern char copy_host_begin[], copy_host_end[], copy_host_fault[];
extern char vdso_image[], vdso_image_end[];
extern char enter_call[], enter_call_end[];
extern char signal_stub[], signal_restore[];

#pragma GCC visibility pop
#endif
