"""Run an enclave image in a VM: the client's half. ``run`` is the command's, ``spawn`` the host API's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from strongroom.errors import FormatError, StrongroomError
from strongroom.machine import client, level, protocol
from strongroom.machine.protocol import Message
from strongroom.machine.waiting import readable

DEFAULT_VM = "default"
FAILED = 125
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# SIGSTRUCT.ENCLAVEHASH: SDM vol. 3D, table "Layout of Enclave Signature Structure".
_ENCLAVEHASH_AT = 960
_SIGSTRUCT_SIZE = 1808
PAGING = ("epc_peak_pages", "epc_demand_pages", "evicted", "loaded", "paging_microseconds", "refused")
"""Fields of the daemon's last message that tell what a run did with the EPC."""
_PREPARE_SECONDS = 120.0  # the first run makes the VM `default` and its certificates


class NotBuilt(StrongroomError):
    """The folder holds no built image."""


@dataclass
class Image:
    """An image's open files and what has to be known to start it. Use as a context manager."""

    descriptors: list[int]
    mrenclave: bytes
    facts: dict[str, Any]
    folder: Path
    binds: list[tuple[int, str, bool]] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        protocol.close_all(self.descriptors)
        protocol.close_all(number for number, _, _ in self.binds)


def open_image(build_dir: Path) -> Image:
    """Open ``build_dir`` (an image's folder, or its project's). Raises NotBuilt, FormatError."""
    _refuse_file(build_dir)
    folder = build_dir
    if not (folder / "enclave.sgxs").exists() and (folder / "build").is_dir():
        folder = folder / "build"
    descriptors: list[int] = []
    try:
        for name in ("enclave.sgxs", "enclave.sig", "files.pack"):
            descriptors.append(os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC))
        sigstruct = os.pread(descriptors[1], _SIGSTRUCT_SIZE + 1, 0)
        if len(sigstruct) != _SIGSTRUCT_SIZE:
            raise FormatError(
                f"{folder / 'enclave.sig'} is not a SIGSTRUCT", f"run `strongroom build {build_dir}` again"
            )
        facts = _facts(folder / "enclave.json")
        mrenclave = sigstruct[_ENCLAVEHASH_AT : _ENCLAVEHASH_AT + 32]
        image = Image(descriptors, mrenclave, facts, folder)
        _open_binds(image)
        return image
    except OSError as error:
        protocol.close_all(descriptors)
        raise NotBuilt(
            f"{build_dir} has no built image ({error.strerror}: {Path(str(error.filename)).name})",
            f"run `strongroom build {build_dir}`",
        ) from error
    except StrongroomError:
        protocol.close_all(descriptors)
        raise


def facts_of(build_dir: Path) -> dict[str, Any]:
    """enclave.json of an image (``build_dir``: its folder, or its project's). Raises NotBuilt, FormatError."""
    _refuse_file(build_dir)
    found = _facts((build_dir / "build" if (build_dir / "build").is_dir() else build_dir) / "enclave.json")
    if "epc_size" not in found:
        raise NotBuilt(f"{build_dir} has no built image", f"run `strongroom build {build_dir}`")
    return found


def _refuse_file(given: Path) -> None:
    """For who names the program: to build that would be of no help."""
    if given.is_file():
        raise NotBuilt(f"{given} is a file", f"name the project's folder, {given.parent}")


@dataclass(frozen=True)
class Demand:
    """What an image asks of an EPC, in pages: at its start, of them never evicted, at most later."""

    pages: int
    pinned: int
    most: int
    sgx2: bool


def demand_of(facts: Mapping[str, Any]) -> Demand:
    """From ``facts_of``: the builder's word, with the SECS."""
    pages = 1 + _pages(facts, "epc_size")
    sgx2 = _needs_sgx2(facts)
    heap = facts.get("heap")
    more = _pages(heap, "size") if sgx2 and isinstance(heap, dict) else 0  # EDMM adds the heap as it is used
    return Demand(pages, _pinned(facts), pages + more, sgx2)


def _facts(path: Path) -> dict[str, Any]:
    """enclave.json, which is for tools: nothing that is trusted comes from it. Empty where it is missing."""
    try:
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON", "run `strongroom build` again") from error
    return facts if isinstance(facts, dict) else {}


