/* Small memory of the LibOS: size classes of powers of two, whole pages above. */
#include "libos.h"

static void *g_free[12];
void *kmalloc(size_t size)
{
    u64 need = size + 16;
    u32 class = 5;
    while (class < 12 && (1ull << class) < need)
        class++;
    u64 *p;
    if (class == 12) {
        p = (u64 *)kpages(need);
        if (!p)
            return NULL;
        *p = page_up(need);
    } else {
        if (!g_free[class]) {
            u64 slab = kpages(0x4000);
            if (!slab)
                return NULL;
            for (u64 at = slab; at < slab + 0x4000; at += 1ull << class) {
                ((u64 *)at)[1] = (u64)g_free[class];
                g_free[class] = (void *)at;
            }
        }
        p = g_free[class];
        g_free[class] = (void *)p[1];
        *p = class;
    }
    memset(p + 2, 0, size);
    return p + 2;
}
void kfree(void *memory)
{
    if (!memory)
        return;
    u64 *p = (u64 *)memory - 2;
    if (*p >= PAGE)
        kpages_free((u64)p, *p);
    else {
        u64 class = *p;
        p[1] = (u64)g_free[class];
        g_free[class] = p;
    }
}
void *krealloc(void *p, size_t old_size, size_t size)
{
    void *new = kmalloc(size);
    if (new && p) {
        memcpy(new, p, old_size < size ? old_size : size);
        kfree(p);
    }
    return new;
}
