"""/dev/attestation: the enclave's report, quote and sealing keys (the files' names are those of Gramine)."""

from __future__ import annotations

import os
import struct

from strongroom.inside.errors import DeviceError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DEVICE: Final = "/dev/attestation"
REPORT_DATA_SIZE: Final = 64
TARGET_INFO_SIZE: Final = 512
REPORT_SIZE: Final = 432
KEY_SIZE: Final = 16
ISVSVN_AT: Final = 258
MOUNT_KEY_SIZE: Final = 32
MAX_QUOTE_SIZE: Final = 64 * 1024


class Attestation:
    """The device's files under ``folder``. Not for several threads at once: the report data is one file."""

    def __init__(self, folder: str | os.PathLike[str] = DEVICE) -> None:
        self._folder = os.fspath(folder)

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _write(self, name: str, data: bytes) -> None:
        try:
            descriptor = os.open(self._path(name), os.O_WRONLY | os.O_CLOEXEC)
            try:
                written = os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DeviceError(
                f"cannot write {self._path(name)} ({error.strerror}): does this run in an enclave?"
            ) from None
        if written != len(data):
            raise DeviceError(f"{self._path(name)} took {written} bytes of {len(data)}")

    def _read(self, name: str, size: int, exact: bool = True) -> bytes:
        data = bytearray()
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                while len(data) <= size and (part := os.read(descriptor, size + 1 - len(data))):
                    data += part
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DeviceError(
                f"cannot read {self._path(name)} ({error.strerror}): does this run in an attested enclave?"
            ) from None
        if not data or len(data) > size or (exact and len(data) != size):
            raise DeviceError(f"{self._path(name)} gave {len(data)} bytes")
        return bytes(data)

    def unlock(self, mount: str, key: bytes) -> None:
        """Give the ``encrypted:release`` mount at ``mount`` its key (32 bytes), once. Raises DeviceError."""
        name = mount.lstrip("/").replace("/", ".")
        if not name or len(key) != MOUNT_KEY_SIZE:
            raise DeviceError(f"a mount like /data and a key of {MOUNT_KEY_SIZE} bytes are needed")
        self._write(f"keys/{name}", key)

    def my_target_info(self) -> bytes:
        """TARGETINFO (512 bytes) by which another enclave of this machine makes a REPORT for this one."""
        return self._read("my_target_info", TARGET_INFO_SIZE)

    def report(self, report_data: bytes, target_info: bytes | None = None) -> bytes:
        """A REPORT (432 bytes) with ``report_data`` (at most 64 bytes, zeros added) for ``target_info``, else for this
        enclave itself. Raises DeviceError."""
        self._write("user_report_data", _padded(report_data))
        target = self.my_target_info() if target_info is None else target_info
        if len(target) != TARGET_INFO_SIZE:
            raise DeviceError(f"TARGETINFO is {TARGET_INFO_SIZE} bytes, got {len(target)}")
        self._write("target_info", target)
        return self._read("report", REPORT_SIZE)

    def quote(self, report_data: bytes) -> bytes:
        """A quote with ``report_data`` (at most 64 bytes, zeros added). Raises DeviceError."""
        self._write("user_report_data", _padded(report_data))
        return self._read("quote", MAX_QUOTE_SIZE, exact=False)

    def versions(self) -> tuple[int, bytes]:
        """ISVSVN and CPUSVN (16 bytes) of now. Raises DeviceError."""
        report = self._read("report", REPORT_SIZE)
        return int.from_bytes(report[ISVSVN_AT : ISVSVN_AT + 2], "little"), report[:16]

    def sealing_key(self, policy: int, isv_svn: int, cpu_svn: bytes, key_id: bytes) -> bytes:
        """EGETKEY(SEAL), 16 bytes, for this key request; ``policy`` 1 is MRENCLAVE, 2 MRSIGNER.

        Raises DeviceError: among others where the versions are beyond those of now.
        """
        request = struct.pack("<HH16s32s", policy, isv_svn, cpu_svn, key_id)
        try:
            descriptor = os.open(self._path("sealing_key"), os.O_RDWR | os.O_CLOEXEC)
            try:
                os.write(descriptor, request)
                key = os.pread(descriptor, KEY_SIZE + 1, 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DeviceError(f"the processor gives no such sealing key ({error.strerror})") from None
        if len(key) != KEY_SIZE:
            raise DeviceError(f"{self._path('sealing_key')} gave {len(key)} bytes")
        return key

    def key(self, name: str) -> bytes:
        """A sealing key, 16 bytes: ``_sgx_mrenclave`` or ``_sgx_mrsigner``. Raises DeviceError."""
        return self._read(f"keys/{name}", KEY_SIZE)


def _padded(report_data: bytes) -> bytes:
    if len(report_data) > REPORT_DATA_SIZE:
        raise DeviceError(f"report data is at most {REPORT_DATA_SIZE} bytes, got {len(report_data)}")
    return bytes(report_data).ljust(REPORT_DATA_SIZE, b"\0")


def report(report_data: bytes = b"", target_info: bytes | None = None) -> bytes:
    """This enclave's REPORT (432 bytes) for the enclave ``target_info`` names, else for itself. Raises DeviceError."""
    return Attestation().report(report_data, target_info)


def quote(report_data: bytes = b"") -> bytes:
    """This enclave's quote with ``report_data`` (at most 64 bytes). Raises DeviceError."""
    return Attestation().quote(report_data)
