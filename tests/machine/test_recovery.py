"""A rehearsed TCB recovery in the software PKI: what is published, and damaged files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.errors import StrongroomError
from strongroom.machine.pki import RECOVERY_FILE, Authority, publish_recovery, tcb_levels


def test_levels_before_and_after() -> None:
    before = tcb_levels("run")
    assert [row["tcbStatus"] for row in before] == ["UpToDate", "ConfigurationNeeded", "ConfigurationNeeded"]
    after = tcb_levels("run", 3)
    assert [row["tcbStatus"] for row in after] == [
        "UpToDate", "ConfigurationNeeded", "ConfigurationNeeded",
        "OutOfDate", "OutOfDateConfigurationNeeded", "OutOfDateConfigurationNeeded",
    ]  # fmt: skip
    svns = [row["tcb"]["sgxtcbcomponents"][1]["svn"] for row in after]
    assert svns == [3, 3, 3, 1, 1, 1]
    assert all("STRONGROOM-MICROCODE" in row["advisoryIDs"] for row in after[3:])


def test_published_and_taken_back(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    assert Authority.open(tmp_path, now).microcode == 1
    publish_recovery(tmp_path, 7)
    publish_recovery(tmp_path, 6)
    authority = Authority.open(tmp_path, now)
    assert authority.microcode == 6
    assert '"tcbEvaluationDataNumber":6' in authority.collateral("run", now)["tcb_info"]
    publish_recovery(tmp_path, 1)
    assert Authority.open(tmp_path, now).microcode == 1
    assert not (tmp_path / "pki" / RECOVERY_FILE).exists()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"microcode": 0}', '{"microcode": 256}', '{"microcode": "2"}']
)
def test_damaged(tmp_path: Path, text: str) -> None:
    Authority.open(tmp_path)
    (tmp_path / "pki" / RECOVERY_FILE).write_text(text)
    with pytest.raises(StrongroomError, match=r"tcb-recovery\.json is damaged"):
        Authority.open(tmp_path)
