"""One software SGX package: what holds the fuses and answers EINIT, EREPORT and EGETKEY."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

from strongroom.errors import StrongroomError
from strongroom.isa.report import Targetinfo
from strongroom.machine import einit as _einit
from strongroom.machine import keys as _keys
from strongroom.machine.fuses import Fuses, FusesError, Kind
from strongroom.machine.leaf import Identity, LeafError, LeafFault

__all__ = ["FLAG_PROVISION_ALLOWED", "Identity", "LeafError", "LeafFault", "Package"]

FLAG_PROVISION_ALLOWED = 1
"""EINIT request: the driver allowed the PROVISIONKEY attribute."""


class Package:
    """A processor package that is switched on. Safe to use from several threads."""

    def __init__(self, fuses: Fuses, directory: Path | None = None) -> None:
        self._fuses = fuses
        self._directory = directory
        self._lock = threading.Lock()
        # CR_REPORT_KEYID: fresh each time the package is switched on (EREPORT).
        self._report_key_id = os.urandom(32)

    @classmethod
    def manufacture(
        cls, directory: Path | str, kind: Kind, sgx2: bool, epc_pages: int, kss: bool | None = None
    ) -> Package:
        """Make fuses in ``directory`` (made where it is missing, 0700). Raises FusesError; never replaces
        fuses."""
        directory = Path(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise FusesError(
                f"cannot make {directory} ({error.strerror})", "choose another folder"
            ) from error
        fuses = Fuses.burn(kind, sgx2=sgx2, epc_pages=epc_pages, kss=kss)
        fuses.save(directory)
        return cls(fuses, directory)

    @classmethod
    def open(cls, directory: Path | str) -> Package:
        """Switch on the package in ``directory``. Raises FusesError."""
        return cls(Fuses.load(directory), Path(directory))

    @property
    def fuses(self) -> Fuses:
        """The fuses in force."""
        return self._fuses

    @property
    def directory(self) -> Path | None:
        """Where the fuses are kept; None for a package that is in memory only."""
        return self._directory

    @property
    def kind(self) -> Kind:
        """``run`` or ``exec``."""
        return self._fuses.kind

    @property
    def cpu_svn(self) -> bytes:
        """The current CPUSVN, 16 bytes."""
        return self._fuses.cpu_svn

    @property
    def epc_pages(self) -> int:
        """The size of the EPC in pages."""
        return self._fuses.epc_pages

    @property
    def attributes_allowed(self) -> int:
        """ATTRIBUTES bits that ECREATE accepts."""
        return _einit.attributes_allowed(self._fuses)

    def microcode_update(self) -> None:
        """Raise the CPUSVN: older keys stay derivable, those of a later one are not. Raises FusesError."""
        self._change(self._fuses.microcode_update())

    def load_microcode(self, svn: int) -> None:
        """Microcode ``svn`` from now on: newer, or rolled back to an older one. Raises FusesError."""
        self._change(self._fuses.with_microcode(svn))

    def resize_epc(self, epc_pages: int) -> None:
        """Another EPC size, as when a VM changes its size. Raises FusesError."""
        self._change(replace(self._fuses, epc_pages=epc_pages).checked())

    def _change(self, fuses: Fuses) -> None:
        with self._lock:
            if self._directory is not None:
                fuses.save(self._directory, replace_existing=True)
            self._fuses = fuses

    def einit(self, sigstruct: bytes, secs: bytes, flags: int = 0) -> Identity:
        """EINIT (see ``machine.einit``). Raises LeafError, LeafFault, or StrongroomError for unknown
        ``flags``."""
        if flags & ~FLAG_PROVISION_ALLOWED:
            raise StrongroomError(f"EINIT flags {flags:#x} are not known")
        return _einit.einit(self._fuses, sigstruct, secs, bool(flags & FLAG_PROVISION_ALLOWED))

    def ereport(self, identity: Identity, targetinfo: bytes, reportdata: bytes) -> bytes:
        """EREPORT by ``identity`` for the enclave in ``targetinfo``: REPORT, 432 bytes. Raises LeafFault."""
        return _keys.ereport(self._fuses, identity, targetinfo, reportdata, self._report_key_id)

    def egetkey(self, identity: Identity, keyrequest: bytes) -> bytes:
        """EGETKEY by ``identity``: 16 bytes. Raises LeafError or LeafFault."""
        return _keys.egetkey(self._fuses, identity, keyrequest, self._fuses.launch_hash)

    @staticmethod
    def target_info(identity: Identity) -> Targetinfo:
        """The TARGETINFO that names ``identity``."""
        return _keys.target_info(identity)
