"""Building images (strongroom.image.build): what is in them, the same from anywhere; refusals leave nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from strongroom.cli.build import print_result
from strongroom.errors import StrongroomError
from strongroom.image import boot, layout, manifest, pack, sgxs, sigstruct
from strongroom.image.build import ETC, FACTS, PACK, SIGNATURE, STREAM, build
from strongroom.image.inspect import inspect
from strongroom.image.measure import measure
from strongroom.image.signer import create_key_file
from support.programs import HELLO, compile_c

from .conftest import Build

PROGRAM = 'main = "hello"\n'


@pytest.fixture
def hello(tmp_path: Path) -> bytes:
    return compile_c(tmp_path / "made", "hello", HELLO).read_bytes()


def pages_of(folder: Path) -> dict[int, sgxs.Page]:
    with sgxs.mapped(folder / STREAM) as view:
        return {page.offset: page for page in sgxs.pages(view)}


def entries_of(folder: Path) -> dict[str, pack.Entry]:
    return {entry.path: entry for entry in pack.read_index((folder / PACK).read_bytes())}


def boot_of(folder: Path) -> boot.BootInfo:
    pages = pages_of(folder)
    blob, at = b"", boot.BOOT_ADDRESS
    while at in pages:
        blob += pages[at].data or b""
        at += 4096
    return boot.decode(blob)


def test_dynamic_program(image: Build, tmp_path: Path, hello: bytes) -> None:
    result = image(
        tmp_path / "p", {"hello": hello, "data/x.txt": "x", "secret.pem": "no", ".git/y": "no"}, PROGRAM
    )
    folder = result.directory
    assert folder == tmp_path / "p" / "build"
    measured = measure(folder)
    measured.check_signed()
    assert measured.mrenclave == result.mrenclave
    assert measured.tcs_count == 4
    with sgxs.mapped(folder / STREAM) as view:
        sgxs.scan(view, hashlib.sha256()).check_loadable()
    signed = sigstruct.parse((folder / SIGNATURE).read_bytes())
    sigstruct.verify(signed)
    assert signed.mrenclave == result.mrenclave

    entries = entries_of(folder)
    assert {"/app/hello", "/app/data/x.txt", "/lib64/ld-linux-x86-64.so.2", *ETC} <= entries.keys()
    assert "/lib/x86_64-linux-gnu/libc.so.6" in entries
    assert not {"/app/secret.pem", "/app/enclave.toml", "/app/.git/y"} & entries.keys()
    info = boot_of(folder)
    assert (info.program_path, info.interp_path, info.cwd_path) == (
        "/app/hello",
        "/lib64/ld-linux-x86-64.so.2",
        "/app",
    )
    assert info.argv == ("/app/hello",)
    assert info.flags == 0
    assert info.heap_size == 32 << 20
    assert [one.path for one in info.objects][:2] == [info.program_path, info.interp_path]
    assert [one.flags for one in info.objects][:3] == [boot.OBJECT_MAIN, boot.OBJECT_INTERPRETER, 0]
    index = (folder / PACK).read_bytes()[: info.pack_index_size]
    assert hashlib.sha256(index).digest() == info.pack_index_sha256


def test_pages_have_the_permissions_of_their_use(image: Build, tmp_path: Path, hello: bytes) -> None:
    result = image(tmp_path / "p", {"hello": hello}, PROGRAM + 'threads = 1\nmemory = "1M"\n')
    pages = pages_of(result.directory)
    info = boot_of(result.directory)
    assert min(pages) == boot.BOOT_ADDRESS
    assert max(pages) + 4096 == info.heap_base + info.heap_size <= info.elrange_size
    heap = [page for at, page in pages.items() if info.heap_base <= at]
    assert all(page.flags == layout.READ_WRITE and page.data is None and not page.measured for page in heap)
    # Everything executable is measured; nothing is writable and executable.
    for page in pages.values():
        if page.flags & 4:
            assert page.measured == sgxs.ALL_CHUNKS and page.flags == layout.READ_EXECUTE
    assert result.epc_size == 4096 * len(pages)
    assert result.measured_size == 4096 * sum(page.measured != 0 for page in pages.values())
    facts = json.loads((result.directory / FACTS).read_text())
    assert facts["epc_pages"] == len(pages) + 1
    assert facts["mrenclave"] == result.mrenclave.hex()


def test_text_inside_is_the_file_but_for_the_sites(image: Build, tmp_path: Path, hello: bytes) -> None:
    plain = image(tmp_path / "p", {"hello": hello}, PROGRAM, rewriting=False)
    pages = pages_of(plain.directory)
    libc = next(one for one in boot_of(plain.directory).objects if one.path.endswith("libc.so.6"))
    entry = entries_of(plain.directory)[libc.path]
    content = pack.read_file((plain.directory / PACK).read_bytes(), entry)
    text = next(part for part in libc.segments if part.measured)
    for at in range(text.vaddr & -4096, text.vaddr + text.memsz, 4096):
        start = text.fileoff + at - text.vaddr
        assert pages[libc.base + at].data == content[start : start + 4096].ljust(4096, b"\0")
    rewritten = image(tmp_path / "p")
    assert rewritten.mrenclave != plain.mrenclave
    sites = json.loads((rewritten.directory / FACTS).read_text())["sites"]
    assert rewritten.sites["rewritten"] == sum(one["outcome"] == "rewritten" for one in sites) > 400
    assert {"object", "offset", "function", "outcome", "reason"} == set(sites[0])
    after = pages_of(rewritten.directory)
    site = next(one for one in sites if one["outcome"] == "rewritten" and one["object"] == libc.path)
    address = libc.base + site["offset"]
    assert after[address & -4096].data != pages[address & -4096].data


def test_late_code_is_a_region_and_said_loudly(
    image: Build, tmp_path: Path, hello: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    """Zero, measured, apart from the heap; without the key nothing of the image changes."""
    plain = image(tmp_path / "a", {"hello": hello}, PROGRAM)
    again = image(tmp_path / "b", {"hello": hello}, PROGRAM + 'memory = "32M"\n')
    result = image(tmp_path / "c", {"hello": hello}, PROGRAM + 'late_code = "60K"\n')
    assert plain.mrenclave == again.mrenclave != result.mrenclave
    info = boot_of(result.directory)
    pages = {
        at: page for at, page in pages_of(result.directory).items() if page.flags == layout.READ_WRITE_EXECUTE
    }
    assert sorted(pages) == list(range(info.late_base, info.late_base + (60 << 10), 4096))
    assert all(page.measured == sgxs.ALL_CHUNKS and not any(page.data or b"") for page in pages.values())
    assert info.heap_base >= info.late_base + info.late_size + layout.LARGE
    assert (result.late_code, plain.late_code, boot_of(plain.directory).late_size) == (60 << 10, 0, 0)
    facts = inspect(result.directory).facts
    assert facts["writable_and_executable"] == 15 and "WRITTEN AND EXECUTED" in facts["warning"].upper()
    facts = inspect(plain.directory).facts
    assert facts["writable_and_executable"] == 0 and "warning" not in facts
    print_result(result)
    said = capsys.readouterr()
    assert "late code  0.1 MiB that can be WRITTEN AND EXECUTED" in said.out and "note: late_code" in said.err
    print_result(plain)
    assert "EXECUTED" not in capsys.readouterr().out


def test_static_program_and_manifest_reach_the_image(image: Build, tmp_path: Path) -> None:
    program = compile_c(tmp_path / "made", "hello", HELLO, "-static").read_bytes()
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "ca").mkdir()
    (tmp_path / "p" / "ca" / "root.crt").write_text("certificate")
    result = image(
        tmp_path / "p", {"hello": program, "data/cipher": "changes", "in/x": "changes"},
        """[enclave]
