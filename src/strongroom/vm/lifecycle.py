"""The life of a VM: create, start, stop, restart, resize, delete. The transitions are the table TRANSITIONS."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from strongroom.errors import StrongroomError, UsageError
from strongroom.vm import sizes
from strongroom.vm.records import Lock, NoSuchVm, Records, State, Vm, VmExists, VmInUse

DEFAULT_NAME = "default"
# Azure: 1 to 64 letters, digits, dots, hyphens and underscores; starts and ends with a letter or digit.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")

# (action, state) -> state afterwards. What is not here is refused.
TRANSITIONS: dict[tuple[str, State], State] = {
    ("start", State.STOPPED): State.RUNNING,
    ("start", State.RUNNING): State.RUNNING,
    ("stop", State.RUNNING): State.STOPPED,
    ("stop", State.STOPPED): State.STOPPED,
    ("restart", State.RUNNING): State.RUNNING,
    ("resize", State.RUNNING): State.RUNNING,
    ("resize", State.STOPPED): State.STOPPED,
    ("microcode", State.RUNNING): State.RUNNING,
    ("microcode", State.STOPPED): State.STOPPED,
    ("use", State.RUNNING): State.RUNNING,
    ("delete", State.CREATING): State.DELETING,
    ("delete", State.RUNNING): State.DELETING,
    ("delete", State.STOPPED): State.DELETING,
    ("delete", State.DELETING): State.DELETING,
}


class WrongState(StrongroomError):
    """The VM's state does not allow the action."""


class ResizeRefused(StrongroomError):
    """The new size is of another family."""


class Manufacturer(Protocol):
    """Makes the two packages of a VM ("run" and "exec") in a folder, and tells them a new EPC size."""

    def manufacture(self, folder: Path, name: str, size: sizes.Size) -> None: ...

    def resize(self, folder: Path, size: sizes.Size) -> None: ...

    def microcode(self, folder: Path, svn: int) -> None: ...


Release = Callable[[Vm, str], None]
Idle = Callable[[Vm], None]


