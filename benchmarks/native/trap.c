/* What one trap costs without any of our code: ENCLU's bytes raise #UD, a bare handler steps over them. argv: traps. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <ucontext.h>

static void step_over(int number, siginfo_t *info, void *context)
{
    (void)number, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 3;
}

int main(int argc, char **argv)
{
    long traps = argc > 1 ? atol(argv[1]) : 1000;
    struct sigaction act = {.sa_sigaction = step_over, .sa_flags = SA_SIGINFO};
    struct timespec a, b;
    sigaction(SIGILL, &act, NULL);
    sigaction(SIGSEGV, &act, NULL); /* where the processor has SGX: #GP */
    unsigned long long start = __builtin_ia32_rdtsc();
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (long i = 0; i < traps; i++)
        __asm__ volatile("mov $4, %%eax; .byte 0x0f, 0x01, 0xd7" : : : "rax", "memory");
    clock_gettime(CLOCK_MONOTONIC, &b);
    unsigned long long ticks = __builtin_ia32_rdtsc() - start;
    double ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
    printf("%.3f %.6f\n", ns / (double)traps, (double)ticks / ns);
    return 0;
}
