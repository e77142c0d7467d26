"""One STRONGROOM_HOME under faults: clients, whoever runs for it, and whether anything is left of what ended."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strongroom.vm import limits
from support.vm import REPOSITORY, Command

HERE = REPOSITORY / "tests" / "faults"
CLIENTS = HERE / "clients.py"
SECONDS = 60.0
"""Within which everything of an ended run is gone (a deadline for a hang, not a measurement)."""


def compile_here(name: str, folder: Path, to: str | None = None) -> Path:
    """The C program ``name`` of tests/faults, in ``folder`` (tests/native is on the path: conftest.py)."""
    import images

    options = [f"-I{REPOSITORY / 'tests/native/enclave'}", f"-I{REPOSITORY / 'native/include'}"]
    subprocess.run(
        ["gcc", *images.CFLAGS, "-mno-red-zone", "-pthread", f"-DHEAP={images.HEAP:#x}ull", *options,
         "-o", str(folder / (to or name)), str(HERE / f"{name}.c")],
        check=True, timeout=60,
    )  # fmt: skip
    return folder / (to or name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@dataclass(frozen=True)
class Parts:
    """The native folder and the image's project, for every user to read."""

    native: Path
    project: Path

    @property
    def image(self) -> list[str]:
        return [str(self.project / "build" / name) for name in ("enclave.sgxs", "enclave.sig")]


@dataclass(frozen=True)
class Process:
    """One process of a house; ``role``: daemon, spawner, between (monitor and first), program, client."""

    pid: int
    parent: int
    role: str


@dataclass
class Client:
    """A command that runs, or ran."""

    pid: int
    out: Path
    verb: str
    killed: bool = False
    status: int | None = None

    @property
    def text(self) -> str:
        """What it wrote; nothing where it was killed before it could."""
        return _read(self.out).decode(errors="replace")


