/*
 * Which of an enclave's pages exist: a tree of bits, 64 to a word, whose lowest level has a bit a page and whose others a
 * bit for each word below that is not zero. An ELRANGE may hold 2^34 pages, nearly all of which do not exist; what walks
 * it goes from one that does to the next. Callers hold g.memory_lock.
 */
#include "library.h"

static uint64_t words_of(uint64_t bits) { return (bits + 63) / 64; }

uint64_t present_size(uint64_t pages)
{
    uint64_t words = 0;
    for (uint64_t n = pages; n > 1; n = words_of(n))
        words += words_of(n);
    return words * 8;
}

void present_start(struct enclave *e, uint64_t *table, uint64_t pages)
{
    e->present_levels = 0;
    for (uint64_t n = pages; n > 1; n = words_of(n)) {
        e->present[e->present_levels++] = table;
        table += words_of(n);
    }
}

void present_set(struct enclave *e, uint64_t page)
{
    for (uint32_t level = 0; level < e->present_levels; level++, page /= 64) {
        uint64_t *word = &e->present[level][page / 64], before = *word;
        *word |= 1ull << page % 64;
        if (before) /* the levels above know of this word */
            return;
    }
}

void present_clear(struct enclave *e, uint64_t page)
{
    for (uint32_t level = 0; level < e->present_levels; level++, page /= 64)
        if (e->present[level][page / 64] &= ~(1ull << page % 64))
            return;
}

/* The first page from `page` on that exists; `end` where there is none before it. */
uint64_t present_next(struct enclave *e, uint64_t page, uint64_t end)
{
    uint32_t level = 0;
    for (uint64_t at = page; page < end; at = at / 64 + 1, level++) { /* up, to a word with a bit at or after `at` */
        if (level == e->present_levels || at / 64 >= words_of(e->secs.size / SGX_PAGE_SIZE >> 6 * level))
            return end;
        uint64_t word = e->present[level][at / 64] >> at % 64;
        if (!word)
            continue;
        at += (uint64_t)__builtin_ctzll(word);
        while (level--) /* down, by the first bit of each word */
            at = at * 64 + (uint64_t)__builtin_ctzll(e->present[level][at]);
        return at < end ? at : end;
    }
    return end;
}
