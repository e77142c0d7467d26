"""Protection keys: what threads outside get of an enclave's pages while one is inside; beside it, without the keys.

Where the processor has none, ``tests/faults/test_guest.py`` runs this file in a guest that has (``make faults``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import images
import pytest
from native_machine import Machine

FLAGS = Path("/proc/cpuinfo").read_text().split()
KEYS = {"pku", "ospke"} <= set(FLAGS)
need_keys = pytest.mark.skipif(
    not KEYS, reason="this processor has no protection keys: make machine, or make faults, runs it in a guest"
)
WITHOUT = ("--no-pkeys",)
WAYS = [
    (),
    ("--no-fsgsbase",),
    ("--no-secretmem",),
    ("--warm", "256:64"),
    ("--level", "separated"),
    ("--sgx2",),
]
ONES = "0xffffffffffffffff"


@pytest.fixture(scope="module")
def heap(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """An image with some pages of heap."""
    directory = tmp_path_factory.mktemp("heap")
    directory.chmod(0o755)
    image, signature = directory / "e.sgxs", directory / "e.sig"
    mrenclave = images.build_image(image, heap_pages=16)
    images.sign_image(mrenclave, signature, machine.signer)
    return replace(machine, image=image, signature=signature, mrenclave=mrenclave)


def told(machine: Machine, scenario: str, options: tuple[str, ...] = (), *more: str) -> list[str]:
    words = [str(images.BUILD / "keys"), scenario, str(machine.image), str(machine.signature)]
    code, out, err = machine.program(*words, hex(images.HEAP), *more, options=options)
    assert (code, err) == (0, ""), (code, out, err)
    return out.splitlines()


@need_keys
@pytest.mark.parametrize("options", WAYS)
def test_a_thread_outside_gets_the_abort_page_while_another_is_inside(
    heap: Machine, options: tuple[str, ...]
) -> None:
    assert told(heap, "outside", options) == [
        f"read {ONES}",
        f"another thread {ONES}",
        f"across two pages {ONES}",
        "of 64 copied 64 are ones",
        "by the kernel EFAULT",
        "inside 0x5ec7e7 0 0",
    ]


def test_without_keys_it_gets_what_is_there(heap: Machine) -> None:
    """The control: the same program, where the processor has no keys or they are not to be used."""
    assert told(heap, "outside", WITHOUT) == [
        "read 0x5ec7e7",
        "another thread 0x5ec7e7",
        "across two pages 0",
        "of 64 copied 0 are ones",
        "by the kernel taken",
        "inside 0xbad 0xbad0bad0bad 0x5",
    ]


@need_keys
@pytest.mark.parametrize("options", WAYS)
def test_an_enclave_at_work_sees_nothing_of_them(heap: Machine, options: tuple[str, ...]) -> None:
    """Neither the writes from outside nor the pages of ones that stand in its pages' place for an instruction."""
    assert told(heap, "storm", options) == ["bad inside 0 seen outside 0 accesses 1 alarms 1"]


def test_without_keys_its_work_is_spoilt(heap: Machine) -> None:
    assert told(heap, "storm", WITHOUT) == ["bad inside 1 seen outside 1 accesses 1 alarms 1"]


@need_keys
def test_a_program_that_steps_sees_one_step(heap: Machine) -> None:
    assert told(heap, "step") == ["own 0x3", f"enclave {ONES} steps 0"]


def test_a_program_that_steps_without_keys(heap: Machine) -> None:
    assert told(heap, "step", WITHOUT) == ["own 0x3", "enclave 0x5ec7e7 steps 0"]


@need_keys
def test_the_enclave_may_write_pkru(heap: Machine) -> None:
    assert told(heap, "wrpkru") == ["held 0x5ec7e7 denied outside 1", f"read {ONES}"] * 3


@need_keys
@pytest.mark.parametrize("options", [(), WITHOUT])
def test_the_programs_own_keys(heap: Machine, options: tuple[str, ...]) -> None:
    """SEGV_PKUERR (4) with its key; SEGV_MAPERR (1) where nothing is."""
    assert told(heap, "own", options) == [
        "signal 11 code 4 key 1", "value 0 then 5", "signal 11 code 1 key 0", "inside 0x5ec7e7",
    ]  # fmt: skip


@need_keys
def test_two_keys_of_the_process_are_taken(heap: Machine) -> None:
    with_keys, without = (int(told(heap, "count", options)[0]) for options in ((), WITHOUT))
    assert without - with_keys == 2


@need_keys
def test_a_write_while_a_thread_is_inside_disables_the_enclave(heap: Machine) -> None:
    """With --tamper=disable: the next entry is refused, as to a page that was lost."""
    lines = told(heap, "outside", ("--tamper=disable",), "lost")
    assert lines[:2] == [f"read {ONES}", f"another thread {ONES}"]
    assert lines[-1].startswith("fault vector 14 error 0x8005"), lines
