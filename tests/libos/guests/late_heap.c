/* Guest: memory that is mapped for writing and made executable afterwards, as compilers do. On SGX2. */
#include "guest.h"
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define ANONYMOUS (MAP_PRIVATE | MAP_ANONYMOUS)

static void put_return(uint8_t *at, uint32_t value) /* mov $value, %eax; ret */
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}
static uint32_t run(uint8_t *at) { return ((uint32_t (*)(void))at)(); }

CHECK(written_then_executable)
{
    for (uint32_t i = 0; i < 500; i++) { /* more than late_code, were it not the same memory again */
        uint8_t *code = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0);
        put_return(code + 3 * PAGE, i);
        EXPECT(!mprotect(code, 4 * PAGE, PROT_READ | PROT_EXEC));
        EXPECT(run(code + 3 * PAGE) == i);
        EXPECT(!mprotect(code, 4 * PAGE, PROT_READ | PROT_WRITE));
        put_return(code + 3 * PAGE, i + 1);
        EXPECT(!mprotect(code, 4 * PAGE, PROT_READ | PROT_EXEC));
        EXPECT(run(code + 3 * PAGE) == i + 1);
        EXPECT(!munmap(code, 4 * PAGE));
    }
}

CHECK(memory_of_malloc)
{
    uint8_t *code = aligned_alloc(PAGE, 2 * PAGE);
    put_return(code + 8, 77);
    EXPECT(!mprotect(code, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
    EXPECT(run(code + 8) == 77);
    put_return(code + 8, 78);
    EXPECT(run(code + 8) == 78);
    EXPECT(!mprotect(code, 2 * PAGE, PROT_READ | PROT_WRITE));
    free(code);
}

CHECK(a_reservation_becomes_code)
{
    uint8_t *room = mmap(NULL, 64 * PAGE, PROT_NONE, ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!EXPECT(room != MAP_FAILED))
        return;
    EXPECT(mmap(room + PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, ANONYMOUS | MAP_FIXED, -1, 0) == room + PAGE);
    put_return(room + PAGE, 5);
    EXPECT(run(room + PAGE) == 5);
    EXPECT(!mprotect(room + 8 * PAGE, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC));
    put_return(room + 8 * PAGE, 6);
    EXPECT(run(room + 8 * PAGE) == 6 && run(room + PAGE) == 5);
    munmap(room, 64 * PAGE);
}

CHECK(memory_that_leaves_and_comes_again)
{
    size_t size = 96ul << 20; /* more than is kept: it is trimmed */
    for (uint32_t round = 0; round < 3; round++) {
        uint8_t *big = mmap(NULL, size, PROT_READ | PROT_WRITE, ANONYMOUS, -1, 0);
        if (!EXPECT(big != MAP_FAILED))
            return;
        for (size_t at = 0; at < size; at += 16 * PAGE)
            big[at] = 1;
        put_return(big + 5 * PAGE, round);
        put_return(big + size - PAGE, round + 7);
        EXPECT(!mprotect(big + 5 * PAGE, PAGE, PROT_READ | PROT_EXEC) && !mprotect(big + size - PAGE, PAGE, PROT_READ | PROT_EXEC));
        EXPECT(run(big + 5 * PAGE) == round && run(big + size - PAGE) == round + 7);
        munmap(big, size);
    }
}

CHECK(a_late_library_of_wide_alignment)
{
    char path[] = "/tmp/late-XXXXXX", buffer[4096];
    FILE *from = fopen(access("/app/wide.bin", R_OK) ? "wide.bin" : "/app/wide.bin", "r");
    int to = mkstemp(path);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, from)) > 0;)
        EXPECT(write(to, buffer, n) == (ssize_t)n);
    fclose(from);
    close(to);
    void *library = dlopen(path, RTLD_NOW);
    unlink(path);
    if (!EXPECT(library != NULL)) {
        fprintf(stderr, "%s\n", dlerror());
        return;
    }
    int (*next)(void) = (int (*)(void))dlsym(library, "late_next");
    EXPECT(next() == 43 && next() == 44);
}
GUEST_MAIN
