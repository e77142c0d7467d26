"""The VMs' records: one SQLite file, and locks."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from strongroom.vm.lifecycle import Machines
from strongroom.vm.manufacture import Fuses
from strongroom.vm.records import Lock, NoSuchVm, Records, RecordsError, State, VmExists, VmInUse

SIZE = "Standard_DC4s_v2"


def names(records: Records) -> list[str]:
    return [vm.name for vm in records.all()]


def test_a_life(tmp_path: Path) -> None:
    records = Records(tmp_path)
    vm, lock = records.add("b", SIZE)
    assert (vm.name, vm.size, vm.state, vm.folder) == (
        "b",
        SIZE,
        State.CREATING,
        tmp_path / "vms" / str(vm.id),
    )
    assert records.lock(vm.id, exclusive=False) is None  # its maker works on it
    lock.release()
    records.add("a", SIZE)[1].release()
    assert names(records) == ["a", "b"]
    assert records.get("b") == vm
    assert records.update(vm, state=State.RUNNING).state is State.RUNNING
    changed = Records(tmp_path).update(vm, size="Standard_DC8_v2")
    assert (changed.state, changed.size) == (State.RUNNING, "Standard_DC8_v2")
    records.remove(vm)
    records.remove(vm)
    assert names(Records(tmp_path)) == ["a"]
    for late in (lambda: records.get("b"), lambda: records.update(vm, state=State.STOPPED)):
        with pytest.raises(NoSuchVm):
            late()


def test_a_name_is_given_once_and_a_number_too(tmp_path: Path) -> None:
    records = Records(tmp_path)
    vm, lock = records.add("a", SIZE)
    lock.release()
    with pytest.raises(VmExists):
        records.add("a", SIZE)
    records.remove(vm)
    again, lock = records.add("a", SIZE)
    lock.release()
    assert again.id > vm.id


def test_a_folder_of_an_earlier_database_stays(tmp_path: Path) -> None:
    for number in (1, 7):
        (tmp_path / "vms" / str(number)).mkdir(parents=True)
    vm, lock = Records(tmp_path).add("a", SIZE)
    lock.release()
    assert vm.id == 8
    assert names(Records(tmp_path)) == ["a"]


def test_nothing_is_recorded_where_the_lock_is_not_to_be_had(tmp_path: Path) -> None:
    records = Records(tmp_path)
    with records.lock(1, exclusive=True) or pytest.fail("no lock"), pytest.raises(VmInUse):
        records.add("a", SIZE)
    assert names(records) == []


def test_many_at_once(tmp_path: Path) -> None:
    """Processes wait for each other; none fails, none overwrites."""
    code = (
        "import sys; from pathlib import Path; from strongroom.vm.records import Records\n"
        "records = Records(Path(sys.argv[1]))\n"
        "for n in range(10): records.add(f'{sys.argv[2]}-{n}', 's')[1].release()"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)], stderr=subprocess.PIPE)
        for n in range(4)
    ]
    said = [worker.communicate(timeout=60)[1].decode() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4, said
    found = Records(tmp_path).all()
    assert len({vm.id for vm in found}) == len({vm.name for vm in found}) == 40


def test_many_make_the_database_at_once(tmp_path: Path) -> None:
    """SQLite says "database is locked" at once to who meets another at a certain moment: some of 800 did."""
    failed: list[RecordsError] = []

    def make(home: Path, together: threading.Barrier) -> None:
        together.wait(60)
        try:
            Records(home)
        except RecordsError as error:
            failed.append(error)

    for number in range(100):
        home, together = tmp_path / str(number), threading.Barrier(8)
        home.mkdir()
        makers = [threading.Thread(target=make, args=(home, together)) for _ in range(8)]
        for maker in makers:
            maker.start()
        for maker in makers:
            maker.join()
    assert not failed


def test_a_database_of_an_earlier_version(tmp_path: Path) -> None:
    """As SQLAlchemy made it, which kept the records before."""
    with contextlib.closing(sqlite3.connect(tmp_path / "strongroom.db")) as base:
        base.executescript(
            "PRAGMA journal_mode=WAL; CREATE TABLE vms (id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "
            "name VARCHAR(64) NOT NULL, size VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL, "
            "created VARCHAR(32) NOT NULL, UNIQUE (name)); PRAGMA user_version=1;"
            "INSERT INTO vms VALUES (3, 'old', 'Standard_DC4s_v2', 'Running', '2026-01-02T03:04:05+00:00');"
        )
    records = Records(tmp_path)
    old = records.get("old")
    assert (old.id, old.state, old.created.year) == (3, State.RUNNING, 2026)
    vm, lock = records.add("new", SIZE)
    lock.release()
    assert vm.id == 4


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (b"noise" * 1000, "put a copy of .* back"),
        ("PRAGMA user_version=2", "newer Strongroom"),
        ("DROP TABLE vms", "put a copy of .* back"),
        ("UPDATE vms SET state='Floating'", "makes no sense"),
        ("UPDATE vms SET created=12", "makes no sense"),
    ],
)
def test_a_database_that_cannot_be_read(tmp_path: Path, damage: bytes | str, says: str) -> None:
    Records(tmp_path).add("a", SIZE)[1].release()
    if isinstance(damage, bytes):
        (tmp_path / "strongroom.db").write_bytes(damage)
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / "strongroom.db")) as base, base:
            base.execute(damage)
    with pytest.raises(RecordsError, match=says):
        Records(tmp_path).all()


def test_the_default_vm_whose_maker_finishes_meanwhile(tmp_path: Path) -> None:
    class Meanwhile(Records):
        """The maker is done just before the lock that tells whether it is alive is had."""

        def lock(self, vm_id: int, *, exclusive: bool) -> Lock | None:
            self.update(self.get("default"), state=State.RUNNING)
            return super().lock(vm_id, exclusive=exclusive)

    vm, held = Records(tmp_path).add("default", SIZE)
    held.release()
    (vm.folder / "disk").mkdir(parents=True)
    machines = Machines(Meanwhile(tmp_path), Fuses(tmp_path), lambda *_: None)
    assert machines.ensure_default().id == vm.id
    assert (vm.folder / "disk").is_dir(), "what another command has made was erased"
    assert names(Records(tmp_path)) == ["default"]
