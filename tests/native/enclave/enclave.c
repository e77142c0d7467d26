/* The test enclave: one function a behaviour of the processor. */
#include "enclave.h"
#include "sgx_arch.h"

uint64_t vector_work(uint64_t rounds);

static struct sgx_targetinfo targetinfo __attribute__((aligned(512)));
static struct sgx_report report __attribute__((aligned(512)));
static struct sgx_keyrequest keyrequest __attribute__((aligned(512)));
static uint8_t reportdata[64] __attribute__((aligned(128))), key[16] __attribute__((aligned(16)));
static _Atomic uint64_t meeting;
static uint64_t secret[512] = {0x5ec7e7};
static const uint64_t constant[8] = {1};
static struct call *current;

static uint64_t enclu(uint32_t leaf, void *b, void *c, void *d)
{
    uint64_t rax = leaf;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd7" : "+a"(rax) : "b"(b), "c"(c), "d"(d) : "memory", "cc");
    return rax;
}

static void copy(volatile uint8_t *to, const uint8_t *from, uint64_t size)
{
    while (size--)
        *to++ = *from++;
}

static uint64_t raise_fault(uint64_t kind)
{
    uint64_t r = 0;
    switch (kind) {
    case FAULT_DE: __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%cx" : : : "rax", "rcx", "rdx"); break;
    case FAULT_UD: __asm__ volatile("mov $0x77, %%eax; ud2" : "=a"(r)); break;
    case FAULT_PF: __asm__ volatile("movb $1, 0x7123" : : : "memory"); break;
    case FAULT_GP: __asm__ volatile("movabs $0x8000000000000000, %%rcx; movb $1, (%%rcx)" : : : "rcx", "memory"); break;
    case FAULT_BP: __asm__ volatile("int3"); break;
    case FAULT_WRITE_TEXT: *(volatile uint8_t *)vector_work = 1; break;
    case FAULT_WRITE_RODATA: *(volatile uint64_t *)constant = 1; break;
    case FAULT_SYSCALL: __asm__ volatile("mov $39, %%eax; syscall" : "=a"(r) : : "rcx", "r11", "memory"); break;
    case FAULT_INT80: __asm__ volatile("mov $20, %%eax; int $0x80" : "=a"(r) : : "memory"); break;
    case FAULT_HLT: __asm__ volatile("hlt"); break;
    case FAULT_IN: __asm__ volatile("inb $0x60, %%al" : "=a"(r)); break;
    case FAULT_EXEC_DATA: ((void (*)(void))secret)(); break;
    case FAULT_EACCEPT: r = enclu(SGX_EACCEPT, &keyrequest, secret, 0); break;
    case FAULT_EMODPE: r = enclu(SGX_EMODPE, &keyrequest, secret, 0); break;
    case FAULT_EENTER: r = enclu(SGX_EENTER, 0, 0, 0); break;
    case FAULT_TF: __asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop; nop; pushfq; andl $~0x100, (%%rsp); popfq" : : : "memory", "cc"); break;
    case FAULT_TCS: __asm__ volatile("mov 0x100000, %0" : "=r"(r)); break;
    }
    return r;
}

static uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* Memory under pressure: patterns written and checked, counters that several threads raise in random order. */
static uint64_t pages_work(const uint64_t *a)
{
    uint64_t bad = 0, random = a[2];
    for (uint64_t round = 0; round < a[3]; round++)
        for (uint64_t i = 0; i < a[1]; i++) {
            uint64_t page = a[4] == PAGES_COUNT ? (random = mixed(random + i + 1)) % a[1] : i;
            uint64_t *word = (uint64_t *)(a[0] + page * 4096);
            switch (a[4]) {
            case PAGES_FILL:
                for (int w = 0; w < 512; w += 7)
                    word[w] = mixed(a[2] + page * 512 + (uint64_t)w);
                break;
            case PAGES_CHECK: {
                uint64_t wrong = 0;
                for (int w = 0; w < 512; w++)
                    wrong |= word[w] ^ (w % 7 ? 0 : mixed(a[2] + page * 512 + (uint64_t)w));
                bad += wrong != 0;
                break;
            }
            case PAGES_COUNT:
                __atomic_fetch_add(word + 1, 1, __ATOMIC_SEQ_CST);
                break;
            case PAGES_SUM:
                bad += word[1];
                break;
            }
        }
    return bad;
}

