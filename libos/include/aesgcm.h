/* AES-GCM for encrypted files: lib/aesgcm.c. Sizes are bytes; key_size is 16 or 32; `in` and `out` may be the same. */
#ifndef STRONGROOM_AESGCM_H
#define STRONGROOM_AESGCM_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

void gcm_seal(const u8 *key, size_t key_size, const u8 nonce[12], const void *aad, size_t aad_size, const void *in, void *out,
              size_t size, u8 tag[16]);
/* Writes `out` only when the tag is right; false otherwise. */
bool gcm_open(const u8 *key, size_t key_size, const u8 nonce[12], const void *aad, size_t aad_size, const void *in, void *out,
              size_t size, const u8 tag[16]);
#endif
