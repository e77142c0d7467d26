"""ELF files (strongroom.image.elf): what is refused, and that damage raises our error and no other."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.image import elf
from strongroom.image.elf import ElfError, parse
from support.programs import HELLO, compile_c


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_c(tmp_path_factory.mktemp("elf"), "hello", HELLO).read_bytes()


def test_dynamic_program(hello: bytes) -> None:
    file = parse(hello, "hello")
    assert file.position_independent
    assert file.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert file.needed == ("libc.so.6",)
    assert sum(segment.executable for segment in file.segments) == 1
    start = file.symbol("main")
    assert file.function_name(start + 1) == "main"
    bounds = file.function_bounds(start + 1)
    assert bounds is not None and bounds[0] == start < bounds[1]
    assert file.at(file.entry, 4) == file.data[file.entry :][:4]
    with pytest.raises(ElfError, match="has no symbol nothing_like_it"):
        file.symbol("nothing_like_it")


def test_page_content_is_what_mmap_shows(hello: bytes) -> None:
    file = parse(hello, "hello")
    for segment in file.segments:
        page = segment.first_page
        start = segment.offset - (segment.vaddr - page)
        assert file.page_content(segment, page) == hello[start : start + 4096].ljust(4096, b"\0")


def edited(data: bytes, at: int, form: str, value: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(form, out, at, value)
    return bytes(out)


def header_of(data: bytes, wanted: int, flag: int = 0) -> int:
    table = struct.unpack_from("<Q", data, 32)[0]
    for number in range(struct.unpack_from("<H", data, 56)[0]):
        kind, flags = struct.unpack_from("<II", data, table + 56 * number)
        if kind == wanted and flags & flag == flag:
            return table + 56 * number
    raise AssertionError("no such header")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: b"#!/bin/sh\nexit\n", "is a script: name an ELF program"),
        (lambda data: b"hello", "is not an ELF file"),
        (lambda data: data[:40], "is a truncated ELF file"),
        (lambda data: data[:6000], "is a"),
        (lambda data: edited(data, 4, "<B", 1), "is a 32-bit ELF file: build it for x86-64"),
        (lambda data: edited(data, 5, "<B", 2), "is a big-endian ELF file"),
        (lambda data: edited(data, 18, "<H", 183), "is made for another machine (ELF machine 183)"),
        (lambda data: edited(data, 16, "<H", 1), "cannot be loaded (type 1): link it first"),
        (lambda data: edited(data, header_of(data, 1, 1) + 4, "<I", 7), "writable and executable"),
        (lambda data: edited(data, header_of(data, 1) + 40, "<Q", 1 << 50), "asks for memory beyond"),
        (lambda data: edited(data, header_of(data, 1) + 8, "<Q", 1), "not page-aligned"),
        (lambda data: edited(data, header_of(data, 1, 1) + 40, "<Q", 1 << 20), "executable memory that is not in"),
    ],
)  # fmt: skip
def test_refused(hello: bytes, change: object, said: str) -> None:
    with pytest.raises(ElfError) as caught:
        parse(change(hello), "prog")  # type: ignore[operator]
    assert said in str(caught.value)
    assert caught.value.next_step
    assert "\n" not in str(caught.value)


def test_text_relocations_are_refused(tmp_path: Path) -> None:
    source = "extern int far; int *get(void) { return &far; }"
    path = compile_c(tmp_path, "t.so", source, "-shared", "-fno-pic", "-mcmodel=large", "-Wl,-z,notext")
    with pytest.raises(ElfError, match="relocates its own text"):
        parse(path.read_bytes(), "t.so")


def test_32_bit_program_of_gcc(tmp_path: Path) -> None:
    path = compile_c(tmp_path, "p", "void _start(void) {}", "-m32", "-nostdlib", "-static")
    with pytest.raises(ElfError, match="32-bit"):
        parse(path.read_bytes(), "p")


@given(st.binary(max_size=400))
def test_any_bytes_raise_our_error(tail: bytes) -> None:
    for head in (b"", b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 2, 62)):
        with pytest.raises(ElfError):
            parse(head + tail, "x")


def test_damaged_headers_raise_our_error_or_parse(hello: bytes) -> None:
    chance = random.Random(7)
    for _ in range(400):
        out = bytearray(hello)
        for _ in range(chance.randrange(1, 6)):
            out[chance.randrange(0, 0x400)] = chance.randrange(256)
        try:
            file = parse(bytes(out), "x")
        except ElfError:
            continue
        # What parses can be asked everything.
        for segment in file.segments:
            file.function_bounds(segment.vaddr)
            file.has_landing_pads(segment.vaddr)
            file.page_content(segment, segment.first_page)


def test_page_up() -> None:
    assert [elf.page_up(value) for value in (0, 1, 4096, 4097)] == [0, 4096, 4096, 8192]
    assert elf.page_up(1, 2 << 20) == 2 << 20


def aligned(tmp_path: Path, size: int) -> bytes:
    page_size = f"-Wl,-z,max-page-size={size:#x},-z,noseparate-code"
    return compile_c(tmp_path, "wide.so", "int data = 7;\n", "-shared", "-fPIC", page_size).read_bytes()


def test_alignment_is_the_layouts(tmp_path: Path) -> None:
    """Text cannot go where a dynamic linker would align it: the layout does, and the file asks for pages only."""
    data = aligned(tmp_path, 0x200000)
    file = parse(data, "wide.so")
    assert file.alignment == 0x200000
    assert len(file.data) == len(data) and file.data != data
    assert parse(file.data, "wide.so").alignment == 4096
    changed = [at for at in range(len(data)) if data[at] != file.data[at]]
    assert max(changed) < 64 + 56 * struct.unpack_from("<H", data, 56)[0]  # program headers, nothing else


@pytest.mark.parametrize("value", [3, 0x3000, 1 << 40, (1 << 64) - 4096])
def test_bad_alignment_is_refused(tmp_path: Path, value: int) -> None:
    data = aligned(tmp_path, 4096)
    with pytest.raises(ElfError, match="asks for an alignment of"):
        parse(edited(data, header_of(data, 1) + 48, "<Q", value), "wide.so")
