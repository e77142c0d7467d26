/* Guest: ranges of memory that wrap, leave the address space or have gaps. Linux says which error. */
#include "guest.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096ul
#define ABOVE 0x7ffffffff000ul /* the first address that no program has */
static const size_t g_wraps[] = {~0ul, ~0ul - PAGE + 1, ~0ul - PAGE + 2, 1ul << 63, (1ul << 63) + PAGE};
#define WRAPS (sizeof g_wraps / sizeof *g_wraps)
static char *g_room;                 /* four pages; the third is a gap */
static void *at(size_t address) { return (void *)address; }

static void room(void)
{
    g_room = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(g_room != MAP_FAILED && !munmap(g_room + 2 * PAGE, PAGE));
    g_room[0] = 1;
}
static void room_end(void)
{
    EXPECT(g_room[0] == 1); /* what was refused has done nothing */
    munmap(g_room, 4 * PAGE);
}

CHECK(unmapping)
{
    room();
    for (size_t i = 0; i < WRAPS; i++)
        EXPECT_ERROR(munmap(g_room, g_wraps[i]), EINVAL);
    EXPECT_ERROR(munmap(g_room, ABOVE), EINVAL);
    EXPECT_ERROR(munmap(at(ABOVE), PAGE), EINVAL);
    EXPECT_ERROR(munmap(at(~0ul - PAGE + 1), PAGE), EINVAL);
    EXPECT_ERROR(munmap(g_room, 0), EINVAL);
    EXPECT_ERROR(munmap(g_room + 1, PAGE), EINVAL);
    EXPECT(!munmap(g_room + 2 * PAGE, PAGE)); /* nothing there */
    room_end();
}

CHECK(protecting)
{
    room();
    EXPECT_ERROR(mprotect(g_room, ~0ul, PROT_READ), ENOMEM);
    for (size_t i = 0; i < WRAPS; i++)
        EXPECT_ERROR(syscall(SYS_mprotect, g_room, g_wraps[i], PROT_READ | PROT_WRITE), ENOMEM);
    EXPECT_ERROR(mprotect(at(ABOVE), PAGE, PROT_READ), ENOMEM);
    EXPECT_ERROR(mprotect(at(~0ul - PAGE + 1), PAGE, PROT_READ), ENOMEM);
    EXPECT_ERROR(mprotect(g_room + 2 * PAGE, PAGE, PROT_READ), ENOMEM);
    EXPECT_ERROR(mprotect(g_room, 4 * PAGE, PROT_READ | PROT_WRITE), ENOMEM);
    EXPECT_ERROR(mprotect(g_room + 1, PAGE, PROT_READ), EINVAL);
    EXPECT_ERROR(mprotect(g_room, PAGE, 0x100), EINVAL);
    EXPECT(!mprotect(g_room, 0, PROT_READ) && !mprotect(g_room, 2 * PAGE, PROT_READ | PROT_WRITE));
    room_end();
}

CHECK(protecting_the_program) /* text and data lie elsewhere here than what is mapped */
{
    char *text = at((size_t)check_protecting & ~(PAGE - 1));
    for (size_t i = 0; i < 3; i++) /* the others do not wrap: Linux does them up to the first gap */
        EXPECT_ERROR(syscall(SYS_mprotect, text, g_wraps[i], PROT_NONE), ENOMEM);
    EXPECT(!mprotect(text, PAGE, PROT_READ | PROT_EXEC));
    for (size_t i = 0; i < WRAPS; i++)
        EXPECT_ERROR(munmap(text, g_wraps[i]), EINVAL);
}

