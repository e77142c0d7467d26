/* Pseudo-terminals (pty(7)) inside the enclave: /dev/ptmx, /dev/pts/N. Under g_lock. */
#ifndef STRONGROOM_TERMINAL_H
#define STRONGROOM_TERMINAL_H
#include "libos.h"

struct terminal;
/* path: /dev/ptmx or /dev/pts/N; -ENOENT when it is neither. */
long terminal_open(const char *path, int flags, struct file **file);
long terminal_stat(const char *path, struct stat_k *st);
void terminal_file_stat(struct file *f, struct stat_k *st);
long terminal_read(struct file *f, void *to, u64 size);
long terminal_write(struct file *f, const void *from, u64 size);
long terminal_ioctl(struct file *f, u32 request, u64 argument);
u32 terminal_poll(struct file *f);
u32 terminal_generation(const struct file *f);
void terminal_drop(struct file *f);
#endif
