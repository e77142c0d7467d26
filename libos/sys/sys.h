/* Prototypes of the system calls' handlers: six arguments, answer or -errno. Called with g_lock held. */
#ifndef STRONGROOM_SYS_H
#define STRONGROOM_SYS_H
#include "libos.h"
#define SYS(number, name, handler, level, note) long handler(const long *a);
#include "table.h"
#undef SYS
struct regs *sys_regs(void);
const char *fs_cwd(void);
void fs_set_cwd(const char *path);
long host_path(const struct boot_mount *m, const char *rest, char *to);
long event_read(struct file *f, void *to, u64 size);
long event_write(struct file *f, const void *from, u64 size);
u32 event_poll(struct file *f);
bool epoll_ready(struct file *f);
bool readable(struct file *f);
bool writable(struct file *f);
bool seekable(struct file *f);
struct thread *thread_of(long tid); /* NULL: no such thread */
const char *machine_name(long which); /* 0: host, 1: domain */
long file_resize(struct file *f, u64 size);
u64 files_limit(void);
void say_refused(const char *what); /* a line that names who asked for another process */
static inline u32 processors(void) { return g_online_cpus < thread_count() ? g_online_cpus : thread_count(); }
long path_arg(long dirfd, long path, char *to);
long path_followed(long dirfd, long path, bool last, char *to); /* and no link left in it, but for the last name's unless `last` */
long path_stat(long path_at, char *path, struct stat_k *st);
u64 timespec_ns(u64 at, long *bad);
#endif
