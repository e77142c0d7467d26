/*
 * The machine's checks and its measuring under the sanitizers. Lines: a letter and words in hex; an answer a line.
 */
#define _ISOC11_SOURCE /* no more of libc's names than C's own: the kernel's headers have the others */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../native/device/ioctl.c"
#include "../../native/processor/measure.c"
#include "../../native/processor/sha256.c"

struct global g;
uint64_t xstate_mask_size(uint64_t xfrm) { return xfrm & ~7ull ? 2752 : 832; }

static size_t unhex(const char *text, unsigned char *to, size_t room)
{
    size_t n = 0;
    for (; n < room && text && sscanf(text + 2 * n, "%2hhx", to + n) == 1; n++)
        ;
    return n;
}

int main(void)
{
    static char line[1 << 20];
    static unsigned char bytes[sizeof line];
    g.xcr0 = 0xe7;
    g.package.attributes_allowed = 0xff;
    g.package.xfrm_allowed = 0xe7;
    g.package.miscselect_allowed = 1;
    sha256_select(true);
    while (fgets(line, sizeof line, stdin)) {
        char *what = strtok(line, " \n"), *word = strtok(NULL, " \n");
        size_t n = unhex(word, bytes, sizeof bytes);
        void *exact = aligned_alloc(64, (n + 64) & ~63ull);
        memset(exact, 0, (n + 64) & ~63ull);
        memcpy(exact, bytes, n);
        switch (what ? what[0] : 0) {
        case 'i': printf("%d\n", n == 64 && secinfo_accepts(exact)); break;
        case 'c': printf("%d\n", n == 4096 && ecreate_accepts(exact)); break;
        case 't': printf("%d\n", n == 4096 && tcs_start(exact)); break;
        case 'h': case 'H': { /* one page: ECREATE, EADD, EEXTEND; H without the processor's SHA */
            if (n != 4096) {
                puts("?");
                break;
            }
            struct sha256 s;
            struct sgx_secs secs = {.size = 1 << 20, .ssa_frame_size = 1};
            struct sgx_secinfo secinfo = {.flags = 0x205};
            uint8_t digest[32];
            sha256_select(what[0] == 'h');
            measure_ecreate(&s, &secs);
            measure_eadd(&s, 0x3000, &secinfo);
            measure_eextend_page(&s, 0x3000, exact);
            sha256_finish(&s, digest);
            for (int i = 0; i < 32; i++)
                printf("%02x", digest[i]);
            puts("");
            break;
        }
        default: puts("?");
        }
        fflush(stdout);
        free(exact);
    }
    return 0;
}
