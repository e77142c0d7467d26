/* Assembly of the library: first instruction, signal entry, the copy that survives a fault. */
    .text
    .globl library_start, signal_stub, signal_restore, copy_host, zero_host
    .globl copy_host_begin, copy_host_end, copy_host_fault

/* Run by the injector in the new program, RDI = struct inject_block. Ends with a trap for the injector. */
library_start:
    xor %ebp, %ebp
    call library_init
    int3

/* The kernel enters here on the alternate stack. FS base may be the enclave's; so may RFLAGS.AC. */
signal_stub:
    cld
    pushfq
    andl $~0x40000, (%rsp)
    popfq
    sub $8, %rsp
    call signal_entry
    lea -4096(%rsp), %rdi /* what was below may hold an enclave's registers */
    mov $512, %ecx
    xor %eax, %eax
    rep stosq
    add $8, %rsp
    ret

/*
 * EENTER by a plain call from the vDSO: all registers as at its ENCLU. Signals may be delivered anywhere here as
 * in any of the program's code, except that between the two changes of the mask they wait, and that once the
 * thread counts as inside, the handler completes the entry from the registers in the thread's record.
 */
    .globl enter_call, enter_call_end
enter_call:
    push %rax /* enter_by_call's registers: order of THREAD_ENTRY_* there */
    push %rcx
    push %rdx
    push %rbx
    lea 32(%rsp), %rdx
    push %rdx
    mov 16(%rsp), %rdx
    push %rbp
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    pushfq
    push $0 /* the mask to return to */
    mov $14, %eax /* rt_sigprocmask */
    xor %edi, %edi
    lea enter_blocked(%rip), %rsi
    mov %rsp, %rdx
    mov $8, %r10d
    syscall
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    cld
    call enter_by_call
    mov %rbp, %rsp
    mov %rax, %rbx
    mov $14, %eax
    mov $2, %edi /* SIG_SETMASK */
    mov %rsp, %rsi
    xor %edx, %edx
    mov $8, %r10d
    syscall
    test %rbx, %rbx
    jz 1f
    mov %rbx, %rcx /* the record's registers; the entry point goes below the host's stack pointer */
    mov 32(%rcx), %rsp
    mov 136(%rcx), %rax
    push %rax
    push 128(%rcx)
    popfq
    mov 0(%rcx), %rax
    mov 16(%rcx), %rdx
    mov 24(%rcx), %rbx
    mov 40(%rcx), %rbp
    mov 48(%rcx), %rsi
    mov 56(%rcx), %rdi
    mov 64(%rcx), %r8
    mov 72(%rcx), %r9
    mov 80(%rcx), %r10
    mov 88(%rcx), %r11
    mov 96(%rcx), %r12
    mov 104(%rcx), %r13
    mov 112(%rcx), %r14
    mov 120(%rcx), %r15
    mov 8(%rcx), %rcx
    ret
1:  pop %rax /* not this way: the instruction itself, with its fault */
    popfq
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rbp
    lea 8(%rsp), %rsp
    pop %rbx
    pop %rdx
    pop %rcx
    pop %rax
    jmp *%rcx
enter_call_end:

signal_restore:
    mov $15, %eax
    syscall
    ud2

/* long copy_host(to, from, size); long zero_host(page): both survive a fault between the two labels. */
zero_host:
    lea 4096(%rdi), %rcx
    xor %eax, %eax
    pxor %xmm1, %xmm1
copy_host_begin:
1:  movdqa (%rdi), %xmm0
    por 16(%rdi), %xmm0
    por 32(%rdi), %xmm0
    por 48(%rdi), %xmm0
    pcmpeqb %xmm1, %xmm0
    pmovmskb %xmm0, %edx
    cmp $0xffff, %edx
    jne 2f
    add $64, %rdi
    cmp %rcx, %rdi
    jne 1b
    inc %eax
2:  ret
copy_host:
    mov %rdx, %rcx
    rep movsb
copy_host_end:
    xor %eax, %eax
    ret
copy_host_fault:
    mov $-14, %rax
    ret

/* long call_on_stack(stack_top, fn, argument) */
    .globl call_on_stack, thread_clone
call_on_stack:
    push %rbp
    mov %rsp, %rbp
    mov %rdi, %rsp
    mov %rdx, %rdi
    call *%rsi
    mov %rbp, %rsp
    pop %rbp
    ret

/* long thread_clone(stack_top, fn): shares all with its maker, whose signal mask it keeps. */
thread_clone:
    mov %rsi, %r9
    lea -16(%rdi), %rsi
    mov $0x50f00, %edi /* CLONE_VM FS FILES SIGHAND THREAD SYSVSEM */
    xor %edx, %edx
    xor %r10d, %r10d
    xor %r8d, %r8d
    mov $56, %eax
    syscall
    test %rax, %rax
    jnz 1f
    xor %ebp, %ebp
    call *%r9
    ud2
1:  ret

    .section .rodata
    .balign 8
enter_blocked: /* all but SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV SIGSYS */
    .quad ~(1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 30)

/* The program's vDSO, whole pages. */
    .section .vdso, "aw", @progbits
    .balign 4096
    .globl vdso_image, vdso_image_end
vdso_image:
    .incbin VDSO_FILE
    .balign 4096
vdso_image_end:
    .section .note.GNU-stack, "", @progbits
