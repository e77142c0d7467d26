"""Code made at run time: the region that `late_code` asks for; without it EACCES, and a line that names the key."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from strongroom.machine import level as levels
from support.guests import GUESTS, Guests, Outcome, checks_of, outside
from support.programs import compile_c

GUEST, HEAP, PYTHON = "late_code.c", "late_heap.c", "late_python.py"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | bytes | Path]:
    directory = tmp_path_factory.mktemp("late")
    program = compile_c(
        directory,
        "late",
        (GUESTS / GUEST).read_text(),
        f"-I{GUESTS}",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
    )
    library = compile_c(
        directory, "plugin.bin", (GUESTS / "late_library.c").read_text(), "-shared", "-fPIC", "-O1"
    )
    return {"late": program, "plugin.bin": library}


@pytest.fixture(scope="module")
def projects(guests: Guests, files: dict[str, str | bytes | Path]) -> dict[bool, Path]:
    """By whether the heap is EDMM's."""
    manifest = '[enclave]\nmain = "late"\nmemory = "16M"\nthreads = 3\nlate_code = "256K"\n'
    return {
        edmm: guests.build(f"late-{edmm}", files, manifest + ("edmm = true\n" if edmm else ""))
        for edmm in (False, True)
    }


@pytest.fixture(scope="module", params=["sealed", "separated", "faithful", "edmm"])
def late(request: pytest.FixtureRequest, guests: Guests, projects: dict[bool, Path]) -> Outcome:
    order = list(levels.Level)
    best, edmm = levels.best(levels.find_facts()), request.param == "edmm"
    level = str(best) if edmm else request.param
    if order.index(levels.Level(level)) < order.index(best):
        pytest.skip(f"level {level} is more than this machine gives")
    words = ["run", "--vm", "guests", "--level", level, str(projects[edmm])]
    return Outcome.of(guests.strongroom(*words, timeout=60))


@pytest.mark.parametrize("check", checks_of(GUEST))
def test_late_code(late: Outcome, check: str) -> None:
    late.assert_ok(check)


@pytest.mark.parametrize("guest", [GUEST, HEAP])
def test_control(
    guest: str,
    files: dict[str, str | bytes | Path],
    heap_files: dict[str, str | bytes | Path],
    tmp_path: Path,
) -> None:
    """Linux itself answers so."""
    for name, path in (files | heap_files).items():
        assert isinstance(path, Path)
        (tmp_path / name).write_bytes(path.read_bytes())
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        [str(tmp_path / ("late" if guest == GUEST else "heap"))],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )
    assert Outcome.of(done).said == dict.fromkeys(checks_of(guest), ""), done.stderr


@pytest.fixture(scope="module")
def heap_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | bytes | Path]:
    directory = tmp_path_factory.mktemp("heap")
    options = (f"-I{GUESTS}", "-Wall", "-Wextra", "-Werror")
    wide = ("-shared", "-fPIC", "-Wl,-z,max-page-size=0x200000,-z,noseparate-code")
    return {
        "heap": compile_c(directory, "heap", (GUESTS / HEAP).read_text(), *options),
        "wide.bin": compile_c(directory, "wide.bin", (GUESTS / "late_library.c").read_text(), *wide),
    }


@pytest.fixture(scope="module")
def heap(guests: Guests, heap_files: dict[str, str | bytes | Path]) -> Outcome:
    manifest = '[enclave]\nmain = "heap"\nmemory = "160M"\nlate_code = "8M"\nedmm = true\n'
    return Outcome.of(guests.run(guests.build("heap", heap_files, manifest), timeout=60))


@pytest.mark.parametrize("check", checks_of(HEAP))
def test_memory_made_executable(heap: Outcome, check: str) -> None:
    heap.assert_ok(check)


@pytest.fixture(scope="module")
def callbacks(guests: Guests) -> Outcome:
    pytest.importorskip("cffi", reason="cffi is not installed")
    return guests.checks(PYTHON, 'memory = "48M"\nthreads = 8\nlate_code = "1M"\npackages = ["cffi"]\n')


@pytest.mark.parametrize("check", checks_of(PYTHON))
def test_callbacks(callbacks: Outcome, check: str) -> None:
    callbacks.assert_ok(check)
    assert callbacks.stderr.count("\n") == 1, "the run's own line and nothing else"


def test_control_callbacks() -> None:
    control = outside(PYTHON)
    assert control.said == dict.fromkeys(checks_of(PYTHON), ""), control.stderr


ASKS = """
import ctypes, mmap
for n in range(3):
    try: ctypes.CFUNCTYPE(None)(lambda: None)
    except MemoryError as error: print("MemoryError")
    try: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except PermissionError as error: print(error)
"""


def test_without_the_key(guests: Guests) -> None:
    """EACCES, as often as it is asked for, and one line that names the key."""
    project = guests.build("late-none", {}, '[enclave]\nmain = "python3"\nargs = true\nmemory = "24M"\n')
    done = guests.run(project, "-c", ASKS)
    assert done.stdout.splitlines() == ["MemoryError", "[Errno 13] Permission denied"] * 3
    said = [line for line in done.stderr.splitlines() if "late_code" in line]
    assert len(said) == 1 and said[0].startswith("strongroom: code made at run time is refused"), done.stderr


REFUSED = """
import ctypes, mmap, shutil, sys
shutil.copy("/app/plugin.bin", "/data/l.so")
for place in ("/data", "/host"):
    try: ctypes.CDLL(place + "/l.so")
    except OSError as error: print(place, "failed to map segment" in str(error))
shutil.copy("/app/plugin.bin", "/tmp/l.so")
print(ctypes.CDLL("/tmp/l.so").late_next())
shared = open("/tmp/both", "w+b")
shared.truncate(4096)
try: mmap.mmap(shared.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)
except PermissionError as error: print(error)
heap = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
address = ctypes.addressof(ctypes.c_char.from_buffer(heap))
libc = ctypes.CDLL(None, use_errno=True)
print(libc.mprotect(ctypes.c_void_p(address), 4096, 5), ctypes.get_errno())
taken = []
while True:
    try: taken.append(mmap.mmap(-1, 65536, prot=7))
    except OSError as error:
        print(error)
        break
"""


def test_what_stays_refused(guests: Guests, files: dict[str, str | bytes | Path]) -> None:
    """With the key: encrypted and allowed files' code, what is mapped twice, other memory; more than there is."""
    manifest = """[enclave]
main = "python3"
args = true
memory = "24M"
late_code = "256K"
[files]
"/data" = "encrypted:sealed"
"/host" = "allowed:host"
"""
    project = guests.build(
        "late-refused", {"plugin.bin": files["plugin.bin"], "host/l.so": files["plugin.bin"]}, manifest
    )
    done = guests.run(project, "-c", REFUSED)
    assert done.stdout.splitlines() == [
        "/data True", "/host True", "43", "[Errno 13] Permission denied", "-1 13", "[Errno 12] Cannot allocate memory",
    ], done.stderr  # fmt: skip
    for line in (
        "/data/l.so cannot be run: encrypted native code would not stay secret",
        "/host/l.so cannot be run: an allowed file is the host's",
        "memory that was not mapped with PROT_EXEC cannot be made executable",
        "late_code is full: write a larger one than 256 KiB in enclave.toml",
    ):
        assert done.stderr.count(line) == 1, done.stderr