class Machines:
    """The VMs of one STRONGROOM_HOME.

    ``release`` ends every process in a VM (it asks the daemon, and names the action), ``idle`` those that only wait
    there. ``on_step`` is told the name of each step before it is taken (progress, and the tests' crashes).
    """

    def __init__(
        self,
        records: Records,
        manufacturer: Manufacturer,
        release: Release,
        on_step: Callable[[str], None] = lambda step: None,
        idle: Idle = lambda vm: None,
    ) -> None:
        self.records = records
        self._manufacturer = manufacturer
        self._release = release
        self._idle = idle
        self._step = on_step

    def create(self, name: str, size_name: str = sizes.DEFAULT_SIZE) -> Vm:
        """Make a VM; it runs when this returns. Raises UsageError, VmExists, RecordsError."""
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no VM name", "use 1 to 64 letters, digits, dots, hyphens or underscores"
            )
        size = sizes.find(size_name)
        self._step("record")
        vm, lock = self.records.add(name, size.name)
        with lock:
            try:
                self._step("folder")
                for part in (vm.folder.parent, vm.folder):
                    part.mkdir(mode=0o700, exist_ok=part != vm.folder)
                (vm.folder / "disk").mkdir(mode=0o755)
                (vm.folder / "tmp").mkdir(mode=0o1777)
                os.chmod(vm.folder / "tmp", 0o1777)
                (vm.folder / "root").mkdir(mode=0o755)
                self._step("packages")
                self._manufacturer.manufacture(vm.folder, name, size)
                self._step("running")
                return self.records.update(vm, state=State.RUNNING)
            except BaseException:
                with contextlib.suppress(StrongroomError, OSError):  # what stays is listed as Creating
                    self._erase(vm)
                raise

    def ensure_default(self) -> Vm:
        """The VM `default`, made where it is missing, or where a crash left it half made or half deleted."""
        with contextlib.suppress(NoSuchVm):
            vm = self.records.get(DEFAULT_NAME)
            if vm.state not in (State.CREATING, State.DELETING):
                return vm
            lock = self.records.lock(vm.id, exclusive=True)
            if lock is not None:  # whoever was at it is dead, and nothing ran in it
                with lock:
                    # Its maker may have finished before the lock was ours.
                    vm = self.records.get(DEFAULT_NAME)
                    if vm.state not in (State.CREATING, State.DELETING):
                        return vm
                    self._erase(vm)
        try:
            return self.create(DEFAULT_NAME)
        except VmExists:
            return self._settled(DEFAULT_NAME)

    def _settled(self, name: str) -> Vm:
        """The VM once a creator that works at this moment is done with it."""
        for _ in range(100):
            vm = self.records.get(name)
            if vm.state is not State.CREATING:
                return vm
            lock = self.records.lock(vm.id, exclusive=True)
            if lock is not None:  # its creator is dead
                lock.release()
                return self.records.get(name)
            time.sleep(0.05)
        return self.records.get(name)

    def use(self, name: str) -> tuple[Vm, Lock]:
        """The running VM and a shared lock on it, for a process to run there. Raises NoSuchVm, WrongState, VmInUse."""
        vm = self.ensure_default() if name == DEFAULT_NAME else self._settled(name)
        lock = self.records.lock(vm.id, exclusive=False)
        if lock is None:
            raise VmInUse(f"VM {name} is being changed by another command", "try again")
        try:
            vm = self.records.get(name)
            self._after("use", vm)
            return vm, lock
        except BaseException:
            lock.release()
            raise

    def start(self, name: str) -> Vm:
        with self._exclusively("start", name, force=False, may_run=True) as vm:
            return self._change("start", vm)

    def stop(self, name: str) -> Vm:
        """Stop a VM, ending every process in it."""
        with self._exclusively("stop", name, force=True) as vm:
            return self._change("stop", vm)

    def restart(self, name: str) -> Vm:
        """End every process of a running VM; its fuses and its disk stay."""
        with self._exclusively("restart", name, force=True) as vm:
            return self._change("restart", vm)

    def resize(self, name: str, size_name: str) -> Vm:
        """Another size of the same family. Raises ResizeRefused, VmInUse."""
        new = sizes.find(size_name)
        with self._exclusively("resize", name, force=False) as vm:
            old = sizes.find(vm.size)
            if new.family != old.family:
                family = ", ".join(s.name for s in sizes.CATALOGUE if s.family == old.family)
                raise ResizeRefused(
                    f"{new.name} is not of {name}'s family {old.family}", f"choose one of {family}"
                )
            self._step("packages")
            self._manufacturer.resize(vm.folder, new)
            self._step("record")
            return self.records.update(vm, size=new.name)

    def microcode(self, name: str, svn: int) -> Vm:
        """Load microcode ``svn``, newer or older, as at a start of the machine. Raises VmInUse, StrongroomError."""
        with self._exclusively("microcode", name, force=False) as vm:
            self._step("packages")
            self._manufacturer.microcode(vm.folder, svn)
            return vm

    def delete(self, name: str, *, force: bool = False) -> None:
        """Remove a VM and all that is in it, whatever state a crash left it in. Raises VmInUse unless ``force``."""
        with self._exclusively("delete", name, force=force) as vm:
            self._change("delete", vm)
            self._erase(vm)

    def _erase(self, vm: Vm) -> None:
        self._step("erase")
        if vm.folder.exists():
            shutil.rmtree(vm.folder, onerror=_insist)
        self._step("forget")
        self.records.remove(vm)

    def _after(self, action: str, vm: Vm) -> State:
        state = TRANSITIONS.get((action, vm.state))
        if state is not None:
            return state
        if vm.state is State.STOPPED:
            raise WrongState(f"VM {vm.name} is stopped", f"start it with `strongroom vm start {vm.name}`")
        raise WrongState(
            f"VM {vm.name} was left in state {vm.state} by a crash",
            f"remove it with `strongroom vm delete {vm.name}`",
        )

    def _change(self, action: str, vm: Vm) -> Vm:
        state = self._after(action, vm)
        self._step("state")
        return self.records.update(vm, state=state) if state is not vm.state else vm

    @contextlib.contextmanager
    def _exclusively(self, action: str, name: str, *, force: bool, may_run: bool = False) -> Iterator[Vm]:
        """Hold the VM's lock while changing it; with ``force`` what runs in it is ended first."""
        vm = self.records.get(name)
        lock = self.records.lock(vm.id, exclusive=not may_run)
        if lock is None and not force:
            self._idle(vm)
            lock = self.records.lock(vm.id, exclusive=not may_run)
        if lock is None and force:
            deadline = time.monotonic() + 10
            while lock is None and time.monotonic() < deadline:
                self._release(vm, action)  # again: a run that was about to start may not have been among them
                for _ in range(20):
                    lock = self.records.lock(vm.id, exclusive=True)
                    if lock is not None:
                        break
                    time.sleep(0.02)
        if lock is None:
            step = f"stop it with `strongroom vm stop {name}`"
            if action == "delete" and not force:
                step += f", or `strongroom vm delete --force {name}`"
            raise VmInUse(f"VM {name} is in use", step)
        with lock:
            vm = self.records.get(name)  # it may have changed before the lock was ours
            self._after(action, vm)
            yield vm


def _insist(function: Callable[..., object], path: str, error: object) -> None:
    """rmtree's error handler: a guest may have left folders that nobody may enter."""
    if isinstance(error, tuple) and isinstance(error[1], FileNotFoundError):
        return
    parent = os.path.dirname(path)
    for place in (parent, path):
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(os.lstat(place).st_mode):
                os.chmod(place, 0o700)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)