@dataclass
class House:
    """``command`` runs single commands in it."""

    command: Command
    folder: Path
    _server: subprocess.Popen[bytes] | None = None
    _pending: bytes = b""
    _started: list[int] = field(default_factory=list)
    _running: dict[int, Client] = field(default_factory=dict)
    _count: int = 0

    @property
    def home(self) -> Path:
        return self.command.home

    # ---- clients ----

    def open(self) -> None:
        self._server = subprocess.Popen(
            [*self.command.prefix(), str(CLIENTS)],
            env={**self.command.environment(), "TMPDIR": str(self.temporary)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
        )

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def close(self) -> None:
        assert self._server is not None and self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(20)
        assert self._server.stdout is not None
        self._server.stdout.close()
        self.command("daemon", "stop")

    def start(self, *words: str) -> Client:
        """A command, in the background."""
        assert self._server is not None and self._server.stdin is not None
        self._count += 1
        out = self.folder / "out" / str(self._count)
        self._server.stdin.write(json.dumps({"words": words, "out": str(out)}).encode() + b"\n")
        self._server.stdin.flush()
        while not self._started:
            self._listen(10)
        pid = self._started.pop(0)
        client = Client(pid, out, words[0])
        self._running[pid] = client
        return client

    def wait(self, clients: list[Client], seconds: float = SECONDS) -> None:
        """Until all of them ended."""
        deadline = time.monotonic() + seconds
        while any(client.status is None for client in clients):
            left = deadline - time.monotonic()
            assert left > 0, (
                f"still running: {[c.text for c in clients if c.status is None]} {self.processes()}"
            )
            self._listen(min(left, 1.0))

    def _listen(self, seconds: float) -> None:
        assert self._server is not None and self._server.stdout is not None
        with selectors.DefaultSelector() as ready:
            ready.register(self._server.stdout, selectors.EVENT_READ)
            if not ready.select(seconds):
                return
        data = os.read(self._server.stdout.fileno(), 65536)
        assert data, "the server of clients is gone"
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            what, pid, *rest = json.loads(line)
            if what == "started":
                self._started.append(pid)
            else:
                self._running.pop(pid).status = rest[0]

    # ---- what runs for it ----

    def processes(self) -> list[Process]:
        """Every living process that belongs to this home, whoever its parent is now."""
        return list(self._processes())

    def _processes(self) -> Iterator[Process]:
        home, native = os.fsencode(self.home), os.fsencode(self.command.native)
        server = self._server.pid if self._server is not None else 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in (server, os.getpid()):
                continue
            command = _read(entry / "cmdline")
            pid = int(entry.name)
            if b"strongroom.vm.host\0" in command:
                role = "daemon"
            elif b"strongroom.vm.spawner\0" in command:
                role = "spawner"
            elif b"strongroom-inject\0" in command or b"strongroom-loader\0" in command:
                role = "program"
            elif os.fsencode(CLIENTS) in command:
                role = "client"
            elif native in command:
                role = "program"
            else:
                continue
            ours = b"STRONGROOM_HOME=" + home + b"\0" in _read(entry / "environ") or (
                role in ("program", "spawner") and (native in command or home in _read(entry / "mountinfo"))
            )
            facts = _read(entry / "stat").rpartition(b")")[2].split()
            if not ours or not facts or facts[0] in (b"Z", b"X"):
                continue
            parent = int(facts[1])
            if role == "spawner" and b"strongroom.vm.host\0" not in _read(Path(f"/proc/{parent}/cmdline")):
                role = "between"
            yield Process(pid, parent, role)

    def settle(self) -> None:
        """Nothing is left but a daemon with its spawner and loaders that wait: within SECONDS, or this fails."""
        deadline = time.monotonic() + SECONDS
        why = "?"
        while time.monotonic() < deadline:
            why = self._unsettled()
            if not why:
                return
            time.sleep(0.05)
        raise AssertionError(f"{why}; {self.processes()}; {_read(self.home / 'daemon.log')[-3000:].decode()}")

    def _unsettled(self) -> str:
        """What is still there that should not be; "" where all is well."""
        found = self.processes()
        daemons = [one.pid for one in found if one.role == "daemon"]
        if len(daemons) > 1:
            return f"daemons {daemons}"
        parents = {one.pid: one.parent for one in found}

        def under(pid: int, ancestor: int) -> bool:
            while pid in parents and pid != ancestor:
                pid = parents[pid]
            return pid == ancestor

        orphans = [one for one in found if not daemons or not under(one.pid, daemons[0])]
        if orphans:
            return f"orphans {orphans}"
        if not daemons:
            return "" if not self._groups() or os.geteuid() == 0 else "groups"
        told = self._ask("usage")
        if told is None:
            return "the daemon does not answer"
        if any(one["epc_used_pages"] or one["runs"] for one in told["vms"].values()):
            return f"in use: {told}"
        status = self._ask("status") or {}
        waiting = status.get("waiting_loaders", 0)
        programs = sum(one.role == "program" for one in found)
        # An injector leaves a tracer beside the loader for a moment.
        return f"{programs} programs, {waiting} wait" if programs != waiting else ""

    def used_pages(self) -> dict[str, float]:
        """What counts as used in each VM's EPC, by the daemon (pages; MiB for another user's daemon)."""
        return {
            name: one["epc_used_pages"] for name, one in (self._ask("usage") or {"vms": {}})["vms"].items()
        }

    def _ask(self, operation: str) -> dict[str, Any] | None:
        from strongroom.errors import StrongroomError
        from strongroom.machine import client

        if self.command.uid != os.geteuid():  # the daemon serves its own user
            words = {"usage": ["vm", "list", "--json"], "status": ["daemon", "status", "--json"]}[operation]
            done = self.command(*words)
            if done.returncode:
                return None
            facts = json.loads(done.stdout)
            if operation == "status":
                return dict(facts)
            used = [(one["name"], one["epc_used_mib"], one["programs"]) for one in facts]
            return {"vms": {name: {"epc_used_pages": mib, "runs": runs} for name, mib, runs in used}}
        with contextlib.suppress(StrongroomError):
            return client.ask(operation, start=False)
        return None

    def _groups(self) -> list[Path]:
        """Control groups of this home."""
        name = limits.prefix(self.home)
        tops = (limits.ROOT, *(limits.ROOT / part for part in ("cpu", "memory", "pids")))
        return [group for top in tops for group in top.glob(f"{name}*") if group.is_dir()]

    def assert_true(self) -> None:
        """What `vm list` says is what is so, once all is settled: nothing used, nothing running."""
        done = self.command("vm", "list", "--json")
        assert done.returncode == 0, done.stderr
        for vm in json.loads(done.stdout):
            assert (vm["epc_used_mib"], vm["programs"]) == (0, 0), vm

    def assert_clean(self) -> None:
        """Ends the daemon; then no process, group, socket, mount or temporary file of this home is left."""
        assert self.command("daemon", "stop").returncode == 0
        assert not [one for one in self.processes() if one.role != "client"]
        assert not self._groups()
        left = {path.name for path in self.home.iterdir()}
        known = {
            "strongroom.db",
            "strongroom.db-wal",
            "strongroom.db-shm",
            "vms",
            "vms.lock",
            "daemon.lock",
            "daemon.log",
        }
        assert left - known <= {"pki", "cache", "signing-key.pem"}, left
        assert not list(self.temporary.iterdir())
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(self.home) not in mounts


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Whether there was somebody to kill."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
