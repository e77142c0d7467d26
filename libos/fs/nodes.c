/* /dev, /proc and /sys: what programs look for, made when opened. */
#include <asm/unistd.h>
#include <linux/fcntl.h>
#include <linux/stat.h>

#include "libos.h"
#include "terminal.h"
#include "../sys/sys.h"

static const struct { const char *path; enum device device; } g_devices[] = {
    {"/dev/null", DEV_NULL}, {"/dev/zero", DEV_ZERO}, {"/dev/urandom", DEV_RANDOM}, {"/dev/random", DEV_RANDOM}, {"/dev/full", DEV_FULL},
};

static int list_maps(char *to, size_t n)
{
    int used = objects_list(to, n);
    used += late_list(to + used, n - (size_t)used);
    return used + mm_list(to + used, n - (size_t)used);
}
static u32 threads_now(void)
{
    u32 threads = 0;
    for (u32 i = 0; i < thread_count(); i++)
        threads += thread_at(i)->state != THREAD_FREE;
    return threads;
}
static int list_status(char *to, size_t n)
{
    const struct identity *i = &g_identity;
    return format(to, n, "Name:\t%s\nUmask:\t0%u%u%u\nState:\tR (running)\nTgid:\t%d\nPid:\t%d\nPPid:\t0\nTracerPid:\t0\n"
                  "Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\nFDSize:\t%u\n"
                  "VmPeak:\t%lu kB\nVmSize:\t%lu kB\nVmHWM:\t%lu kB\nVmRSS:\t%lu kB\nThreads:\t%u\n"
                  "voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n", thread_at(0)->name, i->umask >> 6 & 7, i->umask >> 3 & 7,
                  i->umask & 7, PID, PID, i->uid[0], i->uid[1], i->uid[2], i->uid[1], i->gid[0], i->gid[1], i->gid[2], i->gid[1], FILES_MAX,
                  boot()->elrange_size >> 10, boot()->elrange_size >> 10, mm_used() >> 10, mm_used() >> 10, threads_now());
}
static u32 cpus(void) { return g_online_cpus < thread_count() ? g_online_cpus : thread_count(); }
#define TICK 10000000u /* ns: AT_CLKTCK is 100 */
/* proc_pid_stat(5): 52 fields, of which programs count those that they look for. */
static int list_stat(char *to, size_t n)
{
    return format(to, n, "%d (%s) R 0 %d %d 0 -1 0 0 0 0 0 %lu 0 0 0 20 0 %u 0 %lu %lu %lu 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 "
                  "0 0 0 0 0 0 0 0 0 0 0\n", PID, thread_at(0)->name, PID, PID, now_ns(2) / TICK, threads_now(), clock_begin() / TICK,
                  boot()->elrange_size, mm_used() >> 12);
}
/* The machine is as busy as the enclave. */
static int list_times(char *to, size_t n)
{
    u64 used = now_ns(2) / TICK, all = now_ns(1) / TICK * cpus();
    int size = format(to, n, "cpu  %lu 0 0 %lu 0 0 0 0 0 0\n", used, all > used ? all - used : 0);
    for (u32 i = 0; i < cpus(); i++)
        size += format(to + size, n - (size_t)size, "cpu%u %lu 0 0 %lu 0 0 0 0 0 0\n", i, used / cpus(), (all > used ? all - used : 0) / cpus());
    return size + format(to + size, n - (size_t)size, "intr 0\nctxt 0\nbtime %lu\nprocesses 1\nprocs_running 1\nprocs_blocked 0\n",
                         (now_ns(0) - now_ns(1)) / 1000000000);
}
static int list_uptime(char *to, size_t n)
{
    u64 now = now_ns(1) / TICK, idle = now * cpus() - now_ns(2) / TICK;
    return format(to, n, "%lu.%02lu %lu.%02lu\n", now / 100, now % 100, idle / 100, idle % 100);
}
static int list_load(char *to, size_t n) { return format(to, n, "0.00 0.00 0.00 1/%u %d\n", threads_now(), PID); }
static int list_statm(char *to, size_t n)
{
    return format(to, n, "%lu %lu 0 0 0 %lu 0\n", boot()->elrange_size >> 12, mm_used() >> 12, mm_used() >> 12);
}
static int list_memory(char *to, size_t n)
{
    u64 total = boot()->heap_size >> 10, left = (boot()->heap_size - mm_used()) >> 10;
    return format(to, n, "MemTotal:       %lu kB\nMemFree:        %lu kB\nMemAvailable:   %lu kB\nBuffers:        0 kB\nCached:         0 kB\n"
                  "SwapCached:     0 kB\nActive:         %lu kB\nInactive:       0 kB\nSwapTotal:      0 kB\nSwapFree:       0 kB\nShmem:          0 kB\n"
                  "Slab:           0 kB\nSReclaimable:   0 kB\nSUnreclaim:     0 kB\n", total, left, left, total - left);
}
static int list_cpus(char *to, size_t n)
{
    int used = 0;
    for (u32 i = 0; i < cpus(); i++)
        used += format(to + used, n - (size_t)used, "processor\t: %u\nvendor_id\t: GenuineIntel\nmodel name\t: Strongroom software SGX\n"
                       "flags\t\t: fpu sse sse2\n\n", i);
    return used;
}
static int list_online(char *to, size_t n) { return cpus() > 1 ? format(to, n, "0-%u\n", cpus() - 1) : format(to, n, "0\n"); }
static int list_overcommit(char *to, size_t n) { return format(to, n, "2\n"); }
static int list_mounts(char *to, size_t n) { return format(to, n, "trusted / tmpfs ro 0 0\n"); }
static int list_osrelease(char *to, size_t n) { return format(to, n, "6.1.0-strongroom\n"); }
static int list_hugepage(char *to, size_t n) { return format(to, n, "always madvise [never]\n"); }
/* As in Linux these are the program's own memory: who writes over its arguments (setproctitle) has renamed itself. */
static int list_memory_of(u64 at, u64 size, char *to, size_t n)
{
    size = min64(size, n);
    if (!user_read_ok(at, size))
        return 0;
    memcpy(to, (const void *)at, size);
    return (int)size;
}
static int list_cmdline(char *to, size_t n) { return list_memory_of(g_arguments.at, g_arguments.size, to, n); }
static int list_environ(char *to, size_t n) { return list_memory_of(g_variables.at, g_variables.size, to, n); }
static int list_comm(char *to, size_t n) { return format(to, n, "%s\n", self()->name); }

