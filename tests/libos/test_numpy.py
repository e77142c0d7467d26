"""numpy inside: a distribution with libraries, threads and alignments of its own."""

from __future__ import annotations

import pytest

from support.guests import Guests, Outcome, checks_of, outside

GUEST = "numpy_checks.py"


@pytest.fixture(scope="module")
def outcome(guests: Guests) -> Outcome:
    pytest.importorskip("numpy")
    return guests.checks(GUEST, 'packages = ["numpy"]\nmemory = "192M"\nthreads = 4\n')


@pytest.mark.parametrize("check", checks_of(GUEST))
def test_check(outcome: Outcome, check: str) -> None:
    outcome.assert_ok(check)


def test_end(outcome: Outcome) -> None:
    assert outcome.status == 0
    assert outcome.stderr.count("\n") == 1, outcome.stderr  # the run's own line


def test_control() -> None:
    pytest.importorskip("numpy")
    control = outside(GUEST)
    assert control.said == dict.fromkeys(checks_of(GUEST), ""), control.stderr
