/*
 * What the library shares with other processes: the messages to its package (the part that holds the
 * fuses), the EPC counters in shared memory, and the block that the injector hands to the library.
 * Little endian. Python's side: src/strongroom/machine/rpc.py.
 */
#ifndef STRONGROOM_WIRE_H
#define STRONGROOM_WIRE_H

#include "sgx_arch.h"

#define RPC_MAGIC 0x4d475853u /* "SXGM" */
#define RPC_VERSION 1

enum rpc_op { RPC_HELLO = 1, RPC_EINIT = 2, RPC_EREPORT = 3, RPC_EGETKEY = 4, RPC_EVENT = 5 };
enum rpc_event { RPC_EVENT_REMOVED = 1, RPC_EVENT_TAMPERED = 2 };
#define RPC_STATUS_ERRNO 0x40000000u
#define RPC_STATUS_FAULT 0x20000000u

struct rpc_header {
    uint32_t magic;
    uint16_t version;
    uint16_t op;
    uint32_t status;
    uint32_t size;
};
SGX_SIZE(struct rpc_header, 16);

struct rpc_hello { uint32_t pid, abi; };
struct rpc_hello_reply {
    uint64_t epc_pages;
    uint32_t flags; /* 1 SGX2, 2 KSS, 4 provisioning allowed */
    uint32_t reserved;
    uint64_t attributes_allowed, xfrm_allowed;
    uint32_t miscselect_allowed, slot;
};
SGX_SIZE(struct rpc_hello_reply, 40);
#define RPC_HELLO_SGX2 1u
#define RPC_HELLO_KSS 2u
#define RPC_HELLO_PROVISION 4u

struct rpc_einit {
    struct sgx_sigstruct sigstruct;
    struct sgx_secs secs;
    uint32_t flags;
} __attribute__((packed));
SGX_SIZE(struct rpc_einit, 1808 + 4096 + 4);
struct rpc_einit_reply {
    uint64_t enclave_id;
    uint8_t mrsigner[32];
    uint16_t isvprodid, isvsvn;
    uint32_t reserved;
};
SGX_SIZE(struct rpc_einit_reply, 48);

struct rpc_ereport {
    uint64_t enclave_id;
    struct sgx_targetinfo targetinfo;
    uint8_t reportdata[64];
};
SGX_SIZE(struct rpc_ereport, 584);
struct rpc_egetkey {
    uint64_t enclave_id;
    struct sgx_keyrequest keyrequest;
};
SGX_SIZE(struct rpc_egetkey, 520);
struct rpc_event_message { uint64_t enclave_id; uint32_t kind, reserved; };

#define EPC_MAGIC 0x30435045474e5253ull
#define EPC_SLOTS 240
struct epc_slot {
    _Atomic uint32_t asked;        /* pages that others ask for; a futex */
    _Atomic uint32_t ordinary;     /* pages reserved without secret memory, for lack of it or of RLIMIT_MEMLOCK */
    _Atomic uint64_t used, peak;   /* pages in the EPC now, and at most */
    _Atomic uint64_t demand, most_demand; /* pages that exist, evicted ones too */
    _Atomic uint64_t backing;      /* evicted now */
    _Atomic uint64_t evicted, loaded; /* pages, since the process started */
    _Atomic uint64_t paging_ns;
    _Atomic uint64_t refused;      /* times that no page could be had */
    uint64_t reserved[6];
};
SGX_SIZE(struct epc_slot, 128);
/* No sum of the slots is kept: a process killed between two counters would leave it wrong for all others. */
struct epc_shared {
    uint64_t magic;
    uint64_t total_pages;
    uint64_t backing_total;        /* room for evicted pages: the VM's memory */
    _Atomic uint32_t slots;        /* those in use lie below; the daemon's to write */
    _Atomic uint32_t freed;        /* counts evictions for others; a futex */
    uint64_t reserved[4];
    struct epc_slot slot[EPC_SLOTS];
};
SGX_SIZE(struct epc_shared, 64 + 128 * EPC_SLOTS);

/* Injector to library, on the tracee's stack at its first instruction. */
#define INJECT_MAGIC 0x544a4e49u
enum inject_flag {
    INJECT_TAMPER_DISABLE = 1, INJECT_NO_SECRETMEM = 2, INJECT_DEBUG = 4, INJECT_NO_SHANI = 8,
    INJECT_SGX2 = 16, INJECT_HAVE_FILTER = 32, INJECT_NO_FSGSBASE = 64, INJECT_NO_PKEYS = 128,
};
enum inject_level { LEVEL_FAITHFUL = 0, LEVEL_SEPARATED = 1, LEVEL_SEALED = 2 };
struct inject_block {
    uint32_t magic, flags;
    int32_t rpc_fd, epc_fd;
    uint32_t level;
    uint32_t warm;        /* pages to touch ahead, in units of 16: data, and << 16 executable */
    uint64_t kernel_vdso; /* address, 0 when the kernel maps none */
    uint64_t hwcap2;
    char follow[56]; /* abstract name of the injector's socket, NUL-terminated; empty: execve is refused */
};
SGX_SIZE(struct inject_block, 96);

/* Library to injector, one request a connection (inject/follow.c, device/follow.c). */
enum follow_op { FOLLOW_EXEC = 1, FOLLOW_LINE = 2 };
struct follow_request { uint32_t op, pid, tid, reserved; uint64_t mask; }; /* mask: of the signals that the program blocks */
SGX_SIZE(struct follow_request, 24);
struct follow_reply { int32_t error; uint32_t reserved; }; /* FOLLOW_LINE: with descriptors rpc and epc */
SGX_SIZE(struct follow_reply, 8);

/* The library's fixed place; everything inside LIBRARY_TEXT_SPAN is exempt from the system call filter. */
#define LIBRARY_BASE 0x200000000000ull
#define LIBRARY_TEXT_SPAN 0x100000ull
#define LIBRARY_THREADS 0x200010000000ull

#endif
