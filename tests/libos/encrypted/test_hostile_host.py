"""What a host can do to encrypted files, each beside a control that reads as it was written."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from strongroom.owner.folders import encrypt_folder
from support import interpreter_image as guest

CHUNK = 16384


def said(text: str) -> dict[str, list[str]]:
    """name -> [size by stat or an errno, size read or an errno, …] of files.py's lines."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


@pytest.mark.parametrize("mount", ["data", "sealed"])
def test_every_byte_of_a_small_file(project: Path, mount: str) -> None:
    """One file for each of its bytes, one bit of which is flipped: all refused; the untouched ones are read."""
    total = 256 + 100 + 28
    names = [f"f{place}" for place in range(total)] + ["g0", "g1"]
    guest.inside(project, "files.py", "write", f"/{mount}", "100", "1", *names)
    for place in range(total):
        file = project / mount / f"f{place}"
        data = bytearray(file.read_bytes())
        assert len(data) == total
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
    found = said(guest.inside(project, "files.py", "read", f"/{mount}", *names))
    for control in ("g0", "g1"):
        assert found[control][:2] == ["100", "100"]
    for place in range(total):
        size, content, *_ = found[f"f{place}"]
        assert content in ("EACCES", "EIO"), place
        # Header: no size is told. Data: the size is the writer's, the content is refused at the read.
        assert size == ("EACCES" if place < 256 else "100"), place
        assert content == ("EIO" if 256 <= place < 356 else "EACCES"), place


