"""The owner's encrypted files: round trips, and every change refused."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.cli.main import main
from strongroom.errors import StrongroomError
from strongroom.owner.encrypted import CHUNK_SIZE, EncryptedFileError, Header, Reader, encrypt
from strongroom.owner.folders import decrypt_folder, encrypt_folder

KEY = bytes(range(32))
PATH = "/data/a"
SIZES = st.integers(0, 70) | st.integers(CHUNK_SIZE - 3, CHUNK_SIZE + 3) | st.integers(0, 3 * CHUNK_SIZE + 5)


def sealed(clear: bytes, key: bytes = KEY, path: str = PATH) -> bytes:
    out = io.BytesIO()
    assert encrypt(key, path, io.BytesIO(clear), out) == len(clear)
    return out.getvalue()


def opened(data: bytes, key: bytes = KEY, path: str = PATH) -> bytes:
    return b"".join(Reader(key, path, io.BytesIO(data)).chunks())


@given(size=SIZES, path=st.text(min_size=1, max_size=50).filter(lambda text: "\0" not in text))
def test_round_trip(size: int, path: str) -> None:
    path = "/" + path.encode("utf-8", "ignore").decode() + "x"
    clear = os.urandom(size)
    data = sealed(clear, path=path)
    assert opened(data, path=path) == clear
    assert len(data) == 256 + size + 28 * -(-size // CHUNK_SIZE)
    assert size < 16 or clear not in data


@pytest.mark.parametrize("size", [0, 1, 300])
def test_every_byte_counts(size: int) -> None:
    data = sealed(bytes(size))
    assert opened(data) == bytes(size), "the control"
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(EncryptedFileError):
            opened(bytes(changed))


@given(size=SIZES, data=st.data())
@settings(max_examples=60)
def test_any_change_of_a_larger_file(size: int, data: st.DataObject) -> None:
    file = sealed(os.urandom(size))
    place = data.draw(st.integers(0, len(file) - 1))
    other = data.draw(st.integers(1, 255))
    with pytest.raises(EncryptedFileError):
        opened(file[:place] + bytes([file[place] ^ other]) + file[place + 1 :])


@given(size=SIZES, data=st.data())
@settings(max_examples=60)
def test_cut_and_extended(size: int, data: st.DataObject) -> None:
    file = sealed(os.urandom(size))
    for changed in (
        file[: data.draw(st.integers(0, len(file) - 1))],
        file + data.draw(st.binary(min_size=1)),
    ):
        with pytest.raises(EncryptedFileError):
            opened(changed)


def test_chunks_swapped_and_replayed() -> None:
    one, two = sealed(bytes(3 * CHUNK_SIZE)), sealed(bytes(3 * CHUNK_SIZE))
    first, second = 256, 256 + CHUNK_SIZE
    swapped = one[:first] + one[second : second + CHUNK_SIZE] + one[first:second] + one[second + CHUNK_SIZE :]
    foreign = one[:first] + two[first:second] + one[second:]
    table = 256 + 3 * CHUNK_SIZE
    both = bytearray(swapped)  # its entries of the table with it
    both[table : table + 56] = one[table + 28 : table + 56] + one[table : table + 28]
    for changed in (swapped, foreign, bytes(both), one[:table] + two[table:], one[:256] + two[256:]):
        with pytest.raises(EncryptedFileError):
            opened(changed)
    assert opened(one) == opened(two) == bytes(3 * CHUNK_SIZE)


def test_another_path_or_key() -> None:
    data = sealed(b"x")
    for key, path in ((KEY, "/data/b"), (KEY, "/dat/aa"), (bytes(32), PATH)):
        with pytest.raises(EncryptedFileError, match="altered or moved"):
            opened(data, key, path)
    with pytest.raises(StrongroomError):
        sealed(b"", path="relative")
    with pytest.raises(StrongroomError):
        sealed(b"", key=b"short")


@given(st.binary(max_size=600))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(EncryptedFileError):
        opened(data)


@given(st.integers(0, 2**64 - 1), st.sampled_from([8, 12, 16, 20, 22, 24, 60, 80, 96, 160]))
def test_hostile_headers(value: int, place: int) -> None:
    """A header of any values is refused by what it says, or by its root: never by running out of memory."""
    data = bytearray(sealed(b"abc"))
    was = bytes(data[place : place + 8])
    data[place : place + 8] = value.to_bytes(8, "little")
    if bytes(data[place : place + 8]) != was:
        with pytest.raises(EncryptedFileError):
            opened(bytes(data))


def test_header_is_256_bytes() -> None:
    assert Header.FORM.size == 256


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def clear(tmp_path: Path) -> Path:
    folder = tmp_path / "clear"
    (folder / "sub" / "empty").mkdir(parents=True)
    (folder / "a.py").write_bytes(b"x = 1\n")
    (folder / "sub" / "b.bin").write_bytes(os.urandom(50_000))
    (folder / "sub" / "none").write_bytes(b"")
    return folder


def test_folders_by_the_command(clear: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--key", str(tmp_path / "k"), "--at", "/model"]
    assert main(["encrypt", *options, "--new-key", "--json", str(clear), str(tmp_path / "enc")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["/model/a.py", "/model/sub/b.bin", "/model/sub/none"]
    assert said["size"] == 50_006
    (tmp_path / "enc" / "sub" / ".sr-stage-1234").write_bytes(b"half a file")  # of a writer that died
    assert main(["decrypt", *options, "--json", str(tmp_path / "enc"), str(tmp_path / "again")]) == 0
    assert tree(tmp_path / "again") == tree(clear)
    assert (tmp_path / "again" / "sub" / "empty").is_dir()
    assert (tmp_path / "again" / "a.py").stat().st_mtime_ns == (clear / "a.py").stat().st_mtime_ns
    capsys.readouterr()
    assert main(["encrypt", *options, str(clear), str(tmp_path / "enc")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_a_refused_file_leaves_nothing(clear: Path, tmp_path: Path) -> None:
    encrypt_folder(KEY, clear, tmp_path / "enc", "/m")
    (tmp_path / "enc" / "sub" / "b.bin").rename(tmp_path / "enc" / "sub" / "c.bin")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(StrongroomError, match=r"refused as /m/sub/c\.bin: it was altered or moved"):
        decrypt_folder(KEY, tmp_path / "enc", tmp_path / "again", "/m")
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_no_file_is_named(clear: Path, tmp_path: Path) -> None:
    (clear / "link").symlink_to("a.py")
    with pytest.raises(StrongroomError, match="neither a file nor a folder"):
        encrypt_folder(KEY, clear, tmp_path / "enc", "/m")
    (clear / "link").unlink()
    for at in ("m", "/", "/a/../b", "/a/"):
        with pytest.raises(StrongroomError, match="no mount's path"):
            encrypt_folder(KEY, clear, tmp_path / "enc", at)
    with pytest.raises(StrongroomError, match="lies in"):
        encrypt_folder(KEY, clear, clear / "enc", "/m")
