"""The records of the VMs: one SQLite file under STRONGROOM_HOME, and the lock that says a VM is busy.

Rule that makes crashes harmless: a record exists, committed, before anything of the VM is on the disk, and goes
only after all of it is gone.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import sqlite3
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from strongroom.errors import StrongroomError

SCHEMA_VERSION = 1
BUSY_SECONDS = 15.0


class State(enum.StrEnum):
    """Where a VM is in its life. Creating and Deleting are what a crash may leave."""

    CREATING = "Creating"
    RUNNING = "Running"
    STOPPED = "Stopped"
    DELETING = "Deleting"


class RecordsError(StrongroomError):
    """The database cannot be read or written."""


class NoSuchVm(StrongroomError):
    """No VM has that name."""


class VmExists(StrongroomError):
    """A VM of that name is there already."""


class VmInUse(StrongroomError):
    """Processes run in the VM, or another command works on it."""


# An id is never given twice: locks and folders go by it.
_TABLE = """CREATE TABLE IF NOT EXISTS vms (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, name VARCHAR(64) NOT NULL UNIQUE, size VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL, created VARCHAR(32) NOT NULL)"""
_SELECT = "SELECT id, name, size, state, created FROM vms"


def _write_ahead(base: sqlite3.Connection) -> None:
    """WAL mode. SQLite's own waiting does not cover the moment at which another process turns a new file to it."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            base.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


@dataclass(frozen=True)
class Vm:
    """A VM as recorded. ``folder`` holds its packages, disk and temporary files."""

    id: int
    name: str
    size: str
    state: State
    created: datetime
    folder: Path


class Records:
    """The database and the locks of one STRONGROOM_HOME (which must exist)."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._lock_path = home / "vms.lock"
        self._path = home / "strongroom.db"
        with self._open() as base:
            (version,) = base.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise RecordsError(
                f"{self._path} was written by a newer Strongroom (schema {version}, this one knows {SCHEMA_VERSION})",
                "upgrade Strongroom or set STRONGROOM_HOME to another folder",
            )
        if version == 0:
            with self._open(write=True) as base:
                base.execute(_TABLE)
                base.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    @contextlib.contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection; with ``write`` in a transaction, committed at the end unless it ends with an exception."""
        try:
            # Transactions are ours: the module's own begin late.
            with contextlib.closing(
                sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            ) as base:
                _write_ahead(base)
                base.execute("PRAGMA synchronous=FULL")
                if write:
                    base.execute("BEGIN IMMEDIATE")
                yield base
                if write:
                    base.execute("COMMIT")
        except sqlite3.Error as error:
            raise RecordsError(
                f"the VM database in {self.home} failed ({error})", self._step(str(error))
            ) from error

    def _step(self, reason: str) -> str:
        with contextlib.suppress(OSError):
            space = os.statvfs(self.home)
            if "full" in reason or (("I/O" in reason or "open" in reason) and not space.f_bavail):
                return "free some space"
        if "not a database" in reason or "malformed" in reason or "no such" in reason:
            return f"put a copy of {self._path} back, or move the file away: its VMs are then forgotten"
        if "locked" in reason:
            return "another command holds it: wait until that has ended, and try again"
        return "check the folder and its owner"

    def _vm(self, row: tuple[Any, ...]) -> Vm:
        number, name, size, state, created = row
        try:
            return Vm(number, name, size, State(state), datetime.fromisoformat(created), self.folder(number))
        except (TypeError, ValueError) as error:
            raise RecordsError(
                f"the VM database in {self.home} holds a record that makes no sense ({error})",
                self._step("malformed"),
            ) from error

    def folder(self, vm_id: int) -> Path:
        return self.home / "vms" / str(vm_id)

    def add(self, name: str, size: str) -> tuple[Vm, Lock]:
        """Record a new VM in state Creating and hold its lock. Raises VmExists."""
        lock: Lock | None = None
        try:
            with self._open(write=True) as base:
                if base.execute("SELECT 1 FROM vms WHERE name = ?", (name,)).fetchone():
                    raise VmExists(f"VM {name} exists already", f"see `strongroom vm show {name}`")
                values = (name, size, State.CREATING, datetime.now(UTC).isoformat())
                insert = "INSERT INTO vms (id, name, size, state, created) VALUES (?, ?, ?, ?, ?)"
                number = base.execute(insert, (None, *values)).lastrowid
                assert number is not None
                if self.folder(
                    number
                ).exists():  # of a VM whose record was lost with an earlier database: it stays
                    base.execute("DELETE FROM vms WHERE id = ?", (number,))
                    number = self._free_id()
                    base.execute(insert, (number, *values))
                lock = self.lock(number, exclusive=True)  # before others can see the record
                if lock is None:
                    raise VmInUse(f"VM {name} is busy", "try again")
            return self._vm((number, *values)), lock
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def _free_id(self) -> int:
        """A number above all of the folders there are."""
        names = (path.name for path in (self.home / "vms").iterdir())
        return max(int(name) for name in names if name.isdecimal()) + 1

    def get(self, name: str) -> Vm:
        """Raises NoSuchVm."""
        with self._open() as base:
            row = base.execute(f"{_SELECT} WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise NoSuchVm(
                f"no VM is called {name}",
                f"see `strongroom vm list`, or make it with `strongroom vm create {name}`",
            )
        return self._vm(row)

    def all(self) -> list[Vm]:
        with self._open() as base:
            return [self._vm(row) for row in base.execute(f"{_SELECT} ORDER BY name")]

    def update(self, vm: Vm, *, state: State | None = None, size: str | None = None) -> Vm:
        with self._open(write=True) as base:
            base.execute(
                "UPDATE vms SET state = coalesce(?, state), size = coalesce(?, size) WHERE id = ?",
                (state, size, vm.id),
            )
            row = base.execute(f"{_SELECT} WHERE id = ?", (vm.id,)).fetchone()
        if row is None:
            raise NoSuchVm(f"VM {vm.name} was deleted meanwhile", "see `strongroom vm list`")
        return self._vm(row)

    def remove(self, vm: Vm) -> None:
        with self._open(write=True) as base:
            base.execute("DELETE FROM vms WHERE id = ?", (vm.id,))

    def lock(self, vm_id: int, *, exclusive: bool) -> Lock | None:
        """The VM's lock, or None where others hold it: shared while processes run in it, exclusive to change it.

        The kernel drops it when its holder dies.
        """
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # One byte of one file a VM, by open-file-description locks (fcntl(2)): no file to leave behind.
        kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, vm_id, 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        return Lock(descriptor)


class Lock:
    """A held lock."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def descriptor(self) -> int:
        """The lock lasts as long as a process has this open."""
        return self._descriptor

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
