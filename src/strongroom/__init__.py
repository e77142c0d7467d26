"""Strongroom: confidential virtual machines, in software, on any Linux machine."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs 3 ms

if TYPE_CHECKING:
    from typing import Any

    from strongroom.host import Enclave, EnclaveError, EnclaveLost

__all__ = ["Enclave", "EnclaveError", "EnclaveLost", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Late: importing strongroom costs nothing until the host API is used.
    if name in ("Enclave", "EnclaveError", "EnclaveLost"):
        from strongroom import host

        return getattr(host, name)
    raise AttributeError(f"module 'strongroom' has no attribute {name!r}")
