/* The form of an encrypted file: keys, the root over header and path, the table of tags, chunks. */
#include "aesgcm.h"
#include "encrypted.h"

void sha256(const void *data, size_t size, u8 digest[32]);

u64 enc_count(u64 size) { return (size + ENC_CHUNK - 1) / ENC_CHUNK; }
u64 enc_total(u64 size) { return sizeof(struct enc_header) + size + sizeof(struct enc_tag) * enc_count(size); }
u32 enc_length(u64 size, u64 chunk)
{
    u64 left = size - chunk * ENC_CHUNK;
    return left < ENC_CHUNK ? (u32)left : ENC_CHUNK;
}

/* HMAC-SHA-256 (RFC 2104) of at most 64 bytes under a key of at most 64. */
static void hmac(const u8 *key, size_t key_size, const u8 *message, size_t size, u8 out[32])
{
    u8 inner[128], outer[96];
    memset(inner, 0x36, 64);
    memset(outer, 0x5c, 64);
    for (size_t i = 0; i < key_size; i++) {
        inner[i] ^= key[i];
        outer[i] ^= key[i];
    }
    memcpy(inner + 64, message, size);
    sha256(inner, 64 + size, outer + 64);
    sha256(outer, sizeof outer, out);
    memset(inner, 0, sizeof inner);
    memset(outer, 0, sizeof outer);
    __asm__ volatile("" : : "r"(inner), "r"(outer) : "memory");
}

void enc_derive(const u8 *base, size_t base_size, const u8 file_id[32], struct enc_keys *keys)
{
    static const char chunk[25] = "strongroom file chunk 1\0", root[25] = "strongroom file root 1\0\0";
    u8 message[24 + 32];
    memcpy(message + 24, file_id, 32);
    memcpy(message, chunk, 24);
    hmac(base, base_size, message, sizeof message, keys->chunk);
    memcpy(message, root, 24);
    hmac(base, base_size, message, sizeof message, keys->root);
}

bool enc_sane(const struct enc_header *h)
{
    u8 rest = 0;
    for (size_t i = 0; i < sizeof h->reserved2; i++)
        rest |= h->reserved2[i];
    return !memcmp(h->magic, ENC_MAGIC, 8) && h->version == ENC_VERSION && h->chunk_size == ENC_CHUNK && h->kind >= ENC_RELEASE &&
           h->kind <= ENC_SEALED_MRENCLAVE && h->size <= ENC_SIZE_MAX && !h->reserved1 && !rest;
}

static u8 g_bound[offsetof(struct enc_header, root_tag) + 4096]; /* one user at a time: the LibOS's lock */

static size_t bind(const struct enc_header *h, const char *path)
{
    size_t size = offsetof(struct enc_header, root_tag), length = strnlen(path, 4095);
    memcpy(g_bound, h, size);
    memcpy(g_bound + size, path, length);
    return size + length;
}

void enc_root_seal(const struct enc_keys *k, struct enc_header *h, const char *path)
{
    gcm_seal(k->root, 32, h->root_nonce, g_bound, bind(h, path), NULL, NULL, 0, h->root_tag);
}

bool enc_root_open(const struct enc_keys *k, const struct enc_header *h, const char *path)
{
    return gcm_open(k->root, 32, h->root_nonce, g_bound, bind(h, path), NULL, NULL, 0, h->root_tag);
}

static const char g_table[8] = "table  1";

void enc_table_seal(const struct enc_keys *k, struct enc_header *h, struct enc_tag *table)
{
    gcm_seal(k->root, 32, h->table_nonce, g_table, 8, table, table, sizeof *table * enc_count(h->size), h->table_tag);
}

bool enc_table_open(const struct enc_keys *k, const struct enc_header *h, struct enc_tag *table)
{
    return gcm_open(k->root, 32, h->table_nonce, g_table, 8, table, table, sizeof *table * enc_count(h->size), h->table_tag);
}

void enc_chunk_seal(const struct enc_keys *k, u64 chunk, struct enc_tag *t, const void *in, void *out, u32 size)
{
    gcm_seal(k->chunk, 32, t->nonce, &chunk, 8, in, out, size, t->tag);
}

bool enc_chunk_open(const struct enc_keys *k, u64 chunk, const struct enc_tag *t, const void *in, void *out, u32 size)
{
    return gcm_open(k->chunk, 32, t->nonce, &chunk, 8, in, out, size, t->tag);
}
