"""Hibernates while a marker lies in memory. For a guest of tools/machine with a disk: the machine stops.

hibernation.py plain|PROJECT DEVICE SEED: the marker, made from the seed, in a plain process or in an enclave of that
project. Prints what the kernel said; where it hibernates, nothing comes after that, and the device has the image.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HOLDER = """
import sys, time
marker = b"MARKER-" + bytes(65 + byte % 26 for byte in bytes.fromhex(sys.argv[1]))
print("ready", flush=True)
time.sleep(600)
"""


def main(what: str, device: str, seed: str) -> int:
    subprocess.run(["mkswap", device], check=True, capture_output=True)
    subprocess.run(["swapon", device], check=True)
    words = (
        [sys.executable, "-c", HOLDER, seed]
        if what == "plain"
        else [sys.executable, "-m", "strongroom", "run", what, "--", seed]
    )
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n", "no marker is in memory"
            print("states:", Path("/sys/power/state").read_text().strip(), flush=True)
            for file, word in (("disk", "shutdown"), ("state", "disk")):
                try:
                    Path("/sys/power", file).write_text(word)
                    print(f"{word} in /sys/power/{file}: accepted", flush=True)
                except OSError as error:
                    print(f"{word} in /sys/power/{file}: {error.strerror} (errno {error.errno})", flush=True)
        finally:
            process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