main = "hello"
debug = true
network = true
args = ["--fixed"]
env = ["LANG"]
product = 5
svn = 6
[env]
MODE = "quick"
[files]
"/data" = "encrypted:sealed"
"/in" = "allowed:in"
"/scratch" = "temporary"
"/etc/certs" = "trusted:ca"
""",
    )  # fmt: skip
    info = boot_of(result.directory)
    assert info.flags == boot.FLAG_DEBUG | boot.FLAG_NETWORK | boot.FLAG_HOST_ENVIRONMENT
    assert info.argv == ("/app/hello", "--fixed")
    assert "MODE=quick" in info.env and info.envallow == ("LANG",)
    assert info.interp_path == ""
    assert {(one.path, one.kind, one.host_path) for one in info.mounts} == {
        ("/data", boot.MOUNT_SEALED, "data"), ("/etc/certs", boot.MOUNT_TRUSTED, ""), ("/in", boot.MOUNT_ALLOWED, "in"),
        ("/dev/shm", boot.MOUNT_TEMPORARY, ""), ("/scratch", boot.MOUNT_TEMPORARY, ""),
        ("/tmp", boot.MOUNT_TEMPORARY, ""),
    }  # fmt: skip
    entries = entries_of(result.directory)
    assert "/etc/certs/root.crt" in entries
    assert not {"/app/data/cipher", "/app/in/x"} & entries.keys()  # the host's side of mounts is not measured
    signed = sigstruct.parse((result.directory / SIGNATURE).read_bytes())
    assert (signed.isv_prod_id, signed.isv_svn, bool(signed.attributes & 2)) == (5, 6, True)


def test_same_measurement_from_two_folders_homes_and_keys(
    image: Build, tmp_path: Path, hello: bytes, monkeypatch: pytest.MonkeyPatch, shared_cache: Path
) -> None:
    files = {"hello": hello, "b": "1", "a": "2"}
    first = image(tmp_path / "one", files, PROGRAM)
    home = tmp_path / "other-home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("STRONGROOM_HOME", str(home))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LC_ALL", "tr_TR.UTF-8")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    other = tmp_path / "deeper" / "two"
    other.mkdir(parents=True)
    for name in reversed(list(files)):
        (other / name).write_bytes((tmp_path / "one" / name).read_bytes())
        os.utime(other / name, (1, 1))
    second = image(other, {}, PROGRAM)
    assert second.mrenclave == first.mrenclave
    assert second.mrsigner != first.mrsigner
    for name in (STREAM, PACK):
        assert (first.directory / name).read_bytes() == (second.directory / name).read_bytes()


def test_one_byte_of_a_file_changes_the_measurement(image: Build, tmp_path: Path, hello: bytes) -> None:
    first = image(tmp_path / "p", {"hello": hello, "x": "1"}, PROGRAM)
    second = image(tmp_path / "p", {"x": "2"})
    assert second.mrenclave != first.mrenclave


@pytest.mark.parametrize(
    ("files", "text", "said"),
    [
        ({}, 'main = "hello"', "main = 'hello' is not a file of"),
        ({"hello": "#!/bin/sh\n"}, PROGRAM, "is a script: name an ELF program"),
        ({"hello": "text"}, PROGRAM, "is not an ELF file"),
        ({"hello": b"\x7fELF\x01" + bytes(80)}, PROGRAM, "is a 32-bit ELF file"),
        ({"hello": ""}, PROGRAM + 'packages = ["numpy"]', "packages are for Python"),
        ({"hello": ""}, PROGRAM + "threads = 9999", "threads = 9999 is out of range"),
        ({"m.py": ""}, 'main = "x.py"', "main = 'x.py' is not a file of"),
    ],
)
def test_refused_and_nothing_written(
    image: Build, tmp_path: Path, files: dict[str, str | bytes], text: str, said: str
) -> None:
    with pytest.raises(StrongroomError) as caught:
        image(tmp_path / "p", files, text)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.next_step
    assert sorted(os.listdir(tmp_path / "p")) == sorted([*files, "enclave.toml"])


def test_other_refusals(image: Build, tmp_path: Path, hello: bytes) -> None:
    with pytest.raises(StrongroomError, match="is not a folder: make a project with `strongroom new"):
        build(tmp_path / "none")
    with pytest.raises(StrongroomError, match="trusted as /ca, is not there"):
        image(tmp_path / "a", {"hello": hello}, PROGRAM + '[files]\n"/ca" = "trusted:ca.pem"')
    with pytest.raises(StrongroomError, match="two files want to be /app/x inside"):
        image(
            tmp_path / "b", {"hello": hello, "x": "1", "y": "2"}, PROGRAM + '[files]\n"/app/x" = "trusted:y"'
        )
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "out").symlink_to("/etc/passwd")
    with pytest.raises(StrongroomError, match="points out of the project"):
        image(tmp_path / "c", {"hello": hello}, PROGRAM)
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / "fifo")
    with pytest.raises(StrongroomError, match="neither a file nor a folder"):
        image(tmp_path / "d", {"hello": hello}, PROGRAM)
    with pytest.raises(StrongroomError, match="cannot read the signing key"):
        image(tmp_path / "e", {"hello": hello}, PROGRAM, key="file:none.pem")
    assert not list(tmp_path.glob("*/build"))


def test_where_a_signing_key_lies(
    image: Build, tmp_path: Path, hello: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's path is from where he stands, as any command's; the manifest's from the project."""
    here = tmp_path / "100%25 #here"  # a folder's name is no part of a URI
    here.mkdir()
    ours, own = create_key_file(here / "k.pem"), create_key_file(tmp_path / "k.pem")
    monkeypatch.chdir(here)
    (tmp_path / "p").mkdir()
    (tmp_path / "k.pem").rename(tmp_path / "p" / "k.pem")

    def signer_of(**named: str) -> int:
        image(tmp_path / "p", {"hello": hello}, PROGRAM + 'key = "file:k.pem"\n', **named)
        return sigstruct.parse((tmp_path / "p" / "build" / SIGNATURE).read_bytes()).modulus

    assert signer_of(key="file:k.pem") == ours.modulus
    assert signer_of() == own.modulus


