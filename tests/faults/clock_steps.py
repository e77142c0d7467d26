"""Steps CLOCK_REALTIME under a running enclave, and prints what it saw. For a guest: it sets the clock.

An enclave that ticks (sleeps, timed waits, an encrypted mount, a quote), a host part that calls one, `vm list`, a
second run, a quote that is made and verified: at each place of the clock. One line of JSON a step; status 1 when a tick
is missing, a wait is off, or CLOCK_MONOTONIC went backwards.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from strongroom import Enclave

YEAR = 365 * 86400
TICKER = """
import json, os, queue, select, sys, threading, time
from strongroom.inside import quote

def timed(what):
    begin = time.monotonic()
    what()
    return time.monotonic() - begin

condition, last, n = threading.Condition(), 0.0, 0
while True:
    n += 1
    with condition:
        waits = [
            timed(lambda: time.sleep(0.1)),
            timed(lambda: threading.Event().wait(0.1)),
            timed(lambda: condition.wait(0.1)),
            timed(lambda: select.select([], [], [], 0.1)),
        ]
    now = time.monotonic()
    with open("/vault/new", "w") as file:
        file.write(f"{n} {time.time()}")
    os.replace("/vault/new", "/vault/now")
    with open("/vault/now") as file:
        kept = int(file.read().split()[0]) == n
    print(json.dumps({
        "n": n, "back": now < last, "least": min(waits), "most": max(waits), "wall": time.time(),
        "mono": now, "kept": kept, "quote": len(quote(b"x" * 64)),
    }), flush=True)
    last = now
"""
CALLED = """
from strongroom.inside import export
import time

@export
def wait(seconds: float) -> float:
    begin = time.monotonic()
    time.sleep(seconds)
    return time.monotonic() - begin
"""
PLAIN = '[enclave]\nmain = "main.py"\nmemory = "24M"\nthreads = 4\n'
VAULT = '[files]\n"/vault" = "encrypted:sealed:store"\n'
MANIFESTS = {"ticker": PLAIN + VAULT, "called": PLAIN, "once": PLAIN + VAULT}
ONCE = 'open("/vault/once", "a").write("x"); print(len(open("/vault/once").read()))'
STRONGROOM = [sys.executable, "-m", "strongroom"]


def project(place: Path, name: str, program: str) -> Path:
    folder = place / name
    (folder / "store").mkdir(parents=True)
    (folder / "store").chmod(0o777)  # the enclave has a user of its own
    (folder / "enclave.toml").write_text(MANIFESTS[name])
    (folder / "main.py").write_text(program)
    return folder


def said(*words: str) -> dict[str, object]:
    done = subprocess.run([*STRONGROOM, *words], capture_output=True, text=True, timeout=300, check=False)
    return {"status": done.returncode, "out": done.stdout[-300:], "err": done.stderr[-400:]}


class Ticker:
    """The enclave that ticks, its lines read as they come."""

    def __init__(self, project: Path) -> None:
        self.process = subprocess.Popen([*STRONGROOM, "run", project], stdout=subprocess.PIPE, text=True)
        self.ticks: list[dict[str, float]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.ticks.append(json.loads(line))

    def more(self, count: int) -> list[dict[str, float]]:
        """The next ticks, from their begin on."""
        begin, deadline = len(self.ticks) + 1, time.monotonic() + 60
        while len(self.ticks) < begin + count:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the ticker stands still: status {self.process.poll()}")
            time.sleep(0.1)
        return self.ticks[begin : begin + count]


def main(place: Path) -> int:
    for name, program in (("ticker", TICKER), ("called", CALLED), ("once", ONCE)):
        if not (place / name).is_dir():
            subprocess.run(
                [*STRONGROOM, "build", project(place, name, program)], check=True, capture_output=True
            )
    if sys.argv[2:] == ["build"]:
        return 0
    said(
        "run", str(place / "once")
    )  # starts the daemon: two at once take long where the processor is emulated
    begin, started, good = time.time(), time.monotonic(), True
    ticker = Ticker(place / "ticker")
    with Enclave(place / "called") as box:
        ticker.more(1)
        for name, offset in (
            ("a year back, before the certificates' start", -YEAR),
            ("a year forward", YEAR),
            ("as it was", 0),
            ("25 years forward, beyond the end of all certificates but the root's", 25 * YEAR),
            ("as it was, at the end", 0),
        ):
            time.clock_settime(time.CLOCK_REALTIME, begin + offset + time.monotonic() - started)
            ticks = ticker.more(4)
            waited = box.wait(0.2)
            quote = place / "quote"
            made = said(
                "quote", str(place / "called"), "--out", str(quote), "--collateral", str(place / "collateral")
            )
            fine = (
                all(
                    not t["back"] and t["kept"] and t["quote"] > 4000 and 0.099 < t["least"] <= t["most"] < 20
                    for t in ticks
                )
                and 0.19 < waited < 20
            )
            good &= fine
            step = {
                "step": name,
                "date": str(datetime.datetime.now(datetime.UTC)),
                "fine": fine,
                "inside": str(datetime.datetime.fromtimestamp(ticks[-1]["wall"], datetime.UTC)),
                "waits": [
                    round(min(t["least"] for t in ticks), 3),
                    round(max(t["most"] for t in ticks), 3),
                    round(waited, 3),
                ],
                "vm list": said("vm", "list", "--json"),
                "daemon": said("daemon", "status", "--json"),
                "second run": said("run", str(place / "once")),
                "quote": made,
                "verify": said(
                    "verify", str(quote), "--root", "software", "--collateral", str(place / "collateral")
                ),
            }
            print(json.dumps(step), flush=True)
    numbers = [t["n"] for t in ticker.ticks]
    good &= numbers == list(range(1, len(numbers) + 1))
    ticker.process.terminate()
    print(json.dumps({"ticker": ticker.process.wait(60), "ticks": len(numbers), "good": good}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
