"""What a hostile loader lies to: uses each kind of call, and says what it was made to believe that cannot be.

Errors of the calls are no harm: that is how an answer is refused. The last line is a JSON document; no last line means
that the program was stopped. As the control it runs outside with attacks/preload.c, the host's file then being beside.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = "/host/facts.txt" if os.path.exists("/host/facts.txt") else os.path.join(HERE, "shared", "facts.txt")
LINE = b"what the host keeps: sixteen bytes a line\n"
believed: list[str] = []


def check(what: str, good: bool) -> None:
    if not good and what not in believed:
        believed.append(what)


def reads() -> None:
    """Into the middle of a buffer: nothing may come before or behind, and no count beyond the room."""
    descriptor = os.open(HOST, os.O_RDONLY)
    try:
        got = b""
        for _ in range(2000):
            room = bytearray(b"\xee" * 96)
            n = os.readv(descriptor, [memoryview(room)[32:64]])
            check(f"a read of 32 bytes that gave {n}", 0 <= n <= 32)
            check("bytes around the buffer", room[:32] == b"\xee" * 32 and room[64:] == b"\xee" * 32)
            if n <= 0:
                break
            got += bytes(room[32 : 32 + n])
        # How long it is, is the host's word: the file is one that the manifest allows.
        check("a file that is not its own content", (LINE * 8).startswith(got))
    finally:
        os.close(descriptor)
    check("a size below 0", os.stat(HOST).st_size >= 0)
    with open(HOST, "rb") as file:
        file.read()


def writes() -> None:
    n = os.write(2, b"ten bytes\n")
    check(f"a write of 10 bytes that took {n}", 0 <= n <= 10)


def clocks() -> None:
    for clock in (time.CLOCK_MONOTONIC, time.CLOCK_REALTIME):
        before = 0
        for _ in range(200):
            now = time.clock_gettime_ns(clock)
            check("time that runs backwards", now >= before)
            check("a time of nonsense", 0 <= now < 1 << 63)
            before = now


def polls() -> None:
    reader, writer = os.pipe()
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(reader, select.POLLIN)
    allowed = select.POLLIN | select.POLLERR | select.POLLHUP | select.POLLNVAL
    ready = poller.poll(10)
    check("more ready descriptors than were asked for", len(ready) <= 2)
    for number, events in ready:
        check(
            "an event on a descriptor that was not asked for", number in (0, reader) and not events & ~allowed
        )
        check("data in an empty pipe of its own", number != reader or not events & select.POLLIN)
    os.close(reader)
    os.close(writer)


def threads() -> None:
    """Started once, or not at all; each has its own stack and finishes its own work."""
    counts = [0] * 6

    def work(place: int) -> None:
        for _ in range(2000):
            counts[place] += 1
            if counts[place] % 500 == 0:
                time.sleep(0)

    for place in range(6):
        try:
            thread = threading.Thread(target=work, args=(place,))
            thread.start()
        except RuntimeError:
            continue
        thread.join(20)
        check(f"a thread that did its work {counts[place] / 2000} times", counts[place] == 2000)


def sockets() -> None:
    server = socket.socket()
    try:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        address = server.getsockname()
        check("an address that is none", isinstance(address, tuple) and 0 < address[1] < 65536)
        client = socket.socket()
        client.connect(address)
        served, _ = server.accept()
        taken = (0, 1, 2, server.fileno(), client.fileno())
        check("a descriptor that is another's", served.fileno() not in taken)
        client.sendall(b"x" * 100)
        room = bytearray(b"\xee" * 96)
        n = served.recv_into(memoryview(room)[32:64])
        check(f"a receive of 32 bytes that gave {n}", 0 <= n <= 32)
        check("bytes around the buffer", room[:32] == b"\xee" * 32 and room[64:] == b"\xee" * 32)
        served.close()
        check("a socket that was closed under it", server.getsockname() == address)
        client.close()
    finally:
        server.close()


def randomness() -> None:
    check("random bytes that are not", len({os.urandom(16) for _ in range(8)}) == 8)


def constants() -> None:
    """A measured file, read again and again: its content or an error."""
    for _ in range(300):
        with open(os.path.join(HERE, "constant.txt"), "rb") as file:
            check("a measured file that was changed", file.read() == b"trusted-constant-0123456789\n")


def attestation() -> None:
    if os.path.exists("/dev/attestation/quote"):
        with open("/dev/attestation/quote", "rb") as file:
            check("a quote of nonsense", len(file.read()) < 20000)


for step in (reads, writes, clocks, polls, threads, sockets, randomness, constants, attestation):
    if sys.argv[1:2] and step.__name__ not in sys.argv[1:]:
        continue
    try:
        step()
    except (OSError, MemoryError, OverflowError, ValueError, RuntimeError) as error:
        print(f"{step.__name__}: {type(error).__name__} {error}", file=sys.stderr)
print("BELIEVED " + json.dumps(believed), flush=True)
