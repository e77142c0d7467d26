/* Guest: writes code and runs it. Outside as inside, but for what the sizes of `late_code` and of the heap set. */
#include "guest.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

static uint8_t *map(size_t size, int prot)
{
    void *at = mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void put_return(uint8_t *at, uint32_t value) /* mov $value, %eax; ret */
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static uint32_t run(uint8_t *at) { return ((uint32_t (*)(void))at)(); }

CHECK(code_is_written_run_and_written_again)
{
    uint8_t *code = map(3 * PAGE, RWX);
    if (!EXPECT(code != NULL))
        return;
    for (uint32_t i = 0; i < 100; i++) { /* often enough that the page no longer moves */
        put_return(code + i % 3 * PAGE, i);
        EXPECT(run(code + i % 3 * PAGE) == i);
    }
    EXPECT(!munmap(code, 3 * PAGE));
}

CHECK(code_across_a_page_border)
{
    uint8_t *code = map(2 * PAGE, RWX);
    put_return(code + PAGE - 3, 0x12345678);
    EXPECT(run(code + PAGE - 3) == 0x12345678);
    munmap(code, 2 * PAGE);
}

CHECK(written_first_then_executable)
{
    uint8_t *code = map(PAGE, PROT_READ | PROT_EXEC);
    EXPECT(!mprotect(code, PAGE, PROT_READ | PROT_WRITE));
    put_return(code, 7);
    EXPECT(!mprotect(code, PAGE, PROT_READ | PROT_EXEC));
    EXPECT(run(code) == 7);
    munmap(code, PAGE);
}

CHECK(memory_given_back_comes_again_zero)
{
    for (int i = 0; i < 2000; i++) {
        uint8_t *code = map(16 * PAGE, RWX);
        if (!EXPECT(code != NULL))
            return;
        for (int at = 0; at < 16 * PAGE; at += 512)
            if (code[at]) {
                EXPECT(code[at] == 0);
                return;
            }
        code[i % 16 * PAGE] = 0xc3;
        munmap(code, 16 * PAGE);
    }
}

CHECK(a_system_call_in_it)
{
    static const uint8_t call[] = {0xb8, SYS_getppid, 0, 0, 0, 0x0f, 0x05, 0xc3}; /* mov $, %eax; syscall; ret */
    uint8_t *code = map(PAGE, RWX);
    memcpy(code, call, sizeof call);
    EXPECT(run(code) == (uint32_t)getppid());
    EXPECT(write(-1, code, 1) == -1 && errno == EBADF); /* a buffer there is the program's */
    munmap(code, PAGE);
}

static uint8_t *g_shared;
static void *write_code(void *unused)
{
    for (uint32_t i = 1; i <= 3000; i++) {
        uint64_t word = 0xc300000000b8ull | (uint64_t)i << 8;
        __atomic_store_n((uint64_t *)g_shared, word, __ATOMIC_SEQ_CST);
    }
    return unused;
}
CHECK(one_thread_writes_another_runs)
{
    pthread_t t;
    uint32_t before = 0, wrong = 0;
    g_shared = map(PAGE, RWX);
    put_return(g_shared, 0);
    if (!EXPECT(!pthread_create(&t, NULL, write_code, NULL)))
        return;
    while (before < 3000) {
        uint32_t got = run(g_shared);
        wrong += got < before;
        before = got;
    }
    pthread_join(t, NULL);
    EXPECT(wrong == 0);
    munmap(g_shared, PAGE);
}

CHECK(proc_maps_shows_it)
{
    uint8_t *code = map(2 * PAGE, RWX);
    char line[400], want[64];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    snprintf(want, sizeof want, "%lx-%lx rwx", (unsigned long)code, (unsigned long)code + 2 * PAGE);
    while (maps && fgets(line, sizeof line, maps))
        found += !strncmp(line, want, strlen(want));
    EXPECT(found == 1);
    fclose(maps);
    munmap(code, 2 * PAGE);
}

/* A library that was not there when the image was built: a file of the image, copied to a temporary mount. */
CHECK(a_late_library)
{
    char path[] = "/tmp/late-XXXXXX", buffer[4096];
    int from = open(access("/app/plugin.bin", R_OK) ? "plugin.bin" : "/app/plugin.bin", O_RDONLY), to = mkstemp(path);
    for (ssize_t n; (n = read(from, buffer, sizeof buffer)) > 0;)
        EXPECT(write(to, buffer, (size_t)n) == n);
    close(from);
    close(to);
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(path, RTLD_NOW);
        if (!EXPECT(library != NULL)) {
            fprintf(stderr, "%s\n", dlerror());
            break;
        }
        int (*next)(void) = (int (*)(void))dlsym(library, "late_next");
        EXPECT(next() == 43 && next() == 44); /* 41, and one from its constructor; each time anew */
        const char *(*text)(void) = (const char *(*)(void))dlsym(library, "late_text");
        EXPECT(!strcmp(text(), "late"));
        int (*threads)(void) = (int (*)(void))dlsym(library, "late_thread");
        EXPECT(threads() == 5);
        EXPECT(!dlclose(library));
    }
    unlink(path);
}
GUEST_MAIN
