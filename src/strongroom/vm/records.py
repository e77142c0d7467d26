"""The records of the VMs: one SQLite file under STRONGROOM_HOME, and the lock that says a VM is busy.

Rule that makes crashes harmless: a record exists, committed, before anything of the VM is on the disk, and goes
only after all of it is gone.
"""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import String, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from strongroom.errors import StrongroomError

SCHEMA_VERSION = 1


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


class _Base(DeclarativeBase):
    pass


class _Row(_Base):
    __tablename__ = "vms"
    # An id is never given twice: locks and folders go by it.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    size: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    created: Mapped[str] = mapped_column(String(32))


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
        path = home / "strongroom.db"
        self._engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 15}, poolclass=NullPool)

        @event.listens_for(self._engine, "connect")
        def prepare(connection: Any, _record: Any) -> None:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")

        with self._session() as session:
            version = session.execute(text("PRAGMA user_version")).scalar_one()
            if version > SCHEMA_VERSION:
                raise RecordsError(
                    f"{path} was written by a newer Strongroom (schema {version}, this one knows {SCHEMA_VERSION})",
                    "upgrade Strongroom or set STRONGROOM_HOME to another folder",
                )
            if version == 0:
                _Base.metadata.create_all(session.connection())
                session.execute(text(f"PRAGMA user_version={SCHEMA_VERSION}"))
                session.commit()

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with Session(self._engine) as session:
                yield session
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error)
            raise RecordsError(
                f"the VM database in {self.home} failed ({reason})", self._step(reason)
            ) from error

    def _step(self, reason: str) -> str:
        with contextlib.suppress(OSError):
            space = os.statvfs(self.home)
            if "full" in reason or (("I/O" in reason or "open" in reason) and not space.f_bavail):
                return "free some space"
        if "not a database" in reason or "malformed" in reason or "no such" in reason:
            path = self.home / "strongroom.db"
            return f"put a copy of {path} back, or move the file away: its VMs are then forgotten"
        return "check the folder and its owner"

    def _vm(self, row: _Row) -> Vm:
        try:
            created = datetime.fromisoformat(row.created)
            return Vm(row.id, row.name, row.size, State(row.state), created, self.folder(row.id))
        except (TypeError, ValueError) as error:
            raise RecordsError(
                f"the VM database in {self.home} holds a record that makes no sense ({error})",
                self._step("malformed"),
            ) from error

    def folder(self, vm_id: int) -> Path:
        return self.home / "vms" / str(vm_id)

    def add(self, name: str, size: str) -> tuple[Vm, Lock]:
        """Record a new VM in state Creating and hold its lock. Raises VmExists."""
        with self._session() as session:
            row = _Row(name=name, size=size, state=State.CREATING, created=datetime.now(UTC).isoformat())
            session.add(row)
            try:
                session.flush()
            except IntegrityError as error:
                raise VmExists(f"VM {name} exists already", f"see `strongroom vm show {name}`") from error
            if self.folder(
                row.id
            ).exists():  # of a VM whose record was lost with an earlier database: it stays
                session.expunge(row)
                session.rollback()
                row = _Row(
                    id=self._free_id(), name=name, size=size, state=State.CREATING, created=row.created
                )
                session.add(row)
                session.flush()
            lock = self.lock(row.id, exclusive=True)  # before others can see the record
            if lock is None:
                raise VmInUse(f"VM {name} is busy", "try again")
            try:
                session.commit()
            except BaseException:
                lock.release()
                raise
            return self._vm(row), lock

    def _free_id(self) -> int:
        """A number above all of the folders there are."""
        names = (path.name for path in (self.home / "vms").iterdir())
        return max(int(name) for name in names if name.isdecimal()) + 1

    def get(self, name: str) -> Vm:
        """Raises NoSuchVm."""
        with self._session() as session:
            row = session.scalar(select(_Row).where(_Row.name == name))
            if row is None:
                raise NoSuchVm(f"no VM is called {name}", f"make it with `strongroom vm create {name}`")
            return self._vm(row)

    def all(self) -> list[Vm]:
        with self._session() as session:
            return [self._vm(row) for row in session.scalars(select(_Row).order_by(_Row.name))]

    def update(self, vm: Vm, *, state: State | None = None, size: str | None = None) -> Vm:
        with self._session() as session:
            row = session.get(_Row, vm.id)
            if row is None:
                raise NoSuchVm(f"VM {vm.name} was deleted meanwhile", "see `strongroom vm list`")
            if state is not None:
                row.state = state
            if size is not None:
                row.size = size
            session.commit()
            return self._vm(row)

    def remove(self, vm: Vm) -> None:
        with self._session() as session:
            row = session.get(_Row, vm.id)
            if row is not None:
                session.delete(row)
                session.commit()

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

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
