"""Encrypted files as an enclave's ``encrypted:release`` mounts hold them: the owner's implementation of the format.

The LibOS has its own (libos/fs/encrypted_format.c); the two share nothing but docs/encrypted-files.md, and a test lets
each read what the other wrote. A file is refused whole: nothing of it is given out before its root is checked.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, ClassVar, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.errors import FormatError, StrongroomError

MAGIC: Final = b"SRFILE01"
VERSION: Final = 1
KIND_RELEASE: Final = 1
CHUNK_SIZE: Final = 16384
MAX_SIZE: Final = 1 << 40
MAX_PATH_SIZE: Final = 4095
STAGE_PREFIX: Final = ".sr-stage-"
"""How the LibOS calls a version that is not finished; a crash may leave one, which is no file."""
_ENTRY: Final = struct.Struct("<12s16s")
_TABLE_LABEL: Final = b"table  1"


class EncryptedFileError(FormatError):
    """This is no encrypted file, or not the one that it should be: altered, moved, cut, or under another key."""


@dataclass(frozen=True)
class Header:
    """The first 256 bytes (C: ``struct enc_header``)."""

    FORM: ClassVar[struct.Struct] = struct.Struct("<8sIIIHHQQQ32s16s32s12s16s72s12s16s")
    size: int
    mtime_ns: int
    generation: int
    file_id: bytes
    table_nonce: bytes
    table_tag: bytes
    root_nonce: bytes
    root_tag: bytes = bytes(16)

    def pack(self) -> bytes:
        return self.FORM.pack(
            MAGIC, VERSION, KIND_RELEASE, CHUNK_SIZE, 0, 0, self.size, self.mtime_ns, self.generation, self.file_id,
            bytes(16), bytes(32), self.table_nonce, self.table_tag, bytes(72), self.root_nonce, self.root_tag,
        )  # fmt: skip

    @classmethod
    def parse(cls, data: bytes) -> Header:
        """Raises EncryptedFileError; what it says is not to be believed before the root is checked."""
        if len(data) != cls.FORM.size:
            raise EncryptedFileError("it is shorter than any encrypted file")
        (magic, version, kind, chunk, isvsvn, zero, size, mtime, generation, file_id, cpusvn, keyid, table_nonce,
         table_tag, rest, root_nonce, root_tag) = cls.FORM.unpack(data)  # fmt: skip
        if magic != MAGIC:
            raise EncryptedFileError("it is no encrypted file")
        if version != VERSION or chunk != CHUNK_SIZE:
            raise EncryptedFileError(f"it has version {version} of the format, this program reads {VERSION}")
        if kind != KIND_RELEASE:
            raise EncryptedFileError("it is sealed by an enclave: only that can read it")
        if size > MAX_SIZE or isvsvn or zero or any(cpusvn) or any(keyid) or any(rest):
            raise EncryptedFileError("its header has values that no encrypted file has")
        return cls(size, mtime, generation, file_id, table_nonce, table_tag, root_nonce, root_tag)


def chunk_count(size: int) -> int:
    return -(-size // CHUNK_SIZE)


class _Keys:
    def __init__(self, key: bytes, file_id: bytes) -> None:
        if len(key) != 32:
            raise StrongroomError("a key is 32 bytes", "name a key file")
        self.chunk = AESGCM(self._derive(key, b"strongroom file chunk 1", file_id))
        self.root = AESGCM(self._derive(key, b"strongroom file root 1", file_id))

    @staticmethod
    def _derive(key: bytes, label: bytes, file_id: bytes) -> bytes:
        return hmac.digest(key, label.ljust(24, b"\0") + file_id, hashlib.sha256)


def _bound(header: bytes, path: str) -> bytes:
    raw = os.fsencode(path)
    if not path.startswith("/") or not 1 < len(raw) <= MAX_PATH_SIZE:
        raise StrongroomError(f"{path!r} is no path inside", 'write it as "/data/name"')
    return header[:-16] + raw


def encrypt(key: bytes, path: str, source: BinaryIO, target: BinaryIO, *, mtime_ns: int | None = None) -> int:
    """Encrypt all of ``source`` to ``target`` (seekable), as the file ``path`` inside; returns its size.

    Raises OSError, StrongroomError; ``target`` then holds nothing of use.
    """
    now = time.time_ns()
    file_id = os.urandom(32)
    keys = _Keys(key, file_id)
    start = target.tell()
    target.write(bytes(Header.FORM.size))
    table = bytearray()
    size = 0
    while clear := _read_full(source):
        nonce = os.urandom(12)
        sealed = keys.chunk.encrypt(nonce, clear, struct.pack("<Q", size // CHUNK_SIZE))
        target.write(sealed[:-16])
        table += _ENTRY.pack(nonce, sealed[-16:])
        size += len(clear)
        if size > MAX_SIZE:
            raise StrongroomError(f"{path} is too large for an encrypted file", "split it")
    table_nonce = os.urandom(12)
    sealed_table = keys.root.encrypt(table_nonce, bytes(table), _TABLE_LABEL)
    target.write(sealed_table[:-16])
    when = now if mtime_ns is None else max(0, mtime_ns)
    header = Header(size, when, now, file_id, table_nonce, sealed_table[-16:], os.urandom(12))
    tag = keys.root.encrypt(header.root_nonce, b"", _bound(header.pack(), path))
    end = target.tell()
    target.seek(start)
    target.write(header.pack()[:-16] + tag)
    target.seek(end)
    return size


def _read_full(source: BinaryIO) -> bytes:
    """A whole chunk, less only at the end."""
    data = bytearray()
    while len(data) < CHUNK_SIZE and (part := source.read(CHUNK_SIZE - len(data))):
        data += part
    return bytes(data)


class Reader:
    """An encrypted file whose header, length and table are checked; its chunks are as they are read."""

    def __init__(self, key: bytes, path: str, source: BinaryIO) -> None:
        """Raises EncryptedFileError, StrongroomError, OSError. ``source`` is seekable and stays the caller's."""
        self._source = source
        raw = source.read(Header.FORM.size)
        self.header = Header.parse(raw)
        self._keys = _Keys(key, self.header.file_id)
        count = chunk_count(self.header.size)
        try:
            self._keys.root.decrypt(self.header.root_nonce, self.header.root_tag, _bound(raw, path))
        except InvalidTag:
            raise EncryptedFileError("it was altered or moved, or encrypted with another key") from None
        total = Header.FORM.size + self.header.size + _ENTRY.size * count
        if source.seek(0, os.SEEK_END) != total:
            raise EncryptedFileError("its length was altered")
        source.seek(Header.FORM.size + self.header.size)
        sealed = source.read(_ENTRY.size * count) + self.header.table_tag
        try:
            table = self._keys.root.decrypt(self.header.table_nonce, sealed, _TABLE_LABEL)
        except InvalidTag:
            raise EncryptedFileError("its table of tags was altered") from None
        self._table = list(_ENTRY.iter_unpack(table))

    def chunks(self) -> Iterator[bytes]:
        """The file's content. Raises EncryptedFileError at the first chunk that is not authentic."""
        self._source.seek(Header.FORM.size)
        for number, (nonce, tag) in enumerate(self._table):
            length = min(CHUNK_SIZE, self.header.size - number * CHUNK_SIZE)
            sealed = self._source.read(length) + tag
            try:
                yield self._keys.chunk.decrypt(nonce, sealed, struct.pack("<Q", number))
            except InvalidTag:
                raise EncryptedFileError(f"its bytes from {number * CHUNK_SIZE} on were altered") from None
