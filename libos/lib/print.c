/* A small formatter, and lines to the host's standard error. */
#include <asm/unistd.h>

#include "libos.h"

struct out { char *to; size_t size, used; };

static void put(struct out *o, char c)
{
    if (o->used + 1 < o->size)
        o->to[o->used++] = c;
}

static void put_number(struct out *o, u64 n, unsigned base, int width, char pad)
{
    char digits[24];
    int count = 0;
    do
        digits[count++] = "0123456789abcdef"[n % base];
    while (n /= base);
    for (int i = count; i < width; i++)
        put(o, pad);
    while (count)
        put(o, digits[--count]);
}

int vformat(char *to, size_t size, const char *f, __builtin_va_list list)
{
    struct out o = {to, size, 0};
    for (; *f; f++) {
        if (*f != '%') {
            put(&o, *f);
            continue;
        }
        int width = 0, wide = 0;
        char pad = ' ';
        f++;
        if (*f == '0')
            pad = *f++;
        while (*f >= '0' && *f <= '9')
            width = width * 10 + *f++ - '0';
        while (*f == 'l')
            wide = 1, f++;
        switch (*f) {
        case 's': {
            const char *s = __builtin_va_arg(list, const char *);
            int count = 0;
            for (; *s; s++, count++)
                put(&o, *s);
            for (; count < width; count++)
                put(&o, ' ');
            break;
        }
        case 'd': {
            long n = wide ? __builtin_va_arg(list, long) : __builtin_va_arg(list, int);
            if (n < 0)
                put(&o, '-');
            put_number(&o, n < 0 ? -(u64)n : (u64)n, 10, width, pad);
            break;
        }
        case 'u':
        case 'x':
            put_number(&o, wide ? __builtin_va_arg(list, u64) : __builtin_va_arg(list, u32), *f == 'u' ? 10 : 16,
                       width, pad);
            break;
        case 'c':
            put(&o, (char)__builtin_va_arg(list, int));
            break;
        default:
            put(&o, *f);
        }
    }
    if (size)
        to[o.used] = 0;
    return (int)o.used;
}

int format(char *to, size_t size, const char *f, ...)
{
    __builtin_va_list list;
    __builtin_va_start(list, f);
    int used = vformat(to, size, f, list);
    __builtin_va_end(list);
    return used;
}

void say(const char *f, ...)
{
    char line[512];
    __builtin_va_list list;
    __builtin_va_start(list, f);
    int used = vformat(line, sizeof line - 1, f, list);
    __builtin_va_end(list);
    line[used++] = '\n';
    memcpy(ocall_data(), line, (size_t)used);
    host(__NR_write, 2, host_data_address(), used);
}
