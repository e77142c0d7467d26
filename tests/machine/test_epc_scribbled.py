"""The EPC's counters are in memory that every guest of the VM may write: the daemon stays in bounds all the same."""

from __future__ import annotations

import mmap
import os
import random
import struct
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.machine import epc
from strongroom.machine.epc import Epc

WORDS = st.sampled_from((0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)) | st.integers(0, 2**64 - 1)


@pytest.fixture(scope="module")
def counters() -> Iterator[Epc]:
    made = Epc(500, 900)
    yield made
    made.close()


@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(st.integers(0, 24) | st.integers(0, epc.SIZE // 8 - 1), WORDS), min_size=1, max_size=12
    ),
)
def test_any_content(counters: Epc, count: int, scribbles: list[tuple[int, int]]) -> None:
    slots = [counters.take_slot() for _ in range(count)]
    with mmap.mmap(counters.descriptor, epc.SIZE) as page:
        for at, word in scribbles:
            struct.pack_into("<Q", page, at * 8, word)
        assert 0 <= counters.used_pages() <= 500
        for slot in slots:
            usage = counters.usage(slot)
            assert 0 <= usage.used <= 500 and 0 <= usage.peak <= 500
            assert all(0 <= n <= 2**62 for n in (usage.demand, usage.evicted, usage.loaded, usage.seconds))
            counters.give_back(slot)
            assert 0 <= counters.used_pages() <= 500
        assert counters.used_pages() == 0
        assert struct.unpack_from("<QQQI", page, 0) == (epc.MAGIC, 500, 900, 0), "made anew"


def test_no_guest_changes_its_size(counters: Epc) -> None:
    for size in (0, 4096, 1 << 30):
        with pytest.raises(PermissionError):
            os.ftruncate(counters.descriptor, size)


def test_a_slot_scribbled_while_it_is_given_back(counters: Epc) -> None:
    over = threading.Event()

    def scribble() -> None:
        chance = random.Random(5)
        with mmap.mmap(counters.descriptor, epc.SIZE) as page:
            while not over.is_set():
                struct.pack_into("<Q", page, chance.randrange(8, 60) * 8, chance.getrandbits(64))

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(300):
            slot = counters.take_slot()
            counters.give_back(slot)
            assert 0 <= counters.used_pages() <= 500
    finally:
        over.set()
        thread.join()
    counters.give_back(counters.take_slot())
    assert counters.used_pages() == 0