def _open_binds(image: Image) -> None:
    """Open the host files that the manifest allows, as the user who asks: the VM sees these and no others."""
    mounts = image.facts.get("mounts", [])
    if not isinstance(mounts, list):
        return
    for mount in mounts:
        host = mount.get("host_path") if isinstance(mount, dict) else None
        if not isinstance(host, str) or not host:
            continue
        path = Path(os.path.normpath(image.folder.parent.resolve() / host))
        try:
            if not path.exists() and str(mount.get("kind")).startswith("encrypted"):
                path.mkdir(mode=0o700, parents=True)
            number = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            protocol.close_all(number for number, _, _ in image.binds)
            raise StrongroomError(
                f"{path}, {mount.get('path')} inside, cannot be opened ({error.strerror})",
                "make it, or correct its line under [files] in enclave.toml",
            ) from error
        image.binds.append((number, os.fspath(path), True))


def _request(
    image: Image,
    vm: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    forced: str | None,
    timing: bool,
) -> Message:
    return {
        "vm": vm,
        "level": forced or level.from_environment() or "",
        "arguments": list(arguments),
        "environment": [f"{name}={value}" for name, value in environment.items()],
        "epc_pages": _pages(image.facts, "epc_size"),
        "measured_pages": _pages(image.facts, "measured_size"),
        "timing": int(timing),
        "pinned_pages": _pinned(image.facts),
        "sgx2": int(_needs_sgx2(image.facts)),
        "cwd": os.fspath(image.folder.parent.resolve()),
        "binds": [target for _, target, _ in image.binds],
        "writable": sum(1 << place for place, (_, _, writable) in enumerate(image.binds) if writable),
    }


