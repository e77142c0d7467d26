/* Prints "structure member offset size" lines, for the test that compares C's layouts with Python's. */
#include <stdio.h>

#include "wire.h"

#define S(s) printf("%s - 0 %zu\n", #s, sizeof(struct s));
#define M(s, m) printf("%s %s %zu %zu\n", #s, #m, offsetof(struct s, m), sizeof(((struct s *)0)->m));

int main(void)
{
    S(sgx_secs) M(sgx_secs, size) M(sgx_secs, base) M(sgx_secs, ssa_frame_size) M(sgx_secs, miscselect)
    M(sgx_secs, attributes) M(sgx_secs, xfrm) M(sgx_secs, mrenclave) M(sgx_secs, mrsigner) M(sgx_secs, configid)
    M(sgx_secs, isvprodid) M(sgx_secs, isvsvn) M(sgx_secs, configsvn)
    S(sgx_tcs) M(sgx_tcs, state) M(sgx_tcs, aep) M(sgx_tcs, ocetssa) M(sgx_tcs, prevssp)
    M(sgx_tcs, flags) M(sgx_tcs, ossa) M(sgx_tcs, cssa) M(sgx_tcs, nssa) M(sgx_tcs, oentry)
    M(sgx_tcs, ofsbase) M(sgx_tcs, ogsbase) M(sgx_tcs, fslimit) M(sgx_tcs, gslimit)
    S(sgx_gprsgx) M(sgx_gprsgx, rax) M(sgx_gprsgx, rcx) M(sgx_gprsgx, rdx) M(sgx_gprsgx, rbx) M(sgx_gprsgx, rsp)
    M(sgx_gprsgx, rbp) M(sgx_gprsgx, rsi) M(sgx_gprsgx, rdi) M(sgx_gprsgx, r8) M(sgx_gprsgx, r9) M(sgx_gprsgx, r10)
    M(sgx_gprsgx, r11) M(sgx_gprsgx, r12) M(sgx_gprsgx, r13) M(sgx_gprsgx, r14) M(sgx_gprsgx, r15)
    M(sgx_gprsgx, rflags) M(sgx_gprsgx, aexnotify)
    M(sgx_gprsgx, rip) M(sgx_gprsgx, ursp) M(sgx_gprsgx, urbp) M(sgx_gprsgx, exitinfo) M(sgx_gprsgx, fsbase)
    M(sgx_gprsgx, gsbase)
    S(sgx_exinfo) M(sgx_exinfo, maddr) M(sgx_exinfo, errcd)
    S(sgx_secinfo) M(sgx_secinfo, flags)
    S(sgx_targetinfo) M(sgx_targetinfo, measurement) M(sgx_targetinfo, attributes) M(sgx_targetinfo, xfrm)
    M(sgx_targetinfo, configsvn) M(sgx_targetinfo, miscselect) M(sgx_targetinfo, configid)
    S(sgx_report) M(sgx_report, cpusvn) M(sgx_report, miscselect) M(sgx_report, isvextprodid)
    M(sgx_report, attributes) M(sgx_report, xfrm) M(sgx_report, mrenclave) M(sgx_report, mrsigner)
    M(sgx_report, configid) M(sgx_report, isvprodid) M(sgx_report, isvsvn) M(sgx_report, configsvn)
    M(sgx_report, isvfamilyid) M(sgx_report, reportdata) M(sgx_report, keyid) M(sgx_report, mac)
    S(sgx_keyrequest) M(sgx_keyrequest, keyname) M(sgx_keyrequest, keypolicy) M(sgx_keyrequest, isvsvn)
    M(sgx_keyrequest, cpusvn) M(sgx_keyrequest, attributemask) M(sgx_keyrequest, xfrmmask)
    M(sgx_keyrequest, keyid) M(sgx_keyrequest, miscmask) M(sgx_keyrequest, configsvn)
    S(sgx_sigstruct) M(sgx_sigstruct, header1) M(sgx_sigstruct, header2)
    M(sgx_sigstruct, vendor) M(sgx_sigstruct, date) M(sgx_sigstruct, swdefined)
    M(sgx_sigstruct, modulus) M(sgx_sigstruct, exponent) M(sgx_sigstruct, signature) M(sgx_sigstruct, miscselect)
    M(sgx_sigstruct, miscmask) M(sgx_sigstruct, isvfamilyid) M(sgx_sigstruct, attributes) M(sgx_sigstruct, xfrm)
    M(sgx_sigstruct, attributemask) M(sgx_sigstruct, xfrmmask) M(sgx_sigstruct, enclavehash)
    M(sgx_sigstruct, isvextprodid) M(sgx_sigstruct, isvprodid) M(sgx_sigstruct, isvsvn) M(sgx_sigstruct, q1)
    M(sgx_sigstruct, q2)
    S(rpc_header) S(rpc_hello_reply) S(rpc_einit) S(rpc_einit_reply) S(rpc_ereport) S(rpc_egetkey) S(epc_shared)
    return 0;
}
