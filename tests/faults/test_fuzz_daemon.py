"""The daemon's protocol under random messages, descriptors, half clients and floods: it serves on and loses nothing.

Seeded; ``make fuzz`` takes STRONGROOM_FUZZ times as many.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import random
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strongroom
from strongroom.errors import StrongroomError
from strongroom.machine import protocol
from strongroom.vm.runs import RunRequest
from support.fuzzing import FACTOR
from support.house import House, Parts
from support.vm import wait_until

pytestmark = pytest.mark.fuzz
SEED = int(os.environ.get("STRONGROOM_SEED", "1"))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
FIELDS = ("vm", "level", "arguments", "environment", "epc_pages", "measured_pages", "pinned_pages", "sgx2", "cwd",
          "binds", "writable", "channel", "timing")  # fmt: skip


@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(protocol.ProtocolError):
        assert isinstance(protocol.parse(data), dict)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON | st.lists(st.sampled_from(("/a", "A=b", "/", "..", "x\0")))),
       st.integers(0, 12))  # fmt: skip
def test_any_request_is_parsed_or_refused(request: dict[str, Any], count: int) -> None:
    try:
        parsed = RunRequest.parse(request, list(range(count)))
    except protocol.ProtocolError:
        return
    assert all(target.startswith("/") and "\0" not in target for _, target, _ in parsed.binds)
    assert 0 <= parsed.pinned_pages <= 2**40


class Peer:
    """Clients of one daemon that keep to no rule."""

    def __init__(self, path: str, chance: random.Random, project: Path) -> None:
        self.path, self.chance = path, chance
        self.files = [str(project / "build" / name) for name in ("enclave.sgxs", "enclave.sig", "files.pack")]
        self.open: list[socket.socket] = []

    def connect(self) -> socket.socket:
        kind = socket.SOCK_SEQPACKET
        sock = socket.socket(socket.AF_UNIX, kind)
        sock.settimeout(5)
        sock.connect(self.path)
        return sock

    def value(self) -> Any:
        chance = self.chance
        return chance.choice((
            None, True, 0, 1, -1, 2**31, 2**63, 2**200, 1.5, "", "x", "default", "no-such-vm", "../x", "\0", "é" * 50,
            "faithful", "sealed", "/", "/tmp", [], ["work", "0", "3000"], ["A=b"], ["/x/../y"], ["\0"], [1], {},
            {"a": []}, "x" * 5000, ["y"] * 5000,
        ))  # fmt: skip

    def request(self) -> dict[str, Any]:
        chance = self.chance
        operation = chance.choice(("status", "usage", "vm_stop", "vm_idle", "run", "run", "exec", "what", ""))
        message: dict[str, Any] = {
            "op": operation,
            "version": strongroom.__version__,
            "protocol": protocol.PROTOCOL,
        }
        if operation in ("run", "exec"):
            message["vm"] = "default"
        if operation == "run":
            message["arguments"] = ["work", "0", "3000"]
        for _ in range(chance.choice((0, 0, 1, 2, 5))):
            message[chance.choice((*FIELDS, "op", "version", "protocol", "id", "extra"))] = self.value()
        if message["op"] == "stop":
            message["op"] = ""
        return message

    def descriptors(self) -> list[int]:
        count = self.chance.choice((0, 0, 1, 6, 6, 6, 7, 32, 40))
        names = ["/dev/null"] * 3 + self.files + ["/dev/zero", "/", "/proc/self/status"] * 12
        return [os.open(name, os.O_RDONLY if name != "/dev/null" else os.O_RDWR) for name in names[:count]]

    def once(self) -> None:
        chance = self.chance
        sock = self.connect()
        what = chance.randrange(5)
        if what == 0:
            data = chance.randbytes(chance.choice((0, 1, 100, 5000)))
        elif what == 1:
            data = json.dumps(self.value()).encode()
        else:
            data = json.dumps(self.request()).encode()
            if what == 2:
                data = data[: chance.randrange(len(data) + 1)]
        numbers = self.descriptors()
        try:
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))] if numbers else []
            for _ in range(chance.choice((1, 1, 1, 2, 5))):
                with contextlib.suppress(OSError):
                    sock.sendmsg([data], control)
        finally:
            protocol.close_all(numbers)
        then = chance.randrange(4)
        if then == 0:
            sock.close()
        elif then == 1:
            self.open.append(sock)  # neither reads nor goes
        else:
            with sock, contextlib.suppress(OSError):
                sock.settimeout(2)
                answer, extra, _, _ = socket.recv_fds(sock, protocol.MAX_MESSAGE, 40)
                protocol.close_all(extra)
                if answer:
                    assert isinstance(json.loads(answer), dict)
                    if then == 3:
                        sock.send(b'{"op":"go"}')

    def release(self) -> None:
        for sock in self.open:
            sock.close()
        self.open.clear()


def _daemon(house: House) -> int:
    return next(one.pid for one in house.processes() if one.role == "daemon")


def _held(pid: int) -> tuple[int, int]:
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))


def _works(house: House, parts: Parts) -> None:
    done = house.command("run", str(parts.project), "--", "work", "0", "3000")
    assert done.returncode == 0, done.stderr
    house.settle()


def test_random_clients(own_house: House, parts: Parts) -> None:
    house = own_house
    _works(house, parts)
    daemon = _daemon(house)
    before = _held(daemon)
    peer = Peer(str(house.home / "daemon.sock"), random.Random(SEED), parts.project)
    for number in range(120 * FACTOR):
        peer.once()
        if len(peer.open) > 60 or number % 40 == 39:
            peer.release()
            assert json.loads(house.command("daemon", "status", "--json").stdout)["pid"] == daemon
    peer.release()
    house.settle()
    house.assert_true()
    assert _daemon(house) == daemon
    _works(house, parts)
    wait_until(lambda: _held(daemon)[0] <= before[0] + 24 and _held(daemon)[1] <= before[1] + 4, 30)
    log = (house.home / "daemon.log").read_text()
    assert "Traceback" not in log, log[-3000:]


def test_a_flood_of_connections(own_house: House, parts: Parts) -> None:
    """More than the daemon takes: the others are told so, those that run go on, and afterwards all is well."""
    house = own_house
    _works(house, parts)
    daemon = _daemon(house)
    running = house.start("run", str(parts.project), "--", "work", "3000", "3000")
    wait_until(lambda: "begun" in running.text if running.out.exists() else False)
    silent: list[socket.socket] = []
    refused = 0
    for _ in range(300):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(0.05)
        try:
            sock.connect(str(house.home / "daemon.sock"))
        except OSError:
            sock.close()
            continue
        silent.append(sock)
    for sock in silent:
        with contextlib.suppress(OSError):
            refused += b"too many clients" in sock.recv(4096)
    assert refused
    for sock in silent:
        sock.close()
    house.wait([running])
    assert running.status == 0, running.text
    wait_until(lambda: house.command("daemon", "status").returncode == 0)
    assert _daemon(house) == daemon
    _works(house, parts)


def test_slow_clients_are_sent_away(own_house: House, parts: Parts) -> None:
    _works(own_house, parts)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(own_house.home / "daemon.sock"))
        sock.settimeout(20)
        began = time.monotonic()
        assert sock.recv(4096) == b""
        assert 3 < time.monotonic() - began < 15


@pytest.mark.skipif(os.geteuid() != 0, reason="being another user needs root")
def test_another_user_gets_no_answer_but_a_refusal(own_house: House, parts: Parts) -> None:
    _works(own_house, parts)
    path = own_house.home / "daemon.sock"
    for place in (path.parent.parent.parent, path.parent.parent, path.parent):
        place.chmod(0o755)
    path.chmod(0o777)
    ask = (
        f"import socket;s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET);s.connect({str(path)!r});"
        "print(s.recv(4096).decode())"
    )
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", ask],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    if "setpriv" in done.stderr:
        pytest.skip("no setpriv")
    assert "serves another user" in done.stdout, done
    with contextlib.suppress(StrongroomError):
        own_house.settle()
