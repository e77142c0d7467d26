/* What libc would give: memory functions, a lock on a futex, the last word. */
#include "library.h"

struct global g;

void *memcpy(void *to, const void *from, size_t size)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
    return start;
}

void *memset(void *to, int byte, size_t size)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
    return start;
}

int memcmp(const void *a, const void *b, size_t size)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < size; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

/* 0 free, 1 held, 2 held and waited for. */
void lock(_Atomic uint32_t *word)
{
    uint32_t seen = 0;
    if (atomic_compare_exchange_strong(word, &seen, 1))
        return;
    while (atomic_exchange(word, 2) != 0)
        sys(__NR_futex, word, 128 /* FUTEX_WAIT_PRIVATE */, 2, 0);
}

void unlock(_Atomic uint32_t *word)
{
    if (atomic_exchange(word, 0) == 2)
        sys(__NR_futex, word, 129 /* FUTEX_WAKE_PRIVATE */, 1);
}

void note(const char *what)
{
    static const char prefix[] = "strongroom-processor: ";
    size_t size = 0;
    while (what[size])
        size++;
    sys(__NR_write, 2, prefix, sizeof prefix - 1);
    sys(__NR_write, 2, what, size);
    sys(__NR_write, 2, "\n", 1);
}

void fatal(const char *what)
{
    note(what);
    for (;;)
        sys(__NR_exit_group, 125);
}
