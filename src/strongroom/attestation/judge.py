"""The independent verifier, which the base installation does without."""

from __future__ import annotations

import importlib
from typing import Any

from strongroom.errors import StrongroomError


def judge() -> Any:
    """The module ``dcap_qvl``. Raises StrongroomError where it is not installed."""
    try:
        return importlib.import_module("dcap_qvl")
    except ImportError as error:
        raise StrongroomError(
            "quotes are verified with dcap-qvl, which is not installed",
            "pip install 'strongroom[attestation]'",
        ) from error
