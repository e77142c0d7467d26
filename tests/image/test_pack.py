"""files.pack (strongroom.image.pack): round trip, order, damage, and the layout that C has."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError, StrongroomError
from strongroom.image import pack
from strongroom.image.pack import PackFile
from support.layouts import c_offsets

_names = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
_contents = st.binary(max_size=200) | st.integers(0, 40000).map(
    lambda size: bytes(size % 251 for _ in range(size))
)


def packed(files: list[PackFile]) -> tuple[bytes, pack.PackResult]:
    out = io.BytesIO()
    result = pack.write(files, out)
    return out.getvalue(), result


@given(st.dictionaries(_names, _contents, max_size=6), _names)
def test_round_trip(contents: dict[str, bytes], folder: str) -> None:
    files = [PackFile(f"/{folder}/{name}", content, 0o755) for name, content in contents.items()]
    files.append(PackFile(f"/{folder}.link", target=folder))
    blob, result = packed(files)
    entries = {entry.path: entry for entry in pack.read_index(blob)}
    assert list(entries) == sorted(entries, key=lambda path: path.encode())
    for name, content in contents.items():
        entry = entries[f"/{folder}/{name}"]
        assert pack.read_file(blob, entry) == content
        assert (entry.kind, entry.mode, entry.size) == (pack.KIND_FILE, 0o755, len(content))
        assert entry.data_off % 4096 == 0
    assert entries[f"/{folder}.link"].target == folder
    assert entries["/"].kind == pack.KIND_DIRECTORY
    assert result.index_size == pack.index_size(blob) <= len(blob) == result.total_size
    assert packed(list(reversed(files)))[0] == blob  # the order they come in does not matter


@given(st.integers(0, 2**32), st.integers(0, 255))
def test_altered_index_is_refused_or_consistent(at: int, value: int) -> None:
    blob, result = packed([PackFile("/a/b", b"x" * 20000), PackFile("/a/l", target="b"), PackFile("/c", b"")])
    changed = bytearray(blob)
    changed[at % result.index_size] = value
    try:
        for entry in pack.read_index(bytes(changed)):
            if entry.kind == pack.KIND_FILE:
                pack.read_file(bytes(changed), entry)
    except FormatError:
        pass


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data: bytes) -> None:
    for blob in (data, pack.MAGIC + data):
        with pytest.raises(FormatError):
            list(pack.read_index(blob))


def test_altered_and_truncated_data_is_refused() -> None:
    blob, _ = packed([PackFile("/f", bytes(40000))])
    entry = next(one for one in pack.read_index(blob) if one.path == "/f")
    changed = bytearray(blob)
    changed[entry.data_off + 20000] ^= 1
    with pytest.raises(FormatError, match="/f in the file pack was altered"):
        pack.read_file(bytes(changed), entry)
    with pytest.raises(FormatError):
        pack.read_file(blob[: entry.data_off + 100], entry)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([PackFile("/a", b"1"), PackFile("/a", b"2")], "two files want to be /a inside"),
        ([PackFile("/a", b"1"), PackFile("/a/b", b"2")], "/a would be a file and a directory"),
        ([PackFile("a", b"1")], "not a path inside"),
        ([PackFile("/a/../b", b"1")], "not a path inside"),
        ([PackFile("/a", Path("/nowhere/x"))], "cannot read /nowhere/x"),
    ],
)
def test_refused(files: list[PackFile], said: str) -> None:
    with pytest.raises(StrongroomError, match=said) as caught:
        packed(files)
    assert caught.value.next_step


def test_layout_is_that_of_c(tmp_path: Path) -> None:
    found = c_offsets(
        tmp_path, "pack.h", {"pack_header": pack.HEADER_OFFSETS, "pack_entry": pack.ENTRY_OFFSETS}
    )
    assert found["pack_header"] == (pack.HEADER.size, pack.HEADER_OFFSETS)
    assert found["pack_entry"] == (pack.ENTRY.size, pack.ENTRY_OFFSETS)


def test_offsets_are_those_of_the_format() -> None:
    for form, offsets in ((pack.HEADER, pack.HEADER_OFFSETS), (pack.ENTRY, pack.ENTRY_OFFSETS)):
        values = [
            b"\1" * 8 if part == "8s" else 1
            for part in form.format.replace("<", "").replace("8s", "8s ").split()
        ]
        assert len(offsets) >= len(values) > 0
        assert struct.calcsize(form.format) == form.size
