/* The loader's parts: image.c, options.c, report.c and vdso.c; loader.c enters the enclave and serves it. */
#ifndef STRONGROOM_LOADER_H
#define STRONGROOM_LOADER_H
#include <asm/sgx.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "ocall.h"

#define PAGE 4096ull
#define THREADS_MAX 1024

struct worker {
    uint64_t tcs;
    struct ocall_block *block;
    int event;
    _Atomic pid_t tid;
    volatile sig_atomic_t event_inside; /* the LibOS is at CSSA 1: another signal waits until it is out again */
    volatile sig_atomic_t event_again;
    struct sgx_enclave_run run;
};
extern struct worker g_worker[THREADS_MAX];
extern uint32_t g_workers;           /* how many the image has a TCS for */

struct options {
    int fd[3], quote, channel;
    const char *directory;
    const char **env;
    int env_count;
    char **rest; /* the program's arguments */
    int rest_count;
    bool trace, timing;
};

/* report.c: what is said on standard error */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *f, ...);
void step_done(const char *name);    /* of --timing */
void steps_tell(void);

/* image.c: from enclave.sgxs to an enclave that is filled and mapped, with g_worker's TCSs; then EINIT */
const uint8_t *map_file(int fd, const char *name, uint64_t *size);
void image_load(const uint8_t *sgxs, uint64_t size, const uint8_t *sig);
void image_start(const uint8_t *sig);
int64_t pages_go(bool trim, uint64_t offset, uint64_t size);

/* options.c: what it is asked, by arguments or by a message */
int number_of(const char *text);
void options_parse(struct options *o, int argc, char **argv);
void options_await(struct options *o, int from);

/* vdso.c */
void *vdso_symbol(const char *name); /* NULL: there is none */
#endif
