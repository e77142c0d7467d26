/*
 * The vDSO that programs see in place of the kernel's: __vdso_sgx_enter_enclave as <asm/sgx.h> defines it,
 * and forwards of the kernel's own functions through `vdso_slots`, filled in by the library at its start.
 */
#define RUN_TCS 0
#define RUN_FUNCTION 8
#define RUN_VECTOR 12
#define RUN_ERROR 14
#define RUN_ADDRESS 16
#define RUN_HANDLER 24
#define RUN_RESERVED 40
#define RUN_END 256
#define EENTER 2
#define ERESUME 3
#define EEXIT 4
#define EINVAL 22
#define RUN_ON_STACK 16 /* (%rbp): the seventh argument */

    .text
    .globl __vdso_sgx_enter_enclave, vdso_enclu, vdso_exception
    .type __vdso_sgx_enter_enclave, @function
__vdso_sgx_enter_enclave:
    .cfi_startproc
    push %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    mov %rsp, %rbp
    .cfi_def_cfa_register %rbp
    push %rbx
    .cfi_rel_offset %rbx, -8
    mov %ecx, %eax
.Lenter:
    cmp $EENTER, %eax
    jb .Linvalid
    cmp $ERESUME, %eax
    ja .Linvalid
    mov RUN_ON_STACK(%rbp), %rcx
    mov $RUN_RESERVED, %ebx
1:  cmpq $0, (%rcx, %rbx)
    jne .Linvalid
    add $8, %ebx
    cmp $RUN_END, %ebx
    jne 1b
    mov RUN_TCS(%rcx), %rbx
    lea vdso_enclu(%rip), %rcx
    cmp $EENTER, %eax
    jne vdso_enclu
    cmpq $0, vdso_slots + 8 * 6(%rip)
    je vdso_enclu
    jmp *vdso_slots + 8 * 6(%rip) /* enters by a plain call; comes back to vdso_enclu where it cannot */
vdso_enclu: /* the asynchronous exit pointer too: ERESUME is in EAX after an asynchronous exit */
    .byte 0x0f, 0x01, 0xd7
    mov RUN_ON_STACK(%rbp), %rbx /* EEXIT comes back here */
    movl $EEXIT, RUN_FUNCTION(%rbx)
.Lexit:
    cmpq $0, RUN_HANDLER(%rbx)
    jne .Lhandler
    xor %eax, %eax
.Lout:
    mov -8(%rbp), %rbx
    leave
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_def_cfa %rbp, 16
.Linvalid:
    mov $-EINVAL, %eax
    jmp .Lout
vdso_exception: /* EAX leaf, DI vector, SI error code, RDX address: set by the processor's fault path */
    mov RUN_ON_STACK(%rbp), %rbx
    mov %eax, RUN_FUNCTION(%rbx)
    mov %di, RUN_VECTOR(%rbx)
    mov %si, RUN_ERROR(%rbx)
    mov %rdx, RUN_ADDRESS(%rbx)
    jmp .Lexit
.Lhandler: /* handler(rdi, rsi, rdx, rsp, r8, r9, run): the untrusted stack as the enclave left it */
    mov %rsp, %rcx
    mov %rbx, %rax
    mov %rsp, %rbx
    and $15, %ebx
    and $-16, %rsp
    push %rax
    push %rax
    cld
    call *RUN_HANDLER(%rax)
    lea 16(%rsp, %rbx), %rsp
    test %eax, %eax
    jle .Lout
    jmp .Lenter
    .cfi_endproc
    .size __vdso_sgx_enter_enclave, . - __vdso_sgx_enter_enclave

/* Forwards: slot order is FORWARDS in device/init.c. */
.macro forward name, slot, number
    .globl __vdso_\name
    .type __vdso_\name, @function
    .weak \name
    .type \name, @function
    .set \name, __vdso_\name
__vdso_\name:
    mov vdso_slots + 8 * \slot (%rip), %rax
    test %rax, %rax
    jz 1f
    jmp *%rax
1:  mov $\number, %eax
    syscall
    ret
    .size __vdso_\name, . - __vdso_\name
.endm
    forward clock_gettime, 0, 228
    forward gettimeofday, 1, 96
    forward time, 2, 201
    forward clock_getres, 3, 229
    forward getcpu, 4, 309
    .globl __vdso_getrandom
    .type __vdso_getrandom, @function
__vdso_getrandom:
    mov vdso_slots + 8 * 5(%rip), %rax
    test %rax, %rax
    jz 1f
    jmp *%rax
1:  mov $-38, %rax
    ret
    .size __vdso_getrandom, . - __vdso_getrandom

    .balign 64
    .globl vdso_slots
vdso_slots:
    .skip 64
    .section .note.GNU-stack, "", @progbits
