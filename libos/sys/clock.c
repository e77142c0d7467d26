/*
 * What time it is. The host says, and is not believed further than that a clock does not run backwards. A call out costs two
 * traps, and interpreters ask for the time with each lock they take: so where RDTSC does not fault (SGX2; on SGX1 it raises
 * #UD), the time between two questions is counted by the time stamp counter, its rate learnt from the host's answers.
 */
#include <asm/unistd.h>

#include "libos.h"

#define CLOCKS 12
#define BASELINE 1000000u          /* ns of CLOCK_MONOTONIC before the counter's rate is known */
#define TRUSTED 1000000000u        /* ns at most that are counted before the host is asked again */
#define RATE_MIN (1ull << 27)      /* ns << 32 a tick: 32 GHz */
#define RATE_MAX (1ull << 36)      /* 60 MHz */

static u64 g_last[CLOCKS];
static struct { u64 tsc, ns, until; } g_anchor[CLOCKS];
static u64 g_first_tsc, g_first_ns, g_rate;
static bool g_no_counter;

static u64 host_ns(int clock)
{
    long ret = host(__NR_clock_gettime, clock, host_data_address());
    u64 seconds = ((volatile u64 *)ocall_data())[0], ns = ((volatile u64 *)ocall_data())[1];
    return ret || ns >= 1000000000 || seconds > 1ull << 33 ? 0 : seconds * 1000000000 + ns;
}

/* (ticks * rate) >> 32 without overflow; 2^32 * ns / ticks for ns < ticks * 2^4. */
static u64 to_ns(u64 ticks, u64 rate) { return (u64)(((unsigned __int128)ticks * rate) >> 32); }
static u64 rate_of(u64 ns, u64 ticks)
{
    u64 quotient, rest, high = ns >> 32, low = ns << 32;
    if (high >= ticks)
        return 0;
    __asm__("divq %4" : "=a"(quotient), "=d"(rest) : "0"(low), "1"(high), "r"(ticks) : "cc");
    return quotient;
}

/* The host's time with the counter in the middle of the question; false when the question took too long to say. */
static bool ask(int clock, u64 *ns, u64 *tsc, u64 *width)
{
    u64 before = libos_rdtsc();
    *ns = host_ns(clock);
    u64 after = libos_rdtsc();
    *tsc = before + (after - before) / 2;
    *width = after - before;
    return *ns && after > before;
}

/* From CLOCK_MONOTONIC alone: the others can be set. */
static void learn_rate(u64 ns, u64 tsc, u64 width)
{
    if (!g_first_tsc || tsc <= g_first_tsc || ns < g_first_ns) {
        g_first_tsc = tsc;
        g_first_ns = ns;
        g_rate = 0;
        return;
    }
    u64 ticks = tsc - g_first_tsc;
    if (ns - g_first_ns < BASELINE || width > ticks / 32)
        return;
    g_rate = rate_of(ns - g_first_ns, ticks);
    if (g_rate < RATE_MIN || g_rate > RATE_MAX)
        g_rate = g_first_tsc = 0;
}

/* Asks the host; from here on the counter says how far this clock is, for as long as its rate has been known. */
static u64 synchronise(int clock)
{
    u64 ns, tsc, width;
    if (clock != 1 && ask(1, &ns, &tsc, &width))
        learn_rate(ns, tsc, width);
    bool good = ask(clock, &ns, &tsc, &width);
    if (clock == 1 && good)
        learn_rate(ns, tsc, width);
    g_anchor[clock].until = 0;
    if (!good || !g_rate || width > (tsc - g_first_tsc) / 32)
        return ns;
    u64 known = tsc - g_first_tsc, most = rate_of(TRUSTED, g_rate);
    g_anchor[clock].tsc = tsc;
    g_anchor[clock].ns = ns;
    g_anchor[clock].until = tsc + (known < most ? known : most);
    return ns;
}

u64 clock_begin(void) { return g_first_ns ? g_first_ns : now_ns(1); }

static bool counted(int clock) { return clock == 0 || clock == 1 || (clock >= 4 && clock <= 7); }

u64 now_ns(int clock)
{
    u64 tsc = !g_no_counter && counted(clock) ? libos_rdtsc() : 0, now;
    if (!tsc) {
        g_no_counter |= counted(clock);
        now = host_ns(clock);
    } else if (tsc < g_anchor[clock].until && tsc >= g_anchor[clock].tsc) {
        now = g_anchor[clock].ns + to_ns(tsc - g_anchor[clock].tsc, g_rate);
    } else {
        now = synchronise(clock);
    }
    u64 *last = &g_last[clock];
    u64 was = __atomic_load_n(last, __ATOMIC_RELAXED);
    while (now > was && !__atomic_compare_exchange_n(last, &was, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    if (now < was && clock != 2 && clock != 3)
        now = was; /* a clock that is set back stands still here */
    return now;
}
