"""The format, written twice: the LibOS's C and the owner's Python read what the other wrote, and share no code."""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.owner.encrypted import CHUNK_SIZE, EncryptedFileError, Header, Reader, encrypt

LIBOS = Path(__file__).parents[3] / "libos"
KEY = bytes(range(32))
# What the LibOS has around it: SHA-256 by the C library of this test.
SHIM = """
#include <stddef.h>
#include <stdint.h>
void (*g_sha256)(const void *, size_t, uint8_t *);
void sha256(const void *data, size_t size, uint8_t *digest) { g_sha256(data, size, digest); }
"""


@pytest.fixture(scope="module")
def libos(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    if " aes " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AES-NI")
    folder = tmp_path_factory.mktemp("format")
    (folder / "shim.c").write_text(SHIM)
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-maes", "-mpclmul", "-mssse3"]
    sources = [LIBOS / "fs/encrypted_format.c", LIBOS / "lib/aesgcm.c", folder / "shim.c"]
    subprocess.run(
        ["gcc", *flags, f"-I{LIBOS}/include", "-o", str(folder / "f.so"), *map(str, sources)], check=True
    )
    library = ctypes.CDLL(str(folder / "f.so"))
    for name in ("enc_root_open", "enc_table_open", "enc_chunk_open", "enc_sane"):
        getattr(library, name).restype = ctypes.c_bool
    library.enc_total.restype = library.enc_count.restype = ctypes.c_uint64
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)

    def sha256(data: int, size: int, digest: int) -> None:
        import hashlib

        ctypes.memmove(digest, hashlib.sha256(ctypes.string_at(data, size)).digest(), 32)

    keep = callback(sha256)
    ctypes.c_void_p.in_dll(library, "g_sha256").value = ctypes.cast(keep, ctypes.c_void_p).value
    library.keep = keep
    return library


def keys(libos: ctypes.CDLL, file_id: bytes) -> ctypes.Array[ctypes.c_char]:
    derived = ctypes.create_string_buffer(64)
    libos.enc_derive(KEY, ctypes.c_size_t(32), file_id, derived)
    return derived


def read_by_c(libos: ctypes.CDLL, data: bytes, path: bytes) -> bytes | None:
    """As libos/fs/encrypted_file.c does it; None where the root refuses."""
    header = ctypes.create_string_buffer(data[:256], 256)
    if not libos.enc_sane(header):
        return None
    size = Header.parse(data[:256]).size
    k = keys(libos, data[48:80])
    if not libos.enc_root_open(k, header, path) or len(data) != libos.enc_total(ctypes.c_uint64(size)):
        return None
    count = libos.enc_count(ctypes.c_uint64(size))
    table = ctypes.create_string_buffer(data[256 + size :], 28 * count + 1)
    if not libos.enc_table_open(k, header, table):
        return None
    clear = b""
    for number in range(count):
        at = number * CHUNK_SIZE
        length = min(CHUNK_SIZE, size - at)
        out = ctypes.create_string_buffer(length)
        tag = table.raw[28 * number : 28 * number + 28]
        if not libos.enc_chunk_open(
            k, ctypes.c_uint64(number), tag, data[256 + at : 256 + at + length], out, length
        ):
            return None
        clear += out.raw
    return clear


def write_by_c(libos: ctypes.CDLL, clear: bytes, path: bytes) -> bytes:
    header = bytearray(
        Header(len(clear), 5, 6, os.urandom(32), os.urandom(12), bytes(16), os.urandom(12)).pack()
    )
    k = keys(libos, bytes(header[48:80]))
    data, table = b"", b""
    for number in range(-(-len(clear) // CHUNK_SIZE)):
        part = clear[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE]
        out, tag = (
            ctypes.create_string_buffer(len(part)),
            ctypes.create_string_buffer(os.urandom(12) + bytes(16), 28),
        )
        libos.enc_chunk_seal(k, ctypes.c_uint64(number), tag, part, out, len(part))
        data += out.raw
        table += tag.raw
    raw = ctypes.create_string_buffer(bytes(header), 256)
    sealed = ctypes.create_string_buffer(table, len(table) + 1)
    libos.enc_table_seal(k, raw, sealed)
    libos.enc_root_seal(k, raw, path)
    return raw.raw + data + sealed.raw[: len(table)]


SIZES = st.integers(0, 100) | st.integers(CHUNK_SIZE - 2, CHUNK_SIZE + 2) | st.integers(0, 3 * CHUNK_SIZE)


@given(size=SIZES, path=st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
@settings(max_examples=60)
def test_each_reads_the_other(libos: ctypes.CDLL, size: int, path: str) -> None:
    raw = b"/" + path.encode("utf-8", "ignore") + b"x"
    clear = os.urandom(size)
    out = io.BytesIO()
    encrypt(KEY, os.fsdecode(raw), io.BytesIO(clear), out)
    assert read_by_c(libos, out.getvalue(), raw) == clear
    reader = Reader(KEY, os.fsdecode(raw), io.BytesIO(write_by_c(libos, clear, raw)))
    assert b"".join(reader.chunks()) == clear
    assert (reader.header.mtime_ns, reader.header.generation) == (5, 6)


@given(size=SIZES, data=st.data())
@settings(max_examples=60)
def test_both_refuse_the_same_change(libos: ctypes.CDLL, size: int, data: st.DataObject) -> None:
    file = bytearray(write_by_c(libos, os.urandom(size), b"/data/a"))
    place = data.draw(st.integers(0, len(file) - 1))
    file[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(EncryptedFileError):
        b"".join(Reader(KEY, "/data/a", io.BytesIO(bytes(file))).chunks())
    try:
        assert read_by_c(libos, bytes(file), b"/data/a") is None
    except EncryptedFileError:  # already Header.parse, of which read_by_c takes the size
        pass
