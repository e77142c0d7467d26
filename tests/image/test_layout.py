"""The address map (strongroom.image.layout)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import StrongroomError
from strongroom.image import elf, layout
from strongroom.image.libraries import load
from strongroom.isa.enclave import Tcs
from support.programs import HELLO, compile_c


@pytest.fixture(scope="module")
def pie(tmp_path_factory: pytest.TempPathFactory) -> elf.Elf:
    return load(compile_c(tmp_path_factory.mktemp("layout"), "pie", HELLO, "-pie", "-fPIE"))


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> elf.Elf:
    return load(compile_c(tmp_path_factory.mktemp("layout"), "fixed", HELLO, "-no-pie"))


def test_objects_have_places_apart(pie: elf.Elf, fixed: elf.Elf) -> None:
    placed, end = layout.place_objects([("/main", fixed, 1), ("/a", pie, 0), ("/b", pie, 0)], 0x11000)
    assert [one.base for one in placed][:2] == [0, layout.OBJECT_BASE]
    assert placed[2].start >= placed[1].end + layout.OBJECT_GAP
    assert all(one.base % 4096 == 0 for one in placed)
    assert end % layout.LARGE == 0 and end >= placed[2].end


def test_regions_cover_the_span_and_show_the_file(pie: elf.Elf) -> None:
    (one,), _ = layout.place_objects([("/a", pie, 0)], 0x11000)
    regions = layout.object_regions(one, layout.segment_text(pie))
    assert regions[0].address == one.start and regions[-1].end == one.end
    assert all(left.end == right.address for left, right in pairwise(regions))
    for region in regions:
        text = region.flags == layout.READ_EXECUTE
        assert (region.content is not None) == text
        if region.content is not None:
            start = region.address - one.base
            assert region.content[:64] == pie.data[start : start + 64]  # offset equals address in this file


def test_alignment_and_the_gap_it_makes(tmp_path: Path) -> None:
    page_size = "-Wl,-z,max-page-size=0x200000,-z,noseparate-code"
    wide = load(compile_c(tmp_path, "wide.so", "int data = 7;\n", "-shared", "-fPIC", page_size))
    placed, _ = layout.place_objects([("/a", wide, 0), ("/b", wide, 0)], 0x11000)
    for one in placed:
        assert one.base % 0x200000 == 0
        regions = layout.check(layout.object_regions(one, layout.segment_text(wide)))
        assert regions[0].address == one.start and regions[-1].end == one.end
        assert sum(region.size for region in regions) < 0x10000 < one.end - one.start  # no pages in between
    assert placed[1].start >= placed[0].end + layout.OBJECT_GAP


def test_program_at_an_address_that_is_taken(tmp_path: Path) -> None:
    far = load(compile_c(tmp_path, "far", HELLO, "-no-pie", "-Wl,-Ttext-segment=0x10800000"))
    with pytest.raises(StrongroomError, match="link it as PIE"):
        layout.place_objects([("/far", far, 0)], 0x11000)
    low = load(compile_c(tmp_path, "low", HELLO, "-no-pie", "-Wl,-Ttext-segment=0x10000"))
    with pytest.raises(StrongroomError, match="which an enclave cannot offer"):
        layout.place_objects([("/low", low, 0)], 0x11000)


@given(st.integers(1, 512), st.integers(0x10000000, 0x18000000 - 1))
def test_threads(count: int, entry: int) -> None:
    regions = layout.check(layout.thread_regions(count, entry))
    assert len(regions) == 4 * count
    assert regions[-1].end <= layout.OBJECT_BASE
    for number in range(count):
        tcs, ssa, page, stack = regions[4 * number : 4 * number + 4]
        assert tcs.content is not None and page.content is not None
        fields = Tcs.unpack(tcs.content)
        assert (fields.ssa_offset, fields.nr_ssa_frames, fields.ssa_index) == (ssa.address, 3, 0)
        assert (fields.fs_offset, fields.gs_offset, fields.entry_offset) == (
            page.address,
            page.address,
            entry,
        )
        own, top, control, frames, index, frame_count = layout.THREAD_PAGE.unpack_from(page.content)
        assert (own, top, control, frames) == (page.address, stack.end, tcs.address, ssa.address)
        assert (index, frame_count) == (number, 3)
        assert ssa.content is None and stack.content is None and ssa.size == 3 * 4096
        assert stack.address > page.end  # a hole below the stack


def test_libos_is_measured_whole(libos: Path) -> None:
    file = load(libos)
    regions = layout.libos_regions(file)
    assert all(one.content is not None and len(one.content) == one.size for one in regions)
    data = regions[-1]
    assert data.flags == layout.READ_WRITE and data.content is not None
    assert data.content.count(0) > 9000  # .bss: a hostile loader could fill pages that are not measured
    assert max(one.end for one in regions) == file.high


def test_libos_elsewhere_is_refused(pie: elf.Elf) -> None:
    with pytest.raises(StrongroomError, match="is not linked at 0x10000000"):
        layout.libos_regions(pie)


def test_overlap_is_refused() -> None:
    one = layout.Region("one", 0x10000, 0x2000, layout.READ)
    with pytest.raises(StrongroomError, match="one and two would overlap"):
        layout.check([layout.Region("two", 0x11000, 0x1000, layout.READ), one])


@pytest.mark.parametrize(("end", "size"), [(1, 1 << 30), (1 << 30, 1 << 30), ((1 << 30) + 1, 1 << 31)])
def test_elrange(end: int, size: int) -> None:
    assert layout.elrange(end) == size
