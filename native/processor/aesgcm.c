/*
 * AES-128-GCM (NIST SP 800-38D) over whole pages, by AES-NI and PCLMULQDQ: what EWB and ELDU do to a page. Only
 * legacy SSE encodings, so that saving XMM0-15 around them keeps all of the caller's vector state.
 */
#include "library.h"

#include <cpuid.h>
#include <wmmintrin.h>
#include <tmmintrin.h>
#include <smmintrin.h>

#define WITH_AES __attribute__((target("aes,pclmul,sse4.1,ssse3,no-avx")))
#define ROUNDS 10
#define LANES 8 /* blocks in flight; GHASH reduces once for all of them */

struct key_words { __m128i round[ROUNDS + 1]; __m128i power[LANES]; /* H, H^2, ... byte-reversed */ };
_Static_assert(sizeof(struct key_words) <= sizeof(struct gcm_key), "the opaque key has room");

bool gcm_available(void)
{
    uint32_t a, b, c, d;
    __cpuid(1, a, b, c, d);
    return (c & 1u << 25) && (c & 1u << 1) && (c & 1u << 19) && (c & 1u << 9); /* AES, PCLMULQDQ, SSE4.1, SSSE3 */
}

WITH_AES static inline __m128i reversed(__m128i x)
{
    return _mm_shuffle_epi8(x, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

struct product { __m128i low, middle, high; };

WITH_AES static inline void multiply_add(struct product *p, __m128i x, __m128i h)
{
    p->low = _mm_xor_si128(p->low, _mm_clmulepi64_si128(x, h, 0x00));
    p->high = _mm_xor_si128(p->high, _mm_clmulepi64_si128(x, h, 0x11));
    p->middle = _mm_xor_si128(p->middle, _mm_xor_si128(_mm_clmulepi64_si128(x, h, 0x10), _mm_clmulepi64_si128(x, h, 0x01)));
}

/* The 256-bit product of bit-reflected operands modulo x^128 + x^7 + x^2 + x + 1. */
WITH_AES static inline __m128i reduce(struct product p)
{
    __m128i low = _mm_xor_si128(p.low, _mm_slli_si128(p.middle, 8)), high = _mm_xor_si128(p.high, _mm_srli_si128(p.middle, 8));
    /* one bit to the left, for the reflection */
    __m128i carry_low = _mm_srli_epi32(low, 31), carry_high = _mm_srli_epi32(high, 31);
    low = _mm_or_si128(_mm_slli_epi32(low, 1), _mm_slli_si128(carry_low, 4));
    high = _mm_or_si128(_mm_slli_epi32(high, 1), _mm_slli_si128(carry_high, 4));
    high = _mm_or_si128(high, _mm_srli_si128(carry_low, 12));
    __m128i fold = _mm_xor_si128(_mm_xor_si128(_mm_slli_epi32(low, 31), _mm_slli_epi32(low, 30)), _mm_slli_epi32(low, 25));
    low = _mm_xor_si128(low, _mm_slli_si128(fold, 12));
    __m128i rest = _mm_xor_si128(_mm_xor_si128(_mm_srli_epi32(low, 1), _mm_srli_epi32(low, 2)), _mm_srli_epi32(low, 7));
    rest = _mm_xor_si128(rest, _mm_srli_si128(fold, 4));
    return _mm_xor_si128(high, _mm_xor_si128(low, rest));
}

WITH_AES static inline __m128i multiply(__m128i x, __m128i h)
{
    struct product p = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
    multiply_add(&p, x, h);
    return reduce(p);
}

WITH_AES static inline __m128i encrypt(const struct key_words *k, __m128i block)
{
    block = _mm_xor_si128(block, k->round[0]);
    for (int r = 1; r < ROUNDS; r++)
        block = _mm_aesenc_si128(block, k->round[r]);
    return _mm_aesenclast_si128(block, k->round[ROUNDS]);
}

WITH_AES static inline __m128i expand(__m128i key, __m128i assist)
{
    assist = _mm_shuffle_epi32(assist, 0xff);
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    return _mm_xor_si128(key, assist);
}

WITH_AES __attribute__((noinline)) static void key_expand(struct key_words *k, const uint8_t key[16])
{
    __m128i *r = k->round;
    r[0] = _mm_loadu_si128((const __m128i *)key);
    r[1] = expand(r[0], _mm_aeskeygenassist_si128(r[0], 0x01));
    r[2] = expand(r[1], _mm_aeskeygenassist_si128(r[1], 0x02));
    r[3] = expand(r[2], _mm_aeskeygenassist_si128(r[2], 0x04));
    r[4] = expand(r[3], _mm_aeskeygenassist_si128(r[3], 0x08));
    r[5] = expand(r[4], _mm_aeskeygenassist_si128(r[4], 0x10));
    r[6] = expand(r[5], _mm_aeskeygenassist_si128(r[5], 0x20));
    r[7] = expand(r[6], _mm_aeskeygenassist_si128(r[6], 0x40));
    r[8] = expand(r[7], _mm_aeskeygenassist_si128(r[7], 0x80));
    r[9] = expand(r[8], _mm_aeskeygenassist_si128(r[8], 0x1b));
    r[10] = expand(r[9], _mm_aeskeygenassist_si128(r[9], 0x36));
    k->power[0] = reversed(encrypt(k, _mm_setzero_si128()));
    for (int i = 1; i < LANES; i++)
        k->power[i] = multiply(k->power[i - 1], k->power[0]);
}

/* LANES blocks into the hash. */
WITH_AES static inline __m128i hash_lanes(const struct key_words *k, __m128i hash, const __m128i blocks[LANES])
{
    struct product p = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i++) {
        __m128i x = reversed(blocks[i]);
        multiply_add(&p, i ? x : _mm_xor_si128(x, hash), k->power[LANES - 1 - i]);
    }
    return reduce(p);
}

/* CTR and GHASH over one page; the tag of `aad` (32 bytes) and the ciphertext. */
WITH_AES __attribute__((noinline)) static void page_crypt(const struct key_words *k, const uint8_t iv[12], const uint8_t aad[32],
                                                        const uint8_t *in, uint8_t *out, uint8_t tag[16], bool decrypt)
{
    __m128i first, counter;
    uint8_t block[16] = {0};
    memcpy(block, iv, 12);
    first = reversed(_mm_loadu_si128((const __m128i *)block)); /* the counter in the lowest 32 bits */
    counter = _mm_add_epi32(first, _mm_set_epi32(0, 0, 0, 2));
    __m128i hash = multiply(reversed(_mm_loadu_si128((const __m128i *)aad)), k->power[0]);
    hash = multiply(_mm_xor_si128(hash, reversed(_mm_loadu_si128((const __m128i *)(aad + 16)))), k->power[0]);
    for (uint64_t at = 0; at < SGX_PAGE_SIZE; at += 16 * LANES) {
        __m128i stream[LANES], cipher[LANES];
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) {
            stream[i] = _mm_xor_si128(reversed(counter), k->round[0]);
            counter = _mm_add_epi32(counter, _mm_set_epi32(0, 0, 0, 1));
        }
        for (int r = 1; r < ROUNDS; r++)
#pragma GCC unroll 8
            for (int i = 0; i < LANES; i++)
                stream[i] = _mm_aesenc_si128(stream[i], k->round[r]);
#pragma GCC unroll 8
        for (int i = 0; i < LANES; i++) {
            stream[i] = _mm_aesenclast_si128(stream[i], k->round[ROUNDS]);
            __m128i text = _mm_loadu_si128((const __m128i *)(in + at) + i), result = _mm_xor_si128(text, stream[i]);
            _mm_storeu_si128((__m128i *)(out + at) + i, result);
            cipher[i] = decrypt ? text : result;
        }
        hash = hash_lanes(k, hash, cipher);
    }
    __m128i sizes = _mm_set_epi64x(32 * 8, (long long)SGX_PAGE_SIZE * 8);
    hash = multiply(_mm_xor_si128(hash, sizes), k->power[0]);
    __m128i mask = encrypt(k, reversed(_mm_add_epi32(first, _mm_set_epi32(0, 0, 0, 1))));
    _mm_storeu_si128((__m128i *)tag, _mm_xor_si128(reversed(hash), mask));
}

void gcm_key_set(struct gcm_key *key, const uint8_t bytes[16])
{
    struct vector_state saved;
    vector_save(&saved);
    key_expand((struct key_words *)key, bytes);
    vector_restore(&saved);
}

void gcm_page_seal(const struct gcm_key *key, const uint8_t iv[12], const uint8_t aad[32], const void *page, void *cipher,
                   uint8_t tag[16])
{
    struct vector_state saved;
    vector_save(&saved);
    page_crypt((const struct key_words *)key, iv, aad, page, cipher, tag, false);
    vector_restore(&saved);
}

/* False when the tag does not fit; the page is wiped then. */
bool gcm_page_open(const struct gcm_key *key, const uint8_t iv[12], const uint8_t aad[32], const void *cipher,
                   const uint8_t tag[16], void *page)
{
    struct vector_state saved;
    uint8_t expected[16], wrong = 0;
    vector_save(&saved);
    page_crypt((const struct key_words *)key, iv, aad, cipher, page, expected, true);
    vector_restore(&saved);
    for (int i = 0; i < 16; i++)
        wrong |= expected[i] ^ tag[i];
    if (wrong)
        memset(page, 0, SGX_PAGE_SIZE);
    return !wrong;
}
