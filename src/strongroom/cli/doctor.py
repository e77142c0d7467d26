"""``strongroom doctor``: what this machine offers, what is missing, what that costs, what gets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from strongroom.cli._options import Json, LevelOption

if TYPE_CHECKING:
    from strongroom.machine.checks import Check


def register(app: typer.Typer) -> None:
    @app.command(epilog="Examples: `strongroom doctor` · `strongroom doctor --level sealed --json`")
    def doctor(
        level: LevelOption = None,
        json: Json = False,
    ) -> int:
        """Which level this machine gives, and why not more. Status 1 where no enclave can run."""
        from strongroom.cli._output import print_json
        from strongroom.machine import checks
        from strongroom.machine import level as levels

        facts = levels.find_facts()
        chosen = levels.choose(facts, level or levels.from_environment())
        found = checks.all_checks(facts)
        able = all(check.ok for check in found if check.needed)
        if json:
            print_json(
                {
                    "level": chosen,
                    "best_level": levels.best(facts),
                    "keeps_out": levels.KEEPS_OUT[chosen],
                    "missing": [{"what": what, "remedy": how} for what, how in levels.missing(facts)],
                    "able": able,
                    "checks": [check.facts() for check in found],
                }
            )
        else:
            _print_tree(chosen, levels.KEEPS_OUT[chosen], found)
        return 0 if able else 1


def _print_tree(level: str, keeps_out: str, found: list[Check]) -> None:
    from rich.markup import escape
    from rich.tree import Tree

    from strongroom.cli._output import console

    tree = Tree(f"level [bold]{level}[/bold]: keeps out {keeps_out}")
    branches: dict[str, Tree] = {}
    for check in found:
        branch = branches.get(check.group)
        if branch is None:
            branch = branches[check.group] = tree.add(f"[bold]{check.group}[/bold]")
        mark = "[green]✔[/green]" if check.ok else "[red]✘[/red]" if check.needed else "[yellow]✘[/yellow]"
        leaf = branch.add(f"{mark} {escape(check.name)}: {escape(check.detail)}")
        if not check.ok:
            leaf.add(f"costs: {escape(check.cost)}")
            leaf.add(f"to get it: {escape(check.remedy)}")
    tree.add("It behaves like SGX; it does not protect like SGX.")
    console().print(tree)
