"""What a leaf function answers: a result, an SGX error code or a fault; and the enclave it answers about."""

from __future__ import annotations

from dataclasses import dataclass

from strongroom.errors import StrongroomError
from strongroom.isa.leaves import SgxError, Vector


class LeafError(StrongroomError):
    """The leaf completes with an error code in RAX (SDM vol. 3D, Table 40-4)."""

    def __init__(self, code: SgxError, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code


class LeafFault(StrongroomError):
    """The leaf raises an exception instead of completing."""

    def __init__(self, vector: Vector, reason: str) -> None:
        super().__init__(f"#{vector.name}: {reason}")
        self.vector = vector


@dataclass(frozen=True, slots=True)
class Identity:
    """What EINIT commits to SECS: the enclave as EREPORT and EGETKEY see it. ``attributes`` has INIT set."""

    attributes: int
    xfrm: int
    miscselect: int
    mrenclave: bytes
    mrsigner: bytes
    isv_prod_id: int
    isv_svn: int
    config_id: bytes = bytes(64)
    config_svn: int = 0
    isv_family_id: bytes = bytes(16)
    isv_ext_prod_id: bytes = bytes(16)