static const struct { const char *path; int (*make)(char *to, size_t size); } g_texts[] = {
    {"/proc/self/maps", list_maps}, {"/proc/self/status", list_status}, {"/proc/self/stat", list_stat}, {"/proc/self/statm", list_statm},
    {"/proc/self/cmdline", list_cmdline}, {"/proc/self/environ", list_environ}, {"/proc/self/comm", list_comm}, {"/proc/self/mounts", list_mounts},
    {"/proc/stat", list_times}, {"/proc/uptime", list_uptime}, {"/proc/loadavg", list_load},
    {"/proc/meminfo", list_memory}, {"/proc/cpuinfo", list_cpus}, {"/proc/mounts", list_mounts},
    {"/proc/sys/vm/overcommit_memory", list_overcommit}, {"/proc/sys/kernel/osrelease", list_osrelease},
    {"/sys/devices/system/cpu/online", list_online}, {"/sys/devices/system/cpu/possible", list_online},
    {"/sys/kernel/mm/transparent_hugepage/enabled", list_hugepage},
    {"/proc/self/exe", NULL}, {"/proc/self/cwd", NULL}, {"/proc/self/root", NULL}, /* links */
};
static const char *const g_folders[] = {
    "/dev", "/dev/pts", "/dev/attestation", "/dev/attestation/keys", "/dev/strongroom", "/proc", "/proc/self", "/proc/self/fd", "/proc/sys", "/proc/sys/vm",
    "/proc/sys/kernel", "/sys", "/sys/devices", "/sys/devices/system", "/sys/devices/system/cpu",
};
static const char *const g_others[] = {
    "/dev/attestation/user_report_data", "/dev/attestation/target_info", "/dev/attestation/my_target_info", "/dev/attestation/report",
    "/dev/attestation/quote", "/dev/attestation/attestation_type", "/dev/attestation/keys/_sgx_mrenclave",
    "/dev/attestation/keys/_sgx_mrsigner", "/dev/attestation/sealing_key", "/dev/strongroom/channel", "/dev/stdin", "/dev/stdout", "/dev/stderr",
};
#define COUNT(x) (sizeof(x) / sizeof *(x))

