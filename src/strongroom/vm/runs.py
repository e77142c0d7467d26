"""One ``run``: an enclave image in a VM, from the request to the exit status."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from strongroom import paths
from strongroom.machine import protocol
from strongroom.machine.level import Facts, Level
from strongroom.machine.package import Package
from strongroom.machine.protocol import Message
from strongroom.machine.waiting import readable
from strongroom.machine.watch import Watch
from strongroom.vm import paging, view
from strongroom.vm.live import LiveVm, PackageLine, QuoteLine, ended_by
from strongroom.vm.plan import Plan
from strongroom.vm.progress import RunStatus

# The program's descriptors, in the order of the request; rpc, epc and quote follow them.
IMAGE = ("stdin", "stdout", "stderr", "sgxs", "sig", "pack")
MAX_BINDS = 16
# Backing that a waiting loader has: 128 and 32 MiB at most. Of the first 28 MiB are touched (native/device/warm.c), its
# end among them, which is to be the heap's end; so it has room for measured pages that are data.
WARM_DATA_PAGES = 32768
MEASURED_DATA_PAGES = 256
WARM_MEASURED_PAGES = 8192
# Users of loader processes: outside what user databases and container tools give out.
LOADER_UID_BASE = 1_870_000_000
LOADER_UID_COUNT = 8_000_000
INSIDE_UID = 1000
# SIGSTRUCT.ATTRIBUTES, SDM vol. 3D table "Layout of SIGSTRUCT": offset 928, DEBUG is bit 1.
_ATTRIBUTES_AT = 928
_DEBUG = 2
SIGSTRUCT_SIZE = 1808


@dataclass(frozen=True)
class RunRequest:
    """A checked request of ``strongroom run``."""

    vm: str
    level: str | None
    arguments: list[str]
    environment: list[str]
    epc_pages: int
    pinned_pages: int
    sgx2: bool
    measured_pages: int
    image: list[int]
    channel: int | None
    binds: list[tuple[int, str, bool]]
    cwd: str
    timing: bool
    guard: bool

    @classmethod
    def parse(cls, request: Message, descriptors: list[int]) -> Self:
        """Raises ProtocolError. The descriptors stay the caller's."""
        channel = protocol.number(request, "channel", 0, 1, 0)
        targets = protocol.strings(request, "binds", MAX_BINDS)
        expected = len(IMAGE) + channel + len(targets)
        if len(descriptors) != expected:
            raise protocol.ProtocolError(f"the request has {len(descriptors)} descriptors, not {expected}")
        writable = protocol.number(request, "writable", 0, 2**MAX_BINDS - 1, 0)
        for target in targets:
            if not target.startswith("/") or os.path.normpath(target) != target or target == "/":
                raise protocol.ProtocolError(f"{target!r} is no place for a bind")
        environment = protocol.strings(request, "environment")
        if not all("=" in item for item in environment):
            raise protocol.ProtocolError("an environment variable has no value")
        cwd = protocol.text(request, "cwd", default="/")
        if not cwd.startswith("/") or os.path.normpath(cwd) != cwd:
            raise protocol.ProtocolError("field cwd is no folder")
        rest = descriptors[len(IMAGE) :]
        return cls(
            vm=protocol.vm_name(request),
            level=protocol.text(request, "level", 16, "") or None,
            arguments=protocol.strings(request, "arguments"),
            environment=environment,
            epc_pages=protocol.number(request, "epc_pages", 0, 2**40, 0),
            pinned_pages=protocol.number(request, "pinned_pages", 0, 2**40, 0),
            sgx2=bool(protocol.number(request, "sgx2", 0, 1, 0)),
            measured_pages=protocol.number(request, "measured_pages", 0, 2**40, 0),
            image=descriptors[: len(IMAGE)],
            channel=rest[0] if channel else None,
            binds=[
                (number, target, bool(writable >> place & 1))
                for place, (number, target) in enumerate(zip(rest[channel:], targets, strict=True))
            ],
            cwd=cwd,
            timing=bool(protocol.number(request, "timing", 0, 1, 0)),
            guard=bool(protocol.number(request, "guard", 0, 1, 0)),
        )

    def words(self) -> list[str]:
        """The loader's options."""
        words = ["--timing"] if self.timing else []
        for variable in self.environment:
            words += ["--env", variable]
        return words

    def rest(self) -> list[str]:
        """What follows the loader's options: the program's arguments."""
        return ["--", *self.arguments]


def isolated(level: Level, facts: Facts) -> bool:
    """Whether a run at ``level`` has namespaces and a file view of its own."""
    return level is not Level.FAITHFUL and facts.namespaces


