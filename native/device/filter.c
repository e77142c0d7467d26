/*
 * The system call filter: SECCOMP_RET_TRAP for the calls that the library serves, and for any call made
 * from within an ELRANGE. Threads inherit it; the library's own text is exempt by instruction pointer.
 */
#include "library.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#define NR 0
#define ARCH 4
#define IP_LOW 8
#define IP_HIGH 12
#define ARG_LOW(n) (16 + 8 * (n))
#define ARG_HIGH(n) (20 + 8 * (n))

#define LOAD(at) (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define AND(k) (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, k)
#define EQUAL(k, yes, no) (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no)
#define LESS(k, yes, no) (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, k, no, yes)
#define ALLOW (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define TRAP (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP)

struct program { struct sock_filter code[96]; unsigned short count; };

static void emit(struct program *p, struct sock_filter i) { p->code[p->count++] = i; }

/* The library's own calls go through. */
static void emit_exemption(struct program *p)
{
    emit(p, LOAD(IP_HIGH));
    emit(p, EQUAL((uint32_t)(LIBRARY_BASE >> 32), 0, 3));
    emit(p, LOAD(IP_LOW));
    emit(p, LESS((uint32_t)LIBRARY_TEXT_SPAN, 0, 1));
    emit(p, ALLOW);
}

static void emit_trap_if(struct program *p, uint32_t number)
{
    emit(p, EQUAL(number, 0, 1));
    emit(p, TRAP);
}

static void install(struct program *p)
{
    struct sock_fprog program = {.len = p->count, .filter = p->code};
    long r = sys(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (r == -EACCES && !sys(__NR_prctl, 38 /* PR_SET_NO_NEW_PRIVS */, 1))
        r = sys(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (r)
        fatal("the kernel refuses a seccomp filter: is CONFIG_SECCOMP_FILTER missing, or a thread under another filter?");
}

void filter_install(void)
{
    static const uint32_t always[] = {__NR_open, __NR_openat, __NR_openat2, __NR_rt_sigaction, __NR_rt_sigprocmask,
                                      __NR_sigaltstack, __NR_exit, __NR_execve, __NR_execveat};
    static struct program p;
    emit_exemption(&p);
    emit(&p, LOAD(ARCH));
    emit(&p, EQUAL(AUDIT_ARCH_X86_64, 1, 0));
    emit(&p, ALLOW);
    emit(&p, LOAD(NR));
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
        emit_trap_if(&p, always[i]);
    emit(&p, EQUAL(__NR_ioctl, 0, 4));
    emit(&p, LOAD(ARG_LOW(1)));
    emit(&p, AND(0xff00));
    emit(&p, EQUAL(SGX_MAGIC << 8, 0, 6));
    emit(&p, TRAP);
    emit(&p, EQUAL(__NR_mmap, 0, 4));
    emit(&p, LOAD(ARG_LOW(3)));
    emit(&p, AND(MAP_ANONYMOUS));
    emit(&p, EQUAL(0, 0, 1));
    emit(&p, TRAP);
    emit(&p, ALLOW);
    install(&p);
}

/* Traps when the 64-bit word at `low` lies in the naturally aligned range; else goes on behind it. */
static void emit_in_range(struct program *p, uint32_t low, uint64_t base, uint64_t size)
{
    uint64_t mask = ~(size - 1);
    emit(p, LOAD(low + 4));
    emit(p, AND((uint32_t)(mask >> 32)));
    emit(p, EQUAL((uint32_t)(base >> 32), 0, 4));
    emit(p, LOAD(low));
    emit(p, AND((uint32_t)mask));
    emit(p, EQUAL((uint32_t)base, 0, 1));
    emit(p, TRAP);
}

static struct { uint64_t base, size; } covered[64];
static uint32_t covered_count;

/*
 * An enclave's ELRANGE: calls from inside trap. So do, once there is an enclave, all calls that change mappings, wherever: a range may
 * begin below an enclave and reach into it. Of mmap only MAP_FIXED takes a place that is not free.
 */
void filter_cover(uint64_t base, uint64_t size)
{
    static const uint32_t mappings[] = {__NR_munmap, __NR_mprotect, __NR_mremap, __NR_madvise, __NR_pkey_mprotect, __NR_remap_file_pages};
    static struct program p;
    lock(&g.memory_lock);
    for (uint32_t i = 0; i < covered_count; i++)
        if (base >= covered[i].base && base - covered[i].base + size <= covered[i].size) {
            unlock(&g.memory_lock);
            return;
        }
    p.count = 0;
    emit_exemption(&p);
    emit_in_range(&p, IP_LOW, base, size);
    emit(&p, LOAD(ARCH));
    emit(&p, EQUAL(AUDIT_ARCH_X86_64, 1, 0));
    emit(&p, ALLOW);
    if (!covered_count) {
        emit(&p, LOAD(NR));
        for (unsigned i = 0; i < sizeof mappings / sizeof mappings[0]; i++)
            emit_trap_if(&p, mappings[i]);
        emit(&p, EQUAL(__NR_mmap, 0, 4));
        emit(&p, LOAD(ARG_LOW(3)));
        emit(&p, AND(MAP_FIXED));
        emit(&p, EQUAL(0, 1, 0));
        emit(&p, TRAP);
    }
    emit(&p, ALLOW);
    install(&p);
    if (covered_count < 64) {
        covered[covered_count].base = base;
        covered[covered_count++].size = size;
    }
    unlock(&g.memory_lock);
}
