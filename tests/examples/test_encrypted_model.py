"""The example's model: ciphertext for the host, imported inside once the owner gave its key, refused when altered."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom import paths
from strongroom.cli import _demo
from strongroom.cli._projects import project, shipped
from strongroom.errors import StrongroomError
from strongroom.machine import client
from strongroom.machine.pki import Authority
from support.interpreter_image import need_runtime

EXAMPLE = shipped("examples") / "records"


@pytest.fixture
def prepared(strongroom_home: Path, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """(the built example, the data owner's folder with keys, policy, encrypted records and model)."""
    need_runtime()
    _demo.make_vm()
    built = project("examples/records", _demo.OWNERS)
    Authority.open(paths.home())
    folder = tmp_path / "owner"
    levels = [word for level in ("sealed", "separated", "faithful") for word in ("--level", level)]
    image = built / "build" / "enclave.sgxs"
    _demo.call(
        [EXAMPLE / "data_owner.py", "prepare", folder, "--image", image, "--root", "software", *levels]
    )
    yield built, folder
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


def test_the_host_has_ciphertext_and_changes_are_refused(prepared: tuple[Path, Path]) -> None:
    built, folder = prepared
    _, report = _demo.score(folder, EXAMPLE, built)
    assert report["patients"] == 569
    lines = [line.strip() for line in (EXAMPLE / "model" / "classifier.py").read_bytes().splitlines()]
    shared = (EXAMPLE / "score.py").read_bytes()
    telling = [
        line for line in lines if len(line) > 30 and line not in shared and not line.startswith(b"from ")
    ]
    assert len(telling) > 80
    files = [path for path in built.rglob("*") if path.is_file()]
    assert built / "model.enc" / "classifier.py" in files
    for path in files:
        data = path.read_bytes()
        assert not any(line in data for line in telling), path
        assert b"iteratively reweighted" not in data, path
    pack = (built / "build" / "files.pack").read_bytes()
    assert b"imports a model that only it can read" in pack, "the control: what is measured is in the clear"

    # One byte of it, or its name, changed by the host.
    file = folder / "model.enc" / "classifier.py"
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    file.write_bytes(data)
    with pytest.raises(StrongroomError, match=r"hospital\.py ended with status 1"):
        _demo.score(folder, EXAMPLE, built)
    file.rename(file.with_name("other.py"))
    with pytest.raises(StrongroomError, match=r"hospital\.py ended with status 1"):
        _demo.score(folder, EXAMPLE, built)
