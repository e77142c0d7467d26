"""Pure parts of the C, compiled for the address and undefined-behaviour sanitizers, driven by made-up inputs."""

from __future__ import annotations

import hashlib
import posixpath
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from asked import ENVIRONMENT, Asked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.image import pack
from strongroom.image.pack import PackFile
from support import enclaves

SLOW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
QUICK = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
CONTENT = {
    "/app/a": b"",
    "/app/b": bytes(range(256)) * 200,
    "/app/deep/er/c": b"x" * 16384,
    "/app/d": b"y" * 16385,
}
NAMES = st.sampled_from(
    ["app", "a", "b", "deep", "er", "c", "d", "loop", "up", "out", ".", "..", "", "x" * 255, "y" * 256]
)
PATHS = st.lists(NAMES, max_size=12).map("/".join).map(lambda path: "/" + path) | st.text(
    st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=40
)


@pytest.fixture
def parts(sanitized: Callable[[str], Path], ask: Callable[..., Asked], tmp_path: Path) -> Asked:
    files = [PackFile(path, content) for path, content in CONTENT.items()]
    files += [PackFile("/app/loop", target="loop"), PackFile("/app/up", target="../app/deep"),
              PackFile("/app/out", target="/" + "z" * 300)]  # fmt: skip
    with (tmp_path / "files.pack").open("wb") as out:
        pack.write(pack.with_directories(files), out)
    return ask(str(sanitized("parts")), str(tmp_path / "files.pack"))


def test_paths(parts: Asked) -> None:
    @QUICK
    @given(PATHS)
    def check(path: str) -> None:
        raw = path.encode()
        if not raw:
            return
        for verb in "af":
            answer = parts(verb, raw.hex())
            if answer.startswith("-"):
                assert int(answer) in (-2, -20, -36, -40)  # ENOENT ENOTDIR ENAMETOOLONG ELOOP
                continue
            found = bytes.fromhex(answer)
            assert found.startswith(b"/") and len(found) < 4096
            if verb == "a" and b".." not in raw and raw.startswith(b"/"):
                assert found == posixpath.normpath(b"/" + raw.lstrip(b"/"))

    check()


def test_reading_the_pack(parts: Asked) -> None:
    size = st.integers(0, 1 << 17)

    @QUICK
    @given(st.sampled_from(sorted(CONTENT)), size, size | st.integers(0, 2**63))
    def check(path: str, want: int, offset: int) -> None:
        answer = parts("r", path.encode().hex(), want, offset)
        assert bytes.fromhex(answer) == CONTENT[path][offset : offset + want]

    check()
    assert parts("r", b"/app/none".hex(), 1, 0) == "-2"
    assert int(parts("l", b"/app".hex())) == 7


def test_a_host_that_changes_the_pack(parts: Asked) -> None:
    """Each read is the measured content or EIO, whatever byte was changed; the index is a copy of its own."""

    @SLOW
    @given(st.integers(4096, 1 << 18), st.integers(1, 255), st.sampled_from(sorted(CONTENT)))
    def check(at: int, bits: int, path: str) -> None:
        parts("x", at, bits)
        answer = parts("r", path.encode().hex(), 60000, 0)
        assert answer == "-5" or bytes.fromhex(answer) == CONTENT[path]
        parts("x", at, bits)
        assert bytes.fromhex(parts("r", path.encode().hex(), 60000, 0)) == CONTENT[path]

    check()


def test_hashing_and_formatting(parts: Asked) -> None:
    @QUICK
    @given(st.binary(min_size=1, max_size=700), st.integers(1, 80))
    def check(data: bytes, room: int) -> None:
        assert parts("s", data.hex()) == hashlib.sha256(data).hexdigest()
        assert 0 <= int(parts("p", data.replace(b"\0", b"").hex() or "61", room)) < room

    check()


