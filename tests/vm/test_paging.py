"""Runs larger than the EPC: what the command says at the end, what the daemon refuses beforehand."""

from __future__ import annotations

import pytest

from strongroom.machine.epc import Epc
from strongroom.vm import paging, sizes
from strongroom.vm.limits import Limits
from strongroom.vm.live import EpcExhausted, LiveVm


def live(size: str) -> LiveVm:
    class Named:
        name = "clinic"

    chosen = sizes.find(size)
    return LiveVm(Named(), chosen, None, Epc(chosen.epc_pages, chosen.memory_pages), Limits())  # type: ignore[arg-type]


def test_what_paging_can_hold_is_let_in() -> None:
    vm = live("Standard_DC1s_v2")
    vm.demand(vm.size.epc_pages * 5, 1000)
    vm.demand(vm.size.epc_pages + vm.size.memory_pages)


def test_pages_that_cannot_be_evicted_must_fit() -> None:
    vm = live("Standard_DC1s_v2")
    with pytest.raises(EpcExhausted) as caught:
        vm.demand(20_000, 10_000)
    assert str(caught.value) == (
        "the enclave needs 39.1 MiB of EPC for pages that cannot be evicted; VM clinic (Standard_DC1s_v2) has 28 MiB: "
        "`strongroom vm resize clinic Standard_DC2s_v2`"
    )


def test_no_room_for_what_is_evicted_names_a_size() -> None:
    vm = live("Standard_DC1s_v2")
    with pytest.raises(EpcExhausted, match=r"needs 5120 MiB.*4 GiB of memory.*Standard_DC2s_v2`"):
        vm.demand(5 << 18)
    with pytest.raises(EpcExhausted, match="create a DCsv3 VM"):
        vm.demand(64 << 18)


def test_the_sentence() -> None:
    text = paging.sentence(41212, 4.1, 6.0, 100 * 256, "Standard_DC2s_v2")
    assert text == "evicted 41,212 pages, 4.1 s of 6.0 s; Standard_DC4s_v2 would hold it"
    assert paging.sentence(1, 0, 1, 200 * 256, "Standard_DC2s_v2").endswith("Standard_DC1s_v3 would hold it")
    none = dict.fromkeys(paging.PAGING, 0)
    assert paging.line(none, 1, "Standard_DC1s_v2", False) is None
    refused = {**none, "refused": 1, "epc_demand_pages": 40 * 256}
    assert paging.line(refused, 1, "Standard_DC1s_v2", False) == (
        "strongroom: no EPC page was to be had: at least 40.0 MiB needed, 28 MiB in Standard_DC1s_v2, and nothing more "
        "could be evicted; Standard_DC2s_v2 would hold it"
    )
    assert paging.holding(300 << 18, "Standard_DC2s_v2") is None
    shared = paging.sentence(9, 0.1, 1.0, 50 * 256, "Standard_DC2s_v2")
    assert shared.endswith("alone it would fit in Standard_DC2s_v2, which it shared with other programs")
