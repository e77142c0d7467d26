/* Guest: opens a library beside it at run time; looks where its data are, and at the hole before them. */
#include "guest.h"
#include <dlfcn.h>
#include <stdint.h>
#include <unistd.h>

static void *g_library;
CHECK(library_of_wide_alignment_loads)
{
    g_library = dlopen("/app/libwide.so", RTLD_NOW);
    if (!EXPECT(g_library != NULL))
        return;
    int (*next)(void) = (int (*)(void))dlsym(g_library, "wide_next");
    char *room = dlsym(g_library, "wide_room");
    EXPECT(!room[0] && !room[(16 << 20) - 1]);
    EXPECT(next() == 42 && next() == 43 && *(int *)dlsym(g_library, "wide_data") == 43);
}
CHECK(the_hole_is_no_memory)
{
    if (!g_library)
        return;
    char *data = dlsym(g_library, "wide_data"), *text = dlsym(g_library, "wide_next");
    EXPECT((uintptr_t)data - (uintptr_t)text > 0x100000);
    EXPECT_ERROR(write(2, text + 0x80000, 1), EFAULT);
    EXPECT_ERROR(read(0, text, 1), EFAULT); /* text is not for writing */
}
GUEST_MAIN
