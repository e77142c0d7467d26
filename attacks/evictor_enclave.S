/*
 * The enclave of attacks/evictor.c: words in pages, more of them than the EPC holds. RSI: four words outside: number of
 * the first page, count of pages, seed, result. RDI: 1 fills each page with the word seed + its number, 2 counts the
 * pages that hold anything else, 3 adds one to each page's first word and tells it.
 */
#define HEAP 0x100000
    .text
    mov %rcx, %r8 /* where to leave to */
    test %rax, %rax
    jnz leave
    mov %rdi, %r11
    mov (%rsi), %r9
    mov 8(%rsi), %r10
    xor %edx, %edx
next:
    test %r10, %r10
    jz done
    mov %r9, %rdi
    shl $12, %rdi
    add $HEAP, %rdi
    mov 16(%rsi), %rax
    add %r9, %rax
    mov $512, %ecx
    cmp $2, %r11
    je check
    ja count
    rep stosq
    jmp step
check:
    repe scasq
    je step
    inc %rdx
    jmp step
count:
    incq (%rdi)
    mov (%rdi), %rdx
step:
    inc %r9
    dec %r10
    jmp next
done:
    mov %rdx, 24(%rsi)
leave:
    mov %r8, %rbx
    mov $4, %eax /* EEXIT */
    .byte 0x0f, 0x01, 0xd7
    ud2
    .section .note.GNU-stack, "", @progbits
