"""The heap that comes when it is used, against a host that moves pages behind its back: edmm_parts.c."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from asked import ENVIRONMENT, Asked

LOW, PAGE, CHUNK = 0x10000000, 0x1000, 0x10000
KEPT = 64 << 20


@pytest.fixture
def heap(sanitized: Callable[[str], Path], ask: Callable[..., Asked]) -> Callable[..., str]:
    started = ask(str(sanitized("edmm_parts")))

    def play(verb: str, first: int = 0, second: int = 0) -> str:
        return str(started(verb, f"{first:x}", f"{second:x}"))

    return play


def test_a_chunk_comes_at_once(heap: Callable[..., str]) -> None:
    assert heap("state", LOW) == "absent 0"
    assert heap("touch", LOW + 3 * PAGE) == "there"
    assert [heap("state", LOW + page * PAGE) for page in (0, 3, 15, 16)] == ["held 1"] * 3 + ["absent 0"]
    assert heap("fault", LOW - PAGE, 6) == "not mine"
    assert heap("fault", LOW, 0x16) == "not mine"  # an instruction fetch
    assert heap("fault", int(heap("high"), 16), 6) == "not mine"  # the table of chunks itself


def test_a_page_that_was_swapped_is_not_taken(heap: Callable[..., str]) -> None:
    """The host puts a fresh page, zero, in the place of one in use: accepted a second time, what was in it would be
    lost without a word. The enclave stands still in place of that; the control is the page that nobody swapped."""
    assert heap("touch", LOW) == "there"
    assert heap("swap", LOW) == "done"
    assert heap("touch", LOW) == "stands still"
    assert heap("state", LOW) == "pending 1"
    assert heap("touch", LOW + PAGE) == "there"
    assert heap("state", LOW + PAGE) == "held 1"


def test_a_page_that_is_not_as_new(heap: Callable[..., str]) -> None:
    """Pages that the host added before their turn are as good as others; one in another state ends the enclave."""
    heap("swap", LOW + 3 * PAGE)
    assert heap("touch", LOW) == "there"
    heap("trim", LOW + CHUNK + 3 * PAGE)
    assert heap("touch", LOW + CHUNK) == "lost"


def test_what_is_given_back_may_come_again(heap: Callable[..., str]) -> None:
    """More than 64 MiB that nobody uses leave, and are new when they come again: accepted once more, by right."""
    size = KEPT + 4 * CHUNK
    for at in range(LOW, LOW + size, CHUNK):
        heap("touch", at)
    heap("unused", LOW, LOW + KEPT)
    assert heap("state", LOW) == "held 1"  # kept
    heap("unused", LOW + KEPT, LOW + size)
    assert heap("state", LOW + KEPT) == "absent 1"
    assert heap("touch", LOW + KEPT) == "there"
    assert heap("state", LOW + KEPT) == "held 2"


def test_a_short_trim_leaves_whole_chunks(heap: Callable[..., str]) -> None:
    """The host stops amid a chunk: what went of it comes back, so that a chunk is there or not."""
    size = KEPT + 4 * CHUNK
    for at in range(LOW, LOW + size, CHUNK):
        heap("touch", at)
    heap("unused", LOW, LOW + KEPT)
    heap("trims", CHUNK + 5 * PAGE)
    heap("unused", LOW + KEPT, LOW + size)
    places = [LOW + KEPT + offset for offset in (0, CHUNK, CHUNK + 4 * PAGE, CHUNK + 5 * PAGE, 2 * CHUNK)]
    assert [heap("state", at) for at in places] == ["absent 1", "held 2", "held 2", "held 1", "held 1"]


def test_a_host_that_does_not_remove_what_was_trimmed(sanitized: Callable[[str], Path]) -> None:
    """A trimmed page that stays could be shown again as new: the LibOS goes no further."""
    size = KEPT + 4 * CHUNK
    lines = [f"touch {at:x} 0" for at in range(LOW, LOW + size, CHUNK)]
    lines += ["removes 0 0", f"unused {LOW:x} {LOW + size:x}"]
    done = subprocess.run(
        [str(sanitized("edmm_parts"))],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == "bug: the host did not remove a page that was trimmed"
