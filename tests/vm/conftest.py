"""VMs for tests: a stand-in for the loader where the LibOS's own is not what is tested, and a daemon that is ended."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.vm import NATIVE, Command, require_other_user, users

# Takes the place of strongroom-loader: does what its arguments after `--` say, with ordinary system calls.
STAND_IN = r"""
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
static void show(const char *path) {
    char b[65536]; int f = open(path, O_RDONLY); ssize_t k;
    if (f < 0) { printf("%s: none\n", path); return; }
    while ((k = read(f, b, sizeof b)) > 0) fwrite(b, 1, k, stdout);
    close(f);
}
static char **await(int from, int *n) {
    static char words[65536], *list[4096];
    union { char room[CMSG_SPACE(7 * sizeof(int))]; struct cmsghdr align; } control;
    struct iovec part = {words, sizeof words - 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1,
                       .msg_control = control.room, .msg_controllen = sizeof control.room};
    int fd[7] = {0}, k = 1;
    write(from, "r", 1);
    ssize_t size = recvmsg(from, &m, 0);
    if (size <= 0) _exit(0);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    memcpy(fd, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    for (int i = 0; i < 3; i++) { dup2(fd[i], i); close(fd[i]); }
    close(from);
    for (char *at = words; at < words + size; at += strlen(at) + 1) list[k++] = at;
    *n = k;
    return list;
}
int main(int n, char **a) {
    int i = 1;
    if (n == 5 && !strcmp(a[3], "--wait-fd")) a = await(atoi(a[4]), &n);
    while (i < n && strcmp(a[i], "--")) i++;
    for (i++; i + 1 < n; i += 2) {
        const char *what = a[i], *arg = a[i + 1];
        if (!strcmp(what, "exit")) { fflush(stdout); return atoi(arg); }
        if (!strcmp(what, "raise")) { fflush(stdout); raise(atoi(arg)); }
        if (!strcmp(what, "sleep")) { puts("asleep"); fflush(stdout); sleep(atoi(arg)); }
        if (!strcmp(what, "show")) show(arg);
        if (!strcmp(what, "exists")) { struct stat s; printf("%d\n", stat(arg, &s) == 0); }
        if (!strcmp(what, "write")) {
            int f = open(arg, O_CREAT | O_WRONLY, 0644);
            printf("%d\n", f >= 0 && write(f, "x", 1) == 1);
        }
        if (!strcmp(what, "id")) printf("%d %d %d\n", getuid(), getgid(), getpid());
        if (!strcmp(what, "core")) {
            struct rlimit l;
            getrlimit(RLIMIT_CORE, &l);
            printf("%ld\n", (long)l.rlim_cur);
        }
        if (!strcmp(what, "descriptors")) {
            for (int f = 0; f < 256; f++)
                if (fcntl(f, F_GETFD) >= 0) printf("%d ", f);
            puts("");
        }
        if (!strcmp(what, "channel")) {
            int f = atoi(arg);
            char b[16];
            ssize_t k = read(f, b, sizeof b);
            write(f, b, k);
        }
    }
    return 0;
}
"""


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native folder: the real injector and library, the stand-in loader."""
    parts = [NATIVE / "strongroom-inject", NATIVE / "libstrongroom-processor.elf"]
    if not all(part.exists() for part in parts):
        pytest.skip("native/ is not built: run `make`")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc for the stand-in loader")
    folder = tmp_path_factory.mktemp("native")
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)
    source = folder / "loader.c"
    source.write_text(STAND_IN)
    subprocess.run(
        ["gcc", "-O1", "-static", "-w", "-o", str(folder / "strongroom-loader"), str(source)],
        check=True,
        timeout=60,
    )
    for part in parts:
        shutil.copy(part, folder)
    for part in folder.iterdir():
        part.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose image's files are there; the stand-in loader does not look into them."""
    project = tmp_path_factory.mktemp("project")
    build = project / "build"
    build.mkdir()
    for place in (build, project, *project.parents[:2]):
        place.chmod(0o755)
    (build / "enclave.sgxs").write_bytes(b"")
    (build / "enclave.sig").write_bytes(bytes(range(256)) * 7 + bytes(16))
    (build / "files.pack").write_bytes(b"")
    (build / "enclave.json").write_text("{}")
    return project


@pytest.fixture(params=users())
def command(request: pytest.FixtureRequest, strongroom_home: Path, stand_in: Path) -> Iterator[Command]:
    uid: int = request.param
    require_other_user(uid, strongroom_home)
    found = Command(strongroom_home, stand_in, uid)
    yield found
    found("daemon", "stop")