def replace(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def test_places_and_lengths(project: Path) -> None:
    """Cut, extended, swapped, spliced: every way to put authentic bytes where they do not belong."""
    host = project / "data"
    names = [f"f{number}" for number in range(14)] + ["sub/f0", "control"]
    guest.inside(project, "files.py", "write", "/data", str(3 * CHUNK + 5), "1", *names)
    old = {name: (host / name).read_bytes() for name in names}
    guest.inside(project, "files.py", "change", "/data", str(CHUNK), str(CHUNK), *names[:14], "sub/f0")
    new = {name: (host / name).read_bytes() for name in names}
    end = 256 + 3 * CHUNK + 5
    one, two = slice(256, 256 + CHUNK), slice(256 + CHUNK, 256 + 2 * CHUNK)
    f = [new[f"f{number}"] for number in range(14)]
    changed = {
        "f0": f[1], "f1": f[0],  # two files swapped
        "f2": f[2][:-1], "f3": f[3][:end], "f4": f[4][:255], "f5": b"", "f6": f[6] + b"\0", "f7": f[7] + f[7],
        "f8": f[8][:256] + f[8][two] + f[8][one] + f[8][256 + 2 * CHUNK :],  # chunks swapped
        "f9": f[9][: two.start] + old["f9"][two] + f[9][two.stop :],  # an older chunk
        "f10": old["f10"][:256] + f[10][256:],  # an older root
        "f11": f[11][:end] + old["f11"][end:],  # an older table
        "f12": f[12][: one.start] + f[13][one] + f[12][one.stop :],  # another file's chunk
        "f13": new["control"],  # a file of that size, elsewhere
        "sub/f0": f[0],  # the same name in another folder
    }  # fmt: skip
    for name, data in changed.items():
        replace(host / name, data)
    found = said(guest.inside(project, "files.py", "read", "/data", *names))
    assert found["control"][:2] == [str(3 * CHUNK + 5)] * 2
    for name in changed:
        content = found[name][1]
        assert content == ("EIO" if name in ("f8", "f9", "f12") else "EACCES"), name
    for name, data in new.items():
        replace(host / name, data)
    again = said(guest.inside(project, "files.py", "read", "/data", *names))
    assert all(words[:2] == [str(3 * CHUNK + 5)] * 2 for words in again.values()), "put back, all are read"


def test_an_older_version(project: Path) -> None:
    """A later run takes an older version of a whole file: SGX has no monotonic counter. Within a run it is refused."""
    host = project / "sealed"
    guest.inside(project, "files.py", "write", "/sealed", "100", "1", "a", "b")
    old = (host / "a").read_bytes()
    first = said(guest.inside(project, "files.py", "read", "/sealed", "a", "b"))
    guest.inside(project, "files.py", "write", "/sealed", "100", "2", "a")
    new = (host / "a").read_bytes()
    second = said(guest.inside(project, "files.py", "read", "/sealed", "a", "b"))
    assert first["a"] != second["a"]
    replace(host / "a", old)
    assert said(guest.inside(project, "files.py", "read", "/sealed", "a", "b")) == first, (
        "rolled back, and accepted"
    )
    replace(host / "a", new)
    lines = waiting(project, "/sealed", ["a", "b"], lambda: replace(host / "a", old))
    assert [said(line)[line.split()[0]] for line in lines[:2]] == [second["a"], second["b"]]
    assert lines[2].split()[1:3] == ["EACCES", "EACCES"]
    assert lines[3] == lines[1]


def waiting(project: Path, folder: str, names: list[str], meanwhile: Callable[[], None]) -> list[str]:
    """files.py's lines on ``names`` before and after ``meanwhile``, in one run."""
    with subprocess.Popen(
        [sys.executable, "-m", "strongroom", "run", str(project), "--", "/app/files.py", "wait", folder, *names],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdin is not None
        lines = [process.stdout.readline().strip() for _ in names]
        meanwhile()
        process.stdin.write("\n")
        process.stdin.flush()
        lines += [process.stdout.readline().strip() for _ in names]
        assert process.wait(60) == 0
    return lines


def test_a_removed_file_does_not_come_back_within_a_run(project: Path) -> None:
    host = project / "data"
    guest.inside(project, "files.py", "write", "/data", "10", "1", "d", "e")
    never_read, older = (host / "d").read_bytes(), (host / "e").read_bytes()
    guest.inside(project, "files.py", "write", "/data", "10", "2", "e")
    code = """
import os, sys
open("/dev/attestation/keys/data", "w").write("07" * 32)
os.stat("/data/e")
os.unlink("/data/d")
open("/data/a", "w").write("x")
os.rename("/data/a", "/data/b")
open("/data/c", "w").write("x")
print("ready", flush=True)
sys.stdin.readline()
os.unlink("/data/b")
print("gone", flush=True)
sys.stdin.readline()
for name in "abcde":
    try: print(open(f"/data/{name}").read(), flush=True)
    except OSError as error: print(error.errno, flush=True)
os.unlink("/data/b")
open("/data/b", "w").write("new")
print(open("/data/b").read())
"""
    with subprocess.Popen(
        [sys.executable, "-m", "strongroom", "run", str(project), "--", "-c", code],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        kept = (host / "b").read_bytes()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "gone\n"
        replace(host / "b", kept)
        replace(host / "a", kept)
        replace(host / "d", never_read)
        replace(host / "e", older)  # whose later version only stat() has seen
        process.stdin.write("\n")
        process.stdin.flush()
        lines = process.stdout.read().split()
        assert process.wait(60) == 0
    assert lines == ["13", "13", "x", "13", "13", "new"]


def test_things_that_are_no_files(project: Path) -> None:
    host = project / "data"
    guest.inside(project, "files.py", "write", "/data", "100", "1", "real", "linked", "pipe", "folder")
    (host / "real").rename(host / "elsewhere")
    (host / "linked").rename(host / "target")
    (host / "linked").symlink_to("target")
    for name in ("pipe", "folder"):
        (host / name).unlink()
    os.mkfifo(host / "pipe")
    (host / "folder").mkdir()
    found = said(
        guest.inside(project, "files.py", "read", "/data", "real", "elsewhere", "linked", "pipe", "folder")
    )
    assert found["real"] == ["ENOENT", "ENOENT"]  # a removal is like a rollback: not noticed
    assert found["elsewhere"] == ["EACCES", "EACCES"]
    assert found["linked"][0] == "EACCES" and found["linked"][1] in ("EACCES", "ELOOP")
    assert found["pipe"] == ["EACCES", "EACCES"]
    assert found["folder"][1] == "EISDIR"


# A loader whose answers to the calls about files are not the kernel's. The program's last argument says how.
HOSTILE = r"""
static int g_mode;
static void hostile(struct ocall_block *b)
{
    struct stat *st = (struct stat *)b->data;
    static int calls;
    bool reads = b->number == SYS_pread64 && b->ret > 0;
    bool about_file = b->number == SYS_fstat && b->ret == 0 && S_ISREG(st->st_mode) && st->st_size > 256;
    if (g_mode == 1 && reads) /* short: allowed, so all must work */
        b->ret = b->ret / 2 + 1;
    if (g_mode == 2 && b->number == SYS_pread64 && ++calls % 2) /* every other interrupted: allowed */
        b->ret = -EINTR;
    if (g_mode == 3 && reads) /* more than was asked for */
        b->ret += 4096;
    if (g_mode == 4 && reads && b->arg[3] >= 256) /* the end comes early */
        b->ret = 0;
    if (g_mode == 5 && b->number == SYS_pread64) /* interrupted for ever */
        b->ret = -EINTR;
    if (g_mode == 6 && b->number == SYS_pread64) /* no errno */
        b->ret = -100000;
    if (g_mode == 7 && b->number == SYS_openat && b->ret >= 0 && b->arg[2] & O_NOFOLLOW) /* a descriptor far away */
        b->ret = 0x7fffffff;
    if (g_mode == 8 && reads && ++calls % 2) /* other bytes at every second read */
        b->data[b->ret / 2] ^= 1;
    if (g_mode == 9 && about_file) /* a longer file */
        st->st_size += 1;
    if (g_mode == 10 && about_file) /* a negative size */
        st->st_size = -1;
    if (g_mode == 11 && b->number == SYS_pwrite64 && b->arg[3] > 100000) /* a full disk */
        b->ret = -ENOSPC;
    if ((g_mode == 12 && b->number == SYS_fsync) || (g_mode == 13 && b->number == SYS_fdatasync)) /* it fails */
        b->ret = -EIO;
    if (b->number == SYS_syncfs && g_mode >= 14)
        dprintf(2, "host: syncfs = %ld\n", (long)b->ret);
    if (b->number == SYS_syncfs && g_mode == 15)
        b->ret = -EIO;
}
"""
HONEST = (0, 1, 2)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`run` uses a loader that lies, for as long as the test lasts."""
    from strongroom import paths

    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    root = Path(__file__).parents[3] / "libos"
    source = (root / "loader" / "loader.c").read_text()
    changes = {
        "static void serve(struct worker *w, struct ocall_block *b)\n": HOSTILE + "%s",
        "&g_pending : &g_never);\n": "%s        hostile(b);\n",
        "    worker_start(&g_worker[0]);\n": "    g_mode = o.rest_count ? atoi(o.rest[o.rest_count - 1]) : 0;\n%s",
    }
    for place, text in changes.items():
        assert source.count(place) == 1, place
        source = source.replace(place, text.replace("%s", place))
    native = tmp_path / "native"
    native.mkdir()
    for parent in (tmp_path, native):
        parent.chmod(0o755)
    for name in ("strongroom-inject", "libstrongroom-processor.elf"):
        shutil.copy(paths.native_directory() / name, native)
    (tmp_path / "loader.c").write_text(source)
    others = [str(file) for file in (root / "loader").glob("*.c") if file.name != "loader.c"]
    subprocess.run(
        ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-static-pie", "-fPIE", "-pthread",
         f"-I{root}/include", f"-I{root}/loader", "-o", str(native / "strongroom-loader"), str(tmp_path / "loader.c"),
         *others],
        check=True, timeout=60,
    )  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setenv("STRONGROOM_NATIVE", str(native))
        with guest.daemon_ended():
            yield


def test_a_loader_that_lies(project: Path, tmp_path: Path, hostile: None) -> None:
    """Answers that no kernel gives, from a loader of the host's own making: refused, or of no effect."""
    (tmp_path / "clear").mkdir()
    (tmp_path / "clear" / "a").write_bytes(bytes(50_000))
    encrypt_folder(bytes([7] * 32), tmp_path / "clear", project / "data", "/data")
    for mode in range(11):
        found = said(guest.inside(project, "files.py", "read", "/data", "a", str(mode)))["a"]
        if mode in HONEST:
            assert found == ["50000", "50000", hashlib.sha256(bytes(50_000)).hexdigest()[:16]], mode
        else:
            assert found[1] in ("EACCES", "EIO", "EBADF"), mode
        if mode in (9, 10):
            assert found == ["EACCES", "EACCES"], mode


def test_a_full_disk(project: Path, hostile: None) -> None:
    """ENOSPC comes out of write() or close(); the file keeps its version before, and nothing is left beside it."""
    guest.inside(project, "files.py", "write", "/data", "50000", "1", "a")
    before = (project / "data" / "a").read_bytes()
    for size in ("110000", "3000000"):  # found at close(), found at write()
        assert guest.inside(project, "files.py", "write", "/data", size, "2", "a", "11") == "ENOSPC\n"
        assert (project / "data" / "a").read_bytes() == before
        assert [path.name for path in (project / "data").iterdir()] == ["a"]
    guest.inside(project, "files.py", "write", "/data", "3000000", "2", "a")
    assert said(guest.inside(project, "files.py", "read", "/data", "a"))["a"][:2] == ["3000000"] * 2


def test_fsync_of_what_is_published_already(project: Path, hostile: None) -> None:
    """What close() published is durable only after an fsync, of the file or of its folder: its error comes out."""
    code = """
import os
open("/dev/attestation/keys/data", "w").write("07" * 32)
def said(fd):
    try: print(os.fsync(fd))
    except OSError as error: print(error.errno)
open("/data/a", "w").close()
file = os.open("/data/a", os.O_RDONLY)
said(file), said(file)
said(os.open("/data", os.O_RDONLY | os.O_DIRECTORY))
"""
    expected = {"0": ["None", "None", "None"], "12": ["5", "5", "5"], "13": ["5", "5", "None"]}
    for mode, answers in expected.items():
        done = guest.strongroom("run", project, "--", "-c", code, mode)
        assert (done.stdout.split(), done.returncode) == (answers, 0), done.stderr
        (project / "data" / "a").unlink()


def test_sync_writes_the_file_systems_under_the_mounts(project: Path, hostile: None) -> None:
    """sync(2) has each mount's file system written, syncfs(2) one; what a closed file left to the host is in there."""
    code = """
import ctypes, os
open("/dev/attestation/keys/data", "w").write("07" * 32)
libc = ctypes.CDLL(None, use_errno=True)
open("/data/a", "w").close()
file, trusted = os.open("/data/a", os.O_RDONLY), os.open("/app", os.O_RDONLY)
print(libc.syncfs(file), ctypes.get_errno(), libc.syncfs(trusted), libc.syncfs(999), ctypes.get_errno())
os.sync()
"""
    for mode, told in {"14": "0 0 0 -1 9\n", "15": "-1 5 0 -1 9\n"}.items():
        done = guest.strongroom("run", project, "--", "-c", code, mode)
        assert (done.stdout, done.returncode) == (told, 0), done.stderr
        calls = [line for line in done.stderr.splitlines() if line.startswith("host: ")]
        assert calls == ["host: syncfs = 0"] * 4, done.stderr  # /data, then /data, /own and /sealed
