"""What is attacked: an enclave in a VM, or an ordinary process that holds the same marker, the control."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from strongroom.cli._attack_outcomes import Attempts
from strongroom.cli._projects import elrange_of, shipped
from strongroom.errors import StrongroomError

CALL_SECONDS = 30.0
_PREFIX = b"strongroom attack marker"


class Ordinary:
    """The control: attacks/ordinary.py, an ordinary Python process that holds the same marker; or another script."""

    level = "none"
    elrange = 0

    def __init__(self, script: str = "ordinary.py", *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sr-attack-")
        self._process = subprocess.Popen(
            [sys.executable, str(shipped("attacks") / script), *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=self._folder.name,
            process_group=0,  # Ctrl-C is this command's: the control ends with its standard input
        )  # fmt: skip
        self.pid = self._process.pid

    def ask(self, verb: str, seed: bytes) -> bytes:
        """Its answer. Raises StrongroomError where it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{verb} {seed.hex()}\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline().strip()
        except OSError as error:
            raise StrongroomError(f"the control ended ({error.strerror})") from error
        if not answer:
            raise StrongroomError("the control ended")
        return bytes.fromhex(answer) if verb in ("hold", "key") else answer.encode()

    def __enter__(self) -> Ordinary:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()


class Inside:
    """The enclave of attacks/target in a VM, and the process id that holds it, as this process sees it."""

    def __init__(self, built: Path, vm: str, level: str | None) -> None:
        from strongroom import Enclave

        self.elrange = elrange_of(built)
        before = programs(vm)
        self.box = Enclave(built, vm=vm, timeout=CALL_SECONDS)
        try:
            with forced_level(level):
                self.box.start()
            self.level = self.box.facts["level"]
            fresh = programs(vm) - before
            if len(fresh) != 1:
                raise StrongroomError(
                    f"{len(fresh)} new enclaves are seen, not 1",
                    "let nothing else run in the VM meanwhile",
                )
            (self.pid,) = fresh
        except BaseException:
            self.close()
            raise

    def ask(self, verb: str, seed: bytes) -> bytes:
        """The exported function's result. Raises StrongroomError."""
        answer: bytes = getattr(self.box, verb)(seed)
        return answer

    def close(self) -> None:
        with contextlib.suppress(StrongroomError):
            self.box.close()

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Target = Ordinary | Inside


@contextlib.contextmanager
def forced_level(level: str | None) -> Iterator[None]:
    """While this lasts, what is started runs at that level."""
    from strongroom.machine.level import ENVIRONMENT

    before = os.environ.get(ENVIRONMENT)
    if level:
        os.environ[ENVIRONMENT] = level
    try:
        yield
    finally:
        if level and before is None:
            del os.environ[ENVIRONMENT]
        elif level and before is not None:
            os.environ[ENVIRONMENT] = before


def programs(vm: str) -> set[int]:
    """Process ids of the enclaves that run in a VM of this STRONGROOM_HOME."""
    from strongroom.machine import client

    try:
        usage = client.ask("usage", start=False).get("vms", {})
    except client.NoDaemon:
        return set()
    return set(usage.get(vm, {}).get("programs", []))


def held(target: Target) -> tuple[bytes, bytes]:
    """Have the target hold a marker: (seed, marker). Raises StrongroomError."""
    seed = secrets.token_bytes(16)
    # Known to the attacker here so that it can be looked for; the target's process never got it, but made it.
    marker = hashlib.sha256(_PREFIX + seed).digest()
    if target.ask("hold", seed) != hashlib.sha256(marker).digest():
        raise StrongroomError("the target does not hold the marker")
    return seed, marker


@contextlib.contextmanager
def busy(target: Target, seed: bytes) -> Iterator[None]:
    """While this lasts the target computes with its marker."""
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(StrongroomError):
            while not ended.is_set():
                target.ask("use", seed)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def each_on_its_own(
    tried: Mapping[str, Callable[[Target], dict[str, str]]], start: Callable[[], Target]
) -> tuple[str, Attempts]:
    """Each attempt, by its name, on a target that was started for it; and the level that they had."""
    level, found = "?", []
    for name, attempt in tried.items():
        with start() as target:
            level = target.level
            found.append({**attempt(target), "name": name})
    return level, found


def level_of(forced: str | None) -> str:
    """The level that a run gets here."""
    from strongroom.machine import level

    return str(level.choose(level.find_facts(), forced or level.from_environment()))
