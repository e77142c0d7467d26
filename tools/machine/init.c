/*
 * The first process of a guest of tools/machine: loads the modules that its initrd brings, makes the host's files the
 * root under a layer in memory, runs /command and tells its status on the second serial line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static void end(void)
{
    sync();
    reboot(RB_AUTOBOOT); /* QEMU runs with -no-reboot */
    for (;;)
        pause();
}

static void need(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "machine: %s: %s\n", what, strerror(errno));
    end();
}

static void put(const char *type, const char *source, const char *at, const char *options)
{
    mkdir(at, 0755);
    need(!mount(source, at, type, 0, options), at);
}

static void modules(void)
{
    char path[256];
    FILE *list = fopen("/modules/list", "r");
    need(list != NULL, "/modules/list");
    while (fscanf(list, "%255s", path) == 1) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        need(fd >= 0 && (!syscall(SYS_finit_module, fd, "", 0) || errno == EEXIST), path);
        close(fd);
    }
    fclose(list);
}

static void loopback(void)
{
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        ioctl(fd, SIOCSIFFLAGS, &r);
    close(fd);
}

static void root(void)
{
    mkdir("/lower", 0755);
    need(!mount("root", "/lower", "9p", MS_RDONLY, "trans=virtio,version=9p2000.L,cache=loose,msize=262144"), "9p");
    put("tmpfs", "upper", "/upper", "mode=755");
    mkdir("/upper/upper", 0755);
    mkdir("/upper/work", 0755);
    put("overlay", "overlay", "/root", "lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work");
    put("proc", "proc", "/root/proc", NULL);
    put("sysfs", "sysfs", "/root/sys", NULL);
    put("devtmpfs", "devtmpfs", "/root/dev", NULL);
    put("devpts", "devpts", "/root/dev/pts", "ptmxmode=666");
    put("tmpfs", "shm", "/root/dev/shm", "mode=1777");
    put("tmpfs", "tmp", "/root/tmp", "mode=1777");
    put("tmpfs", "run", "/root/run", "mode=755");
    mount("cgroup2", "/root/sys/fs/cgroup", "cgroup2", 0, NULL);
    symlink("/proc/self/fd", "/root/dev/fd");
    need(!chdir("/root") && !mount(".", "/", NULL, MS_MOVE, NULL) && !chroot(".") && !chdir("/"), "the root");
}

int main(void)
{
    static char command[65536];
    int status = 0, fd = open("/command", O_RDONLY);
    need(fd >= 0 && read(fd, command, sizeof command - 1) > 0, "/command");
    close(fd);
    umask(0);
    modules();
    root();
    loopback();
    umask(022);
    pid_t child = fork();
    need(child >= 0, "fork");
    int line = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
    struct termios raw;
    need(line >= 0 && !tcgetattr(line, &raw), "/dev/ttyS1");
    cfmakeraw(&raw);
    tcsetattr(line, TCSANOW, &raw);
    if (!child) {
        int null = open("/dev/null", O_RDONLY);
        setsid();
        fchmod(line, 0666);
        dup2(null, 0);
        dup2(line, 1);
        dup2(line, 2);
        close(null);
        close(line);
        execl("/bin/sh", "sh", "-c", command, NULL);
        _exit(127);
    }
    for (pid_t p = 0; p != child;)
        p = wait(&status);
    tcdrain(line);
    dprintf(line, "\nmachine: status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    tcdrain(line);
    end();
}
