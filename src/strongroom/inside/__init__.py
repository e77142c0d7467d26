"""What a program imports inside an enclave: export functions, prove what runs, seal, ask the owner for a key.

Needs nothing of ours outside this package, and ``cryptography`` only once keys are used. Each name is loaded when it is
asked for: a program that uses none of it starts as fast as without.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from strongroom.inside.calls import export, serve
    from strongroom.inside.device import Attestation, quote, report
    from strongroom.inside.errors import CodecError, DeviceError, InsideError, KeyRefused, RecordError
    from strongroom.inside.records import RecordKey
    from strongroom.inside.release import Owner, owner
    from strongroom.inside.sealing import seal, unseal

__all__ = [
    "Attestation",
    "CodecError",
    "DeviceError",
    "InsideError",
    "KeyRefused",
    "Owner",
    "RecordError",
    "RecordKey",
    "export",
    "owner",
    "quote",
    "report",
    "seal",
    "serve",
    "unseal",
]

_MODULES = {
    "calls": ("export", "serve"),
    "device": ("Attestation", "quote", "report"),
    "errors": ("CodecError", "DeviceError", "InsideError", "KeyRefused", "RecordError"),
    "records": ("RecordKey",),
    "release": ("Owner", "owner"),
    "sealing": ("seal", "unseal"),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            import importlib

            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
