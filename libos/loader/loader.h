/* What the loader's files share. */
#ifndef STRONGROOM_LOADER_H
#define STRONGROOM_LOADER_H
#include <stdbool.h>

struct options {
    int fd[3], quote, channel;
    const char *directory;
    const char **env;
    int env_count;
    char **rest; /* the program's arguments */
    int rest_count;
    bool trace, timing;
};

/* One line to standard error, then the end with status 125. */
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *f, ...);
/* The command line's words into `o`; strings stay the caller's. */
void options_parse(struct options *o, int argc, char **argv);
/* The same from a message that comes later, on descriptor `from`. Ends the process where none comes. */
void options_await(struct options *o, int from);
int number_of(const char *text);

/* --timing: when each step was done, for the benchmarks. */
void step_done(const char *name);
void steps_tell(void);
#endif
