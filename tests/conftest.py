"""What every test gets: a STRONGROOM_HOME of its own, and nothing left behind at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

_session_home: str | None = None


def pytest_configure(config: pytest.Config) -> None:
    """Move STRONGROOM_HOME away from the user's before anything is imported that might look at it."""
    global _session_home
    # Short, or the paths of sockets in it would not fit sun_path.
    _session_home = tempfile.mkdtemp(prefix="sr-test-")
    os.environ["STRONGROOM_HOME"] = _session_home
    # pytest's own temporary folders are one tree a user: a second pytest would take our rights to it away.
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ:
        temporary = Path(_session_home) / "t"
        temporary.mkdir()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(temporary)
    Path(_session_home).chmod(0o755)
    # No time limit an example: the machine may be busy with something else.
    # `make fuzz` raises the number of examples where a test names none of its own.
    examples = 100 * int(os.environ.get("STRONGROOM_FUZZ", "1"))
    hypothesis.settings.register_profile(
        "tests", deadline=None, max_examples=examples, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("tests")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _session_home is not None:
        shutil.rmtree(_session_home, ignore_errors=True)


@pytest.fixture(autouse=True)
def strongroom_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty STRONGROOM_HOME for one test (the folder is not made: the program makes it)."""
    parent = tempfile.mkdtemp(prefix="sr-", dir=_session_home)
    path = Path(parent) / "h"
    monkeypatch.setenv("STRONGROOM_HOME", str(path))
    yield path
    shutil.rmtree(parent, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count the skips by their reason: a skip is work that was not done, so it is said."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section(f"{sum(reasons.values())} skipped")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5}  {reason}")
