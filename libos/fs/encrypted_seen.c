/*
 * Within one run no older version of a file is taken: the highest generation of each path that was read or written.
 * Across runs the host may show an older one: SGX has no monotonic counter (docs/threat-model.md).
 */
#include "encrypted_file.h"

struct seen { struct seen *next; u64 generation; u8 root_tag[16], path[32]; };
static struct seen *g_seen[256];

static struct seen *find(const char *path, u8 digest[32])
{
    sha256(path, strlen(path), digest);
    for (struct seen *s = g_seen[digest[0]]; s; s = s->next)
        if (!memcmp(s->path, digest, 32))
            return s;
    return NULL;
}

/* What the next version of a path has to exceed. */
u64 enc_seen_generation(const char *path)
{
    u8 digest[32];
    const struct seen *s = find(path, digest);
    return s ? s->generation : 0;
}

/* The file was removed: what the host shows under its name must be newer; than now, where no version of it was seen. */
void enc_forget(const char *path)
{
    u8 digest[32];
    struct seen *s = find(path, digest);
    struct enc_header none = {.generation = s ? s->generation : now_ns(0)};
    enc_seen(path, &none);
}

bool enc_seen_ok(const char *path, const struct enc_header *h)
{
    u8 digest[32];
    const struct seen *s = find(path, digest);
    return !s || h->generation > s->generation || (h->generation == s->generation && !memcmp(h->root_tag, s->root_tag, 16));
}

void enc_seen(const char *path, const struct enc_header *h)
{
    u8 digest[32];
    struct seen *s = find(path, digest);
    if (!s) {
        if (!(s = kmalloc(sizeof *s)))
            return; /* no memory for it: as across runs */
        memcpy(s->path, digest, 32);
        s->next = g_seen[digest[0]];
        g_seen[digest[0]] = s;
    }
    s->generation = h->generation;
    memcpy(s->root_tag, h->root_tag, 16);
}
