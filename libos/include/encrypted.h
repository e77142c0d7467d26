/*
 * Encrypted files: their form on the host, and what the files of fs/encrypted*.c share. docs/encrypted-files.md has
 * the format; src/strongroom/owner/encrypted.py is a second implementation, a test compares the two.
 *
 *   header (256 bytes) | chunks: ceil(size / 16384), each as long as its plaintext | table: 28 bytes a chunk, encrypted
 */
#ifndef STRONGROOM_ENCRYPTED_H
#define STRONGROOM_ENCRYPTED_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENC_MAGIC "SRFILE01"
#define ENC_VERSION 1u
#define ENC_CHUNK 16384u
#define ENC_SIZE_MAX (1ull << 40)
enum enc_kind { ENC_RELEASE = 1, ENC_SEALED_MRSIGNER = 2, ENC_SEALED_MRENCLAVE = 3 };

struct enc_header {
    uint8_t magic[8];
    uint32_t version, kind, chunk_size;
    uint16_t isvsvn, reserved1;
    uint64_t size, mtime_ns, generation; /* generation: larger with every version of the file */
    uint8_t file_id[32];                 /* random: the file's keys hang on it */
    uint8_t cpusvn[16], keyid[32];       /* sealed: of the key request, with isvsvn */
    uint8_t table_nonce[12], table_tag[16];
    uint8_t reserved2[72], root_nonce[12];
    uint8_t root_tag[16]; /* over all above and the file's path inside */
};
#define ENC_AT(member, offset) _Static_assert(offsetof(struct enc_header, member) == (offset), "enc_header." #member)
ENC_AT(version, 8);
ENC_AT(isvsvn, 20);
ENC_AT(size, 24);
ENC_AT(generation, 40);
ENC_AT(file_id, 48);
ENC_AT(cpusvn, 80);
ENC_AT(keyid, 96);
ENC_AT(table_nonce, 128);
ENC_AT(table_tag, 140);
ENC_AT(reserved2, 156);
ENC_AT(root_nonce, 228);
ENC_AT(root_tag, 240);
_Static_assert(sizeof(struct enc_header) == 256, "enc_header");

struct enc_tag { uint8_t nonce[12], tag[16]; }; /* of a chunk: an entry of the table */
_Static_assert(sizeof(struct enc_tag) == 28, "enc_tag");
struct enc_keys { uint8_t chunk[32], root[32]; };

/* fs/encrypted_format.c: no input or output, nothing of the LibOS but SHA-256 and AES-GCM. */
uint64_t enc_count(uint64_t size);
uint64_t enc_total(uint64_t size); /* bytes on the host */
uint32_t enc_length(uint64_t size, uint64_t chunk);
void enc_derive(const uint8_t *base, size_t base_size, const uint8_t file_id[32], struct enc_keys *keys);
bool enc_sane(const struct enc_header *h);
/* Paths of at most 4095 bytes. The nonces are the caller's, fresh ones. */
void enc_root_seal(const struct enc_keys *k, struct enc_header *h, const char *path);
bool enc_root_open(const struct enc_keys *k, const struct enc_header *h, const char *path);
void enc_table_seal(const struct enc_keys *k, struct enc_header *h, struct enc_tag *table);
bool enc_table_open(const struct enc_keys *k, const struct enc_header *h, struct enc_tag *table);
void enc_chunk_seal(const struct enc_keys *k, uint64_t chunk, struct enc_tag *t, const void *in, void *out, uint32_t size);
bool enc_chunk_open(const struct enc_keys *k, uint64_t chunk, const struct enc_tag *t, const void *in, void *out, uint32_t size);
#endif