def test_program_for_musl_is_refused(image: Build, tmp_path: Path) -> None:
    program = compile_c(
        tmp_path / "made", "hello", HELLO, "-Wl,--dynamic-linker=/lib/ld-musl-x86_64.so.1"
    ).read_bytes()
    with pytest.raises(StrongroomError, match="build it for glibc, or link it statically"):
        image(tmp_path / "p", {"hello": program}, PROGRAM)


def test_missing_library_is_named(image: Build, tmp_path: Path) -> None:
    made = tmp_path / "made"
    source = "int gone(void) { return 1; }"
    library = compile_c(made, "libgone.so", source, "-shared", "-fPIC", "-Wl,-soname,libgone.so.1")
    program = compile_c(
        made, "hello", "int gone(void); int main(void) { return gone(); }", "-x", "none", str(library)
    ).read_bytes()
    with pytest.raises(StrongroomError, match=r"needs libgone\.so\.1, which is not on this machine: install"):
        image(tmp_path / "p", {"hello": program}, PROGRAM)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_named(image: Build, tmp_path: Path, hello: bytes) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "x").write_text("")
    (tmp_path / "p" / "x").chmod(0)
    with pytest.raises(StrongroomError, match=r"cannot read .*x"):
        image(tmp_path / "p", {"hello": hello}, PROGRAM)


