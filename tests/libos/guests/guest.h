/* A guest of checks: CHECK(name) { ... } in any number, then GUEST_MAIN. Each prints one JSON line; EXPECT says what went wrong. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct check { const char *name; void (*run)(void); struct check *next; };
static struct check *g_first, **g_last = &g_first;
static char g_said[400];

#define CHECK(check_name)                                                                      \
    static void check_##check_name(void);                                                      \
    __attribute__((constructor)) static void add_##check_name(void)                            \
    {                                                                                          \
        static struct check one = {#check_name, check_##check_name, NULL};                     \
        *g_last = &one;                                                                        \
        g_last = &one.next;                                                                    \
    }                                                                                          \
    static void check_##check_name(void)

static void said(int line, const char *text)
{
    size_t used = strlen(g_said);
    snprintf(g_said + used, sizeof g_said - used, "line %d: %s (errno %d); ", line, text, errno);
}
#define EXPECT(...) ((__VA_ARGS__) ? 1 : (said(__LINE__, #__VA_ARGS__), 0))
#define EXPECT_ERROR(call, error) (errno = 0, EXPECT((call) == -1 && errno == (error)))

static void run_checks(void)
{
    for (struct check *one = g_first; one; one = one->next) {
        g_said[0] = 0;
        errno = 0;
        one->run();
        for (char *p = g_said; *p; p++)
            if (*p == '"' || *p == '\\')
                *p = '\'';
        printf("{\"check\": \"%s\", \"said\": \"%s\"}\n", one->name, g_said);
        fflush(stdout);
    }
}
#define GUEST_MAIN int main(void) { run_checks(); return 0; }
