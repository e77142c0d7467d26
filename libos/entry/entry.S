/* Every way into and out of the LibOS. Offsets are struct thread's (libos.h), registers those of SDM vol. 3D. */
#include "sgx.h"
#define T_STACK_TOP %gs:8
#define T_USER_RSP %gs:40
#define T_EXIT_RIP %gs:48
#define T_OCALL_RSP %gs:56
#define T_FS_BASE %gs:64
#define T_HOST_RSP %gs:72
#define T_HOST_RBP %gs:80
#define T_HOST_RETURN %gs:88
#define T_BLOCK %gs:96
#define T_EVENT_RSP %gs:104
#define T_EVENT_RBP %gs:112
#define T_EVENT_RETURN %gs:120
#define T_SIGNAL_WORK %gs:128
#define R_RIP 128
#define R_RSP 144
#define FRAME 160
#define XSTATE_SIZE 2752
#define XSTATE_MASK 0xe7
#define ECALL_RETURN 3
#define EEXIT_REFUSED 0x5f01
#define EXCEPTION_STACK 0x1c000

    .text
    .globl libos_entry, libos_syscall_entry, libos_resume_entry, libos_ocall_exit, libos_leave, libos_go
    .globl libos_exit_begin, libos_exit_end, libos_enclu

.macro clean_flags
    pushq $2
    popfq
.endm
.macro forget
    xor %eax, %eax
    xor %ecx, %ecx
    xor %r8d, %r8d
    xor %r9d, %r9d
    xor %r10d, %r10d
    xor %r11d, %r11d
    xor %r12d, %r12d
    xor %r13d, %r13d
    xor %r14d, %r14d
    xor %r15d, %r15d
.endm

/* EENTER: RAX CSSA, RBX TCS, RCX where EEXIT goes back to, RDI and RSI from outside. */
libos_entry:
    cld
    test %rax, %rax
    jne entry_event
    mov T_OCALL_RSP, %rdx
    test %rdx, %rdx
    jne entry_return
    mov %rsp, T_HOST_RSP
    mov %rbp, T_HOST_RBP
    mov %rcx, T_HOST_RETURN
    mov T_STACK_TOP, %rsp
    clean_flags
    call reset_xstate
    xor %ebp, %ebp
    call libos_ecall /* comes back only to refuse */
refuse:
    mov $EEXIT_REFUSED, %edi
    xor %esi, %esi
    xor %edx, %edx
    mov T_HOST_RSP, %rsp
    mov T_HOST_RBP, %rbp
    mov T_HOST_RETURN, %rbx
    forget
    mov $SGX_EEXIT, %eax
    enclu
    ud2

/* An OCALL is out: only its return is in order, and it finds the stack as it was. */
entry_return:
    mov %rsp, T_HOST_RSP
    mov %rbp, T_HOST_RBP
    mov %rcx, T_HOST_RETURN
    cmp $ECALL_RETURN, %rdi
    jne refuse
    mov %rdx, %rsp
    movq $0, T_OCALL_RSP
    clean_flags
    mov $XSTATE_MASK, %eax
    xor %edx, %edx
    xrstor64 8(%rsp)
    mov T_FS_BASE, %rax
    wrfsbase %rax
    mov (%rsp), %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

/* void libos_ocall_exit(void): the block is filled. The program's vector state stays here. */
libos_ocall_exit:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rbx
    sub $XSTATE_SIZE, %rsp
    and $-64, %rsp
    xor %eax, %eax
    mov $8, %ecx
    lea 512(%rsp), %rdi
    rep stosq
    mov $XSTATE_MASK, %eax
    xor %edx, %edx
    xsave64 (%rsp)
    mov %rsp, %rcx
    sub $8, %rsp
    mov %rbx, (%rsp)
    call reset_xstate
    mov T_BLOCK, %rdi
    mov %rsp, T_OCALL_RSP
    mov T_HOST_RSP, %rsp
    mov T_HOST_RBP, %rbp
    mov T_HOST_RETURN, %rbx
    xor %esi, %esi
    xor %edx, %edx
    forget
    mov $SGX_EEXIT, %eax
    enclu
    ud2

/* Initial vector state, MXCSR and x87 control words. */
reset_xstate:
    push %rdi
    push %rsi
    mov $XSTATE_MASK, %eax
    xor %edx, %edx
    xrstor64 initial_xstate(%rip)
    pop %rsi
    pop %rdi
    ret

