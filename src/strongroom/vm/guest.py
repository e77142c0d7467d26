"""A program of the user's in a VM (``exec``): started from the user's terminal, by the command itself.

The daemon hands over the line to the VM's ``exec`` package; namespaces, limits and the file view are made here, in a
child of the command, so that the program stays in the terminal's session (Ctrl-C, Ctrl-Z and job control work).
The enclave lies in its host program's process, as on hardware: level ``faithful`` by nature.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from strongroom import paths
from strongroom.errors import StrongroomError, UsageError
from strongroom.machine import client, level, protocol
from strongroom.machine.waiting import readable
from strongroom.vm import paging, spawner, view
from strongroom.vm.lines import Lines, last_words
from strongroom.vm.plan import Plan
from strongroom.vm.progress import RunStatus

QUOTE_ENVIRONMENT = "STRONGROOM_QUOTE_FD"
# Folders at the host's root that the VM has of its own, or that are nobody's business.
_NOT_SHOWN = frozenset(
    {*view.SYSTEM, "dev", "proc", "sys", "run", "tmp", "boot", "lost+found", "vm", "strongroom"}
)
_RPC, _EPC, _QUOTE, _LINES = 3, 4, 5, 6


class NoProgram(StrongroomError):
    """The program to run is not there."""


def _resolve(name: str) -> str:
    found = shutil.which(name) if os.sep not in name else os.path.abspath(name)
    if not found or not os.path.exists(found):
        raise NoProgram(f"no program {name!r}", "name a file, or a program on PATH")
    if not os.access(found, os.X_OK) or os.path.isdir(found):
        raise NoProgram(f"{name} is no program that may be run", "check its mode: chmod +x")
    return found


def _binds(words: list[str]) -> list[view.Bind]:
    """The host's other folders read-only, the current folder for reading and writing.

    The host's /tmp is not shown, save for the program and what the arguments name there (read-only).
    """
    shown = [
        view.Bind(f"/{name}", f"/{name}", read_only=True)
        for name in sorted(os.listdir("/"))
        if name not in _NOT_SHOWN and os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")
    ]
    here = os.getcwd()
    named = [os.path.normpath(word) for word in words if word.startswith("/tmp/") and os.path.exists(word)]
    named = [path for path in dict.fromkeys(named) if not f"{path}/".startswith(f"{here}/")]
    shown += [view.Bind(path, path, read_only=True) for path in named if not here.startswith(f"{path}/")]
    if here != "/" and here.split("/")[1] not in view.SYSTEM:
        shown.append(view.Bind(here, here, read_only=False))
    return shown


def _masks(binds: list[view.Bind]) -> list[str]:
    """Where the VMs' fuses would be seen, by whatever name: STRONGROOM_HOME may be reached by links."""
    home = os.path.realpath(paths.home())
    found = {os.fspath(paths.home()), home}
    for bind in binds:
        source = os.path.realpath(bind.source)
        if f"{home}/".startswith(f"{source.rstrip('/')}/"):
            found.add(os.path.normpath(os.path.join(bind.target, os.path.relpath(home, source))))
    return sorted(found)


def run(vm: str, words: list[str], *, tamper: str | None = None, as_json: bool = False) -> int:
    """Run ``words`` in ``vm``; the exit status (128+n for a signal). Raises StrongroomError for our failures."""
    if tamper not in (None, "disable"):
        raise UsageError(f"--tamper={tamper} is not known", "the one choice is --tamper=disable")
    program = _resolve(words[0])
    native = paths.native("strongroom-inject").parent
    facts = level.find_facts()
    with client.connect() as connection:
        connection.request("exec", {"vm": vm})
        ready, descriptors = connection.reply(120.0)
        try:
            if len(descriptors) != 4:  # the last is the VM's lock: held while any of ours lives
                raise protocol.ProtocolError("the daemon sent no line to the package")
            plan = _plan(ready, facts, native, [program, *words[1:]], tamper)
            line = {"level": "faithful", "vm": plan.hostname, "verb": "exec"}
            text = json.dumps(line) if as_json else f"strongroom: faithful (exec) · VM {plan.hostname}"
            print(text, file=sys.stderr, flush=True)
            began = time.monotonic()
            with Lines(vm) as lines:
                status = _follow(plan, [*descriptors[:3], lines.theirs.fileno()], connection, lines)
            seconds = time.monotonic() - began
            with contextlib.suppress(StrongroomError, OSError):
                told = paging.from_messages([last_words(connection), *lines.usages])
                if said := paging.line(told, seconds, protocol.text(ready, "size", 64), as_json):
                    print(said, file=sys.stderr, flush=True)
            return status
        finally:
            protocol.close_all(descriptors)


def _plan(
    ready: protocol.Message, facts: level.Facts, native: Path, words: list[str], tamper: str | None
) -> Plan:
    isolate = facts.namespaces
    binds = _binds(words)
    seen = view.NATIVE if isolate else os.fspath(native)
    inject = [
        f"{seen}/strongroom-inject",
        "--rpc-fd",
        str(_RPC),
        "--epc-fd",
        str(_EPC),
        "--level",
        "faithful",
        "--follow",
        "--line-fd",
        str(_LINES),
    ]
    if ready.get("sgx2") is True:
        inject.append("--sgx2")
    if tamper:
        inject.append(f"--tamper={tamper}")
    return Plan(
        hostname=protocol.text(ready, "vm", 64),
        folder=protocol.text(ready, "folder"),
        native=os.fspath(native),
        argv=[*inject, "--", *words],
        environment={**os.environ, QUOTE_ENVIRONMENT: str(_QUOTE)},
        isolate=isolate,
        user_namespace=isolate and not facts.privileged,
        uid=None,
        cwd=os.getcwd(),
        session=False,
        confine=isolate,
        binds=binds,
        mask=_masks(binds),
        cgroup_files=protocol.strings(ready, "cgroup_files"),
        affinity=[int(cpu) for cpu in ready.get("affinity", [])],
        limits={name: (soft, hard) for name, (soft, hard) in ready.get("rlimits", {}).items()},
    )


@contextlib.contextmanager
def _terminal_is_the_programs() -> Iterator[None]:
    """Ctrl-C and Ctrl-\\ reach the program from the terminal itself; this process only waits."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _follow(plan: Plan, descriptors: list[int], connection: client.Connection, lines: Lines) -> int:
    status = RunStatus()
    own = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            connection.sock.close()
            spawner.monitor(plan, [status.theirs.fileno(), 0, 1, 2, *descriptors], own)
        finally:
            os._exit(spawner.FAILED)
    try:
        status.theirs.close()
        lines.theirs.close()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda n, _: status.signal(n))
        with _terminal_is_the_programs():
            while status.exit is None:
                watched = [status.sock.fileno(), connection.sock.fileno(), *lines.filenos()]
                ready = readable(watched)
                if watched[0] in ready:
                    status.poll()
                elif watched[1] in ready:
                    connection.reply()  # raises: why the daemon ends it, or that the daemon itself is gone
                else:
                    lines.serve(ready)
        return status.exit
    finally:
        status.kill()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)
        status.close()
