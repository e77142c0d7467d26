/* Why it cannot go on, and when each step was done. */
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "loader.h"

void fail(const char *f, ...)
{
    va_list list;
    fputs("strongroom-loader: ", stderr);
    va_start(list, f);
    vfprintf(stderr, f, list);
    va_end(list);
    fputc('\n', stderr);
    _exit(125);
}

/* ---- --timing: when each step was done, for the benchmarks ---- */
static struct { const char *name; uint64_t ns; } g_step[8];
static unsigned g_steps;

void step_done(const char *name)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (g_steps < sizeof g_step / sizeof *g_step) {
        g_step[g_steps].name = name;
        g_step[g_steps++].ns = (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
    }
}

void steps_tell(void)
{
    char line[512];
    int n = snprintf(line, sizeof line, "strongroom-loader: timing");
    for (unsigned i = 0; i < g_steps && n < (int)sizeof line; i++)
        n += snprintf(line + n, sizeof line - (size_t)n, " %s=%llu", g_step[i].name, (unsigned long long)g_step[i].ns);
    fprintf(stderr, "%s\n", line);
}
