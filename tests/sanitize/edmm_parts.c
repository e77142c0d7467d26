/*
 * The LibOS's EDMM heap (libos/mm/edmm.c) against a host that moves pages behind its back, as a kernel can and Linux's interface
 * cannot. Here EACCEPT looks at a page's state as the EPCM has it. Lines on standard input, an answer a line; for the sanitizers.
 */
#define _ISOC11_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mmap(void *at, size_t size, int prot, int flags, int fd, long offset);
#include "../../libos/mm/edmm.c"

#define PAGES 0x8000ull /* 128 MiB */
#define LOW 0x10000000ull
enum state { ABSENT, PENDING, HELD, TRIMMED };
static struct { unsigned char state; unsigned accepted; } g_page[PAGES];
static struct boot_info g_info = {.flags = BOOT_EDMM};
static u64 g_trims = ~0ull; /* bytes that the host trims at the most */
static u64 g_host_removes = 1;

const struct boot_info *boot(void) { return &g_info; }
void cannot_start(const char *what) { puts(what); exit(3); }
void libos_bug(const char *what) { printf("bug: %s\n", what); exit(3); }
long bounded(long ret, u64 limit) { return ret >= 0 && (u64)ret <= limit ? ret : -EIO; }

static u64 number(u64 address) { return (address - LOW) / PAGE; }

/* EACCEPT, SDM vol. 3D: the state must be the one that is asked for; a page that is absent comes by the fault (EAUG). */
u64 libos_enclu(u64 leaf, const void *rbx, const void *rcx, void *rdx)
{
    u64 flags = *(const u64 *)rbx, n = number((u64)rcx);
    (void)leaf, (void)rdx;
    if (n >= PAGES)
        return 99;
    if (g_page[n].state == ABSENT)
        g_page[n].state = PENDING;
    if (flags & SECINFO_TRIM)
        return g_page[n].state == TRIMMED ? 0 : 0x13;
    if (g_page[n].state != PENDING)
        return 0x13; /* SGX_PAGE_ATTRIBUTES_MISMATCH */
    g_page[n].state = HELD;
    g_page[n].accepted++;
    return 0;
}

long ocall(u64 op, u64 nr, u64 from, u64 size, u64 c, u64 d, u64 e, u64 f)
{
    (void)nr, (void)c, (void)d, (void)e, (void)f;
    if (op == OCALL_TRIM) {
        size = min64(size, g_trims);
        for (u64 n = number(from); n < number(from + size); n++)
            g_page[n].state = TRIMMED;
        return (long)size;
    }
    for (u64 n = number(from); g_host_removes && n < number(from + size); n++) {
        g_page[n].state = ABSENT;
        memset((void *)(LOW + n * PAGE), 0, PAGE); /* what comes next is another page */
    }
    return g_host_removes ? (long)size : -EPERM;
}

int main(void)
{
    char verb[16];
    unsigned long long a, b;
    if (mmap((void *)LOW, PAGES * PAGE, 3, 0x32 | 0x4000 /* NORESERVE */, -1, 0) != (void *)LOW)
        return 2;
    u64 high = edmm_start(LOW, LOW + PAGES * PAGE);
    while (scanf("%15s %llx %llx", verb, &a, &b) == 3) {
        if (!strcmp(verb, "fault"))
            puts((const char *[]){"not mine", "again", "lost"}[edmm_fault(a, (u32)b)]);
        else if (!strcmp(verb, "touch")) { /* what an instruction does: until the page is there, or three times in vain */
            enum edmm_answer answer = EDMM_AGAIN;
            for (int i = 0; i < 3 && answer == EDMM_AGAIN && g_page[number(a)].state != HELD; i++)
                answer = edmm_fault(a, 6);
            puts(answer != EDMM_AGAIN ? "lost" : g_page[number(a)].state == HELD ? "there" : "stands still");
        } else if (!strcmp(verb, "state"))
            printf("%s %u\n", (const char *[]){"absent", "pending", "held", "trimmed"}[g_page[number(a)].state], g_page[number(a)].accepted);
        else if (!strcmp(verb, "swap")) { /* the kernel removes a page (EREMOVE) and adds another one (EAUG) */
            g_page[number(a)].state = PENDING;
            puts("done");
        } else if (!strcmp(verb, "trim")) { /* without being asked */
            g_page[number(a)].state = TRIMMED;
            puts("done");
        } else if (!strcmp(verb, "unused"))
            edmm_unused(a, b), puts("done");
        else if (!strcmp(verb, "used"))
            edmm_used(a, b), puts("done");
        else if (!strcmp(verb, "zero"))
            mm_zero(a, b), puts("done");
        else if (!strcmp(verb, "trims"))
            g_trims = a, puts("done");
        else if (!strcmp(verb, "removes"))
            g_host_removes = a, puts("done");
        else if (!strcmp(verb, "high"))
            printf("%lx\n", high);
        else
            puts("?");
        fflush(stdout);
    }
    return 0;
}
