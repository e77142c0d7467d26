/*
 * The enclave of attacks/misuse.c, one page of code at BASE + 2 pages. RDI: 1 spins with secret values in its registers
 * until the word at RSI (outside) is not 0; 2 counts this entry at DATA + 64 and stores the count at RSI. The secrets
 * are the words at DATA with MASK, so that they are nowhere in clear before it runs.
 */
#define DATA 0x13000
#define MASK 0x5a17c0de5a17c0de
    .text
    test %rax, %rax
    jnz leave
    cmp $2, %rdi
    je count
    movabs $MASK, %rax
    mov DATA, %r12
    mov DATA + 8, %r13
    mov DATA + 16, %r14
    mov DATA + 24, %r15
    xor %rax, %r12
    xor %rax, %r13
    xor %rax, %r14
    xor %rax, %r15
    movq %r12, %xmm1
    movq %r13, %xmm2
    pinsrq $1, %r14, %xmm1
    pinsrq $1, %r15, %xmm2
spin:
    pause
    cmpl $0, (%rsi)
    je spin
    xor %r12d, %r12d
    xor %r13d, %r13d
    xor %r14d, %r14d
    xor %r15d, %r15d
    pxor %xmm1, %xmm1
    pxor %xmm2, %xmm2
    jmp leave
count:
    incq DATA + 64
    mov DATA + 64, %rax
    mov %rax, (%rsi)
leave:
    mov %rcx, %rbx
    mov $4, %eax /* EEXIT */
    .byte 0x0f, 0x01, 0xd7
    ud2
    .section .note.GNU-stack, "", @progbits
