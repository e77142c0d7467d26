/*
 * What an enclave's process holds of evicted pages: ciphertext in identity layout of ELRANGE, then 16 bytes of tag a
 * page, in ordinary shared memory (an ELRANGE beyond a gigabyte is kept in parts, which this does not know). A hostile
 * kernel has all of it; here any code of the process does.
 */
#ifndef ATTACKS_EVICTED_STORE_H
#define ATTACKS_EVICTED_STORE_H
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define STORE_PAGE 4096ull
#define STORE_TAG 16ull

struct store { uint8_t *base; uint64_t elrange; };

/* One evicted page as it is outside. */
struct copy { uint8_t page[STORE_PAGE], tag[STORE_TAG]; };

/* The store of this process's enclave of that size; its base is NULL where nothing was evicted yet. */
static struct store store_find(uint64_t elrange)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    struct store found = {NULL, elrange};
    char line[512], prot[8];
    unsigned long start, end;
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %7s", &start, &end, prot) == 3 &&
            end - start == elrange + elrange / STORE_PAGE * STORE_TAG && !strcmp(prot, "rw-s"))
            found.base = (uint8_t *)start;
    if (maps)
        fclose(maps);
    return found;
}

static uint8_t *store_page(struct store s, uint64_t offset) { return s.base + offset; }
static uint8_t *store_tag(struct store s, uint64_t offset) { return s.base + s.elrange + offset / STORE_PAGE * STORE_TAG; }

static struct copy store_keep(struct store s, uint64_t offset)
{
    struct copy c;
    memcpy(c.page, store_page(s, offset), STORE_PAGE);
    memcpy(c.tag, store_tag(s, offset), STORE_TAG);
    return c;
}

static void store_put(struct store s, uint64_t offset, const struct copy *c)
{
    memcpy(store_page(s, offset), c->page, STORE_PAGE);
    memcpy(store_tag(s, offset), c->tag, STORE_TAG);
}

static void store_swap(struct store s, uint64_t one, uint64_t other)
{
    struct copy a = store_keep(s, one), b = store_keep(s, other);
    store_put(s, one, &b);
    store_put(s, other, &a);
}
#endif
