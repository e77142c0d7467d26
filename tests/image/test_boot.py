"""Boot information (strongroom.image.boot): round trip, damage, and the layout that C has."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import FormatError
from strongroom.image import boot
from support.layouts import c_offsets

_u32, _u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
_text = st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=12
)
_segments = st.builds(
    boot.BootSegment, vaddr=_u64, memsz=_u64, fileoff=_u64, filesz=_u64, prot=_u32, measured=st.booleans()
)
_objects = st.builds(
    boot.BootObject,
    path=_text,
    base=_u64,
    span=_u64,
    flags=_u32,
    segments=st.lists(_segments, max_size=4).map(tuple),
)
_mounts = st.builds(boot.BootMount, path=_text, kind=st.integers(1, 5), host_path=st.just("") | _text)
_texts = st.lists(_text, max_size=4).map(tuple)
_infos = st.builds(
    boot.BootInfo, elrange_size=_u64, libos_base=_u64, libos_size=_u64, heap_base=_u64, heap_size=_u64,
    thread_base=_u64, thread_stride=_u64, thread_count=_u32, flags=_u32,
    pack_index_sha256=st.binary(min_size=32, max_size=32), pack_index_size=_u64, program_path=_text,
    interp_path=st.just("") | _text, cwd_path=_text, argv=_texts, env=_texts, envallow=_texts,
    objects=st.lists(_objects, max_size=4).map(tuple), mounts=st.lists(_mounts, max_size=3).map(tuple),
)  # fmt: skip


@given(_infos)
def test_round_trip(info: boot.BootInfo) -> None:
    blob = boot.encode(info)
    assert boot.decode(blob) == info
    assert boot.decode(blob + bytes(4096)) == info  # as it stands in its pages


@given(_infos, st.integers(0, 2**32), st.integers(0, 255))
def test_damage_raises_our_error_or_parses(info: boot.BootInfo, at: int, value: int) -> None:
    blob = bytearray(boot.encode(info))
    blob[at % len(blob)] = value
    for damaged in (bytes(blob), bytes(blob[: at % len(blob)])):
        try:
            boot.decode(damaged)
        except FormatError:
            pass


@given(st.binary(max_size=400))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        boot.decode(data)


def test_nul_in_a_string_is_refused() -> None:
    with pytest.raises(FormatError, match="NUL"):
        boot.encode(boot.BootInfo(0, 0, 0, 0, 0, 0, 0, 0, 0, bytes(32), 0, "a\0b"))


def test_layout_is_that_of_c(tmp_path: Path) -> None:
    ours = {
        "boot_info": (boot.HEADER.size, boot.HEADER_OFFSETS),
        "boot_object": (boot.OBJECT.size, boot.OBJECT_OFFSETS),
        "boot_segment": (boot.SEGMENT.size, boot.SEGMENT_OFFSETS),
        "boot_mount": (boot.MOUNT.size, boot.MOUNT_OFFSETS),
    }
    assert c_offsets(tmp_path, "boot.h", {name: offsets for name, (_, offsets) in ours.items()}) == ours
