"""Many clients for little: imports the command line once, then forks one command after the other.

Reads lines of JSON, {"words": [...], "out": PATH}; prints ["started", PID] and later ["ended", PID, STATUS].
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import sys

from strongroom.cli.main import main
from strongroom.machine import linux

for _name in ("cli.run", "cli.exec", "cli.vm", "machine.launch", "vm.guest", "vm.paging", "vm.manufacture"):
    importlib.import_module(f"strongroom.{_name}")


def client(words: list[str], out: str) -> int:
    file = os.open(out, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in enumerate((nothing, file, file)):
        os.dup2(source, number)
    for number in (file, nothing):
        os.close(number)
    status = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def say(*words: object) -> None:
    print(json.dumps(words), flush=True)


def reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        say("ended", pid, code if code >= 0 else 128 - code)


def serve() -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ready = selectors.DefaultSelector()
    ready.register(0, selectors.EVENT_READ)
    ready.register(read, selectors.EVENT_READ)
    pending = b""
    while True:
        for key, _ in ready.select():
            if key.fd == read:
                os.read(read, 4096)
                reap()
                continue
            data = os.read(0, 65536)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                wanted = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    ready.close()
                    os.closerange(3, 20)
                    status = 125
                    try:
                        status = client(wanted["words"], wanted["out"])
                    finally:
                        os._exit(status)
                say("started", pid)


if __name__ == "__main__":
    serve()
