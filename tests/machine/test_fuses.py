"""Fuses: made at random, whole on disk or not there, and silent about what they hold."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.machine import fuses as module
from strongroom.machine.fuses import FILE_NAME, Fuses, FusesError
from strongroom.machine.package import Package


def burn() -> Fuses:
    return Fuses.burn("run", sgx2=True, epc_pages=4096)


def test_every_package_has_its_own() -> None:
    first, second = burn(), burn()
    for name in ("provisioning_root", "sealing_root", "owner_epoch", "package_id"):
        assert getattr(first, name) != getattr(second, name)
    assert len({first.provisioning_root, first.sealing_root, first.owner_epoch, first.package_id}) == 4


def test_repr_shows_no_secret() -> None:
    fuses = burn()
    shown = repr(fuses) + str(fuses)
    for secret in (fuses.provisioning_root, fuses.sealing_root, fuses.owner_epoch):
        assert repr(secret) not in shown
        assert secret.hex() not in shown


def test_round_trip_and_mode(tmp_path: Path) -> None:
    fuses = replace(burn().microcode_update(), launch_hash=b"l" * 32)
    old = os.umask(0)
    try:
        fuses.save(tmp_path)
    finally:
        os.umask(old)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert Fuses.load(tmp_path) == fuses
    assert os.listdir(tmp_path) == [FILE_NAME]


def test_manufacture_never_replaces(tmp_path: Path) -> None:
    package = Package.manufacture(tmp_path / "vm", "exec", False, 100)
    assert (tmp_path / "vm").stat().st_mode & 0o777 == 0o700
    with pytest.raises(FusesError, match="exists"):
        Package.manufacture(tmp_path / "vm", "exec", False, 100)
    again = Package.open(tmp_path / "vm")
    assert again.fuses == package.fuses
    assert again.kind == "exec"


def test_changes_are_kept(tmp_path: Path) -> None:
    package = Package.manufacture(tmp_path, "run", True, 100)
    package.microcode_update()
    package.resize_epc(200)
    opened = Package.open(tmp_path)
    assert opened.cpu_svn == b"\x02" * 16
    assert opened.epc_pages == 200
    with pytest.raises(FusesError):
        package.resize_epc(0)
    assert package.epc_pages == 200


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package.manufacture(tmp_path, "run", False, 100)
    before = (tmp_path / FILE_NAME).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(FusesError, match="No space"):
        package.microcode_update()
    monkeypatch.undo()
    assert package.cpu_svn == b"\x01" * 16
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert os.listdir(tmp_path) == [FILE_NAME]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_without_showing_it(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / FILE_NAME
    fuses = burn()
    fuses.save(tmp_path, replace_existing=True)
    good = path.read_bytes()
    bad = bytearray(good)
    bad[data.draw(st.integers(0, len(bad) - 2))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bad[: data.draw(st.integers(0, len(bad)))])
    try:
        loaded = Fuses.load(tmp_path)
    except FusesError as error:
        told = str(error)
    else:
        assert loaded == fuses, "only white space can change without notice"
        return
    assert "restore the file" in told or "use the Strongroom" in told
    assert fuses.provisioning_root.hex() not in told


def write(folder: Path, **change: object) -> None:
    """A file with a right checksum and wrong content."""
    document = burn()._document() | change
    document["checksum"] = module._checksum(document)
    path = folder / FILE_NAME
    path.write_text(json.dumps(document))
    path.chmod(0o600)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "walk"}, {"kind": 1}, {"sgx2": 1}, {"epc_pages": 0}, {"epc_pages": True}, {"epc_pages": -1},
        {"provisioning_root": "00"}, {"provisioning_root": "zz" * 16}, {"sealing_root": None}, {"cpu_svns": []},
        {"cpu_svns": ["02" * 16, "01" * 16]}, {"cpu_svns": "01" * 16}, {"xfrm_allowed": 4}, {"launch_hash": "00"},
        {"format": "something else"}, {"miscselect_allowed": 2},
    ],
)  # fmt: skip
def test_values_that_no_package_has(tmp_path: Path, change: dict[str, object]) -> None:
    write(tmp_path, **change)
    with pytest.raises(FusesError) as error:
        Fuses.load(tmp_path)
    assert error.value.next_step


def test_other_versions_say_so(tmp_path: Path) -> None:
    write(tmp_path, version=2)
    with pytest.raises(FusesError, match="version 2"):
        Fuses.load(tmp_path)


def test_files_that_are_not_ours_to_trust(tmp_path: Path) -> None:
    with pytest.raises(FusesError, match="cannot read"):
        Fuses.load(tmp_path)
    write(tmp_path)
    (tmp_path / FILE_NAME).chmod(0o640)
    with pytest.raises(FusesError, match="chmod 600"):
        Fuses.load(tmp_path)
    (tmp_path / FILE_NAME).rename(tmp_path / "real")
    (tmp_path / FILE_NAME).symlink_to("real")
    with pytest.raises(FusesError, match="cannot read"):
        Fuses.load(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_another_users_fuses_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    os.chown(tmp_path / FILE_NAME, 12345, -1)
    with pytest.raises(FusesError, match="another user"):
        Fuses.load(tmp_path)


def test_cpu_svn_has_an_end() -> None:
    with pytest.raises(FusesError):
        replace(burn(), cpu_svns=(b"\xff" * 16,)).microcode_update()


def test_new_owner_changes_only_the_epoch() -> None:
    fuses = burn()
    assert replace(fuses.new_owner(), owner_epoch=fuses.owner_epoch) == fuses
    assert fuses.new_owner().owner_epoch != fuses.owner_epoch


def test_microcode_up_and_down() -> None:
    """The history stays in order; rolled back and up again leads to the same CPUSVN, hence to the same keys."""
    fuses = burn()
    assert fuses.microcode == 1
    up = fuses.with_microcode(2).with_microcode(5)
    assert up.cpu_svns == tuple(bytes([svn] * 16) for svn in (1, 2, 5))
    down = up.with_microcode(2)
    assert (down.microcode, down.cpu_svns) == (2, up.cpu_svns[:2])
    assert down.with_microcode(5) == up
    assert up.with_microcode(5) == up
    for svn in (0, 256, -1):
        with pytest.raises(FusesError):
            fuses.with_microcode(svn)
