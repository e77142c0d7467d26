"""Makes a VM's two software packages: ``run`` and ``exec`` have fuses (and certificates) of their own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from strongroom.vm.sizes import Size

if TYPE_CHECKING:
    from strongroom.machine.fuses import Kind
    from strongroom.machine.package import Package


def _open(folder: Path) -> Package:
    from strongroom.machine.package import Package  # with cryptography: late, as `vm list` needs neither

    return Package.open(folder)


class Fuses:
    """The Manufacturer of ``lifecycle``."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def manufacture(self, folder: Path, name: str, size: Size) -> None:
        """``folder/run`` and ``folder/exec``. Raises StrongroomError."""
        from strongroom.machine.package import Package
        from strongroom.machine.pki import provision

        kinds: tuple[Kind, ...] = ("run", "exec")
        for kind in kinds:
            Package.manufacture(folder / kind, kind, sgx2=size.sgx2, epc_pages=size.epc_pages)
            provision(self._home, folder / kind, kind)

    def microcode(self, folder: Path, svn: int) -> None:
        """Both packages get microcode ``svn``. Raises StrongroomError."""
        for part in ("run", "exec"):
            _open(folder / part).load_microcode(svn)

    def resize(self, folder: Path, size: Size) -> None:
        """The fuses stay; the EPC changes. Raises StrongroomError."""
        for part in ("run", "exec"):
            _open(folder / part).resize_epc(size.epc_pages)
