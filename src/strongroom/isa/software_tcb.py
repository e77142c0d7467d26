"""Names and numbers by which this project's own, software, platforms are told apart in Intel's formats.

Nothing of Intel's carries them: a hardware FMSPC begins with 00, ours spells "SOFT". They say what a quote came from
(``run`` or ``exec``) and which level held there, so that an owner refuses what they did not agree to.
"""

from __future__ import annotations

from typing import Final, Literal

Kind = Literal["run", "exec"]
Level = Literal["sealed", "separated", "faithful"]

FMSPC: Final[dict[Kind, bytes]] = {
    "run": b"SOFT\x00\x01",
    "exec": b"SOFT\x00\x02",
}
PCE_ID: Final = bytes(2)
PCE_SVN: Final = 1

LEVEL_SVN: Final[dict[Level, int]] = {"sealed": 3, "separated": 2, "faithful": 1}
"""SVN of TCB component 1. Component 2 is that of the microcode; the other fourteen are 0."""
FIRST_MICROCODE: Final = 1
"""The microcode's SVN in a package that was just made."""

ADVISORY_EXEC: Final = "STRONGROOM-EXEC"
ADVISORY_SEPARATED: Final = "STRONGROOM-SEPARATED"
ADVISORY_FAITHFUL: Final = "STRONGROOM-FAITHFUL"
ADVISORY_MICROCODE: Final = "STRONGROOM-MICROCODE"
"""Microcode older than what a rehearsed TCB recovery asks for."""
LEVEL_ADVISORY: Final[dict[Level, str | None]] = {
    "sealed": None,
    "separated": ADVISORY_SEPARATED,
    "faithful": ADVISORY_FAITHFUL,
}

QE_ISV_PROD_ID: Final = 1
QE_ISV_SVN: Final = 1
QE_USER_DATA: Final = b"STRONGROOM SOFTWARE\x00"
"""USER_DATA of every quote of ours: a dump of the bytes says it without any parser."""


def kind_of(fmspc: bytes) -> Kind | None:
    """``run`` or ``exec`` for an FMSPC of ours (6 bytes), None for anybody else's."""
    for kind, value in FMSPC.items():
        if value == fmspc:
            return kind
    return None
