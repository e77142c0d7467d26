"""The daemon: ``python -m strongroom.vm.host``. Puts together socket, records, live VMs, spawner and watch."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import strongroom
from strongroom import paths
from strongroom.errors import StrongroomError
from strongroom.machine import level, protocol
from strongroom.machine.daemon import MAX_CLIENTS, AlreadyRunning, Operation, Server
from strongroom.machine.package import Package
from strongroom.machine.protocol import Message
from strongroom.machine.waiting import readable
from strongroom.machine.watch import Watch
from strongroom.vm import limits, paging
from strongroom.vm.lifecycle import Machines
from strongroom.vm.live import DAEMON, LiveVm, LiveVms, PackageLine, QuoteLine, ended_by
from strongroom.vm.manufacture import Fuses
from strongroom.vm.pool import DELAY_SECONDS, Pool
from strongroom.vm.records import Records, Vm
from strongroom.vm.runs import Run, RunRequest, Warmth, isolated
from strongroom.vm.spawning import Spawner

IDLE_SECONDS = 900.0
DRAIN_SECONDS = 2.0  # for the last words of runs that end with the daemon
LOG_BYTES = 1 << 20
OPEN_FILES = 16384  # some 25 a run
FOLLOW_SECONDS = 0.5
"""How often it is looked whether a program that was executed is gone."""
log = logging.getLogger("strongroom.daemon")


class Host:
    """The daemon's operations."""

    def __init__(self, home: Path, facts: level.Facts) -> None:
        self._home = home
        self._facts = facts
        self.spawner: Spawner | None = None
        self._started = time.monotonic()
        # A guest asks for these: whatever it does, a client's place is left for others.
        self._follows = threading.BoundedSemaphore(MAX_CLIENTS // 2)
        self.machines = Machines(Records(home), Fuses(home), self._release, idle=self._idle)
        self.live = LiveVms(home, self.machines)
        self.pool = Pool(self._waiting, self.live.stay, self.live.leave)
        self.watch = Watch(_foreign_tracer) if facts.privileged else None
        self.server: Server | None = None

    def operations(self) -> dict[str, Operation]:
        return {
            "status": self.status,
            "stop": self.stop,
            "usage": self.usage,
            "vm_stop": self.vm_stop,
            "vm_idle": self.vm_idle,
            "run": self.run,
            "exec": self.exec,
        }

    def _release(self, vm: Vm, action: str) -> None:
        self.live.stop(vm.id, action)
        self.pool.drop(vm.id)

    def _idle(self, vm: Vm) -> None:
        self.pool.drop(vm.id)

    def status(self, client: socket.socket, _request: Message, _descriptors: list[int]) -> None:
        answer = {
            "version": strongroom.__version__,
            "pid": os.getpid(),
            "seconds": int(time.monotonic() - self._started),
            "level": level.best(self._facts),
            "runs": self.live.runs,
            "waiting_loaders": self.pool.count,
            "debugger_watch": bool(self.watch and self.watch.available),
            "debuggers_refused": self.watch.killed if self.watch else 0,
        }
        protocol.send(client, answer)

    def stop(self, client: socket.socket, _request: Message, _descriptors: list[int]) -> None:
        ended = self.live.stop(None, DAEMON)
        protocol.send(client, {"ended": ended})
        if self.server is not None:
            self.server.stop()

    def usage(self, client: socket.socket, _request: Message, _descriptors: list[int]) -> None:
        protocol.send(client, {"vms": self.live.usage()})

    def vm_stop(self, client: socket.socket, request: Message, _descriptors: list[int]) -> None:
        """Ends the runs of the VM with the number ``id`` (its name may have been given to another since)."""
        number = protocol.number(request, "id", 1, 2**62)
        ended = self.live.stop(number, protocol.text(request, "action", 16, "stop"))
        self.pool.drop(number)
        protocol.send(client, {"ended": ended})

    def vm_idle(self, client: socket.socket, request: Message, _descriptors: list[int]) -> None:
        """Ends what only waits in the VM with the number ``id``: somebody wants to change it."""
        protocol.send(client, {"ended": self.pool.drop(protocol.number(request, "id", 1, 2**62))})

    def run(self, client: socket.socket, request: Message, descriptors: list[int]) -> None:
        """An enclave image in a VM: the whole life of ``strongroom run``."""
        wanted = RunRequest.parse(request, descriptors)
        chosen = level.choose(self._facts, wanted.level)
        live = self.live.use(wanted.vm)
        try:
            live.require(wanted.sgx2, wanted.epc_pages)
            live.demand(wanted.epc_pages, wanted.pinned_pages)
            protocol.send(
                client, {"ready": True, "level": chosen, "vm": live.vm.name, "size": live.size.name}
            )
            client.settimeout(60)
            answer, extra = protocol.receive(client)
            protocol.close_all(extra)
            protocol.text(answer, "op", 16)
            # A loader that waits has seen no file of the host: what the manifest allows needs one of its own.
            waits = isolated(chosen, self._facts) and not wanted.binds and not wanted.guard
            again = waits and self.pool.used(live, chosen)
            run = self.pool.take(live, chosen) if waits else None
            if run is not None and not run.hand_over(wanted):
                run.close()
                run = None
            if run is None:
                run = self._run(live, chosen, wanted)
            live.stops.add(run.stop)
            live.programs.add(run.program)
            try:
                if again:
                    self.pool.want(live, chosen, Warmth.of(wanted), DELAY_SECONDS)
                run.follow(client)
            finally:
                live.stops.discard(run.stop)
                live.programs.discard(run.program)
                run.close()
                if again and not run.stopped:
                    self.pool.want(live, chosen, Warmth.of(wanted))
        finally:
            self.live.leave(live)

    def _run(self, live: LiveVm, chosen: level.Level, wanted: RunRequest | Warmth) -> Run:
        package = Package.open(live.vm.folder / "run")
        assert self.spawner is not None
        return Run(live, chosen, self._facts, package, self._home, wanted, self.spawner, self.watch)

    def _waiting(self, live: LiveVm, chosen: level.Level, warmth: Warmth) -> Run:
        return self._run(live, chosen, warmth)

    def exec(self, client: socket.socket, request: Message, _descriptors: list[int]) -> None:
        """A line to the VM's ``exec`` package, for as long as the client stays connected.

        With ``follow``, one more for a program that the program executed: it ends with that program.
        """
        follow = bool(protocol.number(request, "follow", 0, 1, 0))
        with contextlib.ExitStack() as counted:
            if follow:
                if not self._follows.acquire(blocking=False):
                    raise StrongroomError("programs under exec have as many lines as they may", "end some")
                counted.callback(self._follows.release)
            self._exec(client, protocol.vm_name(request), follow)

    def _exec(self, client: socket.socket, vm: str, follow: bool) -> None:
        live = self.live.use(vm)
        try:
            package = Package.open(live.vm.folder / "exec")

            def hang_up(action: str) -> None:
                with contextlib.suppress(StrongroomError, OSError):
                    protocol.send(client, protocol.error_message(ended_by(action, live.vm.name)))
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

            with contextlib.ExitStack() as held:
                line = PackageLine(live, package)
                held.callback(line.leave)  # its command goes before it does
                quotes = QuoteLine(package, self._home, level.Level.FAITHFUL)
                held.callback(quotes.close)
                live.stops.add(hang_up)
                held.callback(live.stops.discard, hang_up)
                facts = {
                    "ready": True,
                    "vm": live.vm.name,
                    "id": live.vm.id,
                    "size": live.size.name,
                    "sgx2": live.size.sgx2,
                    "slot": line.slot,
                    "folder": os.fspath(live.vm.folder),
                    "cgroup_files": live.limits.files,
                    "affinity": live.limits.affinity,
                    "rlimits": live.limits.rlimits,
                }
                protocol.send(
                    client,
                    facts,
                    [line.theirs.fileno(), live.epc.descriptor, quotes.theirs.fileno(), live.lock.descriptor],
                )
                line.theirs.close()
                quotes.theirs.close()
                client.settimeout(None)
                with contextlib.suppress(OSError):
                    while not (follow and line.ended()):
                        if readable([client.fileno()], FOLLOW_SECONDS if follow else None):
                            if not client.recv(1):
                                break
                with contextlib.suppress(OSError):
                    protocol.send(client, paging.to_message(line.usage()))
        finally:
            self.live.leave(live)


def _foreign_tracer(process: int, tracer: int) -> bool:
    """Our injector traces from inside the run's own namespace; a tracer outside it is none of ours."""
    try:
        return os.readlink(f"/proc/{process}/ns/pid") != os.readlink(f"/proc/{tracer}/ns/pid")
    except OSError:
        return False  # one of them is gone, as the injector soon is


def _more_files() -> tuple[int, int]:
    """Raise this process's limit of open files; what it was."""
    soft, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return before


def _serve() -> None:
    """Until stopped or idle. Raises StrongroomError, OSError where it cannot begin."""
    home = paths.ensure_home()
    directory = paths.socket_directory()
    idle = float(os.environ.get("STRONGROOM_IDLE_SECONDS") or IDLE_SECONDS)
    try:
        server = Server(directory, strongroom.__version__, idle)
    except AlreadyRunning:
        return
    if os.fstat(2).st_size > LOG_BYTES:
        os.ftruncate(2, 0)
    limits.clean_up(home)
    facts = level.find_facts()  # forks: before the first thread
    before = _more_files()
    host = Host(home, facts)
    host.server = server
    host.spawner = Spawner(before)
    server.offer(host.operations())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: server.stop())
    try:
        server.listen()
        log.info("serving, level %s", level.best(facts))
        server.serve()
    finally:
        host.live.stop(None, DAEMON)
        server.drain(DRAIN_SECONDS)
        host.pool.close()
        host.spawner.close()
        limits.clean_up(home)
        log.info("ended")


def _tell(descriptor: int | None, error: StrongroomError | OSError) -> None:
    """Why there is no daemon, to the command that wants one: the log may be on a full disk."""
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else f"the daemon cannot start: {error.strerror or error}"
        place = f" ({error.filename})" if error.filename else ""
        step = "free some space and try again" if full else "see daemon.log"
        error = StrongroomError(what + place, step)
    log.error("%s", error)
    if descriptor is not None:
        with contextlib.suppress(OSError):
            os.write(descriptor, json.dumps(protocol.error_message(error)).encode()[: protocol.MAX_REASON])


def main() -> int:
    """``python -m strongroom.vm.host [FD]``: FD gets the reason where it cannot start."""
    os.closerange(4 if len(sys.argv) > 1 else 3, os.sysconf("SC_OPEN_MAX"))  # the starter's: locks, pipes
    os.chdir("/")
    os.umask(0o077)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.raiseExceptions = False  # a log that cannot be written ends no run
    reason = int(sys.argv[1]) if len(sys.argv) > 1 else None
    if reason is not None:
        os.set_inheritable(reason, False)
    try:
        _serve()
    except (StrongroomError, OSError) as error:
        _tell(reason, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