uint64_t enclave_main(uint64_t function, struct call *c)
{
    current = c;
    switch (function) {
    case F_ADD:
        c->out = c->in + 1;
        break;
    case F_FAULT:
        c->out = raise_fault(c->in);
        break;
    case F_REPORT:
        copy(reportdata, c->data, 64);
        copy((uint8_t *)&targetinfo, c->data + 64, 512);
        enclu(SGX_EREPORT, &targetinfo, reportdata, &report);
        copy(c->data, (uint8_t *)&report, sizeof report);
        break;
    case F_KEY:
        copy((uint8_t *)&keyrequest, c->data, 512);
        c->out = enclu(SGX_EGETKEY, &keyrequest, key, 0);
        copy(c->data, key, 16);
        break;
    case F_VECTOR:
        c->out = vector_work(c->in);
        break;
    case F_MEET: /* as many threads as `in` are inside at once, or this never ends */
        meeting++;
        while (meeting < c->in)
            __builtin_ia32_pause();
        c->out = meeting;
        break;
    case F_BASES:
        __asm__ volatile("rdfsbase %0; rdgsbase %1" : "=r"(c->fsbase), "=r"(c->gsbase));
        break;
    case F_POKE:
        c->out = (uint64_t)secret;
        break;
    case F_ENCLU: {
        static uint64_t secinfo[8] __attribute__((aligned(64)));
        const uint64_t *a = (const uint64_t *)c->data;
        secinfo[0] = a[1];
        c->out = enclu((uint32_t)a[0], secinfo, (void *)a[2], (void *)a[3]);
        break;
    }
    case F_LEAF: {
        const uint64_t *a = (const uint64_t *)c->data;
        uint64_t rax = a[0], flags;
        __asm__ volatile("push %%rax; mov $-1, %%eax; add $-1, %%eax; pop %%rax; .byte 0x0f, 0x01, 0xd7; pushfq; pop %1"
                         : "+a"(rax), "=r"(flags) : "b"(a[1]), "c"(a[2]), "d"(a[3]) : "memory", "cc");
        c->out = rax;
        c->count = flags & 0x8d5;
        break;
    }
    case F_PKRU: {
        uint32_t pkru;
        __asm__ volatile("wrpkru" : : "a"((uint32_t)c->in), "c"(0), "d"(0) : "memory");
        uint64_t held = *(volatile uint64_t *)secret;
        __asm__ volatile("rdpkru" : "=a"(pkru) : "c"(0) : "rdx");
        c->out = held;
        c->count = pkru;
        break;
    }
    case F_READ:
        c->out = **(volatile uint64_t **)c->data;
        break;
    case F_WRITE:
        **(volatile uint64_t **)c->data = ((uint64_t *)c->data)[1];
        break;
    case F_CALL:
        c->out = (*(uint64_t (**)(void))c->data)();
        break;
    case F_PAGES:
        c->out = pages_work((const uint64_t *)c->data);
        break;
    case F_SUM:
        c->out = secret[0];
        break;
    }
    return function + 100;
}

/* Entry with CSSA = 1, after a fault or an interrupt: reports it, may skip the instruction. */
uint64_t enclave_exception(uint64_t skip, struct call *c, struct sgx_gprsgx *gpr)
{
    c->count++;
    c->exitinfo = gpr->exitinfo;
    c->fault_rip = gpr->rip;
    struct sgx_exinfo *info = (void *)((uint8_t *)gpr - sizeof *info);
    c->maddr = info->maddr;
    c->errcd = info->errcd;
    gpr->rip += skip;
    if (skip)
        gpr->rax = c->handler_rax;
    return 0;
}