def test_full_disk_leaves_the_old_image(
    image: Build, tmp_path: Path, hello: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = image(tmp_path / "p", {"hello": hello}, PROGRAM)
    before = {path.name: path.read_bytes() for path in first.directory.iterdir()}

    def full(self: Any, *_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sgxs.Writer, "add_page", full)
    with pytest.raises(StrongroomError, match=r"the disk is full, .* is as it was"):
        image(tmp_path / "p", {"x": "new"})
    assert {path.name: path.read_bytes() for path in first.directory.iterdir()} == before
    assert sorted(os.listdir(tmp_path / "p")) == ["build", "enclave.toml", "hello", "x"]


def test_leavings_of_a_killed_build_go(image: Build, tmp_path: Path, hello: bytes) -> None:
    for name in (".build-4194399-x", f".build-{os.getpid()}-y", ".builder"):
        (tmp_path / "p" / name).mkdir(parents=True)
    image(tmp_path / "p", {"hello": hello}, PROGRAM)
    left = sorted(name for name in os.listdir(tmp_path / "p") if name.startswith("."))
    assert left == [f".build-{os.getpid()}-y", ".builder"]


def test_two_builds_at_once_leave_one_whole_image(image: Build, tmp_path: Path, hello: bytes) -> None:
    image(tmp_path / "p", {"hello": hello}, PROGRAM)
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: image(tmp_path / "p"), range(3)))
    assert len({one.mrenclave for one in results}) == 1
    assert measure(tmp_path / "p").mrenclave == results[0].mrenclave
    assert sorted(os.listdir(tmp_path / "p")) == ["build", "enclave.toml", "hello"]


def test_folder_of_others_is_not_replaced(image: Build, tmp_path: Path, hello: bytes) -> None:
    (tmp_path / "p" / "build").mkdir(parents=True)
    (tmp_path / "p" / "build" / "thesis.tex").write_text("work")
    with pytest.raises(StrongroomError, match="was not built by Strongroom: name another folder with --out"):
        image(tmp_path / "p", {"hello": hello}, PROGRAM)
    assert (tmp_path / "p" / "build" / "thesis.tex").read_text() == "work"
    inside = image(tmp_path / "p", out_dir=tmp_path / "p" / "image")
    again = image(tmp_path / "p", out_dir=tmp_path / "p" / "image")
    assert inside.mrenclave == again.mrenclave  # an image in the project is no part of it


def test_no_entry_in_the_libos_is_refused(tmp_path: Path, hello: bytes, strongroom_home: Path) -> None:
    bad = compile_c(
        tmp_path,
        "bad.elf",
        "void _start(void) {}",
        "-static",
        "-nostdlib",
        "-no-pie",
        "-Wl,-Ttext-segment=0x10000000",
    )
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "hello").write_bytes(hello)
    (tmp_path / "p" / manifest.NAME).write_text(PROGRAM)
    with pytest.raises(StrongroomError, match="has no symbol libos_syscall_entry: rebuild it with `make`"):
        build(tmp_path / "p", libos=bad)
