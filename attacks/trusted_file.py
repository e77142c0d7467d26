"""Attack 5: one byte of a file that the program reads is changed on the disk before it starts.

--file is changed (one bit of the first byte of --text in it), --argv (JSON) runs the program before and after, and its
output says whether the change was believed. The file is put back.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from common import GOT, MET, NOT_TRIED, REFUSED, Attempt, report


def run(words: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, capture_output=True, timeout=90, check=False)


def attempt(name: str, file: Path, text: bytes, words: list[str]) -> Attempt:
    """``text`` must be in the program's output before the change; ``file`` must hold it once or more."""
    whole = file.read_bytes()
    place = whole.find(text)
    if place < 0:
        return Attempt(name, NOT_TRIED, f"{file.name} does not hold the text in the clear")
    first = run(words)
    if first.returncode != 0 or text not in first.stdout:
        tail = first.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        return Attempt(
            name, NOT_TRIED, f"the unchanged program did not run (status {first.returncode}): {tail[0]}"
        )
    changed = bytes([text[0] ^ 0x01]) + text[1:]
    try:
        with file.open("r+b") as stream:
            stream.seek(place)
            stream.write(changed[:1])
        second = run(words)
    finally:
        with file.open("r+b") as stream:
            stream.seek(place)
            stream.write(text[:1])
    if changed in second.stdout:
        return Attempt(name, GOT, f"the program ran with the changed byte and said {changed.decode()!r}")
    if second.returncode != 0:
        tail = second.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        return Attempt(name, REFUSED, f"status {second.returncode}: {tail[0]}")
    return Attempt(name, MET, "the program ran, with the original byte")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--argv", type=json.loads, required=True)
    given = parser.parse_args()
    report(attempt("a trusted file changed by a byte", given.file, given.text.encode(), given.argv))
