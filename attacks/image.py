"""A hostile image: pages, permissions, thread control structures and the signature are changed on the disk.

--folder holds the built image, --argv (JSON) runs it. Every variant has to be refused before the program says --text.
For an ordinary program (--script) the same idea: one byte of its code is changed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from common import GOT, NOT_TRIED, REFUSED, Attempt, report

RECORD, DATA = 64, 320
R, W, X, TCS = 1, 2, 4, 1
Change = Callable[[bytearray], None]


def run(words: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, capture_output=True, timeout=90, check=False)


def pages(image: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(place, offset, SECINFO flags, end) of each EADD with what belongs to it."""
    at = RECORD
    while at < len(image):
        offset, flags = struct.unpack_from("<QQ", image, at + 8)
        end = at + RECORD
        while end < len(image) and not image.startswith(b"EADD", end):
            end += DATA
        yield at, offset, flags, end
        at = end


def changes(image: bytes) -> dict[str, Change]:
    """What a host might do to an image, by name."""
    every = list(pages(image))
    code = next(one for one in every if one[2] & X and one[3] > one[0] + RECORD)
    data = next(one for one in every if not one[2] & X and one[2] >> 8 != TCS and one[3] > one[0] + RECORD)
    tcs = next(one for one in every if one[2] >> 8 & 0xFF == TCS)

    def flip(at: int) -> Change:
        def change(b: bytearray) -> None:
            b[at] ^= 1

        return change

    def put(at: int, layout: str, *values: int) -> Change:
        return lambda b: struct.pack_into(layout, b, at, *values)

    def swap(b: bytearray) -> None:
        first, second = struct.unpack_from("<Q", b, code[0] + 8), struct.unpack_from("<Q", b, data[0] + 8)
        struct.pack_into("<Q", b, code[0] + 8, *second)
        struct.pack_into("<Q", b, data[0] + 8, *first)

    def drop(b: bytearray) -> None:
        del b[data[0] : data[3]]

    def twice(b: bytearray) -> None:
        b[data[3] : data[3]] = b[data[0] : data[3]]

    def more(b: bytearray) -> None:
        free = max(one[1] for one in every) + 4096
        b += struct.pack("<8sQQ", b"EADD", free, 0x200 | R | W | X).ljust(RECORD, b"\0")

    def unmeasured(b: bytearray) -> None:
        b[data[0] : data[3]] = bytes(b[data[0] : data[3]]).replace(b"EEXTEND\0", b"UNMEASRD")

    entry = tcs[0] + RECORD + RECORD + 32
    return {
        "a byte of code": flip(code[0] + RECORD + RECORD + 7),
        "a byte of data": flip(data[0] + RECORD + RECORD + 7),
        "code made writable": put(code[0] + 16, "<Q", code[2] | W),
        "data made executable": put(data[0] + 16, "<Q", data[2] | X),
        "entry point moved": put(entry, "<Q", struct.unpack_from("<Q", image, entry)[0] + 1),
        "SSA frames added": put(tcs[0] + RECORD + RECORD + 28, "<I", 100),
        "two pages swapped": swap,
        "a page left out": drop,
        "a page added twice": twice,
        "a page more, RWX": more,
        "a page outside ELRANGE": put(data[0] + 8, "<Q", 1 << 46),
        "a page not measured": unmeasured,
        "ELRANGE doubled": lambda b: struct.pack_into("<Q", b, 12, 2 * struct.unpack_from("<Q", b, 12)[0]),
        "cut short": lambda b: b.__delitem__(slice(len(b) - DATA, None)),
    }


def of_image(folder: Path, words: list[str], text: bytes) -> list[Attempt]:
    name, other = "a changed image", "a changed signature structure"
    first = run(words)
    if text not in first.stdout:
        said = first.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        reason = f"the unchanged image did not run (status {first.returncode}): {said[0]}"
        return [Attempt(name, NOT_TRIED, reason), Attempt(other, NOT_TRIED, reason)]
    attempts = []
    image = (folder / "enclave.sgxs").read_bytes()
    sig = (folder / "enclave.sig").read_bytes()
    # SIGSTRUCT: SDM vol. 3D, table "Layout of Enclave Signature Structure".
    signature: dict[str, Change] = {
        f"byte {at} ({what})": (lambda b, at=at: b.__setitem__(at, b[at] ^ 1))
        for what, at in (("header", 0), ("modulus", 130), ("signature", 520), ("attributes", 928),
                         ("ENCLAVEHASH", 965), ("ISVSVN", 1026), ("Q1", 1050))
    }  # fmt: skip
    for title, file, whole, wanted in (
        (name, folder / "enclave.sgxs", image, changes(image)),
        (other, folder / "enclave.sig", sig, signature),
    ):
        ran, refused = [], 0
        for what, change in wanted.items():
            altered = bytearray(whole)
            change(altered)
            file.write_bytes(altered)
            done = run(words)
            if text in done.stdout:
                ran.append(what)
            elif done.returncode != 0:
                refused += 1
        file.write_bytes(whole)
        if ran:
            attempts.append(Attempt(title, GOT, f"the program ran with: {', '.join(ran)}"))
        else:
            attempts.append(
                Attempt(title, REFUSED, f"{refused} of {len(wanted)} variants refused: {', '.join(wanted)}")
            )
    return attempts


def of_script(script: Path, words: list[str], text: bytes) -> list[Attempt]:
    """Its code says another text after the change."""
    copy = script.with_suffix(".before")
    shutil.copy2(script, copy)
    whole = script.read_bytes()
    try:
        script.write_bytes(whole + b"\nprint('a line more')\n")
        done = run(words)
    finally:
        shutil.move(copy, script)
    ran = b"a line more" in done.stdout
    result = (GOT, "the program ran, with code that was not its own") if ran else (REFUSED, "it did not run")
    return [Attempt(name, *result) for name in ("a changed image", "a changed signature structure")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--script", type=Path)
    parser.add_argument("--text", required=True)
    parser.add_argument("--argv", type=json.loads, required=True)
    given = parser.parse_args()
    if given.script:
        report(*of_script(given.script, given.argv, given.text.encode()))
    else:
        report(*of_image(given.folder, given.argv, given.text.encode()))
