"""Build hook of the wheel: compiles the C parts and packs them as ``strongroom/_native/``.

An editable install takes the parts from ``build/native`` instead (``strongroom.paths``), where ``make build`` puts
them. On other systems than Linux x86-64 the wheel carries no C part: measuring and verifying need none.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PARTS = ("libstrongroom-processor.elf", "strongroom-inject", "libos.elf", "strongroom-loader")


class NativeParts(BuildHookInterface):  # type: ignore[type-arg]
    """Runs ``make`` in ``native/`` and ``libos/`` and adds what they make to the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or self.target_name != "wheel":
            return
        if platform.system() != "Linux" or platform.machine() != "x86_64":
            return
        root = Path(self.root)
        out = root / "build" / "native"
        out.mkdir(parents=True, exist_ok=True)
        jobs = f"-j{min(os.cpu_count() or 1, 4)}"
        for folder in ("native", "libos"):
            subprocess.run(["make", "-C", folder, jobs, f"BUILD={out}"], cwd=root, check=True)
        for name in PARTS:
            part = out / name
            if not part.is_file():
                raise RuntimeError(f"{part} was not made: the wheel would lack it")
            build_data["force_include"][str(part)] = f"strongroom/_native/{name}"
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"  # the C parts are static and know no Python
