/*
 * AES-GCM (FIPS 197, NIST SP 800-38D; 96-bit nonces, 128-bit tags) by AES-NI and PCLMULQDQ, which every processor
 * with SGX has; without them encrypted files are refused. Vector registers are put back: they are the program's.
 */
#include <immintrin.h>

#include "aesgcm.h"

struct schedule { __m128i round[15]; int rounds; };

/* One step of the key schedule: the words of `low` run together, mixed with a word of the assist. */
static __m128i mix(__m128i low, __m128i word)
{
    low = _mm_xor_si128(low, _mm_slli_si128(low, 4));
    low = _mm_xor_si128(low, _mm_slli_si128(low, 8));
    return _mm_xor_si128(low, word);
}

#define ROTATED(k, rcon) _mm_shuffle_epi32(_mm_aeskeygenassist_si128(k, rcon), 0xff)
#define PLAIN(k) _mm_shuffle_epi32(_mm_aeskeygenassist_si128(k, 0), 0xaa)

static void expand128(struct schedule *s, const u8 *key)
{
    __m128i *r = s->round;
    s->rounds = 10;
    r[0] = _mm_loadu_si128((const __m128i *)key);
#define STEP(i, rcon) r[i] = mix(r[(i) - 1], ROTATED(r[(i) - 1], rcon));
    STEP(1, 0x01) STEP(2, 0x02) STEP(3, 0x04) STEP(4, 0x08) STEP(5, 0x10)
    STEP(6, 0x20) STEP(7, 0x40) STEP(8, 0x80) STEP(9, 0x1b) STEP(10, 0x36)
#undef STEP
}

static void expand256(struct schedule *s, const u8 *key)
{
    __m128i *r = s->round;
    s->rounds = 14;
    r[0] = _mm_loadu_si128((const __m128i *)key);
    r[1] = _mm_loadu_si128((const __m128i *)(key + 16));
#define STEP(i, rcon) r[i] = mix(r[(i) - 2], ROTATED(r[(i) - 1], rcon)); r[(i) + 1] = mix(r[(i) - 1], PLAIN(r[i]));
    STEP(2, 0x01) STEP(4, 0x02) STEP(6, 0x04) STEP(8, 0x08) STEP(10, 0x10) STEP(12, 0x20)
#undef STEP
    r[14] = mix(r[12], ROTATED(r[13], 0x40));
}

static __m128i encrypt(const struct schedule *s, __m128i block)
{
    block = _mm_xor_si128(block, s->round[0]);
    for (int i = 1; i < s->rounds; i++)
        block = _mm_aesenc_si128(block, s->round[i]);
    return _mm_aesenclast_si128(block, s->round[s->rounds]);
}

static __m128i swap(__m128i x)
{
    return _mm_shuffle_epi8(x, _mm_set_epi64x(0x0001020304050607ll, 0x08090a0b0c0d0e0fll));
}

/* A sum of products of byte-swapped (so bit-reflected) operands, not reduced yet: reduction is linear. */
struct product { __m128i low, middle, high; };

static void add_product(struct product *p, __m128i a, __m128i b)
{
    p->low = _mm_xor_si128(p->low, _mm_clmulepi64_si128(a, b, 0x00));
    p->high = _mm_xor_si128(p->high, _mm_clmulepi64_si128(a, b, 0x11));
    p->middle = _mm_xor_si128(p->middle, _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x10), _mm_clmulepi64_si128(a, b, 0x01)));
}

/* Modulo x^128 + x^7 + x^2 + x + 1. */
static __m128i reduce(const struct product *p)
{
    __m128i low = _mm_xor_si128(p->low, _mm_slli_si128(p->middle, 8));
    __m128i high = _mm_xor_si128(p->high, _mm_srli_si128(p->middle, 8));
    /* The product of reflected operands is one bit short: shift all 256 bits to the left. */
    __m128i low_carry = _mm_srli_epi32(low, 31), high_carry = _mm_srli_epi32(high, 31);
    __m128i over = _mm_srli_si128(low_carry, 12);
    low = _mm_or_si128(_mm_slli_epi32(low, 1), _mm_slli_si128(low_carry, 4));
    high = _mm_or_si128(_mm_or_si128(_mm_slli_epi32(high, 1), _mm_slli_si128(high_carry, 4)), over);
    /* Reduction, in two phases over 32-bit words. */
    __m128i fold = _mm_xor_si128(_mm_xor_si128(_mm_slli_epi32(low, 31), _mm_slli_epi32(low, 30)), _mm_slli_epi32(low, 25));
    __m128i rest = _mm_srli_si128(fold, 4);
    low = _mm_xor_si128(low, _mm_slli_si128(fold, 12));
    __m128i reduced = _mm_xor_si128(_mm_xor_si128(_mm_srli_epi32(low, 1), _mm_srli_epi32(low, 2)), _mm_srli_epi32(low, 7));
    return _mm_xor_si128(high, _mm_xor_si128(low, _mm_xor_si128(reduced, rest)));
}

static __m128i multiply(__m128i a, __m128i b)
{
    struct product p = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
    add_product(&p, a, b);
    return reduce(&p);
}

#define POWERS 4
struct gcm { struct schedule key; __m128i h[POWERS], hash, first; }; /* h[i]: the hash key to the power i + 1 */

static __m128i partial(const u8 *p, size_t size)
{
    u8 block[16] __attribute__((aligned(16))) = {0};
    memcpy(block, p, size);
    return _mm_load_si128((const __m128i *)block);
}

