/* Inside of strongroom-inject. */
#ifndef STRONGROOM_TRACEE_H
#define STRONGROOM_TRACEE_H
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire.h"

#ifndef PTRACE_SETSIGMASK
#define PTRACE_SETSIGMASK 0x420b
#endif

extern pid_t tracee; /* whom fail() kills; 0: nobody */
_Noreturn void fail(const char *what);
/* Until it stops; the signal. */
int wait_stop(const char *what);
/* Address of the library's vDSO. */
uint64_t find_vdso(const char *library);
/* The tracee stands behind its exec: the library into it, then it is let go, with this signal mask where one is given. */
void inject(struct inject_block block, const char *library, uint64_t vdso, const uint64_t *mask);

/* Set before inject(): the tracee is not let go, its threads to come are traced too; guard() is next. */
extern bool tracee_kept;

/* guard.c: stays its tracer until it ends. */
_Noreturn void guard(void);

/* follow.c: programs that the program executes. */
/* A listening socket of a fresh name, which goes into block->follow. */
int follow_listen(struct inject_block *block);
/* Serves it until `root` ends. `lines`: where new lines to the package are asked for, or -1. */
_Noreturn void follow_serve(int listener, int lines, pid_t root, struct inject_block block, const char *library);
#endif
