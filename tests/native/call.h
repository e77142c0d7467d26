/*
 * enter(), with the callee-saved registers kept as a caller must: the enclave may change RDX, and R12-R15 are lost in an
 * asynchronous exit. For programs that include loader.c and enclave.h.
 */
#ifndef TESTS_CALL_H
#define TESTS_CALL_H

static vdso_sgx_enter_enclave_t enter;

static int call(uint64_t function, struct call *c, uint32_t leaf, struct sgx_enclave_run *run)
{
    int r;
    uint64_t rdx = 0;
    register uint64_t r8 __asm__("r8") = 0, r9 __asm__("r9") = 0;
    __asm__ volatile("push %%rbp; mov %%rsp, %%rbp; and $-16, %%rsp; push $0; push %[run]; call *%[f]; mov %%rbp, %%rsp; pop %%rbp"
                     : "=a"(r), "+D"(function), "+S"(c), "+c"(leaf), "+d"(rdx), "+r"(r8), "+r"(r9)
                     : [run] "b"(run), [f] "a"(enter)
                     : "r10", "r11", "r12", "r13", "r14", "r15", "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
                       "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    return r;
}

#endif
