"""The boot information that the image hands to the LibOS at 0x10000 (C: ``libos/include/boot.h``).

Little endian; every offset is from the blob's start; offset 0 means none. The pages are measured, so what stands here
is part of MRENCLAVE.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

from strongroom.errors import FormatError

BOOT_ADDRESS = 0x10000
MAGIC = 0x314F464E49545342  # "BSTINFO1"
VERSION = 1
# Flags of the header.
FLAG_DEBUG, FLAG_NETWORK, FLAG_HOST_ARGUMENTS, FLAG_HOST_ENVIRONMENT, FLAG_EDMM = 1, 2, 4, 8, 16
# Flags of an object.
OBJECT_MAIN, OBJECT_INTERPRETER = 1, 2
# Kinds of a mount.
MOUNT_TRUSTED, MOUNT_TEMPORARY, MOUNT_ALLOWED, MOUNT_SEALED, MOUNT_RELEASE = 1, 2, 3, 4, 5
MOUNT_SEALED_MRENCLAVE = 6  # MOUNT_SEALED: by MRSIGNER

HEADER = struct.Struct("<QII QQQ QQ QQ II 32sQ II II II II II III I QQ 2I")
OBJECT = struct.Struct("<IIQQII")
SEGMENT = struct.Struct("<QQQQII")
MOUNT = struct.Struct("<IIII")
# C member -> offset, compared with the C header by tests/image/test_boot.py.
HEADER_OFFSETS = {
    "magic": 0, "version": 8, "size": 12, "elrange_size": 16, "libos_base": 24, "libos_size": 32, "heap_base": 40,
    "heap_size": 48, "thread_base": 56, "thread_stride": 64, "thread_count": 72, "flags": 76,
    "pack_index_sha256": 80, "pack_index_size": 112, "object_count": 120, "object_off": 124, "mount_count": 128,
    "mount_off": 132, "argc": 136, "argv_off": 140, "envc": 144, "env_off": 148, "program_path": 152,
    "interp_path": 156, "cwd_path": 160, "envallow_count": 164, "envallow_off": 168, "reserved": 172,
    "late_base": 176, "late_size": 184, "reserved2": 192,
}  # fmt: skip
OBJECT_OFFSETS = {"path": 0, "segment_count": 4, "base": 8, "span": 16, "segment_off": 24, "flags": 28}
SEGMENT_OFFSETS = {"vaddr": 0, "memsz": 8, "fileoff": 16, "filesz": 24, "prot": 32, "measured": 36}
MOUNT_OFFSETS = {"path": 0, "kind": 4, "host_path": 8, "reserved": 12}


@dataclass(frozen=True)
class BootSegment:
    """One PT_LOAD: ``vaddr`` relative to the object's base (absolute where the base is 0)."""

    vaddr: int
    memsz: int
    fileoff: int
    filesz: int
    prot: int
    measured: bool


@dataclass(frozen=True)
class BootObject:
    """One ELF file whose text is laid out already. ``span`` is bytes from ``base`` to the end of its last page."""

    path: str
    base: int
    span: int
    flags: int
    segments: tuple[BootSegment, ...]


@dataclass(frozen=True)
class BootMount:
    """One line of [files]: an inside path, a MOUNT_* kind, and the host path where there is one."""

    path: str
    kind: int
    host_path: str = ""


@dataclass(frozen=True)
class BootInfo:
    """Everything the LibOS is told by the measured image. Addresses and sizes in bytes."""

    elrange_size: int
    libos_base: int
    libos_size: int
    heap_base: int
    heap_size: int
    thread_base: int
    thread_stride: int
    thread_count: int
    flags: int
    pack_index_sha256: bytes
    pack_index_size: int
    program_path: str
    interp_path: str = ""
    cwd_path: str = "/"
    argv: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    envallow: tuple[str, ...] = ()
    objects: tuple[BootObject, ...] = field(default=())
    mounts: tuple[BootMount, ...] = field(default=())
    late_base: int = 0
    late_size: int = 0
    """Pages for code made at run time; 0: none."""


