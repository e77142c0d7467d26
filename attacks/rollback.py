"""A sealed folder is put back to an older state between two runs: does the program notice?

--folder is the folder on the host, --argv (JSON) runs attacks/vault/main.py, which counts its runs in it. SGX has no
monotonic counter: what is sealed is fresh only as long as the program, or somebody it asks, remembers.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from common import GOT, NOT_TRIED, REFUSED, Attempt, report


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=90, check=False)


def last(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or ["no word"])[-1]


def copied(source: Path, target: Path) -> Path:
    """A copy with the owners: a file that the enclave's user may not open would look like one that was refused."""
    shutil.copytree(source, target)
    for path in (source, *source.rglob("*")):
        facts = path.stat()
        os.chown(target / path.relative_to(source), facts.st_uid, facts.st_gid)
    return target


def attempts(folder: Path, words: list[str]) -> list[Attempt]:
    older, altered = "an older state of the sealed folder", "a byte of the sealed folder's files changed"
    first = run(words)
    if first.stdout != "run 1\n":
        reason = f"the program does not run before the attack: {last(first)}"
        return [Attempt(older, NOT_TRIED, reason), Attempt(altered, NOT_TRIED, reason)]
    with tempfile.TemporaryDirectory(prefix="sr-attack-") as place:
        copy = copied(folder, Path(place) / "older")
        second = run(words)
        shutil.rmtree(folder)
        copied(copy, folder)
        third = run(words)
    if second.stdout != "run 2\n":
        result = Attempt(older, NOT_TRIED, f"the program does not count: {last(second)}")
    elif third.stdout == "run 2\n":
        result = Attempt(older, GOT, "believed: the program counted its second run twice")
    else:
        result = Attempt(older, REFUSED, f"status {third.returncode}: {last(third)}")
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = bytearray(file.read_bytes())
        if data:
            data[-1] ^= 1  # of a digit: another digit
            file.write_bytes(data)
    done = run(words)
    if done.returncode == 0 and done.stdout.startswith("run "):
        return [result, Attempt(altered, GOT, f"believed: {done.stdout.strip()} after run 2")]
    return [result, Attempt(altered, REFUSED, f"status {done.returncode}: {last(done)}")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--argv", type=json.loads, required=True)
    given = parser.parse_args()
    report(*attempts(given.folder, given.argv))
