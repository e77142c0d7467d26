"""``strongroom daemon``: look at it, end it."""

from __future__ import annotations

import typer

from strongroom.cli._options import Json


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="The per-user daemon: it starts by itself and ends when idle.",
        epilog="Examples: `strongroom daemon status` · `strongroom daemon stop`",
        no_args_is_help=True,
    )
    app.add_typer(group, name="daemon")

    @group.command(epilog="Example: `strongroom daemon status --json`")
    def status(json: Json = False) -> int:
        """Whether it runs (status 0) or not (1), and since when."""
        from strongroom.cli._output import print_json
        from strongroom.machine import client

        try:
            facts = client.ask("status", start=False)
        except client.NoDaemon:
            if json:
                print_json({"running": False})
            else:
                typer.echo("no daemon runs; it starts by itself with the first `strongroom run`")
            return 1
        if json:
            print_json({"running": True, **facts})
        else:
            typer.echo(
                f"version {facts.get('version')}, process {facts.get('pid')}, for {facts.get('seconds')} s, "
                f"level {facts.get('level')}, {facts.get('runs')} programs running"
            )
        return 0

    @group.command(epilog="Example: `strongroom daemon stop`")
    def stop(json: Json = False) -> int:
        """End it, and with it every program in its VMs."""
        from strongroom.cli._output import print_json
        from strongroom.machine import client

        try:
            ended = client.stop_daemon()
        except client.NoDaemon:
            ended = 0
        if json:
            print_json({"running": False, "ended": ended})
        return 0