static void absorb(struct gcm *g, const u8 *p, size_t size)
{
    for (; size >= 16 * POWERS; p += 16 * POWERS, size -= 16 * POWERS) {
        struct product sum = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128()};
        add_product(&sum, _mm_xor_si128(g->hash, swap(_mm_loadu_si128((const __m128i *)p))), g->h[POWERS - 1]);
        for (int i = 1; i < POWERS; i++)
            add_product(&sum, swap(_mm_loadu_si128((const __m128i *)(p + 16 * i))), g->h[POWERS - 1 - i]);
        g->hash = reduce(&sum);
    }
    for (; size >= 16; p += 16, size -= 16)
        g->hash = multiply(_mm_xor_si128(g->hash, swap(_mm_loadu_si128((const __m128i *)p))), g->h[0]);
    if (size)
        g->hash = multiply(_mm_xor_si128(g->hash, swap(partial(p, size))), g->h[0]);
}

static void counter_mode(const struct gcm *g, const u8 *in, u8 *out, size_t size)
{
    __m128i counter = swap(g->first);
    const __m128i one = _mm_set_epi32(0, 0, 0, 1);
    for (; size >= 64; in += 64, out += 64, size -= 64) {
        __m128i k[4];
        for (int i = 0; i < 4; i++) {
            counter = _mm_add_epi32(counter, one);
            k[i] = _mm_xor_si128(swap(counter), g->key.round[0]);
        }
        for (int r = 1; r < g->key.rounds; r++)
            for (int i = 0; i < 4; i++)
                k[i] = _mm_aesenc_si128(k[i], g->key.round[r]);
        for (int i = 0; i < 4; i++) {
            k[i] = _mm_aesenclast_si128(k[i], g->key.round[g->key.rounds]);
            __m128i data = _mm_loadu_si128((const __m128i *)(in + 16 * i));
            _mm_storeu_si128((__m128i *)(out + 16 * i), _mm_xor_si128(data, k[i]));
        }
    }
    while (size) {
        size_t n = size < 16 ? size : 16;
        u8 block[16] __attribute__((aligned(16)));
        counter = _mm_add_epi32(counter, one);
        _mm_store_si128((__m128i *)block, _mm_xor_si128(encrypt(&g->key, swap(counter)), partial(in, n)));
        memcpy(out, block, n);
        in += n, out += n, size -= n;
    }
}

static void start(struct gcm *g, const u8 *key, size_t key_size, const u8 nonce[12])
{
    u8 first[16] __attribute__((aligned(16))) = {0};
    if (key_size == 32)
        expand256(&g->key, key);
    else
        expand128(&g->key, key);
    memcpy(first, nonce, 12);
    first[15] = 1;
    g->first = _mm_load_si128((const __m128i *)first);
    g->h[0] = swap(encrypt(&g->key, _mm_setzero_si128()));
    for (int i = 1; i < POWERS; i++)
        g->h[i] = multiply(g->h[i - 1], g->h[0]);
    g->hash = _mm_setzero_si128();
}

static void finish(struct gcm *g, u64 aad_size, u64 size, u8 tag[16])
{
    g->hash = multiply(_mm_xor_si128(g->hash, _mm_set_epi64x((long long)(aad_size * 8), (long long)(size * 8))), g->h[0]);
    _mm_storeu_si128((__m128i *)tag, _mm_xor_si128(swap(g->hash), encrypt(&g->key, g->first)));
}

static void wipe(void *p, size_t size)
{
    memset(p, 0, size);
    __asm__ volatile("" : : "r"(p) : "memory");
}

__attribute__((noinline)) static void seal(const u8 *key, size_t key_size, const u8 *nonce, const void *aad, size_t aad_size,
                                           const u8 *in, u8 *out, size_t size, u8 *tag)
{
    struct gcm g;
    start(&g, key, key_size, nonce);
    absorb(&g, aad, aad_size);
    counter_mode(&g, in, out, size);
    absorb(&g, out, size);
    finish(&g, aad_size, size, tag);
    wipe(&g, sizeof g);
}

__attribute__((noinline)) static bool open(const u8 *key, size_t key_size, const u8 *nonce, const void *aad, size_t aad_size,
                                           const u8 *in, u8 *out, size_t size, const u8 *tag)
{
    struct gcm g;
    u8 own[16], difference = 0;
    start(&g, key, key_size, nonce);
    absorb(&g, aad, aad_size);
    absorb(&g, in, size);
    finish(&g, aad_size, size, own);
    for (int i = 0; i < 16; i++)
        difference |= own[i] ^ tag[i];
    if (!difference)
        counter_mode(&g, in, out, size);
    wipe(&g, sizeof g);
    wipe(own, sizeof own);
    return !difference;
}

#define KEEP(n) __asm__ volatile("movdqa %%xmm" #n ", %0" : "=m"(*(u8(*)[16])(kept + 16 * n)));
#define BACK(n) __asm__ volatile("movdqa %0, %%xmm" #n : : "m"(*(u8(*)[16])(kept + 16 * n)));
#define ALL(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15)

void gcm_seal(const u8 *key, size_t key_size, const u8 nonce[12], const void *aad, size_t aad_size, const void *in, void *out,
              size_t size, u8 tag[16])
{
    u8 kept[256] __attribute__((aligned(16)));
    ALL(KEEP)
    seal(key, key_size, nonce, aad, aad_size, in, out, size, tag);
    ALL(BACK)
}

bool gcm_open(const u8 *key, size_t key_size, const u8 nonce[12], const void *aad, size_t aad_size, const void *in, void *out,
              size_t size, const u8 tag[16])
{
    u8 kept[256] __attribute__((aligned(16)));
    ALL(KEEP)
    bool ok = open(key, key_size, nonce, aad, aad_size, in, out, size, tag);
    ALL(BACK)
    return ok;
}
