"""Code made at run time: another process looks for it by /proc/PID/mem, and changes it.

``--do look`` searches the page at --place and all that the machine's library has mapped for the number in the code;
``--do change`` overwrites it wherever it is found, and the page itself where it is found nowhere.
"""

from __future__ import annotations

import argparse
import os

import common
from common import GOT, REFUSED, Attempt

PAGE = 4096
NUMBER_AT = 2  # behind the instruction's first bytes


def places(pid: int, place: int) -> list[int]:
    """Pages that may hold the code: its own, and those of the library's views."""
    views = [one for one in common.mappings(pid) if one.path.startswith(common.BACKING)]
    return list({place: None} | {at: None for one in views for at in range(one.start, one.end, PAGE)})


def attempt(pid: int, place: int, word: bytes, do: str) -> Attempt:
    """Raises OSError where the process's memory cannot even be opened."""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDWR)
    last = "nothing is mapped there"
    found: list[int] = []
    try:
        for at in places(pid, place):
            try:
                if os.pread(descriptor, 8, at + NUMBER_AT) == word:
                    found.append(at)
            except OSError as error:
                last = common.why(error) if at == place else last
        if do == "look":
            text = f"the code, in {len(found)} places" if found else f"not found; its page: {last}"
            return Attempt(do, GOT if found else REFUSED, text)
        landed = 0
        for at in found or [place]:
            try:
                landed += os.pwrite(descriptor, bytes(byte ^ 0xFF for byte in word), at + NUMBER_AT) == 8
            except OSError as error:
                last = common.why(error)
    finally:
        os.close(descriptor)
    if landed:
        return Attempt(do, GOT, f"{landed} writes landed")
    return Attempt(do, REFUSED, f"found in {len(found)} places, no write landed: {last}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--place", type=int, required=True)
    parser.add_argument("--word", type=bytes.fromhex, required=True)
    parser.add_argument("--do", choices=("look", "change"), required=True)
    given = parser.parse_args()
    try:
        common.report(attempt(given.pid, given.place, given.word, given.do))
    except OSError as error:
        common.report(Attempt(given.do, REFUSED, common.why(error)))
