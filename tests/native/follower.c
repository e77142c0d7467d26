/*
 * Executes programs in every way there is. Usage: follower WAY PROGRAM [ARGUMENT...]; prints what comes of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static char **words;

static int end_of(pid_t pid)
{
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return printf("no child: %s\n", strerror(errno)), 1;
    printf("child %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
    return 0;
}

static void *in_thread(void *nothing)
{
    execv(words[0], words);
    return nothing;
}

static void on_signal(int number) { (void)number; }

int main(int argc, char **argv)
{
    const char *way = argc > 2 ? argv[1] : "";
    pid_t pid;
    words = argv + 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(way, "exec"))
        return execv(words[0], words), perror("execv"), errno;
    if (!strcmp(way, "fork"))
        return (pid = fork()) ? end_of(pid) : (execv(words[0], words), _exit(9), 0);
    if (!strcmp(way, "vfork"))
        return (pid = vfork()) ? end_of(pid) : (execv(words[0], words), _exit(9), 0);
    if (!strcmp(way, "spawn"))
        return posix_spawn(&pid, words[0], NULL, NULL, words, environ) ? 1 : end_of(pid);
    if (!strcmp(way, "execveat")) {
        int fd = open(words[0], O_PATH | O_CLOEXEC);
        return (int)syscall(SYS_execveat, fd, "", words, environ, AT_EMPTY_PATH);
    }
    if (!strcmp(way, "thread")) { /* the thread takes the process's number, the others end */
        pthread_t t;
        pthread_create(&t, NULL, in_thread, NULL);
        pthread_join(t, NULL);
        return 9;
    }
    if (!strcmp(way, "mask")) { /* blocked and pending signals pass through an exec, handlers do not, ignoring does */
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        signal(SIGUSR2, SIG_IGN);
        signal(SIGTERM, on_signal);
        sigprocmask(SIG_BLOCK, &set, NULL);
        raise(SIGUSR1);
        execv(words[0], words);
    }
    if (!strcmp(way, "failing")) { /* each error as the kernel gives it, and the program goes on */
        char *none[] = {NULL};
        char text[] = "/tmp/follower-XXXXXX";
        printf("missing %d\n", execv("/no/such/program", words) ? errno : 0);
        printf("folder %d\n", execv("/tmp", words) ? errno : 0);
        int fd = mkstemp(text);
        (void)!write(fd, "no format\n", 10);
        fchmod(fd, 0755);
        close(fd);
        printf("format %d\n", execv(text, words) ? errno : 0);
        chmod(text, 0644);
        printf("mode %d\n", execv(text, words) ? errno : 0);
        unlink(text);
        printf("address %d\n", syscall(SYS_execve, words[0], (char **)8, none) ? errno : 0);
        return (pid = fork()) ? end_of(pid) : (execv(words[0], words), _exit(9), 0);
    }
    if (!strcmp(way, "beside")) { /* parent and child in the library's handlers at the same time */
        sigset_t all, old;
        sigfillset(&all);
        pid = -1;
        for (int i = 0; i < 20000; i++) {
            sigprocmask(SIG_BLOCK, &all, &old);
            if (i == 0)
                pid = fork();
            sigprocmask(SIG_SETMASK, &old, NULL);
            if (open("/no/such/file", O_RDONLY) >= 0)
                _exit(3);
        }
        if (!pid) {
            execv(words[0], words);
            _exit(9);
        }
        return end_of(pid);
    }
    if (!strcmp(way, "many")) { /* children at once, each by a thread's fork */
        int good = 0;
        pid_t child[40];
        for (int i = 0; i < 40; i++)
            if (!(child[i] = fork())) {
                execv(words[0], words);
                _exit(9);
            }
        for (int i = 0; i < 40; i++) {
            int status;
            good += waitpid(child[i], &status, 0) == child[i] && status == 0;
        }
        printf("good %d\n", good);
        return 0;
    }
    return 2;
}
