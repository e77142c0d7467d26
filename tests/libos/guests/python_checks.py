"""Guest: Python inside, where it must do as outside."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import mmap
import multiprocessing
import os
import pty
import queue
import selectors
import signal
import socket
import sqlite3
import stat
import sys
import tempfile
import threading
import time
import tty

import checks


def check_temporary_files() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100_000)
        file.seek(0)
        assert len(file.read()) == 100_000
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"named")
        file.flush()
        assert os.path.getsize(file.name) == 5
    with tempfile.TemporaryDirectory() as folder:
        os.symlink("there", f"{folder}/link")
        os.makedirs(f"{folder}/a/b/c")
    assert not os.path.exists(folder)


def check_shared_memory_and_semaphores() -> None:
    with open("/dev/shm/piece", "xb+") as file:
        file.truncate(10_000)
        with mmap.mmap(file.fileno(), 0) as one, mmap.mmap(file.fileno(), 0) as two:
            one[5000:5005] = b"there"
            assert two[5000:5005] == b"there"
    os.unlink("/dev/shm/piece")
    semaphore = multiprocessing.get_context("fork").Semaphore(2)
    assert semaphore.acquire(timeout=1) and semaphore.acquire(timeout=1)
    assert not semaphore.acquire(timeout=0.02)


def check_anonymous_mapping() -> None:
    with mmap.mmap(-1, 1 << 20) as memory:
        memory[70_000:70_003] = b"abc"
        assert memory.find(b"abc") == 70_000


def check_threads_and_queues() -> None:
    work: queue.Queue[int | None] = queue.Queue(5)
    got: list[int] = []

    def take() -> None:
        while (one := work.get()) is not None:
            got.append(one)

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(500):
        work.put(number)
    for _ in threads:
        work.put(None)
    for thread in threads:
        thread.join()
    assert sorted(got) == list(range(500))
    assert len({threading.get_native_id()}) == 1


def check_asyncio() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    async def all_of_it() -> list[bytes]:
        server = await asyncio.start_unix_server(echo, "/tmp/asyncio")
        async with server:

            async def ask(number: int) -> bytes:
                reader, writer = await asyncio.open_unix_connection("/tmp/asyncio")
                writer.write(b"line %d\n" % number)
                answer = await reader.read()
                writer.close()
                return answer

            answers = await asyncio.gather(*(ask(number) for number in range(20)))
        assert await asyncio.to_thread(lambda: 7) == 7
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 0.02)
            raise AssertionError("no timeout")
        return answers

    assert asyncio.run(all_of_it()) == [b"LINE %d\n" % number for number in range(20)]
    os.unlink("/tmp/asyncio")


def check_selectors() -> None:
    for kind in (selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector):
        with kind() as selector:
            one, two = socket.socketpair()
            selector.register(two, selectors.EVENT_READ, "two")
            assert selector.select(0) == []
            one.send(b"x")
            assert [key.data for key, _ in selector.select(1)] == ["two"]
            one.close()
            two.close()


def check_terminal() -> None:
    master, slave = pty.openpty()
    assert os.isatty(master) and os.ttyname(slave).startswith("/dev/pts/")
    os.write(master, b"line\r")
    assert os.read(slave, 100) == b"line\n"
    assert os.read(master, 100) == b"line\r\n"
    tty.setraw(slave)
    os.write(master, b"raw\r")
    assert os.read(slave, 100) == b"raw\r"
    os.close(slave)
    try:
        os.read(master, 1)
        raise AssertionError("no hangup")
    except OSError as error:
        assert error.errno == errno.EIO
    os.close(master)


def check_signal_handler_and_wakeup() -> None:
    got: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGALRM, lambda number, _: got.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    end = time.monotonic() + 5
    while len(got) < 2 and time.monotonic() < end:
        time.sleep(0.001)
    assert got == [signal.SIGUSR1, signal.SIGALRM]
    signal.signal(signal.SIGUSR1, old)


def check_database() -> None:
    with contextlib.closing(sqlite3.connect("/tmp/d.db")) as database:
        assert database.execute("pragma journal_mode=wal").fetchone() == ("wal",)
        database.execute("create table t (n)")
        database.executemany("insert into t values (?)", ((n,) for n in range(1000)))
        database.commit()
        with contextlib.closing(sqlite3.connect("/tmp/d.db")) as other:
            assert other.execute("select sum(n) from t").fetchone() == (499500,)
    os.unlink("/tmp/d.db")


def check_proc() -> None:
    """What psutil and its like read at their import."""

    def text(path: str) -> str:
        with open(path) as file:
            return file.read()

    own = str(os.getpid())
    assert own in os.listdir("/proc") and "python" in os.readlink(f"/proc/{own}/exe")
    assert text(f"/proc/{own}/comm").startswith("python")
    fields = text(f"/proc/{own}/stat").rpartition(")")[2].split()
    assert len(fields) >= 50 and fields[0] == "R"  # field 3 and following
    up, idle = map(float, text("/proc/uptime").split())
    assert up > 0 and idle >= 0 and 0 < int(fields[19]) <= up * 100 + 1
    times = dict(line.split(maxsplit=1) for line in text("/proc/stat").splitlines())
    assert {"cpu", "cpu0", "btime", "ctxt"} <= set(times) and len(times["cpu"].split()) == 10
    assert abs(int(times["btime"]) - (time.time() - up)) < 5
    memory = dict(line.split(":") for line in text("/proc/meminfo").splitlines())
    assert {"MemTotal", "MemAvailable", "Buffers", "Cached", "Active", "Inactive", "Shmem", "Slab"} <= set(
        memory
    )
    assert len(text("/proc/loadavg").split()) == 5
    status = dict(line.split(":", 1) for line in text("/proc/self/status").splitlines())
    assert [int(n) for n in status["Uid"].split()[:2]] == [os.getuid(), os.geteuid()]
    assert {"Threads", "VmRSS", "Umask", "Gid", "voluntary_ctxt_switches", "TracerPid"} <= set(status)
    assert len(text("/proc/self/statm").split()) == 7


def check_own_command_line() -> None:
    def words(path: str) -> list[bytes]:
        with open(path, "rb") as file:
            whole = file.read()
        assert whole.endswith(b"\0")
        return whole[:-1].split(b"\0")

    found = words("/proc/self/cmdline")
    assert found == [os.fsencode(word) for word in sys.orig_argv]
    assert len(found) >= 2 and found[-1].endswith(b".py")
    for word in words(f"/proc/{os.getpid()}/environ"):
        name, _, value = word.partition(b"=")
        assert os.environb[name] == value


def check_own_links() -> None:
    own = "/proc/self"
    assert os.readlink(f"{own}/cwd") == os.getcwd() and os.readlink(f"{own}/root") == "/"
    for name in ("exe", "cwd", "root"):
        assert stat.S_ISLNK(os.lstat(f"{own}/{name}").st_mode) and name in os.listdir(own)
    assert os.path.samefile(os.readlink(f"{own}/exe"), f"{own}/exe")
    with open(f"{own}/exe", "rb") as program:  # the program, not its name
        assert program.read(4) == b"\x7fELF"
    assert os.listdir(f"{own}/root/proc/self/fd")


def check_tracebacks() -> None:
    with tempfile.TemporaryFile("w+") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        faulthandler.dump_traceback_later(0.05, file=file)
        time.sleep(0.3)
        faulthandler.cancel_dump_traceback_later()
        file.seek(0)
        assert file.read().count("check_tracebacks") == 2


if __name__ == "__main__":
    checks.run(globals())
