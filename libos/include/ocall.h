/*
 * What crosses between LibOS and loader; shared by both, trusted by neither. The loader offers little more
 * than "make this system call for me": all checking is the LibOS's.
 */
#ifndef STRONGROOM_OCALL_H
#define STRONGROOM_OCALL_H
#include <stdint.h>

/* RDI at EENTER. */
#define ECALL_START 1   /* RSI: struct start_info; thread 0, once */
#define ECALL_THREAD 2  /* RSI: struct ocall_block; a thread whose start was asked for by OCALL_THREAD */
#define ECALL_RETURN 3  /* an OCALL has been served */
#define ECALL_EVENT 4   /* CSSA 1: after an exception or a signal */

/* RDI at EEXIT when not a block's address. */
#define EEXIT_REFUSED 0x5f01 /* the entry was not in order */
#define EEXIT_HANDLED 0x5f02 /* CSSA 1: go on with ERESUME */
#define EEXIT_FATAL 0x5f03   /* the LibOS cannot go on: RSI status, RDX 1 SIGSEGV and others: address/0 */

/* ocall_block.op: */
#define OCALL_SYSCALL 1 /* number, six arguments */
#define OCALL_THREAD 2  /* arg[0] thread number: a new host thread enters it */
#define OCALL_LEAVE 3   /* this thread is done */
#define OCALL_PARK 4    /* arg[0] timeout ns or -1; arg[1] count of struct pollfd in data: wait, draining our event */
#define OCALL_UNPARK 5  /* arg[0] thread number */
#define OCALL_KICK 6    /* arg[0] thread number: make it exit asynchronously, or its system call end with EINTR */

#define OCALL_TRIM 7    /* arg[0] offset, arg[1] bytes: SGX_IOC_ENCLAVE_MODIFY_TYPES to TRIM (SGX2); bytes done */
#define OCALL_REMOVE 8  /* arg[0] offset, arg[1] bytes: SGX_IOC_ENCLAVE_REMOVE_PAGES, of pages trimmed and accepted; bytes done */

#define OCALL_DATA 0x20000u
struct ocall_block {
    uint64_t op;
    uint64_t number;
    uint64_t arg[6];
    int64_t ret;
    uint64_t reserved[7];
    uint8_t data[OCALL_DATA];
};
_Static_assert(sizeof(struct ocall_block) == 128 + OCALL_DATA, "ocall_block");

#define START_MAGIC 0x54524154534d5253ull
#define START_TRACE 1u
struct start_info {
    uint64_t magic;
    uint64_t block;                /* struct ocall_block of thread 0 */
    uint64_t pack, pack_size;      /* files.pack, mapped */
    uint64_t signals;              /* u64: bit n-1 is set when host signal n came; the LibOS takes bits off */
    uint64_t strings, strings_size; /* argc arguments, then envc variables, each NUL-terminated */
    uint32_t argc, envc;
    int32_t quote_fd, channel_fd;  /* -1: none */
    uint32_t flags, cpus;
};
#endif
