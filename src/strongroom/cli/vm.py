"""``strongroom vm``: virtual machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.cli._options import Json, Program, size_names, vm_names

if TYPE_CHECKING:
    from rich.table import Table

    from strongroom.vm.lifecycle import Machines
    from strongroom.vm.records import Vm

Name = Annotated[str, typer.Argument(help="The VM's name.", autocompletion=vm_names)]
NewName = Annotated[str, typer.Argument(help="The VM's name.")]
Force = Annotated[bool, typer.Option("--force", help="End the programs that run in it.")]


def _machines() -> Machines:
    from strongroom.cli._machines import machines

    return machines()


def _usage() -> dict[str, Any]:
    """EPC in use by VM, as the daemon counts it; nothing runs where no daemon runs."""
    from strongroom.machine import client

    try:
        answer = client.ask("usage", start=False).get("vms", {})
    except client.NoDaemon:
        return {}
    return answer if isinstance(answer, dict) else {}


def _facts(vm: Vm, usage: dict[str, Any]) -> dict[str, Any]:
    from strongroom.vm import sizes

    size = sizes.find(vm.size)
    own = usage.get(vm.name, {})
    return {
        "name": vm.name,
        "state": str(vm.state),
        "size": size.name,
        "vcpus": size.vcpus,
        "memory_gib": size.memory_gib,
        "sgx": 2 if size.sgx2 else 1,
        "epc_mib": size.epc_mib,
        "epc_used_mib": round(own.get("epc_used_pages", 0) / 256, 1),
        "programs": own.get("runs", 0),
        "created": vm.created.isoformat(timespec="seconds"),
        "folder": str(vm.folder),
    }


def _told(vm: Vm, done: str, json: bool) -> None:
    from strongroom.cli._output import print_json

    facts = _facts(vm, {})
    if json:
        print_json(facts)
    else:
        typer.echo(f"{vm.name}: {done} ({vm.size}, {facts['epc_mib']} MiB EPC, {vm.state})")


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """Last columns are left out, and named, where the terminal is too narrow: half a name or figure is none."""
    from rich.measure import Measurement

    from strongroom.cli._output import console

    screen, shown = console(), len(columns)
    table = _made(columns, rows)
    while (
        shown > 1
        and Measurement.get(screen, screen.options.update(max_width=1 << 16), table).maximum > screen.width
    ):
        shown -= 1
        table = _made(columns[:shown], rows)
    screen.print(table, crop=False, no_wrap=True, overflow="ignore")
    if shown < len(columns):
        screen.print(f"no room for: {', '.join(columns[shown:])}")


def _made(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[place], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*("-" if cell is None else str(cell) for cell in row[: len(columns)]))
    return table


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Virtual machines: each has a size, a processor package of its own, EPC, a disk.",
        no_args_is_help=True,
        epilog="Example: `strongroom vm create clinic --size Standard_DC4s_v2`",
    )
    app.add_typer(group, name="vm")
    _register_looking(group)
    _register_changing(group)

    @group.command(
        "exec",
        context_settings={"allow_interspersed_args": False},
        epilog="Example: `strongroom vm exec clinic -- ps ax`",
    )
    def exec_(
        name: Name,
        program: Program,
    ) -> int:
        """Run a program in a VM; its exit status is the program's (125: ours, 128+n: a signal)."""
        from strongroom.cli._exec import run_and_pass_status

        return run_and_pass_status(name, program, tamper=None)