/* CSSA 1: after an exception or a signal, on a stack of its own. Deeper: the LibOS itself failed. */
entry_event:
    cmp $1, %rax
    jne entry_lost
    mov %rsp, T_EVENT_RSP
    mov %rbp, T_EVENT_RBP
    mov %rcx, T_EVENT_RETURN
    mov T_STACK_TOP, %rsp
    sub $EXCEPTION_STACK, %rsp
    clean_flags
    xor %ebp, %ebp
    call libos_event /* answer in RAX: RDI for outside; status in RDX */
    mov %rax, %rdi
    mov %rdx, %rsi
    mov T_EVENT_RSP, %rsp
    mov T_EVENT_RBP, %rbp
    mov T_EVENT_RETURN, %rbx
    xor %edx, %edx
    forget
    mov $SGX_EEXIT, %eax
    enclu
    ud2
entry_lost:
    mov %rcx, %rbx
    mov $0x5f03, %edi
    mov $134, %esi
    xor %edx, %edx
    forget
    mov $SGX_EEXIT, %eax
    enclu
    ud2

/* The system call, from a thunk (or by way of libos_event): RCX where to go on, the rest as in Linux. */
libos_syscall_entry:
    mov %rsp, T_USER_RSP
    mov T_STACK_TOP, %rsp
    lea -8(%rsp), %rsp
    pushq T_USER_RSP
    pushfq
    push %rcx
    push %rax
    push %rdi
    push %rsi
    push %rdx
    push %rcx
    push %rax
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    clean_flags
    mov %rsp, %rdi
    call libos_dispatch
    jmp libos_exit_begin

/* RSP is the frame: deliver what is due, then go (back) to the program. */
libos_resume_entry:
    clean_flags
    mov %rsp, %rdi
    call signals_deliver
/* An event that comes between these two labels starts again at libos_resume_entry: all is still in the frame. */
libos_exit_begin:
    cmpl $0, T_SIGNAL_WORK
    jne libos_resume_entry
    mov R_RIP(%rsp), %rax
    mov %rax, T_EXIT_RIP
    mov R_RSP(%rsp), %rax
    mov %rax, T_USER_RSP
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rax
    pop %rcx
    pop %rdx
    pop %rsi
    pop %rdi
    lea 16(%rsp), %rsp
    popfq
    mov T_USER_RSP, %rsp
    jmp *T_EXIT_RIP
libos_exit_end:

/* libos_go(regs): into the program with these registers; FS base is set by the caller. */
libos_go:
    mov T_STACK_TOP, %rax
    sub $FRAME, %rax
    mov %rdi, %rsi
    mov %rax, %rdi
    mov $19, %ecx
    cld
    mov %rax, %rsp
    rep movsq
    jmp libos_exit_begin

/* libos_leave(&state): the thread's slot is free from here on; nothing of the stack is used any more. */
libos_leave:
    call reset_xstate
    mov T_HOST_RSP, %rsi
    mov T_HOST_RBP, %rbp
    mov T_HOST_RETURN, %rbx
    mov T_BLOCK, %rdx
    mov %rsi, %rsp
    movl $0, (%rdi)
    mov %rdx, %rdi
    xor %esi, %esi
    xor %edx, %edx
    forget
    mov $SGX_EEXIT, %eax
    enclu
    ud2

/* u64 libos_rdtsc(void): 0 where it faults; libos_event goes on at the second label then. */
    .globl libos_rdtsc, libos_rdtsc_none
libos_rdtsc:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    ret
libos_rdtsc_none:
    xor %eax, %eax
    ret

/* u64 libos_enclu(leaf, rbx, rcx, rdx): EREPORT, EGETKEY; RAX after it. */
libos_enclu:
    push %rbx
    mov %rcx, %r8
    mov %rdi, %rax
    mov %rsi, %rbx
    mov %rdx, %rcx
    mov %r8, %rdx
    enclu
    pop %rbx
    ret

    .section .rodata
    .balign 64
initial_xstate: /* XSTATE_BV 0: every component initial; MXCSR is loaded from here all the same */
    .short 0x37f
    .skip 22
    .long 0x1f80
    .skip XSTATE_SIZE - 28
    .section .note.GNU-stack, "", @progbits
