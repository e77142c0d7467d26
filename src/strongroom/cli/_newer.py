"""One line where a project's sources are newer than its image: `run` and the like use what was built."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tell(folder: Path, facts: Mapping[str, Any], as_json: bool = False) -> None:
    """On standard error; ``folder`` and ``facts``: the image's, and its enclave.json."""
    from strongroom.cli._output import complain
    from strongroom.image import sources

    if path := sources.newer(folder, facts):
        if as_json:
            print(json.dumps({"newer_than_image": str(path)}), file=sys.stderr, flush=True)
        else:
            complain(f"{path} is newer than the image built of it: run `strongroom build {folder.parent}`")


def tell_of(given: Path) -> None:
    """The same for what a verb was given: a project, its image's folder, or something else, which has no sources."""
    from strongroom.errors import StrongroomError
    from strongroom.machine import launch

    if given.name == "enclave.json":
        given = given.parent
    for folder in (given, given / "build"):
        if (folder / "enclave.sgxs").is_file():
            try:
                tell(folder, launch.facts_of(folder))
            except StrongroomError:
                pass  # the verb itself says what is wrong with it
            return
