"""A hostile loader (Iago): the enclave's calls are answered with lies, attacks/liar.c being the loader.

--argv (JSON) runs attacks/iago/victim.py, `{lie}` in it stands for the lie. With --control it is an ordinary process
and the lies are those of attacks/preload.c. A lie that the program believes, or that crashes it, is "got".
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess

from common import GOT, MET, NOT_TRIED, REFUSED, Attempt, report

FOR_EVER = "interrupted, or nothing yet, for ever"
"""The one attempt whose success is that the program does not end: the host denies service, as it always may."""
# Name of the attempt: (lie of the control, lies of the loader).
LIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "counts beyond what was asked, counts below nothing": (
        "long", ("read-more", "read-huge", "write-more", "read-minus", "read-lowest", "read-restart", "write-minus"),
    ),
    "short answers": ("short", ("read-one", "read-none", "write-one", "write-none")),
    FOR_EVER: (
        "interrupted", ("read-interrupted", "write-interrupted", "read-again", "write-again"),
    ),
    "pointers into the enclave, sizes that wrap": (
        "pointers", ("block-inside", "block-wraps", "pack-inside", "pack-wraps", "signals-inside", "strings-inside",
                     "strings-wrap", "thread-block-inside"),
    ),
    "descriptors that are another's": ("descriptors", ("descriptor-again", "descriptor-huge")),
    "sizes and addresses of nonsense": (
        "sizes", ("address-huge", "stat-minus", "stat-huge", "names-broken", "quote-huge", "quote-short"),
    ),
    "time that runs backwards, or is none": ("time", ("time-back", "time-nonsense")),
    "poll: ready what is not": ("poll", ("poll-all", "poll-more", "poll-minus")),
    "threads started twice, entries unasked": ("threads", ("thread-twice", "thread-denied", "entries")),
    "a measured file that changes while it is read": ("flips", ("pack-flips",)),
}  # fmt: skip
SECONDS = 60
ENDLESS_SECONDS = 15
SEGFAULT = 139


def told(words: list[str], lie: str, folder: str | None, seconds: int = SECONDS) -> tuple[str, str]:
    """(result, text) of one run."""
    environment = {**os.environ, "LIE": lie}
    try:
        done = subprocess.run(
            [word.replace("{lie}", lie) for word in words],
            capture_output=True, text=True, errors="replace", timeout=seconds, env=environment, cwd=folder, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        if seconds == ENDLESS_SECONDS:
            return GOT, f"{lie}: no end within {seconds} s, service is denied"
        return NOT_TRIED, f"{lie}: no end within {seconds} s"
    last = next((line for line in done.stdout.splitlines() if line.startswith("BELIEVED ")), "")
    believed = json.loads(last.removeprefix("BELIEVED ")) if last else []
    if believed:
        return GOT, f"{lie}: {believed[0]}"
    # The loader's own crash, of lies that cross its feet, is its own affair; the enclave's has its line.
    inside = done.returncode == SEGFAULT and "inside the enclave" in done.stderr
    if done.returncode < 0 or inside:
        return GOT, f"{lie}: crashed, status {done.returncode}"
    if last and lie == "none" and ("reads:" in done.stderr or "sockets:" in done.stderr):
        return NOT_TRIED, f"a step does not work: {done.stderr.strip()[-200:]}"
    if last:
        return MET, f"{lie}: went on, believed nothing"
    return REFUSED, f"{lie}: stopped with status {done.returncode}"


def attempt(name: str, words: list[str], lies: tuple[str, ...], folder: str | None) -> Attempt:
    seconds = ENDLESS_SECONDS if name == FOR_EVER else SECONDS
    answers = [told(words, lie, folder, seconds) for lie in lies]
    for result in (GOT, NOT_TRIED):
        of_it = [text for one, text in answers if one == result]
        if of_it:
            return Attempt(name, result, "; ".join(of_it))
    stopped = [text.split(":")[0] for one, text in answers if one == REFUSED]
    text = f"{len(lies)} of {len(lies)} lies, none believed ({', '.join(lies)})"
    return Attempt(name, REFUSED, text + (f"; stopped by {', '.join(stopped)}" if stopped else ""))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--argv", type=json.loads, required=True)
    parser.add_argument("--folder", help="where to run it")
    parser.add_argument("--control", action="store_true")
    given = parser.parse_args()
    place, state = told(given.argv, "none", given.folder)
    if place != MET:
        report(*(Attempt(name, NOT_TRIED, f"without a lie the program fails: {state}") for name in LIES))
    else:
        report(
            *(
                attempt(name, given.argv, (control,) if given.control else lies, given.folder)
                for name, (control, lies) in LIES.items()
            )
        )
