/* What the LibOS needs of the architecture (SDM vol. 3D, "Enclave Access Control and Data Structures"). */
#ifndef STRONGROOM_LIBOS_SGX_H
#define STRONGROOM_LIBOS_SGX_H
#define SGX_EREPORT 0
#define SGX_EGETKEY 1
#define SGX_EEXIT 4
#define SGX_EACCEPT 5
#define SGX_EMODPE 6
#ifndef __ASSEMBLER__
#include <stddef.h>
#include <stdint.h>
struct sgx_gpr {
    uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rflags, rip, ursp, urbp;
    uint32_t exitinfo;
    uint8_t reserved[3], aexnotify;
    uint64_t fsbase, gsbase;
};
_Static_assert(sizeof(struct sgx_gpr) == 184 && offsetof(struct sgx_gpr, rip) == 136 &&
                   offsetof(struct sgx_gpr, exitinfo) == 160 && offsetof(struct sgx_gpr, fsbase) == 168,
               "GPRSGX");
struct sgx_exinfo { uint64_t maddr; uint32_t errcd, reserved; };
_Static_assert(sizeof(struct sgx_exinfo) == 16, "EXINFO");
struct sgx_targetinfo {
    uint8_t measurement[32];
    uint64_t attributes, xfrm;
    uint8_t reserved1[2];
    uint16_t configsvn;
    uint32_t miscselect;
    uint8_t reserved2[8], configid[64], reserved3[384];
} __attribute__((aligned(512)));
_Static_assert(sizeof(struct sgx_targetinfo) == 512 && offsetof(struct sgx_targetinfo, configsvn) == 50 &&
                   offsetof(struct sgx_targetinfo, configid) == 64, "TARGETINFO");
struct sgx_report {
    uint8_t cpusvn[16];
    uint32_t miscselect;
    uint8_t reserved1[12], isvextprodid[16];
    uint64_t attributes, xfrm;
    uint8_t mrenclave[32], reserved2[32], mrsigner[32], reserved3[32], configid[64];
    uint16_t isvprodid, isvsvn, configsvn;
    uint8_t reserved4[42], isvfamilyid[16], reportdata[64], keyid[32], mac[16];
} __attribute__((aligned(512)));
_Static_assert(offsetof(struct sgx_report, mac) == 416 && offsetof(struct sgx_report, reportdata) == 320 &&
                   offsetof(struct sgx_report, configid) == 192, "REPORT");
struct sgx_keyrequest {
    uint16_t keyname, keypolicy, isvsvn, reserved1;
    uint8_t cpusvn[16];
    uint64_t attributemask, xfrmmask;
    uint8_t keyid[32];
    uint32_t miscmask;
    uint16_t configsvn;
    uint8_t reserved2[434];
} __attribute__((aligned(512)));
_Static_assert(sizeof(struct sgx_keyrequest) == 512 && offsetof(struct sgx_keyrequest, miscmask) == 72, "KEYREQUEST");
#define SGX_KEY_SEAL 4
#define SGX_POLICY_MRENCLAVE 1
#define SGX_POLICY_MRSIGNER 2
#endif
#endif
