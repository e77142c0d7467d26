"""The fuses of one software package: made at manufacture, kept in one file (0600) that is whole or not there.

They stand for what hardware burns in and for the registers that firmware loads: two root keys, the owner's
epoch, the security version of the microcode (CPUSVN), and what the processor supports. Whoever reads the file
has every key of the package: at no level does it hold against the host's root (docs/threat-model.md).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from strongroom.errors import StrongroomError
from strongroom.isa.flags import Xfrm

FILE_NAME = "fuses.json"
FORMAT = "strongroom-fuses"
VERSION = 1
MAX_FILE_SIZE = 1 << 20
MAX_CPUSVNS = 255
MAX_EPC_PAGES = 1 << 32
ROOT_KEY_SIZE = 16
DEFAULT_XFRM = int(Xfrm.X87 | Xfrm.SSE | Xfrm.AVX | Xfrm.OPMASK | Xfrm.ZMM_HI256 | Xfrm.HI16_ZMM)
FIRST_CPUSVN = bytes([1] * 16)

Kind = Literal["run", "exec"]
_REMAKE = "restore the file from a copy, or delete the VM and create it anew (what it sealed is lost)"


class FusesError(StrongroomError):
    """The fuse file cannot be read, written or believed."""


@dataclass(frozen=True)
class Fuses:
    """Everything that tells one package from another. ``cpu_svns`` is the history, the current one last.

    Keys are left out of ``repr``, so that no trace or log shows them.
    """

    kind: Kind
    sgx2: bool
    kss: bool
    epc_pages: int
    provisioning_root: bytes = field(repr=False)
    sealing_root: bytes = field(repr=False)
    owner_epoch: bytes = field(repr=False)
    package_id: bytes
    cpu_svns: tuple[bytes, ...] = (FIRST_CPUSVN,)
    xfrm_allowed: int = DEFAULT_XFRM
    miscselect_allowed: int = 1
    provision_allowed: bool = True
    launch_hash: bytes | None = None

    @classmethod
    def burn(cls, kind: Kind, *, sgx2: bool, epc_pages: int, kss: bool | None = None) -> Fuses:
        """Fresh random fuses. ``kss`` comes with SGX2 where it is not said otherwise, as on Azure's sizes."""
        return cls(
            kind=kind,
            sgx2=sgx2,
            kss=sgx2 if kss is None else kss,
            epc_pages=epc_pages,
            provisioning_root=os.urandom(ROOT_KEY_SIZE),
            sealing_root=os.urandom(ROOT_KEY_SIZE),
            owner_epoch=os.urandom(16),
            package_id=os.urandom(16),
        ).checked()

    @property
    def cpu_svn(self) -> bytes:
        """CR_CPUSVN: 16 components of one byte each."""
        return self.cpu_svns[-1]

    def microcode_update(self) -> Fuses:
        """The fuses after an update: every CPUSVN component one higher. Raises FusesError at the end of the
        scale."""
        if max(self.cpu_svn) == 255 or len(self.cpu_svns) >= MAX_CPUSVNS:
            raise FusesError("the CPUSVN is at its highest", "create a new VM")
        return replace(self, cpu_svns=(*self.cpu_svns, bytes(part + 1 for part in self.cpu_svn)))

    @property
    def microcode(self) -> int:
        """The SVN of the microcode, as the TCB info counts it: the lowest component of the CPUSVN."""
        return min(self.cpu_svn)

    def with_microcode(self, svn: int) -> Fuses:
        """The fuses with microcode ``svn`` loaded: newer, or, rolled back, older. Raises FusesError."""
        if not 1 <= svn <= 255:
            raise FusesError(f"{svn} is no SVN of microcode", "write a number from 1 to 255")
        older = tuple(old for old in self.cpu_svns if max(old) < svn)
        return replace(self, cpu_svns=(*older, bytes([svn] * 16))).checked()

    def new_owner(self) -> Fuses:
        """The fuses after a change of OWNEREPOCH: the owner's sealed data can no longer be opened."""
        return replace(self, owner_epoch=os.urandom(16))

    def checked(self) -> Fuses:
        """Itself. Raises FusesError where a value is out of range."""
        sizes = (
            (self.provisioning_root, ROOT_KEY_SIZE),
            (self.sealing_root, ROOT_KEY_SIZE),
            (self.owner_epoch, 16),
            (self.package_id, 16),
            *((svn, 16) for svn in self.cpu_svns),
        )
        ordered = all(
            all(a <= b for a, b in zip(older, newer, strict=True)) and older != newer
            for older, newer in zip(self.cpu_svns, self.cpu_svns[1:], strict=False)
        )
        if (
            self.kind not in ("run", "exec")
            or not 0 < self.epc_pages <= MAX_EPC_PAGES
            or any(len(value) != size for value, size in sizes)
            or not 1 <= len(self.cpu_svns) <= MAX_CPUSVNS
            or not ordered
            or self.xfrm_allowed & 3 != 3
            or self.xfrm_allowed >> 63
            or not 0 <= self.miscselect_allowed <= 1
            or (self.launch_hash is not None and len(self.launch_hash) != 32)
        ):
            raise FusesError("a fuse has a value that no package can have", _REMAKE)
        return self

    def _document(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "sgx2": self.sgx2,
            "kss": self.kss,
            "epc_pages": self.epc_pages,
            "provisioning_root": self.provisioning_root.hex(),
            "sealing_root": self.sealing_root.hex(),
            "owner_epoch": self.owner_epoch.hex(),
            "package_id": self.package_id.hex(),
            "cpu_svns": [svn.hex() for svn in self.cpu_svns],
            "xfrm_allowed": self.xfrm_allowed,
            "miscselect_allowed": self.miscselect_allowed,
            "provision_allowed": self.provision_allowed,
            "launch_hash": None if self.launch_hash is None else self.launch_hash.hex(),
        }

    def save(self, directory: Path | str, *, replace_existing: bool = False) -> None:
        """Write ``directory/fuses.json`` so that a crash leaves the old file or the new one, whole. Raises
        FusesError."""
        path = Path(directory) / FILE_NAME
        document = self.checked()._document()
        document["checksum"] = _checksum(document)
        temporary = path.with_name(f".{FILE_NAME}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    file.write(json.dumps(document, indent=1).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
                if replace_existing:
                    os.rename(temporary, path)
                else:
                    os.link(temporary, path)
            finally:
                if os.path.lexists(temporary):
                    os.unlink(temporary)
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except FileExistsError as error:
            raise FusesError(f"{path} exists already", "open the package instead of making it") from error
        except OSError as error:
            raise FusesError(
                f"cannot write {path} ({error.strerror})", "free some space or choose a folder"
            ) from error

    @classmethod
    def load(cls, directory: Path | str) -> Fuses:
        """Read and check the file. Raises FusesError with the next step; its text never holds a fuse's
        value."""
        path = Path(directory) / FILE_NAME
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                facts = os.fstat(file.fileno())
                data = file.read(MAX_FILE_SIZE + 1)
        except OSError as error:
            raise FusesError(
                f"cannot read {path} ({error.strerror})", "check that the VM is there"
            ) from error
        if facts.st_uid not in (os.geteuid(), 0):
            raise FusesError(f"{path} belongs to another user", "start the VM as the user who made it")
        if not stat.S_ISREG(facts.st_mode) or facts.st_mode & 0o077:
            raise FusesError(
                f"others may read {path}", f"run `chmod 600 {path}`, or make a new VM if they did"
            )
        try:
            return _parse(data)
        except (ValueError, KeyError, TypeError, RecursionError):
            raise FusesError(f"{path} is damaged", _REMAKE) from None


def _checksum(document: dict[str, Any]) -> str:
    """Against accidents; whoever may write the file may write the checksum too."""
    plain = {name: value for name, value in document.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _octets(value: Any) -> bytes:
    if not isinstance(value, str) or not re.fullmatch(r"(?:[0-9a-f]{2})*", value):
        raise ValueError
    return bytes.fromhex(value)


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError
    return value


def _parse(data: bytes) -> Fuses:
    if len(data) > MAX_FILE_SIZE:
        raise ValueError
    document = _typed(json.loads(data), dict)
    if document.get("format") != FORMAT:
        raise ValueError
    if document.get("version") != VERSION:
        raise FusesError(
            f"the fuses have version {document.get('version')!r}, this program reads {VERSION}",
            "use the Strongroom that made this VM",
        )
    if document.get("checksum") != _checksum(document):
        raise ValueError
    fuses = Fuses(
        kind=cast("Kind", _typed(document["kind"], str)),
        sgx2=_typed(document["sgx2"], bool),
        kss=_typed(document["kss"], bool),
        epc_pages=_typed(document["epc_pages"], int),
        provisioning_root=_octets(document["provisioning_root"]),
        sealing_root=_octets(document["sealing_root"]),
        owner_epoch=_octets(document["owner_epoch"]),
        package_id=_octets(document["package_id"]),
        cpu_svns=tuple(_octets(svn) for svn in _typed(document["cpu_svns"], list)),
        xfrm_allowed=_typed(document["xfrm_allowed"], int),
        miscselect_allowed=_typed(document["miscselect_allowed"], int),
        provision_allowed=_typed(document["provision_allowed"], bool),
        launch_hash=None if document["launch_hash"] is None else _octets(document["launch_hash"]),
    )
    return fuses.checked()
