/*
 * Architectural structures of SGX, as Intel's manual defines them: SDM vol. 3D, chapter "Enclave
 * Access Control and Data Structures". No behaviour here. Each structure asserts its size and the
 * offset of every member; src/strongroom/isa holds the same layouts, and a test compares the two
 * (build/tests/offsets).
 */
#ifndef STRONGROOM_SGX_ARCH_H
#define STRONGROOM_SGX_ARCH_H

#include <stddef.h>
#include <stdint.h>

#define SGX_PAGE_SIZE 4096ull

#define SGX_AT(type, member, offset) \
    _Static_assert(offsetof(type, member) == (offset), #type "." #member)
#define SGX_SIZE(type, size) _Static_assert(sizeof(type) == (size), "size of " #type)

/* ENCLU leaves (EAX). */
enum sgx_enclu_leaf {
    SGX_EREPORT = 0, SGX_EGETKEY = 1, SGX_EENTER = 2, SGX_ERESUME = 3, SGX_EEXIT = 4,
    SGX_EACCEPT = 5, SGX_EMODPE = 6, SGX_EACCEPTCOPY = 7, SGX_EVERIFYREPORT2 = 8, SGX_EDECCSSA = 9,
};

/* SECS.ATTRIBUTES, first quadword. */
#define SGX_ATTR_INIT          0x01ull
#define SGX_ATTR_DEBUG         0x02ull
#define SGX_ATTR_MODE64BIT     0x04ull
#define SGX_ATTR_PROVISIONKEY  0x10ull
#define SGX_ATTR_EINITTOKENKEY 0x20ull
#define SGX_ATTR_CET           0x40ull
#define SGX_ATTR_KSS           0x80ull
#define SGX_ATTR_AEXNOTIFY     0x400ull

#define SGX_MISC_EXINFO 0x1u

/* SECINFO.FLAGS. */
#define SGX_SECINFO_R         0x1ull
#define SGX_SECINFO_W         0x2ull
#define SGX_SECINFO_X         0x4ull
#define SGX_SECINFO_PENDING   0x8ull
#define SGX_SECINFO_MODIFIED  0x10ull
#define SGX_SECINFO_PR        0x20ull
#define SGX_SECINFO_TYPE      0xff00ull
#define SGX_SECINFO_TCS       0x100ull
#define SGX_SECINFO_REG       0x200ull
#define SGX_SECINFO_TRIM      0x400ull

/* What leaves return in RAX (SDM vol. 3D, "Error codes"). */
#define SGX_PAGE_ATTRIBUTES_MISMATCH 19u
#define SGX_PAGE_NOT_MODIFIABLE      20u

#define SGX_TCS_DBGOPTIN 0x1ull

/* Exception vectors and EXITINFO. */
enum sgx_vector {
    VECTOR_DE = 0, VECTOR_DB = 1, VECTOR_BP = 3, VECTOR_BR = 5, VECTOR_UD = 6, VECTOR_GP = 13,
    VECTOR_PF = 14, VECTOR_MF = 16, VECTOR_AC = 17, VECTOR_XM = 19,
};
#define SGX_EXITINFO_VALID    0x80000000u
#define SGX_EXITINFO_HARDWARE 0x300u
#define SGX_EXITINFO_SOFTWARE 0x600u
#define SGX_PF_SGX 0x8000u /* page-fault error code: an SGX access-control violation */

struct sgx_secs {
    uint64_t size;
    uint64_t base;
    uint32_t ssa_frame_size;
    uint32_t miscselect;
    uint8_t reserved1[24];
    uint64_t attributes;
    uint64_t xfrm;
    uint8_t mrenclave[32];
    uint8_t reserved2[32];
    uint8_t mrsigner[32];
    uint8_t reserved3[32];
    uint8_t configid[64];
    uint16_t isvprodid;
    uint16_t isvsvn;
    uint16_t configsvn;
    uint8_t reserved4[3834];
} __attribute__((packed));
SGX_SIZE(struct sgx_secs, 4096);
SGX_AT(struct sgx_secs, size, 0);
SGX_AT(struct sgx_secs, base, 8);
SGX_AT(struct sgx_secs, ssa_frame_size, 16);
SGX_AT(struct sgx_secs, miscselect, 20);
SGX_AT(struct sgx_secs, attributes, 48);
SGX_AT(struct sgx_secs, xfrm, 56);
SGX_AT(struct sgx_secs, mrenclave, 64);
SGX_AT(struct sgx_secs, mrsigner, 128);
SGX_AT(struct sgx_secs, configid, 192);
SGX_AT(struct sgx_secs, isvprodid, 256);
SGX_AT(struct sgx_secs, isvsvn, 258);
SGX_AT(struct sgx_secs, configsvn, 260);

/* `state` and `aep` are the fields that the manual reserves for the processor. */
struct sgx_tcs {
    uint64_t state;
    uint64_t flags;
    uint64_t ossa;
    uint32_t cssa;
    uint32_t nssa;
    uint64_t oentry;
    uint64_t aep;
    uint64_t ofsbase;
    uint64_t ogsbase;
    uint32_t fslimit;
    uint32_t gslimit;
    uint64_t ocetssa;
    uint64_t prevssp;
    uint8_t reserved[4008];
} __attribute__((packed, aligned(8)));
SGX_SIZE(struct sgx_tcs, 4096);
SGX_AT(struct sgx_tcs, state, 0);
SGX_AT(struct sgx_tcs, flags, 8);
SGX_AT(struct sgx_tcs, ossa, 16);
SGX_AT(struct sgx_tcs, cssa, 24);
SGX_AT(struct sgx_tcs, nssa, 28);
SGX_AT(struct sgx_tcs, oentry, 32);
SGX_AT(struct sgx_tcs, aep, 40);
SGX_AT(struct sgx_tcs, ofsbase, 48);
SGX_AT(struct sgx_tcs, ogsbase, 56);
SGX_AT(struct sgx_tcs, fslimit, 64);
SGX_AT(struct sgx_tcs, gslimit, 68);
SGX_AT(struct sgx_tcs, ocetssa, 72);
SGX_AT(struct sgx_tcs, prevssp, 80);
SGX_AT(struct sgx_tcs, reserved, 88);

/* General-purpose registers at the end of an SSA frame. */
struct sgx_gprsgx {
    uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi;
    uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    uint64_t rflags;
    uint64_t rip;
    uint64_t ursp;
    uint64_t urbp;
    uint32_t exitinfo;
    uint8_t reserved[3];
    uint8_t aexnotify;
    uint64_t fsbase;
    uint64_t gsbase;
};
SGX_SIZE(struct sgx_gprsgx, 184);
SGX_AT(struct sgx_gprsgx, rax, 0);
SGX_AT(struct sgx_gprsgx, rcx, 8);
SGX_AT(struct sgx_gprsgx, rdx, 16);
SGX_AT(struct sgx_gprsgx, rbx, 24);
SGX_AT(struct sgx_gprsgx, rsp, 32);
SGX_AT(struct sgx_gprsgx, rbp, 40);
SGX_AT(struct sgx_gprsgx, rsi, 48);
SGX_AT(struct sgx_gprsgx, rdi, 56);
SGX_AT(struct sgx_gprsgx, r8, 64);
SGX_AT(struct sgx_gprsgx, r15, 120);
SGX_AT(struct sgx_gprsgx, rflags, 128);
SGX_AT(struct sgx_gprsgx, rip, 136);
SGX_AT(struct sgx_gprsgx, ursp, 144);
SGX_AT(struct sgx_gprsgx, urbp, 152);
SGX_AT(struct sgx_gprsgx, exitinfo, 160);
SGX_AT(struct sgx_gprsgx, aexnotify, 167);
SGX_AT(struct sgx_gprsgx, fsbase, 168);
SGX_AT(struct sgx_gprsgx, gsbase, 176);

/* MISC region of an SSA frame, just below GPRSGX, when MISCSELECT.EXINFO is set. */
struct sgx_exinfo {
    uint64_t maddr;
    uint32_t errcd;
    uint32_t reserved;
};
SGX_SIZE(struct sgx_exinfo, 16);
SGX_AT(struct sgx_exinfo, maddr, 0);
SGX_AT(struct sgx_exinfo, errcd, 8);

struct sgx_secinfo {
    uint64_t flags;
    uint8_t reserved[56];
};
SGX_SIZE(struct sgx_secinfo, 64);
SGX_AT(struct sgx_secinfo, flags, 0);
SGX_AT(struct sgx_secinfo, reserved, 8);

struct sgx_targetinfo {
    uint8_t measurement[32];
    uint64_t attributes;
    uint64_t xfrm;
    uint8_t reserved1[2];
    uint16_t configsvn;
    uint32_t miscselect;
    uint8_t reserved2[8];
    uint8_t configid[64];
    uint8_t reserved3[384];
};
SGX_SIZE(struct sgx_targetinfo, 512);
SGX_AT(struct sgx_targetinfo, measurement, 0);
SGX_AT(struct sgx_targetinfo, attributes, 32);
SGX_AT(struct sgx_targetinfo, xfrm, 40);
SGX_AT(struct sgx_targetinfo, configsvn, 50);
SGX_AT(struct sgx_targetinfo, miscselect, 52);
SGX_AT(struct sgx_targetinfo, configid, 64);

struct sgx_report {
    uint8_t cpusvn[16];
    uint32_t miscselect;
    uint8_t reserved1[12];
    uint8_t isvextprodid[16];
    uint64_t attributes;
    uint64_t xfrm;
    uint8_t mrenclave[32];
    uint8_t reserved2[32];
    uint8_t mrsigner[32];
    uint8_t reserved3[32];
    uint8_t configid[64];
    uint16_t isvprodid;
    uint16_t isvsvn;
    uint16_t configsvn;
    uint8_t reserved4[42];
    uint8_t isvfamilyid[16];
    uint8_t reportdata[64];
    uint8_t keyid[32];
    uint8_t mac[16];
};
SGX_SIZE(struct sgx_report, 432);
SGX_AT(struct sgx_report, cpusvn, 0);
SGX_AT(struct sgx_report, miscselect, 16);
SGX_AT(struct sgx_report, isvextprodid, 32);
SGX_AT(struct sgx_report, attributes, 48);
SGX_AT(struct sgx_report, xfrm, 56);
SGX_AT(struct sgx_report, mrenclave, 64);
SGX_AT(struct sgx_report, mrsigner, 128);
SGX_AT(struct sgx_report, configid, 192);
SGX_AT(struct sgx_report, isvprodid, 256);
SGX_AT(struct sgx_report, isvsvn, 258);
SGX_AT(struct sgx_report, configsvn, 260);
SGX_AT(struct sgx_report, isvfamilyid, 304);
SGX_AT(struct sgx_report, reportdata, 320);
SGX_AT(struct sgx_report, keyid, 384);
SGX_AT(struct sgx_report, mac, 416);

struct sgx_keyrequest {
    uint16_t keyname;
    uint16_t keypolicy;
    uint16_t isvsvn;
    uint16_t reserved1;
    uint8_t cpusvn[16];
    uint64_t attributemask;
    uint64_t xfrmmask;
    uint8_t keyid[32];
    uint32_t miscmask;
    uint16_t configsvn;
    uint8_t reserved2[434];
};
SGX_SIZE(struct sgx_keyrequest, 512);
SGX_AT(struct sgx_keyrequest, keyname, 0);
SGX_AT(struct sgx_keyrequest, keypolicy, 2);
SGX_AT(struct sgx_keyrequest, isvsvn, 4);
SGX_AT(struct sgx_keyrequest, cpusvn, 8);
SGX_AT(struct sgx_keyrequest, attributemask, 24);
SGX_AT(struct sgx_keyrequest, xfrmmask, 32);
SGX_AT(struct sgx_keyrequest, keyid, 40);
SGX_AT(struct sgx_keyrequest, miscmask, 72);
SGX_AT(struct sgx_keyrequest, configsvn, 76);

struct sgx_sigstruct {
    uint8_t header1[16];
    uint32_t vendor;
    uint32_t date;
    uint8_t header2[16];
    uint32_t swdefined;
    uint8_t reserved1[84];
    uint8_t modulus[384];
    uint32_t exponent;
    uint8_t signature[384];
    uint32_t miscselect;
    uint32_t miscmask;
    uint8_t reserved2[4];
    uint8_t isvfamilyid[16];
    uint64_t attributes;
    uint64_t xfrm;
    uint64_t attributemask;
    uint64_t xfrmmask;
    uint8_t enclavehash[32];
    uint8_t reserved3[16];
    uint8_t isvextprodid[16];
    uint16_t isvprodid;
    uint16_t isvsvn;
    uint8_t reserved4[12];
    uint8_t q1[384];
    uint8_t q2[384];
} __attribute__((packed));
SGX_SIZE(struct sgx_sigstruct, 1808);
SGX_AT(struct sgx_sigstruct, vendor, 16);
SGX_AT(struct sgx_sigstruct, date, 20);
SGX_AT(struct sgx_sigstruct, header2, 24);
SGX_AT(struct sgx_sigstruct, swdefined, 40);
SGX_AT(struct sgx_sigstruct, modulus, 128);
SGX_AT(struct sgx_sigstruct, exponent, 512);
SGX_AT(struct sgx_sigstruct, signature, 516);
SGX_AT(struct sgx_sigstruct, miscselect, 900);
SGX_AT(struct sgx_sigstruct, miscmask, 904);
SGX_AT(struct sgx_sigstruct, isvfamilyid, 912);
SGX_AT(struct sgx_sigstruct, attributes, 928);
SGX_AT(struct sgx_sigstruct, xfrm, 936);
SGX_AT(struct sgx_sigstruct, attributemask, 944);
SGX_AT(struct sgx_sigstruct, xfrmmask, 952);
SGX_AT(struct sgx_sigstruct, enclavehash, 960);
SGX_AT(struct sgx_sigstruct, isvextprodid, 1008);
SGX_AT(struct sgx_sigstruct, isvprodid, 1024);
SGX_AT(struct sgx_sigstruct, isvsvn, 1026);
SGX_AT(struct sgx_sigstruct, q1, 1040);
SGX_AT(struct sgx_sigstruct, q2, 1424);

#endif
