"""What a run that paged says at its end: how much went in and out, what it cost, which size would hold it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from strongroom.machine import protocol
from strongroom.machine.epc import Usage
from strongroom.machine.launch import PAGING as PAGING
from strongroom.machine.protocol import Message
from strongroom.vm import sizes


def to_message(usage: Usage) -> Message:
    """The fields of the daemon's last message for a run."""
    return {
        "epc_peak_pages": usage.peak,
        "epc_demand_pages": usage.demand,
        "evicted": usage.evicted,
        "loaded": usage.loaded,
        "paging_microseconds": round(usage.seconds * 1e6),
        "refused": usage.refused,
    }


def holding(demand_pages: int, size_name: str) -> sizes.Size | None:
    """The smallest size of the same family whose EPC holds ``demand_pages``, else of any; None: none does."""
    own = sizes.find(size_name)
    mib = -(-demand_pages // 256)
    same = sizes.smallest_holding(mib, own.family)
    return same or min(
        (one for one in sizes.CATALOGUE if one.epc_mib >= mib), key=lambda one: one.epc_mib, default=None
    )


def sentence(evicted: int, paging_seconds: float, seconds: float, demand_pages: int, size_name: str) -> str:
    """``evicted 41,212 pages, 4.1 s of 6.0 s; Standard_DC4s_v2 would hold it``. Seconds of several threads add up."""
    size = holding(demand_pages, size_name)
    held = f"{size.name} would hold it" if size else "no size would hold it"
    if size is not None and size.name == sizes.find(size_name).name:
        held = f"alone it would fit in {size.name}, which it shared with other programs"
    return f"evicted {evicted:,} pages, {paging_seconds:.1f} s of {seconds:.1f} s; {held}"


def refusal(demand_pages: int, size_name: str) -> str:
    """What a run says that was refused a page: needed, available, the next size."""
    own, size = sizes.find(size_name), holding(demand_pages, size_name)
    larger = size is not None and size.epc_mib > own.epc_mib
    step = f"{size.name} would hold it" if size and larger else "end other programs of the VM"
    return (
        f"no EPC page was to be had: at least {demand_pages / 256:.1f} MiB needed, {own.epc_mib} MiB in {own.name}, "
        f"and nothing more could be evicted; {step}"
    )


def from_messages(messages: Iterable[Message]) -> dict[str, int]:
    """The sums of several processes' fields (at once or one after the other: what would hold them all at once)."""
    told = [{name: protocol.number(message, name, 0, 2**62, 0) for name in PAGING} for message in messages]
    return {name: sum(one[name] for one in told) for name in PAGING}


def line(told: Mapping[str, int], seconds: float, size_name: str, as_json: bool) -> str | None:
    """What to say at the end of a run that took ``seconds``; None where nothing was evicted or refused."""
    if not told["evicted"] and not told["refused"]:
        return None
    if as_json:
        size = holding(told["epc_demand_pages"], size_name)
        facts = {**told, "seconds": round(seconds, 3), "size_that_holds_it": size and size.name}
        return json.dumps(facts)
    if told["refused"]:
        return f"strongroom: {refusal(told['epc_demand_pages'], size_name)}"
    spent = told["paging_microseconds"] / 1e6
    return f"strongroom: {sentence(told['evicted'], spent, seconds, told['epc_demand_pages'], size_name)}"