def is_debug(sig: int) -> bool:
    """Whether the SIGSTRUCT in file ``sig`` is of a DEBUG enclave (which opens to debuggers)."""
    try:
        data = os.pread(sig, SIGSTRUCT_SIZE, 0)
    except OSError:
        return False
    if len(data) != SIGSTRUCT_SIZE:
        return False
    return bool(struct.unpack_from("<Q", data, _ATTRIBUTES_AT)[0] & _DEBUG)


@dataclass(frozen=True)
class Warmth:
    """How many pages a waiting loader's library shall have touched ahead: of data, and of what is measured."""

    data: int = 0
    measured: int = 0

    @classmethod
    def of(cls, request: RunRequest) -> Self:
        """What the image of ``request`` would have use for."""
        measured = min(request.measured_pages, request.epc_pages)
        data = request.epc_pages - measured + MEASURED_DATA_PAGES
        return cls(min(data, WARM_DATA_PAGES), min(measured, WARM_MEASURED_PAGES))


class Run:
    """A run from spawn to end. ``stop`` ends it from any thread.

    With a Warmth in place of a request its loader waits, all made ready, for one to be handed over; ``ready`` tells
    when it does.
    """

    def __init__(
        self,
        live: LiveVm,
        level: Level,
        facts: Facts,
        package: Package,
        home: Path,
        request: RunRequest | Warmth,
        spawn: Callable[[Message, list[int]], None],
        watch: Watch | None,
    ) -> None:
        debug = isinstance(request, RunRequest) and is_debug(request.image[4])
        self._watch = watch if level is Level.SEALED and not debug else None
        self.stopped = False
        self._action, self._vm = "", live.vm.name
        self.ready = False
        self.waiting: socket.socket | None = None
        """While it waits for a request: the loader says here that it does, and gets it here."""
        with contextlib.ExitStack() as undo:  # descriptors or threads may run out at each step
            self._status = RunStatus(self._watch.protect) if self._watch else RunStatus()
            undo.callback(self._status.close)
            self._line = PackageLine(live, package)
            undo.callback(self._line.close)
            self._quotes = QuoteLine(package, home, level)
            undo.callback(self._quotes.close)
            self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            undo.pop_all()
        try:
            if isinstance(request, Warmth):
                self._start_waiting(live, level, facts, request, spawn)
            else:
                self._start(live, level, facts, request, spawn)
        except BaseException:
            self.close()
            raise

    def _start(
        self,
        live: LiveVm,
        level: Level,
        facts: Facts,
        request: RunRequest,
        spawn: Callable[[Message, list[int]], None],
    ) -> None:
        # Numbers in the program: 0 1 2 stdio, 3 sgxs, 4 sig, 5 pack, 6 rpc, 7 epc, 8 quote, 9 channel.
        passed = [
            *request.image,
            self._line.theirs.fileno(),
            live.epc.descriptor,
            self._quotes.theirs.fileno(),
        ]
        loader = ["--fd-sgxs", "3", "--fd-sig", "4", "--fd-pack", "5", "--quote-fd", "8"]
        if request.channel is not None:
            loader += ["--channel-fd", "9"]
            passed.append(request.channel)
        self._spawn(live, level, facts, spawn, passed, (6, 7), loader + request.words(), request)

    def _start_waiting(
        self,
        live: LiveVm,
        level: Level,
        facts: Facts,
        warmth: Warmth,
        spawn: Callable[[Message, list[int]], None],
    ) -> None:
        self.waiting, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.waiting.setblocking(False)
        self.waiting.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * protocol.MAX_MESSAGE)
        lines = [self._line.theirs.fileno(), live.epc.descriptor, self._quotes.theirs.fileno()]
        with theirs, open(os.devnull, "r+b", buffering=0) as nothing:
            passed = [nothing.fileno()] * 3 + lines + [theirs.fileno()]
            words = ["--quote-fd", "5", "--wait-fd", "6"]
            self._spawn(live, level, facts, spawn, passed, (3, 4), words, warmth)

    def look(self) -> None:
        """While it waits: take what has arrived. Sets ``ready``. Raises SpawnFailed."""
        self._status.poll()
        if self.waiting is not None and not self.ready:
            try:
                self.ready = bool(self.waiting.recv(1))
            except BlockingIOError:
                pass

    @property
    def sockets(self) -> list[int]:
        """What to ``look`` at when it is readable, while it waits."""
        found = [self._status.sock.fileno()]
        if self.waiting is not None and not self.ready:
            found.append(self.waiting.fileno())
        return found

    def program(self) -> int | None:
        """The loader's process id, once it is known."""
        return self._status.program

    @property
    def over(self) -> bool:
        return self._status.exit is not None

    def hand_over(self, request: RunRequest) -> bool:
        """Give a waiting loader its image; false where it is not there any more."""
        assert self.waiting is not None
        if self._watch is not None and is_debug(request.image[4]) and self._status.program is not None:
            self._watch.release(self._status.program)
            self._watch = None
        descriptors = [*request.image, *([] if request.channel is None else [request.channel])]
        message = b"".join(os.fsencode(word) + b"\0" for word in [*request.words(), *request.rest()])
        try:
            with self.waiting as sock:
                sock.setblocking(True)
                socket.send_fds(sock, [message], descriptors)
        except OSError:
            return False
        finally:
            self.waiting = None
        return True

    def _spawn(
        self,
        live: LiveVm,
        level: Level,
        facts: Facts,
        spawn: Callable[[Message, list[int]], None],
        passed: list[int],
        lines: tuple[int, int],
        words: list[str],
        wanted: RunRequest | Warmth,
    ) -> None:
        """Start injector and loader with the descriptors ``passed``; ``lines``: those of rpc and epc among them."""
        native = paths.native("strongroom-inject").parent
        paths.native("strongroom-loader")
        isolate = isolated(level, facts)
        seen = view.NATIVE if isolate else os.fspath(native)
        rpc, epc = (str(number) for number in lines)
        inject = [f"{seen}/strongroom-inject", "--rpc-fd", rpc, "--epc-fd", epc, "--level", level]
        request = wanted if isinstance(wanted, RunRequest) else None
        if isinstance(wanted, Warmth):
            inject += ["--warm", f"{wanted.data}:{wanted.measured}"]
        if request is not None and request.guard:
            inject.append("--guard")
        rest = request.rest() if request is not None else []
        loader = [f"{seen}/strongroom-loader", *words, *rest]
        if live.size.sgx2:
            inject.append("--sgx2")
        if facts.privileged and isolate:
            uid: int | None = LOADER_UID_BASE + live.vm.id % LOADER_UID_COUNT
        else:
            uid = INSIDE_UID if isolate else None
        # Looked up again in the run's own namespace: by the same user's rights, so nothing is gained by a swap.
        binds = [
            view.Bind(os.readlink(f"/proc/self/fd/{number}"), target, not writable)
            for number, target, writable in (request.binds if request is not None else [])
        ]
        plan = Plan(
            hostname=live.vm.name,
            folder=os.fspath(live.vm.folder),
            native=os.fspath(native),
            argv=[*inject, "--tamper=disable", "--", *loader],
            environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            isolate=isolate,
            user_namespace=isolate and not facts.privileged,
            uid=uid,
            lock_memory=level is Level.SEALED,
            cwd="/" if request is None or (isolate and not binds) else request.cwd,
            binds=binds if isolate else [],
            cgroup_files=live.limits.files,
            affinity=live.limits.affinity,
            limits=live.limits.rlimits,
        )
        spawn(plan.to_message(), [self._status.theirs.fileno(), *passed])
        self._status.theirs.close()
        self._line.theirs.close()
        self._quotes.theirs.close()

    def follow(self, client: socket.socket) -> None:
        """Until the program ends or the client goes: signals in, the exit status out. Raises SpawnFailed."""
        client.setblocking(True)
        client.settimeout(30)
        while self._status.exit is None:
            watched = [client.fileno(), self._status.sock.fileno(), self._stop_read]
            ready = readable(watched)
            if watched[1] in ready:
                self._status.poll()
            if self._stop_read in ready:
                raise ended_by(self._action, self._vm)
            if watched[0] in ready and self._status.exit is None:
                message, extra = protocol.receive(client)  # Closed: the client went away
                protocol.close_all(extra)
                self._status.signal(protocol.number(message, "signal", 1, 64))
        protocol.send(client, {"exit": self._status.exit} | paging.to_message(self._line.usage()))

    def stop(self, action: str = "stop") -> None:
        """End the run, from another thread."""
        self._action, self.stopped = action, True
        with contextlib.suppress(OSError):
            os.write(self._stop_write, b".")

    def close(self) -> None:
        """The run is over or ends now."""
        if self.waiting is not None:
            self.waiting.close()
        self._status.kill()
        self._await_end()
        if self._watch and self._status.program is not None:
            self._watch.release(self._status.program)  # its pidfd's number is another's from now on
        self._status.close()
        self._line.close()
        self._quotes.close()
        os.close(self._stop_read)
        os.close(self._stop_write)

    def _await_end(self) -> None:
        """Until the program is dead: only then is its EPC free."""
        pidfd = self._status.pidfds.get("program")
        if pidfd is not None:
            readable([pidfd], 10)