const char *node_path(const char *path, char *to)
{
    size_t n = 0; /* /proc/1000/... is /proc/self/... */
    if (!strncmp(path, "/proc/1000", 10) && (!path[10] || path[10] == '/')) {
        n = (size_t)format(to, PATH_ROOM, "/proc/self%s", path + 10);
        return n ? to : path;
    }
    return path;
}

const char *node_link(const char *given)
{
    char room[PATH_ROOM];
    if (strncmp(given, "/proc/", 6))
        return NULL;
    const char *path = node_path(given, room);
    return !strcmp(path, "/proc/self/exe")    ? boot_string(boot()->program_path)
           : !strcmp(path, "/proc/self/cwd")  ? fs_cwd()
           : !strcmp(path, "/proc/self/root") ? "/"
                                              : NULL;
}

static long again(int fd, struct file **file)
{
    struct file *f = file_get(fd);
    if (!f)
        return -ENOENT;
    f->refs++;
    *file = f;
    return 0;
}

long node_open(const char *given, int flags, struct file **file)
{
    char room[PATH_ROOM];
    if (strncmp(given, "/dev", 4) && strncmp(given, "/proc", 5) && strncmp(given, "/sys", 4))
        return -ENOENT;
    const char *path = node_path(given, room);
    for (size_t i = 0; i < COUNT(g_devices); i++)
        if (!strcmp(path, g_devices[i].path)) {
            struct file *f = file_new(FILE_DEVICE, (u32)flags);
            if (!f)
                return -ENOMEM;
            f->device = g_devices[i].device;
            *file = f;
            return 0;
        }
    long terminal = terminal_open(path, flags, file);
    if (terminal != -ENOENT)
        return terminal;
    if (!strncmp(path, "/dev/attestation/", 17))
        return attestation_open(path + 17, flags, file);
    if (!strcmp(path, "/dev/strongroom/channel")) {
        if (g_start->channel_fd < 3)
            return -ENXIO;
        struct file *f = file_new(FILE_HOST, (u32)flags);
        if (!f)
            return -ENOMEM;
        f->host_fd = g_start->channel_fd;
        f->append_only = true;
        *file = f;
        return 0;
    }
    for (int fd = 0; fd < 3; fd++)
        if (!strcmp(path, g_others[10 + fd]))
            return again(fd, file);
    if (!strncmp(path, "/proc/self/fd/", 14))
        return again(fd_number(path + 14), file);
    for (size_t i = 0; i < COUNT(g_texts); i++) {
        if (strcmp(path, g_texts[i].path))
            continue;
        if (!g_texts[i].make)
            return -ELOOP; /* O_NOFOLLOW */
        if ((flags & O_ACCMODE) != O_RDONLY)
            return -EACCES;
        struct file *f = file_new(FILE_BUFFER, (u32)flags);
        u64 size = (64 << 10) + g_arguments.size + g_variables.size;
        if (!f || !(f->buffer = kmalloc(size))) {
            kfree(f);
            return -ENOMEM;
        }
        f->buffer_size = (u64)g_texts[i].make((char *)f->buffer, size);
        *file = f;
        return 0;
    }
    for (size_t i = 0; i < COUNT(g_folders); i++)
        if (!strcmp(path, g_folders[i])) {
            if ((flags & O_ACCMODE) != O_RDONLY)
                return -EISDIR;
            return (*file = file_named(FILE_DIR, path, (u32)flags)) ? 0 : -ENOMEM;
        }
    return -ENOENT;
}

