"""The hospital's example, start to end, by ``strongroom demo``: at each level that this machine gives."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.errors import StrongroomError
from strongroom.machine import client
from strongroom.machine import level as levels
from support.interpreter_image import need_runtime

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def runtime(strongroom_home: Path) -> Iterator[Path]:
    need_runtime()
    yield strongroom_home
    with contextlib.suppress(StrongroomError):
        client.ask("stop", start=False)


@pytest.mark.parametrize("level", ["sealed", "separated", "faithful"])
def test_records_are_scored_inside(runtime: Path, level: str) -> None:
    facts = levels.find_facts()
    order = ["sealed", "separated", "faithful"]
    if order.index(level) < order.index(str(levels.best(facts))):
        pytest.skip(f"level {level} is not to be had on this machine as this user")
    done = subprocess.run(
        [sys.executable, "-m", "strongroom", "demo", "--no-attacks", "--level", level, "--json"],
        capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["level"] == level
    assert said["report"]["patients"] == 569
    assert len(said["steps"]) == 7
    assert "wrong-enclave" in said["steps"][-1]["text"]


def _snippet() -> str:
    """The host's half of the README's two columns."""
    lines = (ROOT / "README.md").read_text().split("# score.py, inside")[1].split("```")[0].splitlines()
    column = next(line.index("from strongroom import") for line in lines if "from strongroom import" in line)
    return "\n".join(line[column:] for line in lines[1:]).rstrip()


def test_by_hand_as_its_readme_says(runtime: Path, tmp_path: Path) -> None:
    """The commands of the example's page as they stand there, then the README's snippet with the same owner."""
    for place in (tmp_path, *tmp_path.parents[:2]):
        place.chmod(0o755)
    shutil.copytree(
        ROOT / "examples" / "records",
        tmp_path / "examples" / "records",
        ignore=shutil.ignore_patterns("build", "__pycache__", "model.enc"),
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    page = (ROOT / "examples" / "records" / "README.md").read_text()
    words = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert words is not None
    snippet = (
        "from pathlib import Path\n"
        f'owner_url, sealed_records = "http://127.0.0.1:{port}", Path("owner/records.enc").read_bytes()\n'
        f'{_snippet()}\nPath("again.enc").write_bytes(report)\n'
    )
    (tmp_path / "snippet.py").write_text(snippet)
    script = words[1].replace("8700", port).replace("kill $!", "python snippet.py\nkill $!")
    done = subprocess.run(
        ["bash", "-euc", f"{script}python examples/records/data_owner.py compare owner again.enc"], cwd=tmp_path,
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"patients": 569') == 2
    assert done.stderr.count("released records to") == 2
