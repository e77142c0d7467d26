"""``strongroom fit DIR``: which VM sizes hold an image, and how much each pages; measured where that is asked for."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli._options import Json, Project
from strongroom.errors import StrongroomError

if TYPE_CHECKING:
    from strongroom.machine.launch import Demand
    from strongroom.vm.lifecycle import Machines
    from strongroom.vm.sizes import Size

PREFIX = "fit-"


@dataclass
class Row:
    """One size: ``verdict`` is ``holds``, ``pages`` or ``refused``; MiB that the image needs, and that have no room."""

    size: str
    epc_mib: int
    verdict: str
    text: str
    needs_mib: float
    missing_mib: float = 0.0
    measured: dict[str, Any] | None = field(default=None)


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command(
        epilog="Examples: `strongroom fit hello` · `strongroom fit hello --run -- --quick`",
    )
    def fit(
        directory: Project,
        arguments: Annotated[
            list[str] | None, typer.Argument(help="For the program, with --run.", metavar="-- ARGS")
        ] = None,
        run: Annotated[
            bool, typer.Option("--run", help="Run it in a VM of each size, deleted afterwards, and measure.")
        ] = False,
        json: Json = False,
    ) -> int:
        """Which VM sizes hold an image, and how much each pages, before it runs."""
        from strongroom.cli import _newer
        from strongroom.cli._output import print_json
        from strongroom.errors import UsageError
        from strongroom.machine import launch

        given = list(arguments or [])
        if given and not run:
            raise UsageError("arguments are for the program, which runs with --run only", "add --run")
        facts = launch.facts_of(directory)
        _newer.tell_of(directory)
        rows = judge(launch.demand_of(facts))
        if run:
            _refuse_sealed(facts)
            measure(directory, given, rows)
        if json:
            print_json([asdict(row) for row in rows])
        else:
            _print(rows, run)
        return int(any(row.measured is not None and row.measured["status"] != 0 for row in rows))


def judge(demand: Demand) -> list[Row]:
    """A row for each DCsv2 size and for the first DCsv3 size that holds the image (the largest, where none does).

    A heap that comes as it is used may never be whole: where it needs a larger size than the start, that one's too.
    """
    from strongroom.vm.sizes import CATALOGUE

    own = [size for size in CATALOGUE if not size.sgx2]
    larger = [size for size in CATALOGUE if size.sgx2 and size.family == "standardDCSv3Family"]
    first, whole = (
        next((size for size in larger if pages <= size.epc_pages), larger[-1])
        for pages in (demand.pages if demand.sgx2 else demand.most, demand.most)
    )
    return [_row(size, demand) for size in (*own, *dict.fromkeys((first, whole)))]


def _row(size: Size, demand: Demand) -> Row:
    def row(verdict: str, text: str, missing: int = 0) -> Row:
        return Row(size.name, size.epc_mib, verdict, text, _mib(demand.most), _mib(missing))

    missing = max(0, demand.most - size.epc_pages)
    if demand.sgx2 and not size.sgx2:
        return row("refused", "refused: edmm = true needs SGX2", missing)
    if demand.pinned > size.epc_pages:
        why = f"{_mib(demand.pinned)} MiB of TCSs and SECS cannot be evicted: make `threads` smaller"
        return row("refused", f"refused: {why}", missing)
    if demand.pages > size.epc_pages + size.memory_pages:
        why = f"{_mib(demand.pages)} MiB are more than its EPC and its {size.memory_gib} GiB of memory"
        return row("refused", f"refused: {why}", missing)
    if not missing:
        return row("holds", "holds it")
    text = f"pages: {_mib(missing)} MiB of {_mib(demand.most)} MiB do not fit at once"
    if demand.pages <= size.epc_pages:
        text += ", if it uses its whole heap"
    return row("pages", text, missing)


def _mib(pages: int) -> float:
    return round(pages / 256, 1)


def _refuse_sealed(facts: dict[str, Any]) -> None:
    """Files sealed by a VM that is deleted afterwards could be read by nobody."""
    mounts = facts.get("mounts")
    for mount in mounts if isinstance(mounts, list) else []:
        if isinstance(mount, dict) and str(mount.get("kind")) == "encrypted:sealed":
            raise StrongroomError(
                f"{mount.get('path')} is sealed to the VM that the image runs in, and these VMs are deleted",
                "leave out --run, or run it in a VM of yours: `strongroom run` tells at its end what was paged",
            )


# ---- measuring ----


def measure(directory: Path, arguments: list[str], rows: list[Row]) -> None:
    """Run the image once in a VM of each size that takes it; fills in ``measured``."""
    from strongroom.cli._output import console

    screen = console(stderr=True)
    with _ended_by_exception():
        machines = _machines()
        _sweep(machines)
        for number, row in enumerate(row for row in rows if row.verdict != "refused"):
            said = f"{row.size}: running"
            with screen.status(said) if screen.is_terminal else contextlib.nullcontext():
                with _temporary(machines, f"{PREFIX}{os.getpid()}-{number}", row.size) as vm:
                    row.measured = _once(directory, arguments, vm)


def _machines() -> Machines:
    from strongroom.cli._machines import machines

    return machines()


@contextlib.contextmanager
def _temporary(machines: Machines, name: str, size: str) -> Iterator[str]:
    """A VM for the time of the block. Ctrl-C while it is made or deleted waits until that is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    try:
        machines.create(name, size)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield name
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
            machines.delete(name, force=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sweep(machines: Machines) -> None:
    """VMs of a `fit` that was killed: their names hold its process id."""
    for vm in machines.records.all():
        number = vm.name.removeprefix(PREFIX).partition("-")[0] if vm.name.startswith(PREFIX) else ""
        if number.isdecimal() and not os.path.exists(f"/proc/{number}"):
            with contextlib.suppress(StrongroomError):
                machines.delete(vm.name, force=True)


_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def _ended_by_exception() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, with what it made taken back."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _once(directory: Path, arguments: list[str], vm: str) -> dict[str, Any]:
    """One run: its standard output is thrown away, its standard error is this command's."""
    from strongroom.machine import launch

    with launch.open_image(directory) as image, open(os.devnull, "r+b", buffering=0) as nothing:
        stdio = (nothing.fileno(), nothing.fileno(), sys.stderr.fileno())
        with launch.prepare(image, vm, arguments, stdio=stdio) as spawned:
            began = time.monotonic()
            spawned.go()
            status = spawned.wait()
            seconds = time.monotonic() - began
    told = spawned.paging
    return {
        "status": status,
        "seconds": round(seconds, 3),
        "paging_seconds": round(told["paging_microseconds"] / 1e6, 3),
        "evicted": told["evicted"],
        "loaded": told["loaded"],
        "needed_mib": _mib(told["epc_demand_pages"]),
    }


def _print(rows: list[Row], measured: bool) -> None:
    from rich.table import Table

    from strongroom.cli._output import console

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("size", no_wrap=True)
    table.add_column("EPC MiB", justify="right")
    table.add_column("")
    columns = ("needed MiB", "evicted", "loaded", "s paging", "s in all", "status") if measured else ()
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        cells = [row.size, str(row.epc_mib), row.text]
        told = row.measured
        if told is not None:
            cells += [
                f"{told['needed_mib']}",
                f"{told['evicted']:,}",
                f"{told['loaded']:,}",
                f"{told['paging_seconds']:.1f}",
                f"{told['seconds']:.1f}",
                f"{told['status']}",
            ]
        elif measured:
            cells += ["-"] * len(columns)
        table.add_row(*cells)
    console().print(table)
