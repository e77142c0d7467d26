"""VMs in use: what the daemon holds in memory for one while processes run in it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strongroom.errors import StrongroomError
from strongroom.machine import rpc
from strongroom.machine.epc import Epc, EpcFull, Usage
from strongroom.machine.level import Level
from strongroom.machine.package import Package
from strongroom.machine.quoting import QuotingEnclave, serve_quotes
from strongroom.machine.threads import Worker
from strongroom.vm import limits, sizes
from strongroom.vm.lifecycle import Machines
from strongroom.vm.records import Lock, Vm, VmInUse

DAEMON = "daemon"
_ENDED_BY = {
    "stop": ("VM {0} was stopped", "start it with `strongroom vm start {0}`"),
    "restart": ("VM {0} was restarted", "run it again"),
    "delete": ("VM {0} was deleted", "make another with `strongroom vm create {0}`"),
    DAEMON: ("the daemon was stopped", "run it again: the daemon starts by itself"),
}


def ended_by(action: str, vm: str) -> StrongroomError:
    """What a run says that was ended from outside, by a change of its VM or with the daemon."""
    what, step = _ENDED_BY.get(action, _ENDED_BY["stop"])
    return StrongroomError(f"{what.format(vm)} while the program ran", step.format(vm))


class EpcExhausted(StrongroomError):
    """The VM's page cache has no room for the enclave."""


class NeedsSgx2(StrongroomError):
    """The image cannot run on a processor without SGX2."""