CHECK(moving)
{
    room();
    for (size_t i = 0; i < WRAPS; i++) {
        EXPECT(mremap(g_room, g_wraps[i], PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
        EXPECT(mremap(g_room, PAGE, g_wraps[i], MREMAP_MAYMOVE) == MAP_FAILED && (errno == ENOMEM || errno == EINVAL));
    }
    EXPECT(mremap(g_room, 2 * PAGE, 0, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
    EXPECT(mremap(g_room, 2 * PAGE, 1ul << 50, MREMAP_MAYMOVE) == MAP_FAILED && (errno == ENOMEM || errno == EINVAL));
    EXPECT(mremap(g_room, 0, PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EINVAL);
    EXPECT(mremap(g_room + 2 * PAGE, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
    EXPECT(mremap(at(ABOVE), PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && (errno == EFAULT || errno == EINVAL));
    EXPECT(mremap(g_room, 3 * PAGE, 5 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
    EXPECT(mremap(g_room + 1, PAGE, PAGE, 0) == MAP_FAILED && errno == EINVAL);
    room_end();
}

/* A part of a file's mapping and its private neighbour are two: to move them as one would give the file's own pages away. */
CHECK(moving_two_mappings)
{
    int file = memfd_create("file", 0);
    char *low = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *shared, back[16];
    EXPECT(low != MAP_FAILED && ftruncate(file, 2 * PAGE) == 0 && munmap(low + 2 * PAGE, PAGE) == 0);
    shared = mmap(low + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (!EXPECT(shared == low + 2 * PAGE))
        return;
    strcpy(shared, "the file's");
    EXPECT(mremap(low + PAGE, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED && errno == EFAULT);
    for (int i = 0; i < 64; i++)
        memset(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 'T', PAGE);
    EXPECT(pread(file, back, 11, 0) == 11 && !strcmp(back, "the file's") && !strcmp(shared, back));
    close(file);
}

CHECK(locking)
{
    static char data[5000];
    char local;
    room();
    EXPECT(!mlock(g_room, 2 * PAGE) && !mlock(g_room + 100, 100) && !munlock(g_room, 2 * PAGE) && !mlock(g_room + 2 * PAGE, 0));
    EXPECT_ERROR(mlock(g_room, 3 * PAGE), ENOMEM);
    EXPECT_ERROR(munlock(g_room, 3 * PAGE), ENOMEM);
    EXPECT_ERROR(mlock(g_room + 2 * PAGE - 96, 200), ENOMEM);
    EXPECT(mlock(g_room, ~0ul - 2 * PAGE + 1) && (errno == EINVAL || errno == ENOMEM)); /* an ordinary user's limit comes first */
    EXPECT_ERROR(munlock(g_room, ~0ul - 2 * PAGE + 1), EINVAL);
    EXPECT_ERROR(mlock(at(PAGE), PAGE), ENOMEM);
    EXPECT_ERROR(mlock(at(ABOVE), PAGE), ENOMEM);
    EXPECT_ERROR(syscall(SYS_mlock2, g_room, PAGE, 2), EINVAL);
    EXPECT(!syscall(SYS_mlock2, g_room, PAGE, MLOCK_ONFAULT));
    EXPECT_ERROR(syscall(SYS_mlock2, g_room, 3 * PAGE, MLOCK_ONFAULT), ENOMEM);
    EXPECT_ERROR(mlockall(0), EINVAL);
    EXPECT_ERROR(mlockall(8), EINVAL);
    EXPECT_ERROR(mlockall(MCL_ONFAULT), EINVAL);
    EXPECT(!mlock(data, sizeof data) && !mlock(&local, 1) && !mlock("text", 4) && !munlock(data, sizeof data));
    room_end();
}

CHECK(advising)
{
    room();
    EXPECT_ERROR(madvise(g_room, ~0ul, MADV_NORMAL), EINVAL);
    EXPECT_ERROR(madvise(g_room, ~0ul - PAGE + 1, MADV_NORMAL), EINVAL);
    EXPECT_ERROR(madvise(at(~0ul - PAGE + 1), 2 * PAGE, MADV_NORMAL), EINVAL);
    EXPECT_ERROR(madvise(g_room + 2 * PAGE, PAGE, MADV_DONTNEED), ENOMEM);
    EXPECT_ERROR(madvise(g_room + PAGE, 3 * PAGE, MADV_DONTNEED), ENOMEM);
    EXPECT_ERROR(madvise(g_room, PAGE, 77), EINVAL);
    EXPECT_ERROR(madvise(g_room + 1, PAGE, MADV_NORMAL), EINVAL);
    EXPECT(!madvise(g_room, 0, MADV_DONTNEED) && !madvise(g_room, 2 * PAGE, MADV_WILLNEED));
    room_end();
}

CHECK(writing_back)
{
    room();
    EXPECT_ERROR(msync(g_room, ~0ul - PAGE + 1, MS_SYNC), ENOMEM);
    EXPECT_ERROR(msync(at(~0ul - PAGE + 1), 2 * PAGE, MS_SYNC), ENOMEM);
    EXPECT_ERROR(msync(g_room, 4 * PAGE, MS_SYNC), ENOMEM);
    EXPECT_ERROR(msync(at(ABOVE), PAGE, MS_SYNC), ENOMEM);
    EXPECT_ERROR(msync(g_room + 1, PAGE, MS_SYNC), EINVAL);
    EXPECT(!msync(g_room, ~0ul, MS_SYNC) && !msync(g_room, 2 * PAGE, MS_SYNC)); /* rounded up, ~0 is nothing */
    room_end();
}

CHECK(what_is_there)
{
    unsigned char seen[8] = {9, 9, 9, 9, 9, 9, 9, 9};
    room();
    EXPECT(!mincore(g_room, PAGE, seen) && (seen[0] & 1) == 1 && seen[1] == 9);
    EXPECT(!mincore(g_room, PAGE + 1, seen) && seen[1] != 9 && seen[2] == 9);
    EXPECT_ERROR(mincore(g_room, 4 * PAGE, seen), ENOMEM);
    for (size_t i = 0; i < WRAPS; i++)
        EXPECT_ERROR(syscall(SYS_mincore, g_room, g_wraps[i], seen), ENOMEM);
    EXPECT_ERROR(mincore(g_room + 1, PAGE, seen), EINVAL);
    EXPECT_ERROR(syscall(SYS_mincore, g_room, PAGE, ABOVE), EFAULT);
    EXPECT(!mincore(g_room, 0, seen));
    room_end();
}

GUEST_MAIN