class _Strings:
    """NUL-terminated strings, each once; offsets from the blob's start are known when the pool's own is."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._blob = bytearray()
        self._seen: dict[str, int] = {}

    def add(self, text: str) -> int:
        if text not in self._seen:
            raw = text.encode("utf-8", "surrogateescape")
            if b"\0" in raw:
                raise FormatError("a path, argument or variable holds a NUL character", "take it out")
            self._seen[text] = self._start + len(self._blob)
            self._blob += raw + b"\0"
        return self._seen[text]

    def optional(self, text: str) -> int:
        return self.add(text) if text else 0

    def __bytes__(self) -> bytes:
        return bytes(self._blob)


def _array(values: Iterable[int]) -> bytes:
    numbers = list(values)
    return struct.pack(f"<{len(numbers)}I", *numbers)


def encode(info: BootInfo) -> bytes:
    """The blob, not padded to pages."""
    segment_total = sum(len(one.segments) for one in info.objects)
    object_off = HEADER.size
    segment_off = object_off + OBJECT.size * len(info.objects)
    mount_off = segment_off + SEGMENT.size * segment_total
    argv_off = mount_off + MOUNT.size * len(info.mounts)
    env_off = argv_off + 4 * len(info.argv)
    envallow_off = env_off + 4 * len(info.env)
    strings = _Strings(envallow_off + 4 * len(info.envallow))

    objects, segments = bytearray(), bytearray()
    for one in info.objects:
        at = segment_off + len(segments)
        objects += OBJECT.pack(strings.add(one.path), len(one.segments), one.base, one.span, at, one.flags)
        for part in one.segments:
            segments += SEGMENT.pack(
                part.vaddr, part.memsz, part.fileoff, part.filesz, part.prot, int(part.measured)
            )
    mounts = b"".join(
        MOUNT.pack(strings.add(one.path), one.kind, strings.optional(one.host_path), 0) for one in info.mounts
    )
    argv, env, envallow = (
        _array(strings.add(text) for text in texts) for texts in (info.argv, info.env, info.envallow)
    )
    tail = (strings.add(info.program_path), strings.optional(info.interp_path), strings.add(info.cwd_path))
    body = bytes(objects) + bytes(segments) + mounts + argv + env + envallow + bytes(strings)
    header = HEADER.pack(
        MAGIC, VERSION, HEADER.size + len(body), info.elrange_size, info.libos_base, info.libos_size,
        info.heap_base, info.heap_size, info.thread_base, info.thread_stride, info.thread_count, info.flags,
        info.pack_index_sha256, info.pack_index_size, len(info.objects), object_off, len(info.mounts), mount_off,
        len(info.argv), argv_off, len(info.env), env_off, *tail, len(info.envallow), envallow_off, 0,
        info.late_base, info.late_size, 0, 0,
    )  # fmt: skip
    return header + body


def decode(blob: bytes) -> BootInfo:
    """The reverse of ``encode``. Raises FormatError; nothing is read outside the blob."""
    try:
        return _decode(blob)
    except (struct.error, ValueError, IndexError) as error:
        raise FormatError(f"the boot information is damaged ({error})", "build the image again") from error


def _decode(blob: bytes) -> BootInfo:
    head = HEADER.unpack_from(blob)
    (magic, version, size, elrange, libos_base, libos_size, heap_base, heap_size, thread_base, stride, threads, flags,
     sha256, index_size, object_count, object_off, mount_count, mount_off, argc, argv_off, envc, env_off,
     program, interp, cwd, allow_count, allow_off, _reserved, late_base, late_size) = head[:30]  # fmt: skip
    if magic != MAGIC or version != VERSION:
        raise ValueError("magic or version")
    if size > len(blob):
        raise ValueError("size")
    blob = blob[:size]

    def text(offset: int) -> str:
        if offset == 0:
            return ""
        if not HEADER.size <= offset < size:
            raise ValueError("string offset")
        return blob[offset : blob.index(b"\0", offset)].decode("utf-8", "surrogateescape")

    def texts(count: int, offset: int) -> tuple[str, ...]:
        if offset + 4 * count > size:
            raise ValueError("string table")
        return tuple(text(at) for at in struct.unpack_from(f"<{count}I", blob, offset))

    objects = []
    for number in range(object_count):
        path, count, base, span, at, object_flags = OBJECT.unpack_from(
            blob, object_off + OBJECT.size * number
        )
        parts = []
        for index in range(count):
            vaddr, memsz, fileoff, filesz, prot, measured = SEGMENT.unpack_from(
                blob, at + SEGMENT.size * index
            )
            if measured > 1:
                raise ValueError("segment")
            parts.append(BootSegment(vaddr, memsz, fileoff, filesz, prot, bool(measured)))
        objects.append(BootObject(text(path), base, span, object_flags, tuple(parts)))
    mounts = []
    for number in range(mount_count):
        path, kind, host, _reserved = MOUNT.unpack_from(blob, mount_off + MOUNT.size * number)
        mounts.append(BootMount(text(path), kind, text(host)))
    return BootInfo(
        elrange, libos_base, libos_size, heap_base, heap_size, thread_base, stride, threads, flags, sha256, index_size,
        text(program), text(interp), text(cwd), texts(argc, argv_off), texts(envc, env_off),
        texts(allow_count, allow_off), tuple(objects), tuple(mounts),
        late_base, late_size,
    )  # fmt: skip