def _register_looking(group: typer.Typer) -> None:
    @group.command(epilog="Example: `strongroom vm sizes --family DCSv2`")
    def sizes(
        family: Annotated[str, typer.Option("--family", help="Only families with this in their name.")] = "",
        json: Json = False,
    ) -> None:
        """The catalogue of sizes."""
        from dataclasses import asdict

        from strongroom.cli._output import print_json
        from strongroom.vm.sizes import CATALOGUE

        chosen = [size for size in CATALOGUE if family.lower() in size.family.lower()]
        if json:
            print_json([asdict(size) for size in chosen])
            return
        columns = ("size", "vCPU", "GiB", "EPC MiB", "SGX", "temp GiB", "disks", "IOPS", "MB/s", "NICs")
        rows: list[tuple[Any, ...]] = [
            (
                s.name,
                s.vcpus,
                s.memory_gib,
                s.epc_mib,
                1 + s.sgx2,
                s.temp_gib,
                s.data_disks,
                s.iops,
                s.mbps,
                s.nics,
            )
            for s in chosen
        ]
        _table(columns, rows)

    @group.command("list", epilog="Example: `strongroom vm list --json`")
    def list_(json: Json = False) -> None:
        """Every VM, with the EPC in use."""
        from strongroom.cli._output import print_json

        usage = _usage()
        facts = [_facts(vm, usage) for vm in _machines().records.all()]
        if json:
            print_json(facts)
        elif not facts:
            typer.echo("no VMs; `strongroom vm create NAME` makes one, `strongroom run` makes `default`")
        else:
            rows: list[tuple[Any, ...]] = [
                (f["name"], f["state"], f["size"], f"{f['epc_used_mib']} of {f['epc_mib']}", f["programs"])
                for f in facts
            ]
            _table(("name", "state", "size", "EPC MiB used", "programs"), rows)

    @group.command(epilog="Example: `strongroom vm show clinic`")
    def show(name: Name, json: Json = False) -> None:
        """All about one VM."""
        from strongroom.cli._output import print_json
        from strongroom.machine.package import Package

        vm = _machines().records.get(name)
        facts = _facts(vm, _usage()) | {"microcode": Package.open(vm.folder / "run").fuses.microcode}
        if json:
            print_json(facts)
            return
        for key, value in facts.items():
            typer.echo(f"{key.replace('_', ' '):<13} {value}")


def _register_changing(group: typer.Typer) -> None:
    @group.command(epilog="Example: `strongroom vm create clinic --size Standard_DC2s_v2`")
    def create(
        name: NewName,
        size: Annotated[
            str, typer.Option("--size", help="See `vm sizes`.", autocompletion=size_names)
        ] = "Standard_DC2s_v2",
        json: Json = False,
    ) -> None:
        """Make a VM; it runs at once."""
        _told(_machines().create(name, size), "created", json)

    @group.command(epilog="Example: `strongroom vm start clinic`")
    def start(name: Name, json: Json = False) -> None:
        """Start a stopped VM."""
        _told(_machines().start(name), "started", json)

    @group.command(epilog="Example: `strongroom vm stop clinic`")
    def stop(name: Name, json: Json = False) -> None:
        """Stop a VM; ends the programs that run in it."""
        _told(_machines().stop(name), "stopped", json)

    @group.command(epilog="Example: `strongroom vm restart clinic`")
    def restart(name: Name, json: Json = False) -> None:
        """Stop and start; the fuses and the disk stay."""
        _told(_machines().restart(name), "restarted", json)

    @group.command(epilog="Example: `strongroom vm resize clinic Standard_DC4s_v2`")
    def resize(
        name: Name,
        size: Annotated[
            str, typer.Argument(help="Another size of the same family.", autocompletion=size_names)
        ],
        json: Json = False,
    ) -> None:
        """Give a VM another size of its family."""
        _told(_machines().resize(name, size), "resized", json)

    @group.command(epilog="Example: `strongroom vm microcode clinic --svn 2 --recovery`")
    def microcode(
        name: Name,
        svn: Annotated[int, typer.Option("--svn", min=1, max=255, help="1 when a VM is made.")],
        recovery: Annotated[
            bool,
            typer.Option("--recovery", help="Publish that older microcode is out of date, for every VM."),
        ] = False,
        json: Json = False,
    ) -> None:
        """Rehearse a TCB recovery: load newer microcode into a VM, or roll it back.

        What was sealed before still opens; what is sealed since does not after a rollback. Quotes state the SVN as TCB
        component 2. `--recovery` makes this SVN the one that the TCB info asks for (`--svn 1` takes that back).
        """
        from strongroom import paths
        from strongroom.cli._output import print_json
        from strongroom.machine.pki import publish_recovery

        vm = _machines().microcode(name, svn)
        if recovery:
            publish_recovery(paths.home(), svn)
        if json:
            print_json(_facts(vm, {}) | {"microcode": svn, "recovery": recovery})
        else:
            typer.echo(
                f"{name}: microcode {svn}" + (", older is out of date from now on" if recovery else "")
            )

    @group.command(epilog="Example: `strongroom vm delete clinic`")
    def delete(name: Name, force: Force = False, json: Json = False) -> None:
        """Remove a VM and all that is in it: fuses, disk, sealed keys."""
        from strongroom.cli._output import print_json

        _machines().delete(name, force=force)
        if json:
            print_json({"name": name, "deleted": True})
        else:
            typer.echo(f"{name}: deleted")
