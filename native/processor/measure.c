/* MRENCLAVE: what ECREATE, EADD and EEXTEND add to it (SDM vol. 3D, each leaf's operation). */
#include "library.h"

struct record { char tag[8]; uint8_t body[56]; } __attribute__((packed));
_Static_assert(sizeof(struct record) == 64, "one SHA-256 block");

void measure_ecreate(struct sha256 *s, const struct sgx_secs *secs)
{
    struct record r = {.tag = {'E', 'C', 'R', 'E', 'A', 'T', 'E', 0}};
    memcpy(r.body, &secs->ssa_frame_size, 4);
    memcpy(r.body + 4, &secs->size, 8);
    sha256_start(s);
    sha256_blocks(s, &r, 1);
}

void measure_eadd(struct sha256 *s, uint64_t offset, const struct sgx_secinfo *secinfo)
{
    struct record r = {.tag = {'E', 'A', 'D', 'D', 0, 0, 0, 0}};
    memcpy(r.body, &offset, 8);
    memcpy(r.body + 8, secinfo, 48);
    sha256_blocks(s, &r, 1);
}

/* Sixteen EEXTENDs of 256 bytes each. */
void measure_eextend_page(struct sha256 *s, uint64_t offset, const void *page)
{
    struct record r[SGX_PAGE_SIZE / 256];
    for (uint64_t i = 0; i < sizeof r / sizeof r[0]; i++) {
        uint64_t where = offset + i * 256;
        r[i] = (struct record){.tag = {'E', 'E', 'X', 'T', 'E', 'N', 'D', 0}};
        memcpy(r[i].body, &where, 8);
    }
    sha256_headed(s, r, page, sizeof r / sizeof r[0]); /* in one go: between two calls the state leaves its registers */
}
