"""The LibOS's AES-GCM beside pyca/cryptography's: two implementations that share nothing."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

LIBOS = Path(__file__).parents[2] / "libos"
KEYS = st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32)
NONCES = st.binary(min_size=12, max_size=12)


@pytest.fixture(scope="module")
def gcm(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    if " aes " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AES-NI")
    out = tmp_path_factory.mktemp("gcm") / "gcm.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-maes", "-mpclmul", "-mssse3"]
    subprocess.run(
        ["gcc", *flags, f"-I{LIBOS}/include", "-o", str(out), str(LIBOS / "lib/aesgcm.c")], check=True
    )
    library = ctypes.CDLL(str(out))
    library.gcm_open.restype = ctypes.c_bool
    return library


def seal(gcm: ctypes.CDLL, key: bytes, nonce: bytes, aad: bytes, data: bytes) -> tuple[bytes, bytes]:
    size = ctypes.c_size_t
    out, tag = ctypes.create_string_buffer(len(data) + 1), ctypes.create_string_buffer(16)
    gcm.gcm_seal(key, size(len(key)), nonce, aad, size(len(aad)), data, out, size(len(data)), tag)
    return out.raw[: len(data)], tag.raw


def opened(gcm: ctypes.CDLL, key: bytes, nonce: bytes, aad: bytes, data: bytes, tag: bytes) -> bytes | None:
    size = ctypes.c_size_t
    out = ctypes.create_string_buffer(len(data) + 1)
    good = gcm.gcm_open(key, size(len(key)), nonce, aad, size(len(aad)), data, out, size(len(data)), tag)
    if not good:
        assert out.raw == bytes(len(data) + 1), "nothing is written when the tag is wrong"
        return None
    return out.raw[: len(data)]


@given(
    key=KEYS,
    nonce=NONCES,
    aad=st.binary(max_size=50),
    data=st.binary(max_size=400) | st.integers(0, 5000).map(bytes),
)
def test_as_another_implementation(
    gcm: ctypes.CDLL, key: bytes, nonce: bytes, aad: bytes, data: bytes
) -> None:
    sealed, tag = seal(gcm, key, nonce, aad, data)
    assert sealed + tag == AESGCM(key).encrypt(nonce, data, aad)
    assert opened(gcm, key, nonce, aad, sealed, tag) == data


@given(key=KEYS, nonce=NONCES, data=st.binary(min_size=1, max_size=100), where=st.data())
def test_a_changed_bit_is_refused(
    gcm: ctypes.CDLL, key: bytes, nonce: bytes, data: bytes, where: st.DataObject
) -> None:
    sealed, tag = seal(gcm, key, nonce, b"name", data)

    def flipped(part: bytes) -> bytes:
        bit = where.draw(st.integers(0, len(part) * 8 - 1))
        return bytes(b ^ (1 << bit % 8 if i == bit // 8 else 0) for i, b in enumerate(part))

    attempts: list[Callable[[], bytes | None]] = [
        lambda: opened(gcm, key, nonce, b"name", flipped(sealed), tag),
        lambda: opened(gcm, key, nonce, b"name", sealed, flipped(tag)),
        lambda: opened(gcm, key, flipped(nonce), b"name", sealed, tag),
        lambda: opened(gcm, key, nonce, flipped(b"name"), sealed, tag),
    ]
    assert [attempt() for attempt in attempts] == [None] * 4