static void simple(struct stat_k *st, u32 mode, u64 number)
{
    memset(st, 0, sizeof *st);
    st->dev = 5;
    st->ino = number;
    st->nlink = 1;
    st->mode = mode;
    st->blksize = 4096;
}

long node_stat(const char *given, struct stat_k *st)
{
    char room[PATH_ROOM];
    if (strncmp(given, "/dev", 4) && strncmp(given, "/proc", 5) && strncmp(given, "/sys", 4))
        return -ENOENT;
    const char *path = node_path(given, room);
    for (size_t i = 0; i < COUNT(g_devices); i++)
        if (!strcmp(path, g_devices[i].path)) {
            struct file f = {.type = FILE_DEVICE, .device = g_devices[i].device};
            return file_stat(&f, st);
        }
    if (!terminal_stat(path, st))
        return 0;
    for (size_t i = 0; i < COUNT(g_texts); i++)
        if (!strcmp(path, g_texts[i].path))
            return simple(st, g_texts[i].make ? S_IFREG | 0444 : S_IFLNK | 0777, 0x1000 + i), 0;
    for (size_t i = 0; i < COUNT(g_folders); i++)
        if (!strcmp(path, g_folders[i]))
            return simple(st, S_IFDIR | 0555, 0x2000 + i), 0;
    if (!strncmp(path, "/dev/attestation/keys/", 22) && enc_key_node(path + 22))
        return simple(st, S_IFREG | 0200, 0x4000), 0;
    for (size_t i = 0; i < COUNT(g_others); i++)
        if (!strcmp(path, g_others[i]))
            return simple(st, S_IFREG | 0600, 0x3000 + i), 0;
    return -ENOENT;
}

/* The index-th name directly under `dir`; for /proc/self/fd the open descriptors, for /proc the process too. */
bool node_child(const char *dir, u32 index, const char **name, u8 *kind)
{
    static char number[12];
    if (!strcmp(dir, "/proc/self/fd")) {
        int fd = fd_next(0);
        for (u32 i = 0; i < index && fd >= 0; i++)
            fd = fd_next(fd + 1);
        if (fd < 0)
            return false;
        format(number, sizeof number, "%d", fd);
        *name = number;
        *kind = 10;
        return true;
    }
    size_t n = strlen(dir), total = COUNT(g_devices) + COUNT(g_texts) + COUNT(g_folders) + COUNT(g_others);
    if (n == 1)
        n = 0;
    for (size_t i = 0; i < total; i++) {
        size_t k = i;
        const char *path = k < COUNT(g_devices) ? g_devices[k].path
                           : (k -= COUNT(g_devices)) < COUNT(g_texts) ? g_texts[k].path
                           : (k -= COUNT(g_texts)) < COUNT(g_folders) ? g_folders[k]
                                                                      : g_others[k - COUNT(g_folders)];
        if (strncmp(path, dir, n) || path[n] != '/')
            continue;
        bool deeper = false;
        for (const char *p = path + n + 1; *p; p++)
            deeper |= *p == '/';
        if (deeper || index--)
            continue;
        struct stat_k st;
        *name = path + n + 1;
        *kind = node_stat(path, &st) ? 0 : (u8)(st.mode >> 12);
        return true;
    }
    if (!strcmp(dir, "/proc") && !index) {
        format(number, sizeof number, "%d", PID);
        *name = number;
        *kind = 4;
        return true;
    }
    return false;
}
