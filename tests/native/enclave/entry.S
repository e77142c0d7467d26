/* GS base is the thread's page: 8 stack, 16 host RSP, 24 host RBP, 32 return address; 40 SSA[0]'s GPRSGX,
 * 48 exception stack, 56.. the same three for the exception entry. RDI function, RSI struct call. */
    .text
    .globl enclave_entry, vector_work
enclave_entry:
    test %rax, %rax
    jnz 2f
    mov %rsp, %gs:16
    mov %rbp, %gs:24
    mov %rcx, %gs:32
    mov %gs:8, %rsp
    cmp $6, %rdi
    je 3f
    cld
    call enclave_main
    mov %gs:16, %rsp
    mov %gs:24, %rbp
    mov %gs:32, %rbx
    mov %rax, %rdi
1:  mov $4, %eax
    .byte 0x0f, 0x01, 0xd7
    ud2
2:  mov %rsp, %gs:56
    mov %rbp, %gs:64
    mov %rcx, %gs:72
    mov %gs:48, %rsp
    mov %gs:40, %rdx
    cld
    call enclave_exception
    mov %gs:56, %rsp
    mov %gs:64, %rbp
    mov %gs:72, %rbx
    jmp 1b
3:  /* F_REGISTERS: leave with known values in all that EEXIT passes on */
    mov %gs:16, %rsp
    mov %gs:24, %rbp
    mov %gs:32, %rbx
    mov $0x1111, %edi
    mov $0x2222, %esi
    mov $0x3333, %edx
    mov $0x4444, %r8d
    mov $0x5555, %r9d
    mov $0x6666, %r10d
    mov $0x7777, %r11d
    jmp 1b

/* uint64_t vector_work(rounds): keeps all vector and general registers live; 0, or the number of a mismatch. */
vector_work:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    pcmpeqd %xmm0, %xmm0
    mov $0x0123456789abcdef, %rax
    vmovq %rax, %xmm1
    vpbroadcastq %xmm1, %ymm1
    vpaddq %ymm1, %ymm1, %ymm2
    vpaddq %ymm1, %ymm2, %ymm3
    vpaddq %ymm1, %ymm3, %ymm15
    mov $11, %r8d
    mov $22, %r9d
    mov $33, %r12d
    mov $44, %r13d
    mov $55, %r14d
    mov $66, %r15d
    mov $77, %ebp
    mov $88, %ebx
1:  vpsubq %ymm2, %ymm3, %ymm4
    vpcmpeqq %ymm1, %ymm4, %ymm4
    vpmovmskb %ymm4, %eax
    cmp $-1, %eax
    jne 8f
    vpsubq %ymm3, %ymm15, %ymm4
    vpcmpeqq %ymm1, %ymm4, %ymm4
    vpmovmskb %ymm4, %eax
    cmp $-1, %eax
    jne 8f
    lea (%r8, %r9), %rax
    add %r12, %rax
    add %r13, %rax
    add %r14, %rax
    add %r15, %rax
    add %rbp, %rax
    add %rbx, %rax
    cmp $396, %rax
    jne 9f
    dec %rdi
    jnz 1b
    xor %eax, %eax
    jmp 7f
8:  mov $1, %eax
    jmp 7f
9:  mov $2, %eax
7:  vzeroupper
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .section .note.GNU-stack, "", @progbits