def test_the_machines_checks(sanitized: Callable[[str], Path], ask: Callable[..., Asked]) -> None:
    """SECINFO, SECS, TCS: what is accepted is what the manual's rules accept, computed here once more."""
    native = ask(str(sanitized("native_parts")))

    @QUICK
    @given(st.integers(0, 2**64 - 1) | st.sampled_from([0x201, 0x203, 0x205, 0x207, 0x202, 0x100, 0x101, 0x200, 0x300]),
           st.binary(max_size=56))  # fmt: skip
    def secinfo(flags: int, reserved: bytes) -> None:
        body = struct.pack("<Q", flags) + reserved.ljust(56, b"\0")
        kind, rights = flags >> 8 & 0xFF, flags & 7
        good = not flags & ~0xFF07 and not any(reserved) and (
            (kind == 1 and rights == 0) or (kind == 2 and not (rights & 2 and not rights & 1))
        )  # fmt: skip
        assert native("i", body.hex()) == str(int(good))

    @SLOW
    @given(st.integers(0, 4095), st.integers(1, 255))
    def tcs(at: int, value: int) -> None:
        body = bytearray(4096)
        body[at] = value
        # TCS (SDM vol. 3D): 72 bytes of fields, reserved to the end; the shadow stack's fields must be zero here.
        assert native("t", body.hex()) in ("0", "1")
        if at >= 80:
            assert native("t", body.hex()) == "0"

    @SLOW
    @given(st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=6))
    def secs(changes: list[tuple[int, int]]) -> None:
        body = bytearray(enclaves.secs().pack())
        for at, value in changes:
            body[at] = value
        assert native("c", body.hex()) in ("0", "1")

    @SLOW
    @given(st.binary(max_size=64), st.integers(0, 4032))
    def measured(data: bytes, at: int) -> None:
        page = bytearray(4096)
        page[at : at + len(data)] = data
        assert native("h", page.hex()) == native("H", page.hex())

    secinfo()
    tcs()
    secs()
    measured()


def test_the_loaders_reader(sanitized: Callable[[str], Path], tmp_path: Path) -> None:
    """A damaged enclave.sgxs is refused with a line, or read: never a byte beyond it."""
    whole = enclaves.stream()
    (tmp_path / "sig").write_bytes(bytes(1808))
    program = sanitized("loader_parts")

    def read(image: bytes) -> subprocess.CompletedProcess[str]:
        (tmp_path / "image").write_bytes(image)
        words = [str(program), str(tmp_path / "image"), str(tmp_path / "sig")]
        return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, timeout=20, check=False)

    done = read(whole)
    assert (done.returncode, done.stdout) == (0, f"{5 * 4096}\n")

    @SLOW
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 255)), max_size=4),
           st.integers(0, len(whole)), st.booleans())  # fmt: skip
    def damaged(changes: list[tuple[int, int]], cut: int, is_cut: bool) -> None:
        image = bytearray(whole)
        for at, bits in changes:
            # Tags and sizes first: that is where a reader goes wrong.
            image[at - at % 64 + at % 24 if at % 3 else at] ^= bits
        done = read(bytes(image[:cut]) if is_cut else bytes(image))
        assert done.returncode in (0, 125), done.stderr[:2000]
        assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr

    damaged()


def test_the_sanitizers_see_what_is_wrong(sanitized: Callable[[str], Path], tmp_path: Path) -> None:
    """A pack cut within its index is read beyond its end here: the tests above could not pass by being blind."""
    with (tmp_path / "files.pack").open("wb") as out:
        pack.write([PackFile("/a", b"1")], out)
    head = (tmp_path / "files.pack").read_bytes()[:100]
    (tmp_path / "cut").write_bytes(head)
    done = subprocess.run([str(sanitized("parts")), str(tmp_path / "cut")], input="", capture_output=True, text=True,
                          env=ENVIRONMENT, check=False)  # fmt: skip
    assert done.returncode == 99
    assert "heap-buffer-overflow" in done.stderr
