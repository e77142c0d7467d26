"""What `run --guard` costs: a call of the host's from inside, without and with the tracer. Prints one line of each.

.venv/bin/python tools/guard_cost.py [--vm NAME]
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CALLS, ROUNDS = 4000, 3
MANIFEST = '[enclave]\nmain = "main.py"\nmemory = "16M"\n[files]\n"/host" = "allowed:shared"\n'
PROGRAM = f"""
import os, time
file = os.open("/host/byte", os.O_RDONLY)
for _ in range({ROUNDS}):
    begin = time.monotonic()
    for _ in range({CALLS}):
        os.pread(file, 1, 0)
    print((time.monotonic() - begin) / {CALLS} * 1e6)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vm", default="default")
    vm = parser.parse_args().vm
    command = [sys.executable, "-m", "strongroom"]
    with tempfile.TemporaryDirectory(prefix="sr-guard-") as folder:
        place = Path(folder)
        (place / "shared").mkdir()
        (place / "shared" / "byte").write_bytes(b"1")
        (place / "enclave.toml").write_text(MANIFEST)
        (place / "main.py").write_text(PROGRAM)
        for made in (place, place / "shared"):
            made.chmod(0o755)
        subprocess.run([*command, "build", str(place)], check=True, capture_output=True)
        for guard in ([], ["--guard"]):
            words = [*command, "run", "--vm", vm, *guard, str(place)]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            times = [float(word) for word in re.findall(r"^[\d.]+$", done.stdout, re.MULTILINE)]
            print(
                f"{'with --guard' if guard else 'without':13} {statistics.median(times):7.1f} µs a host call"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
