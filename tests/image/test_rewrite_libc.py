"""The C library and ld.so of this machine, rewritten, under a CPython with threads, sockets and signals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.image import rewrite
from strongroom.image.interpreter import ask
from strongroom.image.libraries import INTERPRETER, cache
from support.rewritten import COUNTER_OFFSET, runnable

ADDRESS = 0x4000000
PROGRAM = f"""
import ctypes, os, queue, select, signal, socket, subprocess, sys, tempfile, threading, time
with open("/proc/self/maps") as maps:
    base = next(int(line.split("-")[0], 16) for line in maps if "rewritten/libc.so.6" in line)
counter = ctypes.c_ulong.from_address(base + {ADDRESS} + {COUNTER_OFFSET})
before = counter.value
results, lock, work = [], threading.Lock(), queue.Queue()
def worker(number):
    with lock:
        results.append(work.get())
    time.sleep(0.001)
threads = [threading.Thread(target=worker, args=(n,)) for n in range(8)]
for thread in threads: thread.start()
for number in range(8): work.put(number)
for thread in threads: thread.join()
print(sorted(results))
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
peer, _ = server.accept()
client.sendall(b"x" * 100000)
got = 0
while got < 100000:
    assert select.select([peer], [], [], 5)[0]
    got += len(peer.recv(65536))
print(got)
hits = []
signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.01)
while not hits: time.sleep(0.05)
print(hits)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "file")
    with open(path, "wb") as file: file.write(b"y" * 70000); file.flush(); os.fsync(file.fileno())
    print(os.stat(path).st_size, os.listdir(folder))
child = os.fork()
if not child: os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(subprocess.run(["/bin/echo", "sub"], capture_output=True).stdout)
assert counter.value - before > 100, "the calls went through the stub"
"""


def test_python_on_a_rewritten_libc(tmp_path: Path) -> None:
    libc = cache().get("libc.so.6")
    if libc is None:
        pytest.skip("no libc in ld.so's cache")
    folder = tmp_path / "rewritten"
    folder.mkdir()
    loader = folder / "ld.so"
    for host, place in ((Path(libc), folder / "libc.so.6"), (Path(INTERPRETER), loader)):
        data, decisions = runnable(host.read_bytes(), ADDRESS)
        assert any(one.outcome == rewrite.REWRITTEN for one in decisions)
        place.write_bytes(data)
        place.chmod(0o755)
    python = ask(None).executable
    library = python.parent.parent / "lib"
    arguments = [str(loader), "--library-path", f"{folder}:{library}", str(python), "-S", "-c", PROGRAM]
    environment = {"PYTHONHOME": sys.base_prefix, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[0, 1, 2, 3, 4, 5, 6, 7]", "100000", "[1]", "70000 ['file']", "9", "b'sub\\n'"
    ]  # fmt: skip