def _pages(facts: Mapping[str, Any], name: str) -> int:
    """A size of the image in pages, where its builder says so; the processor counts in any case."""
    value = facts.get(name, 0)
    return -(-value // 4096) if isinstance(value, int) and 0 <= value < 2**50 else 0


def _pinned(facts: Mapping[str, Any]) -> int:
    """Pages that are never evicted, where the builder says so: the SECS and each thread's TCS."""
    regions = facts.get("regions")
    if not isinstance(regions, list):
        return 0
    sizes = [one.get("size") for one in regions if isinstance(one, dict) and one.get("pages") == "tcs"]
    return 1 + sum(size // 4096 for size in sizes if isinstance(size, int) and 0 <= size < 2**50)


def _needs_sgx2(facts: Mapping[str, Any]) -> bool:
    manifest = facts.get("manifest")
    return isinstance(manifest, dict) and manifest.get("edmm") is True


def _allowed_environment(facts: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """Of ``given`` what the manifest lists; the LibOS checks again."""
    manifest = facts.get("manifest")
    names = manifest.get("env_allowed") if isinstance(manifest, dict) else None
    if not isinstance(names, list):
        return {}
    return {name: given[name] for name in names if isinstance(name, str) and name in given}


def headline(level_name: str, vm: str, mrenclave: bytes) -> str:
    """The one line on standard error."""
    return f"strongroom: {level_name} · VM {vm} · MRENCLAVE {mrenclave.hex()}"


class Spawned:
    """A program that runs (or is about to) in a VM. ``wait`` gives its status; closing it ends it."""

    def __init__(self, connection: client.Connection, ready: Message, mrenclave: bytes) -> None:
        self._connection = connection
        self._lock = threading.RLock()  # a signal may come while another one is told
        self.level = protocol.text(ready, "level", 16)
        self.vm = protocol.text(ready, "vm", 64)
        self.size = protocol.text(ready, "size", 64)
        self.mrenclave = mrenclave
        self.status: int | None = None
        self.paging: dict[str, int] = {}
        """Once it ended: EPC pages at most, needed, evicted and loaded, microseconds that went into it."""

    def go(self) -> None:
        """Let it start. Raises Closed."""
        self._connection.say({"op": "go"})

    def signal(self, number: int) -> None:
        with contextlib.suppress(StrongroomError), self._lock:
            self._connection.say({"signal": number})

    def wait(self, timeout: float | None = None, woken: int | None = None) -> int | None:
        """The exit status (128+n for a signal), or None after ``timeout`` seconds. Raises RemoteError, Closed.

        ``woken``: what is readable when a signal has come (``_forwarding``).
        """
        if self.status is None:
            sock = self._connection.sock.fileno()
            watched = [sock] if woken is None else [sock, woken]
            while sock not in (found := readable(watched, timeout)):
                if woken is None or not found:
                    return None
                os.read(woken, 64)  # its handler has run, or does so now
            try:
                message, descriptors = self._connection.reply(None)
            except protocol.Closed as error:
                raise StrongroomError(
                    "the daemon ended while the program ran",
                    "see `strongroom daemon status` and run it again",
                ) from error
            protocol.close_all(descriptors)
            self.status = protocol.number(message, "exit", 0, 255)
            self.paging = {name: protocol.number(message, name, 0, 2**62, 0) for name in PAGING}
        return self.status

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def prepare(
    image: Image,
    vm: str = DEFAULT_VM,
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    stdio: tuple[int, int, int] = (0, 1, 2),
    channel: int | None = None,
    forced: str | None = None,
    timing: bool = False,
    guard: bool = False,
) -> Spawned:
    """Ask the daemon for a run; ``go`` starts it. Raises RemoteError, NoDaemon, Closed.

    ``timing``: the loader says on standard error when each step of the start was done (for the benchmarks).
    ``guard``: a tracer of ours stays attached to it.
    """
    given = os.environ if environment is None else environment
    request = _request(image, vm, arguments, _allowed_environment(image.facts, given), forced, timing)
    request["guard"] = int(guard)
    descriptors = [*stdio, *image.descriptors]
    if channel is not None:
        request["channel"] = 1
        descriptors.append(channel)
    descriptors += [number for number, _, _ in image.binds]
    for attempt in range(3):
        connection = client.connect()
        try:
            connection.request("run", request, descriptors)
            ready, extra = connection.reply(_PREPARE_SECONDS)
            protocol.close_all(extra)
            return Spawned(connection, ready, image.mrenclave)
        except protocol.Closed:
            connection.close()
            if attempt == 2:  # else it was about to end, being idle
                raise
        except BaseException:
            connection.close()
            raise
    raise client.NoDaemon("the daemon ends", "try again")


@contextlib.contextmanager
def _forwarding(send: Callable[[int], None]) -> Iterator[int]:
    """While this lasts, what the terminal or others send here goes to the program.

    Python runs a handler between two instructions of its own: one that comes just before poll(2) would lie there until
    the program ends. The descriptor that this gives is readable then.
    """
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda n, _: send(n)) for number in FORWARDED}
    try:
        yield read
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(read)
        os.close(write)


def run(
    vm: str,
    build_dir: Path,
    arguments: Sequence[str] = (),
    *,
    forced: str | None = None,
    as_json: bool = False,
    guard: bool = False,
    on_begin: Callable[[Image], None] | None = None,
    on_end: Callable[[Spawned, float], None] | None = None,
) -> int:
    """``strongroom run``: the program's exit status (128+n for a signal). Raises StrongroomError for our failures.

    ``on_begin`` gets the image once the line is printed; ``on_end`` the run, ended, and the seconds that it took.
    """
    with open_image(build_dir) as image, prepare(image, vm, arguments, forced=forced, guard=guard) as spawned:
        facts = {"level": spawned.level, "vm": spawned.vm, "mrenclave": spawned.mrenclave.hex()}
        line = json.dumps(facts) if as_json else headline(spawned.level, spawned.vm, spawned.mrenclave)
        print(line, file=sys.stderr, flush=True)
        if on_begin is not None:
            on_begin(image)
        began = time.monotonic()
        with _forwarding(spawned.signal) as woken:
            spawned.go()
            status = spawned.wait(woken=woken)
        if on_end is not None:
            on_end(spawned, time.monotonic() - began)
    assert status is not None
    return status


def spawn(
    build_dir: Path,
    vm: str = DEFAULT_VM,
    arguments: Sequence[str] = (),
    *,
    channel: socket.socket | None = None,
    environment: Mapping[str, str] | None = None,
    stdio: tuple[int, int, int] = (0, 1, 2),
    forced: str | None = None,
) -> Spawned:
    """Start an image in ``vm`` for a host program that talks to it by ``channel`` (the enclave's end).

    ``channel`` stays the caller's, who closes it afterwards. Closing the result ends the enclave.
    """
    with open_image(build_dir) as image:
        spawned = prepare(
            image,
            vm,
            arguments,
            environment=environment,
            stdio=stdio,
            channel=None if channel is None else channel.fileno(),
            forced=forced,
        )
        try:
            spawned.go()
        except BaseException:
            spawned.close()
            raise
        return spawned
