/* A library that comes late: data, zeros, relocations, a constructor, thread-local data. */
#include <string.h>
static int data = 41, zeros[5000];
static __thread int own = 5;
static const char *const names[] = {"early", "late"};
__attribute__((constructor)) static void start(void) { data++; zeros[4999] = (int)strlen(names[0]) - 5; }
int late_next(void) { return ++data + zeros[4999] + zeros[17]; }
const char *late_text(void) { return names[1]; }
int late_thread(void) { return own; }
