"""Pages from memory that was touched ahead are pages like others: measured, mapped, closed, evicted, given back."""

from __future__ import annotations

import images
import pytest
from native_machine import Machine


@pytest.mark.parametrize("warm", ["16:16", "64:0", "0:64", "4096:4096", "65536:1"])
def test_an_enclave_out_of_warm_memory(machine: Machine, warm: str) -> None:
    """As much, less, or more than its pages take."""
    for option in ((), ("--level", "separated"), ("--no-secretmem",)):
        code, out, err = machine.program(
            str(images.BUILD / "loader"), str(machine.image), str(machine.signature), "0", "41",
            options=("--warm", warm, *option),
        )  # fmt: skip
        assert (code, err) == (0, "")
        assert out.endswith("out 0x2a\n")


def test_what_the_program_will_see_waits_shut(machine: Machine) -> None:
    """As an enclave is until its first entry: a start does not have to shut it, page by page."""
    code, out, _ = machine.program("/bin/cat", "/proc/self/maps", options=("--warm", "96:80"))
    assert code == 0
    found: dict[str, list[str]] = {}
    for line in out.splitlines():
        addresses, rights, _, _, _, *name = line.split()
        begin, end = (int(word, 16) for word in addresses.split("-"))
        for pages, what in ((96, "/secretmem"), (80, "/memfd:sgx-epc")):
            if end - begin == pages * 4096 and name[:1] == [what]:
                found.setdefault(what, []).append(rights)
    assert sorted(found.pop("/memfd:sgx-epc")) == ["---s", "rw-s"]
    assert [sorted(rights) for rights in found.values()] in (
        [],
        [["---s", "rw-s"]],
    )  # no secret memory, or some


@pytest.mark.parametrize("warm", ["x", "1:2:3", "-1:1", "99999999:1"])
def test_a_number_of_pages_that_is_none(machine: Machine, warm: str) -> None:
    code, _, err = machine.program("/bin/true", options=("--warm", warm))
    assert code == 125
    assert err.startswith("usage: ")
