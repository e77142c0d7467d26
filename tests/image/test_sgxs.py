"""SGXS streams: written, read, measured, and refused where anything is off."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.errors import FormatError, StrongroomError
from strongroom.image import sgxs
from support.enclaves import REG_RW, REG_RX, TCS, stream


def scan(data: bytes) -> tuple[sgxs.Summary, bytes]:
    digest = hashlib.sha256()
    return sgxs.scan(memoryview(data), digest), digest.digest()


def header(tag: bytes, offset: int, second: int = 0) -> bytes:
    return struct.pack("<8sQQ40x", tag, offset, second)


ECREATE = struct.pack("<8sIQ44x", b"ECREATE", 1, 0x10000)


def test_written_stream_measures_to_what_the_manual_hashes() -> None:
    data = stream()
    # MRENCLAVE by hand: ECREATE, EADD, EEXTEND records only, the unmeasured page's data left out.
    summary, mrenclave = scan(data)
    assert mrenclave == record_by_record(data)
    assert (summary.pages, summary.measured_pages, summary.unmeasured_data_pages, summary.tcs_count) == (
        5,
        2,
        1,
        1,
    )
    summary.check_loadable()


lengths = st.sampled_from((1, 2, 3, 7, 40, 150))
page_lists = st.lists(
    st.tuples(
        st.integers(0, 15),
        st.sampled_from((REG_RW, REG_RX, TCS)),
        st.sampled_from(("measured", "unmeasured", "empty")),
        st.binary(max_size=40),
    ),
    max_size=12,
    unique_by=lambda page: page[0],
).map(sorted)


@given(pages=page_lists)
def test_round_trip(pages: list[tuple[int, int, str, bytes]]) -> None:
    file = io.BytesIO()
    writer = sgxs.Writer(file, 0x10000, ssa_frame_size=2)
    expected = []
    for number, flags, kind, seed in pages:
        data = None if kind == "empty" else seed.ljust(4096, b"\x5a")
        writer.add_page(number * 4096, flags, data, measured=kind == "measured")
        chunks = 0 if data is None else sgxs.ALL_CHUNKS
        expected.append(sgxs.Page(number * 4096, flags, data, chunks if kind == "measured" else 0, chunks))
    image = file.getvalue()
    assert list(sgxs.pages(memoryview(image))) == expected
    summary, mrenclave = scan(image)
    assert mrenclave == writer.mrenclave()
    assert summary.pages == len(pages)
    assert summary.tcs_count == sum(flags == TCS for _, flags, _, _ in pages)


@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    good = stream()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    agree(bytes(bad))
    try:
        summary, mrenclave = scan(bytes(bad))
    except FormatError:
        return
    before, expected = scan(good)
    if mrenclave == expected:  # then it was data that nobody measured
        assert list(sgxs.pages(memoryview(bad))) != list(sgxs.pages(memoryview(good)))
        assert summary == before


@given(st.lists(st.sampled_from((
    ECREATE, header(b"EADD", 0x1000, REG_RW), header(b"EADD", 0x2000, REG_RX), header(b"EADD", 0x3000, TCS),
    header(b"EADD", 0x2000, 0), header(b"EEXTEND", 0x1000) + bytes(256), header(b"EEXTEND", 0x1100) + bytes(256),
    header(b"UNMEASRD", 0x1000) + bytes(256), header(b"UNSIZED", 0), b"", bytes(64), bytes(7),
)), max_size=9), st.booleans())  # fmt: skip
def test_any_sequence_of_records(records: list[bytes], starts_right: bool) -> None:
    agree((ECREATE if starts_right else b"") + b"".join(records))


@given(st.binary(max_size=700))
def test_any_bytes(tail: bytes) -> None:
    agree(tail)
    agree(ECREATE + tail)


def record_by_record(data: bytes) -> bytes:
    """MRENCLAVE of a stream the slow way. Its records are good."""
    digest = hashlib.sha256()
    records = io.BytesIO(data)
    while tag := records.read(64):
        content = records.read(256) if tag[:8] in (b"EEXTEND\0", b"UNMEASRD") else b""
        if tag[:8] != b"UNMEASRD":
            digest.update(tag + content)
    return digest.digest()


def agree(data: bytes) -> None:
    """Both readers take the stream and find the same, or both refuse it for the same reason."""
    try:
        plain = list(sgxs.pages(memoryview(data)))
    except FormatError as refused:
        for fast in (scan, lambda given: sgxs.mrenclave(memoryview(given))):
            with pytest.raises(FormatError) as found:
                fast(data)
            assert str(found.value) == str(refused)
        return
    summary, mrenclave = scan(data)
    assert sgxs.mrenclave(memoryview(data)) == (summary, mrenclave)
    assert mrenclave == record_by_record(data)
    assert summary.pages == len(plain)
    assert summary.measured_pages == sum(page.measured == sgxs.ALL_CHUNKS for page in plain)
    assert summary.partial_pages == sum(0 < page.measured < sgxs.ALL_CHUNKS for page in plain)
    assert summary.tcs_count == sum(page.flags == TCS for page in plain)


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (ECREATE, "second ECREATE"),
        (header(b"EADD", 0x800, REG_RW), "multiple"),
        (header(b"EADD", 0x10000, REG_RW), "outside"),
        (header(b"EADD", 0x2000, REG_RW) + header(b"EADD", 0x1000, REG_RW), "ascending"),
        (header(b"EADD", 0x1000, REG_RW) * 2, "ascending"),
        (header(b"EADD", 0x1000, REG_RW) * 3, "ascending"),
        (header(b"EADD", 0x1000, TCS | 1), "TCS"),
        (header(b"EADD", 0x1000, 0x202), "writable"),
        (header(b"EADD", 0x1000, 0x003), "page type"),
        (header(b"EADD", 0x1000, REG_RW | 1 << 40), "reserved"),
        (header(b"EADD", 0x1000, REG_RW | 8), "reserved"),
        (header(b"EADD", 0x1000, REG_RW)[:-1] + b"\1", "reserved"),
        (header(b"EADD", 0x1000, REG_RW)[:40], "ends inside"),
        (header(b"EEXTEND", 0x1000) + bytes(256), "unknown"),
        (header(b"EADD", 0x1000, REG_RW) + header(b"EEXTEND", 0x2000) + bytes(256), "added last"),
        (header(b"EADD", 0x1000, REG_RW) + header(b"EEXTEND", 0x1010) + bytes(256), "added last"),
        (header(b"EADD", 0x1000, REG_RW) + (header(b"EEXTEND", 0x1000) + bytes(256)) * 2, "twice"),
        (header(b"EADD", 0x1000, REG_RW) + header(b"EEXTEND", 0x1000) + bytes(255), "ends inside"),
        (header(b"EADD", 0x1000, REG_RW) + header(b"EEXTEND", 0x1000, 1) + bytes(256), "reserved"),
        (header(b"WHATEVER", 0x1000), "unknown"),
    ],
)
def test_bad_streams_have_reasons(tail: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        scan(ECREATE + tail)
    with pytest.raises(FormatError, match=reason):
        list(sgxs.pages(memoryview(ECREATE + tail)))


@pytest.mark.parametrize(
    "start",
    [
        b"",
        ECREATE[:63],
        struct.pack("<8sIQ44x", b"UNSIZED", 1, 0x10000),
        struct.pack("<8sIQ44x", b"ECREATE", 0, 0x10000),
        struct.pack("<8sIQ44x", b"ECREATE", 1, 0x11000),
        struct.pack("<8sIQ44x", b"ECREATE", 1, 0x1000),
        struct.pack("<8sIQ44x", b"ECREATE", 1, 1 << 63),
        struct.pack("<8sIQ43xB", b"ECREATE", 1, 0x10000, 1),
    ],
)
def test_bad_first_record(start: bytes) -> None:
    with pytest.raises(FormatError):
        scan(start)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("measured", "unmeasured", "empty")), st.sampled_from((REG_RW, REG_RX)), lengths
        ),
        max_size=5,
    ),
    st.data(),
)
def test_long_runs(runs: list[tuple[str, int, int]], data: st.DataObject) -> None:
    """Runs of one kind of page as images have them, then one byte changed in a record's header."""
    file = io.BytesIO()
    writer = sgxs.Writer(file, 1 << 30)
    first = 1
    for kind, flags, length in runs:
        for number in range(first, first + length):
            page = None if kind == "empty" else number.to_bytes(4, "little") * 1024
            writer.add_page(number * 4096, flags, page, measured=kind == "measured")
        first += length
    image = bytearray(file.getvalue())
    summary, mrenclave = scan(bytes(image))
    assert mrenclave == writer.mrenclave()
    assert sgxs.mrenclave(memoryview(image)) == (summary, mrenclave)
    assert summary.pages == sum(length for _, _, length in runs)
    assert summary.measured_pages == sum(length for kind, _, length in runs if kind == "measured")
    at = data.draw(st.integers(0, len(image) // 64 - 1)) * 64 + data.draw(st.integers(0, 63))
    image[at] ^= data.draw(st.integers(1, 255))
    agree(bytes(image))


@pytest.mark.parametrize("length", [5, 70])  # a run that is picked out, and one that is compared by columns
@pytest.mark.parametrize("page", [0, 1, -1])
def test_every_word_of_a_runs_headers_counts(length: int, page: int) -> None:
    file = io.BytesIO()
    writer = sgxs.Writer(file, 1 << 20)
    for number in range(length):
        writer.add_page(number * 4096, REG_RX, bytes([number]) * 4096)
    good = file.getvalue()
    expected = scan(good)
    assert expected[1] == record_by_record(good)
    start = 64 + page % length * sgxs.WHOLE_PAGE_SIZE
    headers = [start, *range(start + 64, start + sgxs.WHOLE_PAGE_SIZE, sgxs.CHUNK_RECORD_SIZE)]
    for at in (header + word for header in headers for word in range(0, 64, 8)):
        bad = bytearray(good)
        bad[at + at // 8 % 8] ^= 0x40
        agree(bytes(bad))
        with contextlib.suppress(FormatError):  # refused, or measured: never passed over
            assert scan(bytes(bad))[1] != expected[1]


def test_large_streams_with_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread hashes as if all were measured; where it is not, or did not come to its end, it does not count."""
    file = io.BytesIO()
    writer = sgxs.Writer(file, 1 << 22)
    for number in range(600):
        writer.add_page(number * 4096, REG_RW, bytes([number % 251]) * 4096, measured=number != 599)
    image = memoryview(file.getvalue())
    assert len(image) > sgxs.THREADED_SIZE
    assert sgxs.mrenclave(image)[1] == writer.mrenclave()
    whole = image[: -sgxs.WHOLE_PAGE_SIZE]
    expected = record_by_record(bytes(whole))
    assert sgxs.mrenclave(whole)[1] == expected
    monkeypatch.setattr(sgxs, "_PIECE", 1 << 18)
    assert sgxs.mrenclave(whole)[1] == expected
    monkeypatch.setattr(sgxs._Ahead, "_work", lambda _: None)
    assert sgxs.mrenclave(whole)[1] == expected


def test_partly_measured_pages_are_measured_but_not_loadable() -> None:
    data = ECREATE + header(b"EADD", 0x1000, REG_RW) + header(b"EEXTEND", 0x1300) + bytes(256)
    summary, mrenclave = scan(data)
    assert mrenclave == hashlib.sha256(data).digest()
    assert summary.partial_pages == 1
    with pytest.raises(FormatError, match="in part"):
        summary.check_loadable()


def test_writer_refuses_what_the_reader_would() -> None:
    writer = sgxs.Writer(io.BytesIO(), 0x10000)
    writer.add_page(0x2000, REG_RW)
    for offset, flags, data in (
        (0x1000, REG_RW, None), (0x2000, REG_RW, None), (0x3001, REG_RW, None), (0x10000, REG_RW, None),
        (-0x1000, REG_RW, None), (0x3000, REG_RW, bytes(4095)), (0x3000, 0x202, None), (0x3000, 0, None),
    ):  # fmt: skip
        with pytest.raises(FormatError):
            writer.add_page(offset, flags, data)
    with pytest.raises(FormatError):
        sgxs.Writer(io.BytesIO(), 0x3000)


def test_mapped_reports_what_cannot_be_read(tmp_path: object) -> None:
    with pytest.raises(StrongroomError, match="cannot read"), sgxs.mapped(f"{tmp_path}/nothing"):
        pass
    with pytest.raises(StrongroomError, match="cannot read"), sgxs.mapped(f"{tmp_path}"):
        pass
