"""Rewriting of system calls (strongroom.image.rewrite): the rewritten program runs, and does the same."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from strongroom.image import elf, layout, rewrite
from support.programs import compile_c
from support.rewritten import runnable

ADDRESS = 0x30000000
ENTRY = ADDRESS
PROGRAM = """
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
static volatile int seen;
static void on_signal(int number) { seen = number; write(1, "handler\\n", 8); }
int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &action, 0);
    kill(getpid(), SIGUSR1);
    printf("signal %d\\n", seen);
    int pipes[2], pair[2];
    char text[64] = {0};
    pipe(pipes);
    struct iovec parts[2] = {{"one ", 4}, {"two", 3}};
    writev(pipes[1], parts, 2);
    struct pollfd wait_for = {.fd = pipes[0], .events = POLLIN};
    printf("poll %d read %zd %s\\n", poll(&wait_for, 1, 1000), read(pipes[0], text, 63), text);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    send(pair[0], "sent", 4, 0);
    printf("recv %zd\\n", recv(pair[1], text, 63, 0));
    char *memory = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, 7, 1 << 20);
    printf("mprotect %d\\n", mprotect(memory, 4096, PROT_READ));
    printf("munmap %d\\n", munmap(memory, 1 << 20));
    FILE *file = tmpfile();
    fprintf(file, "line %d\\n", 42);
    rewind(file);
    fgets(text, 63, file);
    printf("file %s", text);
    struct stat facts;
    printf("stat %d %d\\n", stat("/nowhere/at/all", &facts), errno == ENOENT);
    DIR *directory = opendir("/proc/self");
    int some = 0;
    while (readdir(directory)) some = 1;
    closedir(directory);
    struct timespec pause = {0, 1000000};
    printf("nanosleep %d dir %d\\n", nanosleep(&pause, 0), some);
    fflush(stdout);
    pid_t child = fork();
    if (!child) _exit(7);
    int status = 0;
    waitpid(child, &status, 0);
    printf("child %d\\n", WEXITSTATUS(status));
    void *big = malloc(32 << 20);
    printf("malloc %d\\n", big != 0);
    free(big);
    if (argc > 1) fprintf(stderr, "%lu\\n", *(volatile unsigned long *)0x30000800);
    (void)argv;
    return 3;
}
"""


def test_rewritten_static_program_does_the_same(tmp_path: Path) -> None:
    program = compile_c(tmp_path, "p", PROGRAM, "-static", "-no-pie", "-w")
    data, decisions = runnable(program.read_bytes(), ADDRESS)
    changed = tmp_path / "changed"
    changed.write_bytes(data)
    changed.chmod(0o755)
    before = subprocess.run([program], capture_output=True, timeout=30, check=False)
    after = subprocess.run([changed, "count"], capture_output=True, timeout=30, check=False)
    assert before.returncode == after.returncode == 3
    assert after.stdout == before.stdout
    assert int(after.stderr) > 30, "the calls went through the stub"
    outcomes = Counter(one.outcome for one in decisions)
    assert outcomes[rewrite.REWRITTEN] > 0.9 * (len(decisions) - outcomes[rewrite.NOT_CODE])


def assembled(tmp_path: Path, text: str) -> elf.Elf:
    lines = (
        ".text", ".globl _start", ".type _start,@function", "_start:", ".cfi_startproc", text, ".cfi_endproc",
        ".size _start,.-_start",
    )  # fmt: skip
    source = '__asm__("' + "".join(line + "\\n" for line in lines) + '");'
    return elf.parse(compile_c(tmp_path, "a", source, "-static", "-nostdlib", "-no-pie").read_bytes(), "a")


@pytest.mark.parametrize(
    ("text", "outcome", "reason"),
    [
        ("mov $39, %eax\\nsyscall\\nret", "rewritten", ""),
        ("syscall\\ncmp $-4096, %rax\\nret", "rewritten", ""),
        ("xor %eax, %eax\\nsyscall\\npop %rcx\\nret", "rewritten", ""),
        ("mov $39, %eax\\n1: syscall\\njmp 1b", "kept", "branch"),
        ("jmp 1f\\nmov $39, %eax\\n1: syscall\\nret", "kept", "branch"),
        ("syscall\\nret", "kept", "too small"),
        ("lea 8(%rip), %rdi\\nsyscall\\nret", "kept", "relative"),
        ("mov $0x050f, %eax\\nret", "not an instruction", ""),
        ("mov $15, %rax\\nsyscall", "kept", "trampoline"),
        ("jmp *%rdi\\nmov $39, %eax\\nsyscall\\nret", "kept", "jump table"),
        ("call 1f\\n1: syscall\\nret", "kept", "flow"),
        ("mov $39, %eax\\nsyscall\\n.byte 6\\nret", "kept", "to its end"),
    ],
)
def test_decisions(tmp_path: Path, text: str, outcome: str, reason: str) -> None:
    (one,) = rewrite.analyse(assembled(tmp_path, text))
    assert one.outcome == outcome
    assert reason in one.reason
    assert one.function == "_start"


def test_two_sites_do_not_share_a_neighbour(tmp_path: Path) -> None:
    decisions = rewrite.analyse(assembled(tmp_path, "syscall\\nmov $39, %eax\\nsyscall\\nret"))
    spans = [(one.start, one.end) for one in decisions if one.outcome == rewrite.REWRITTEN]
    assert len(spans) == 1
    assert [one.outcome for one in decisions].count(rewrite.KEPT) == 1


def test_thunk_out_of_reach_keeps_the_site(tmp_path: Path) -> None:
    file = assembled(tmp_path, "mov $39, %eax\\nsyscall\\nret")
    rewriter = rewrite.Rewriter(0x200000000, ENTRY)
    text = layout.segment_text(file)
    assert rewriter.rewrite("a", file, 0, text, rewrite.analyse(file)) == text
    assert [(one.outcome, one.reason) for one in rewriter.sites] == [
        ("kept", "the thunk is out of a jump's reach")
    ]
    assert not rewriter.thunks


def test_cache_gives_the_same_and_survives_damage(tmp_path: Path) -> None:
    file = assembled(tmp_path, "mov $39, %eax\\nsyscall\\nret")
    cache = tmp_path / "cache"
    first = rewrite.analyse_cached(file, cache)
    assert first == rewrite.analyse_cached(file, cache) == rewrite.analyse(file)
    (remembered,) = cache.iterdir()
    for damage in (b"", b"[{}]", b"[1]", b'[{"address": 1, "before": "zz", "after": ""}]'):
        remembered.write_bytes(damage)
        assert rewrite.analyse_cached(file, cache) == first


def test_libc_of_this_machine() -> None:
    path = Path("/lib/x86_64-linux-gnu/libc.so.6")
    if not path.exists():
        pytest.skip("no libc at Debian's place")
    decisions = rewrite.analyse(elf.parse(path.read_bytes(), str(path)))
    real = [one for one in decisions if one.outcome != rewrite.NOT_CODE]
    done = [one for one in real if one.outcome == rewrite.REWRITTEN]
    assert len(done) > 0.95 * len(real)
    for one in done:
        assert one.end - one.start == len(one.before) + 2 + len(one.after) >= rewrite.JUMP_SIZE
