"""The main job: records encrypted by their owner, scored inside an enclave, the report back with the owner.

Three parties, each a process of its own: the data owner (examples/records/data_owner.py and
``python -m strongroom.owner``), the hospital's host part (examples/records/hospital.py), and the enclave that the
daemon starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from strongroom import paths
from strongroom.cli import _attack, _attack_outcomes, _attack_targets
from strongroom.cli._projects import project, shipped
from strongroom.errors import StrongroomError

VM = "clinic"
SIZE = "Standard_DC4s_v2"  # 112 MiB of EPC: Python with cryptography and 48 MiB of heap
STEP_SECONDS = 120
OWNERS = ("data", "model", "data_owner.py")  # what the hospital's copy of the example does not have


class Steps:
    """Says what is done while it is done, and keeps how long it took."""

    def __init__(self, progress: bool) -> None:
        self.done: list[dict[str, Any]] = []
        self._progress = progress

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[list[str]]:
        """One step; what is appended to the list is printed with its tick."""
        begin = time.monotonic()
        words: list[str] = []
        if self._progress:
            print(f"… {what}", end="\r" if sys.stdout.isatty() else "\n", flush=True)
        yield words
        seconds = round(time.monotonic() - begin, 2)
        self.done.append({"step": what, "seconds": seconds, "text": "; ".join(words)})
        if self._progress:
            print(f"✔ {what} ({seconds:.1f} s)" + "".join(f"\n    {word}" for word in words), flush=True)


def call(words: list[str | Path], environment: dict[str, str] | None = None) -> str:
    """Run one party's program to its end; its standard output. Raises StrongroomError with its last word."""
    try:
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            capture_output=True, text=True, errors="replace", timeout=STEP_SECONDS, check=False,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StrongroomError(
            f"{Path(words[0]).name} did not end within {STEP_SECONDS} s", "see `strongroom doctor`"
        ) from None
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no word"]
        raise StrongroomError(
            f"{Path(words[0]).name} ended with status {done.returncode}: {' / '.join(said[-3:])}"
        )
    return done.stdout


@contextlib.contextmanager
def owner(policy: Path) -> Iterator[str]:
    """The data owner's process, which releases the key; its URL."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "strongroom.owner", "serve", str(policy)],
            stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            ready = select.select([process.stdout], [], [], 30)[0]
            url = process.stdout.readline().strip() if ready else ""
            if not re.fullmatch(r"http://127\.0\.0\.1:\d+", url):
                errors.seek(0)
                raise StrongroomError(
                    f"the data owner's process did not start: {errors.read().strip()[-300:] or 'no word'}"
                )
            yield url
        finally:
            process.terminate()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()


def make_vm() -> str:
    """The VM, made where it is missing; a line on it. Raises StrongroomError."""
    for vm in json.loads(call(["-m", "strongroom", "vm", "list", "--json"])):
        if vm["name"] == VM:
            return f"{VM}, {vm['size']}, EPC {vm['epc_mib']} MiB: kept from before"
    call(["-m", "strongroom", "vm", "create", VM, "--size", SIZE])
    return f"{VM}, {SIZE}: made, with fuses of its own"


def score(folder: Path, example: Path, built: Path) -> tuple[str, dict[str, Any]]:
    """Owner's process, host part, enclave. Returns (the host part's line, the report)."""
    with owner(folder / "policy.toml") as url:
        line = call([
            example / "hospital.py", "--enclave", built, "--vm", VM, "--owner", url,
            "--model", folder / "model.enc", folder / "records.enc", folder / "report.enc",
        ])  # fmt: skip
    report: dict[str, Any] = json.loads(
        call([example / "data_owner.py", "compare", folder, folder / "report.enc"])
    )
    return line.strip(), report


def refused(folder: Path, example: Path, built: Path) -> str:
    """The same, where the owner names another measurement: the key must not come. Raises StrongroomError if it does."""
    policy = (folder / "policy.toml").read_text()
    other = folder / "other.toml"
    other.write_text(re.sub(r'(?<=mrenclave = \[")[0-9a-f]{64}', "0" * 64, policy))
    with owner(other) as url:
        try:
            call([
                example / "hospital.py", "--enclave", built, "--vm", VM, "--owner", url,
                "--model", folder / "model.enc", folder / "records.enc", folder / "stolen.enc",
            ])  # fmt: skip
        except StrongroomError as error:
            if "wrong-enclave" not in str(error) and "another enclave" not in str(error):
                raise
            return "refused, reason wrong-enclave: the owner did not release the key"
    raise StrongroomError("the owner released the key to an enclave that its policy does not name")


def run(level: str | None, *, attacks: bool, progress: bool) -> dict[str, Any]:
    """All of it. Raises StrongroomError at the first step that fails."""
    steps = Steps(progress)
    example = shipped("examples") / "records"
    with _attack_targets.forced_level(level), tempfile.TemporaryDirectory(prefix="sr-demo-") as temporary:
        folder = Path(temporary) / "owner"
        with steps.step("level of this machine") as words:
            from strongroom.machine.level import KEEPS_OUT, Level

            holds = _attack_targets.level_of(level)
            words.append(f"{holds}: keeps out {KEEPS_OUT[Level(holds)]}")
            words.append("it behaves like SGX; it does not protect like SGX")
        with steps.step("a confidential virtual machine") as words:
            words.append(make_vm())
        with steps.step("build: interpreter, libraries and program measured and signed"):
            built = project("examples/records", OWNERS)
        with steps.step(
            "data owner: keys made, records and model code encrypted (AES-256-GCM), enclave named in the policy"
        ) as words:
            from strongroom.machine.pki import Authority

            Authority.open(paths.home())
            image = built / "build" / "enclave.sgxs"
            mrenclave = call(
                [
                    example / "data_owner.py",
                    "prepare",
                    folder,
                    "--image",
                    image,
                    "--root",
                    "software",
                    "--level",
                    holds,
                ]
            )
            words.append(
                f"MRENCLAVE {mrenclave.strip()} (measured by the owner), root: this machine's SOFTWARE root, by name"
            )
        with steps.step(
            "hospital: enclave started, quotes checked, keys released, model imported, records scored inside"
        ) as words:
            line, report = score(folder, example, built)
            words.append(line)
        with steps.step(
            "data owner: report decrypted, byte-identical to the same program in the open"
        ) as words:
            words.append(
                f"{report['patients']} patients · accuracy {report['accuracy']} · "
                f"sensitivity {report['sensitivity']} · specificity {report['specificity']}"
            )
        with steps.step("another enclave asks for the key") as words:
            words.append(refused(folder, example, built))
        outcomes: list[_attack_outcomes.Outcome] = []
        if attacks:
            if progress:
                print("\nSix attacks, each beside an ordinary Python process as the control:", flush=True)
            outcomes = _attack.run_all(VM, level, [], progress=progress)
    promised = _attack_outcomes.as_promised(outcomes)
    if progress and attacks:
        print(
            "\n✔ every outcome is what this level promises"
            if promised
            else "\n✘ an outcome is not what this level promises"
        )
    return {
        "level": holds,
        "as_promised": promised,
        "steps": steps.done,
        "report": report,
        **({"attacks": _attack_outcomes.to_plain(outcomes)} if attacks else {}),
    }
