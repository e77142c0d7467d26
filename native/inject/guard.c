/*
 * The tracer that stays: a process has one tracer at a time, so while it is ours no debugger attaches. All signals pass
 * through here, which is what it costs. When this process is killed, the traced one is (PTRACE_O_EXITKILL).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tracee.h"

_Noreturn void guard(void)
{
    static const int ignored[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGTSTP, SIGTTIN, SIGTTOU, SIGPIPE};
    int status, null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN); /* the terminal's are for the program */
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd); /* who waits for the program's last word shall not wait for this process */
    prctl(PR_SET_DUMPABLE, 0);
    for (;;) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid < 0)
            _exit(0);
        if (!WIFSTOPPED(status))
            continue;
        int event = status >> 16, number = WSTOPSIG(status);
        if (event == PTRACE_EVENT_STOP && number != SIGTRAP)
            ptrace(PTRACE_LISTEN, pid, 0, 0); /* stopped as a group: until it is continued as one */
        else
            ptrace(PTRACE_CONT, pid, 0, event ? 0 : number);
    }
}
