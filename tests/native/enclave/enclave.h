/* What the test enclave and its host agree on. `struct call` lies in untrusted memory. */
#ifndef TEST_ENCLAVE_H
#define TEST_ENCLAVE_H
#include <stdint.h>

struct call {
    uint64_t in, out;
    uint64_t handler;      /* enclave: 1 = the CSSA=1 entry skips the faulting instruction */
    uint64_t exitinfo, fault_rip, maddr, errcd, handler_rax;
    volatile uint64_t flag, count;
    uint64_t fsbase, gsbase;
    uint8_t data[1024];
};

enum function { F_ADD, F_FAULT, F_REPORT, F_KEY, F_VECTOR, F_MEET, F_REGISTERS, F_BASES, F_POKE, F_SUM, F_NOTHING, F_PAGES, F_ENCLU, F_READ, F_WRITE, F_CALL, F_LEAF, F_PKRU };
/* F_PAGES, its `data` as quadwords: address, page count, seed, rounds, mode. */
enum pages_mode { PAGES_FILL, PAGES_CHECK, PAGES_COUNT, PAGES_SUM };
/* F_ENCLU, its `data`: leaf, SECINFO.FLAGS, RCX, RDX. F_READ, F_WRITE, F_CALL: address, value.
 * F_LEAF: leaf, RBX, RCX, RDX; `out` gets RAX, `count` RFLAGS, the arithmetic ones set before.
 * F_PKRU: WRPKRU of `in`, then `out` gets what memory held, and `count` what RDPKRU says by then. */
enum fault {
    FAULT_DE, FAULT_UD, FAULT_PF, FAULT_GP, FAULT_BP, FAULT_WRITE_TEXT, FAULT_SYSCALL, FAULT_INT80, FAULT_HLT,
    FAULT_IN, FAULT_EXEC_DATA, FAULT_EACCEPT, FAULT_EENTER, FAULT_TCS, FAULT_WRITE_RODATA, FAULT_EMODPE,
    FAULT_TF
};
#endif