@dataclass
class LiveVm:
    """One VM in use: EPC counters, limits and the runs in it."""

    vm: Vm
    size: sizes.Size
    lock: Lock
    epc: Epc
    limits: limits.Limits
    users: int = 0
    stops: set[Callable[[str], None]] = field(default_factory=set)
    """One for each run; ends it, for what ``ended_by`` has a text."""
    programs: set[Callable[[], int | None]] = field(default_factory=set)
    """One for each run of an image; its process id."""

    def require(self, sgx2: bool, pages: int) -> None:
        """Refuse an image that is made for SGX2, of ``pages`` at its start, on a size without it. Raises NeedsSgx2."""
        if sgx2 and not self.size.sgx2:
            larger = [one for one in sizes.CATALOGUE if one.sgx2]
            fitting = next((one for one in larger if one.epc_pages >= pages), larger[-1])
            raise NeedsSgx2(
                f"the image has edmm = true, which needs SGX2; VM {self.vm.name} ({self.size.name}) has SGX1",
                f"run it in a DCsv3 VM (`strongroom vm create NAME --size {fitting.name}`), or build it without edmm",
            )

    def demand(self, pages: int, pinned: int = 0) -> None:
        """Refuse an enclave that not even paging can hold: more of ``pinned`` pages (SECS, TCSs: never evicted) than
        the EPC has, or more ``pages`` than EPC and the VM's memory together. Raises EpcExhausted."""
        name, size = self.vm.name, self.size
        if pinned > size.epc_pages:
            larger = sizes.smallest_holding(-(-pinned // 256), size.family)
            step = f"`strongroom vm resize {name} {larger.name}`" if larger else ""
            raise EpcExhausted(
                f"the enclave needs {_mib(pinned)} MiB of EPC for pages that cannot be evicted; VM {name} "
                f"({size.name}) has {size.epc_mib} MiB",
                step or "make `threads` in its enclave.toml smaller",
            )
        room = size.epc_pages + size.memory_pages
        if pages <= room:
            return
        raise EpcExhausted(
            f"the enclave needs {_mib(pages)} MiB; VM {name} ({size.name}) has {size.epc_mib} MiB of EPC and "
            f"{size.memory_gib} GiB of memory for what is evicted",
            _larger(name, size, pages),
        )


def _larger(name: str, size: sizes.Size, pages: int) -> str:
    holding = [
        one
        for one in sizes.CATALOGUE
        if one.family == size.family and one.epc_pages + one.memory_pages >= pages
    ]
    if not holding:
        return "make `memory` in its enclave.toml smaller, or create a DCsv3 VM"
    return f"`strongroom vm resize {name} {min(holding, key=lambda one: one.epc_mib).name}`"


def _mib(pages: int) -> str:
    return f"{pages / 256:.1f}".removesuffix(".0")


class LiveVms:
    """The VMs in use, counted by their users; the last one out gives lock, groups and counters back."""

    def __init__(self, home: Path, machines: Machines) -> None:
        self._home = home
        self._machines = machines
        self._live: dict[int, LiveVm] = {}
        self._lock = threading.Lock()

    def use(self, name: str) -> LiveVm:
        """Take part in VM ``name`` (made first where it is ``default``). Raises what Machines.use raises."""
        with self._lock:
            for held in self._live.values():
                if held.vm.name == name:  # held in use, so nobody can have changed it since
                    held.users += 1
                    return held
        vm, lock = self._machines.use(name)
        with self._lock:
            live = self._live.get(vm.id)
            if live is None:
                try:
                    size = sizes.find(vm.size)
                    epc = Epc(size.epc_pages, size.memory_pages)
                    live = LiveVm(vm, size, lock, epc, limits.apply(self._home, vm.id, size))
                except BaseException:
                    lock.release()
                    raise
                self._live[vm.id] = live
            else:
                lock.release()
            live.users += 1
            return live

    def stay(self, live: LiveVm) -> None:
        """One more user of a VM that is in use. Raises VmInUse where its last one has just left."""
        with self._lock:
            if self._live.get(live.vm.id) is not live:
                raise VmInUse(f"VM {live.vm.name} is not in use any more", "use it again")
            live.users += 1

    def leave(self, live: LiveVm) -> None:
        with self._lock:
            live.users -= 1
            if live.users:
                return
            del self._live[live.vm.id]
            limits.remove(live.limits.groups)
            live.epc.close()
            live.lock.release()

    def stop(self, vm_id: int | None, action: str) -> int:
        """End the runs of one VM, or of all (None), for ``action``; returns how many."""
        with self._lock:
            chosen = [live for live in self._live.values() if vm_id in (None, live.vm.id)]
            stops = [stop for live in chosen for stop in list(live.stops)]
        for stop in stops:
            stop(action)
        return len(stops)

    def usage(self) -> dict[str, dict[str, Any]]:
        """EPC pages used, runs, and the process ids of enclaves, by VM name."""
        with self._lock:
            return {
                live.vm.name: {
                    "epc_used_pages": live.epc.used_pages(),
                    "runs": len(live.stops),
                    "programs": [
                        pid for pid in (program() for program in list(live.programs)) if pid is not None
                    ],
                }
                for live in self._live.values()
            }

    @property
    def runs(self) -> int:
        with self._lock:
            return sum(len(live.stops) for live in self._live.values())


class PackageLine:
    """The line from one process in a VM to its package: an EPC slot, a socket pair, a thread that answers.

    The slot is given back when the process has closed its end, at its death at the latest: it takes pages until then.
    """

    def __init__(self, live: LiveVm, package: Package) -> None:
        try:
            self._slot = live.epc.take_slot()
        except EpcFull as error:
            raise VmInUse(
                f"VM {live.vm.name} runs as many programs as it can", "wait until some have ended"
            ) from error
        self._live = live
        self._lock = threading.Lock()
        self._last: Usage | None = None
        try:
            self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._thread = Worker(self._serve, self._ours.dup(), package)
        except BaseException:
            live.epc.give_back(self._slot)
            raise

    def _serve(self, served: socket.socket, package: Package) -> None:
        try:
            rpc.serve_connection(served, package, self._slot)
            self._shut(socket.SHUT_WR)  # whatever ended it, no answer comes any more
            closed = select.poll()
            closed.register(self._ours, 0)  # POLLHUP is not asked for: it comes
            closed.poll()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        with self._lock:
            self._ours.close()
            if self._last is None:
                self._last = self._live.epc.usage(self._slot)
                self._live.epc.give_back(self._slot)

    @property
    def slot(self) -> int:
        """Its place in the EPC's counters."""
        return self._slot

    def usage(self) -> Usage:
        """What the process did with the EPC so far."""
        with self._lock:
            return self._last or self._live.epc.usage(self._slot)

    def ended(self) -> bool:
        """Whether the process has closed its end."""
        return not self._thread.is_alive()

    def leave(self) -> None:
        """Answer no more. Its command has ended, and the process does, unless it was left behind (no namespaces)."""
        self.theirs.close()
        self._shut(socket.SHUT_WR)
        if self.ended():  # or had no memory to begin
            self._give_back()

    def close(self) -> None:
        """The process is dead: end the thread, its EPC is free."""
        self.theirs.close()
        self._shut(socket.SHUT_RDWR)
        self._thread.join()
        self._give_back()

    def _shut(self, how: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._ours.shutdown(how)


class QuoteLine:
    """The line from one process in a VM to the quoting enclave of its package."""

    def __init__(self, package: Package, home: Path, level: Level) -> None:
        quoting = QuotingEnclave(package, home, level.value)
        self._ours, self.theirs = socket.socketpair()
        self._thread = Worker(serve_quotes, self._ours, quoting)

    def close(self) -> None:
        self.theirs.close()
        try:
            self._ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._thread.join()
