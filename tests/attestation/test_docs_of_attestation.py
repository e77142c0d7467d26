"""docs/attestation.md names every reason that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from strongroom.attestation import errors

ROOT = Path(__file__).resolve().parents[2]


def reasons(cls: type[errors.VerificationError]) -> set[str]:
    return {cls.reason}.union(*(reasons(sub) for sub in cls.__subclasses__()))


def test_every_reason_is_told() -> None:
    text = (ROOT / "docs" / "attestation.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`([a-z-]+)`", text.split("## Reasons")[1]))
    release = (ROOT / "src/strongroom/owner/releaser.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'ReleaseRefused\(\s*"([a-z-]+)"', release))
    assert codes
    missing = (reasons(errors.VerificationError) | codes) - told - {errors.PolicyError.reason}
    assert not missing
