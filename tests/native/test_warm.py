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


@pytest.mark.parametrize("warm", ["x", "1:2:3", "-1:1", "99999999:1"])
def test_a_number_of_pages_that_is_none(machine: Machine, warm: str) -> None:
    code, _, err = machine.program("/bin/true", options=("--warm", warm))
    assert code == 125
    assert err.startswith("usage: ")
