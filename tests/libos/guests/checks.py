"""Runs the ``check_*`` functions of a guest: one JSON line each."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping


def run(namespace: Mapping[str, object]) -> None:
    for name, function in list(namespace.items()):
        if not name.startswith("check_"):
            continue
        assert isinstance(function, Callable)  # type: ignore[arg-type]
        said = ""
        try:
            function()
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error} (line {place.lineno}: {place.line})"
        print(json.dumps({"check": name.removeprefix("check_"), "said": said}), flush=True)
