"""The paging cipher beside pyca/cryptography's: two implementations that share nothing."""

from __future__ import annotations

import ctypes
import random
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

NATIVE = Path(__file__).parents[2] / "native"
PAGE = 4096
pages = st.integers(0, 2**64).map(lambda seed: random.Random(seed).randbytes(PAGE)) | st.just(bytes(PAGE))


@pytest.fixture(scope="module")
def gcm(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if " aes " not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this processor has no AES-NI")
    out = tmp_path_factory.mktemp("gcm") / "gcm.so"
    flags = ["-O3", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-D_MM_MALLOC_H_INCLUDED"]
    source = tmp_path_factory.getbasetemp() / "gcm.c"
    # The library's symbols are hidden for the injected program's sake; here they are what is tested.
    source.write_text(
        f'#include "{NATIVE}/processor/aesgcm.c"\n'
        '__attribute__((visibility("default"))) void seal(const uint8_t *k, const uint8_t *iv, const uint8_t *aad,'
        " const void *p, void *c, uint8_t *t) { struct gcm_key key; gcm_key_set(&key, k);"
        " gcm_page_seal(&key, iv, aad, p, c, t); }\n"
        '__attribute__((visibility("default"))) int open_(const uint8_t *k, const uint8_t *iv, const uint8_t *aad,'
        " const void *c, const uint8_t *t, void *p) { struct gcm_key key; gcm_key_set(&key, k);"
        " return gcm_page_open(&key, iv, aad, c, t, p); }\n"
    )
    subprocess.run(["gcc", *flags, f"-I{NATIVE}/include", "-o", str(out), str(source)], check=True)
    return ctypes.CDLL(str(out))


def seal(gcm: ctypes.CDLL, key: bytes, iv: bytes, aad: bytes, page: bytes) -> tuple[bytes, bytes]:
    cipher, tag = ctypes.create_string_buffer(PAGE), ctypes.create_string_buffer(16)
    gcm.seal(key, iv, aad, page, cipher, tag)
    return cipher.raw, tag.raw


@given(
    key=st.binary(min_size=16, max_size=16),
    iv=st.binary(min_size=12, max_size=12),
    aad=st.binary(min_size=32, max_size=32),
    page=pages,
)
def test_as_another_implementation(gcm: ctypes.CDLL, key: bytes, iv: bytes, aad: bytes, page: bytes) -> None:
    cipher, tag = seal(gcm, key, iv, aad, page)
    assert cipher + tag == AESGCM(key).encrypt(iv, page, aad)
    out = ctypes.create_string_buffer(PAGE)
    assert gcm.open_(key, iv, aad, cipher, tag, out) and out.raw == page


@given(st.integers(0, PAGE + 16 + 12 + 32 - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused_and_the_page_wiped(gcm: ctypes.CDLL, at: int, by: int) -> None:
    key, iv, aad, page = b"k" * 16, b"i" * 12, b"a" * 32, b"p" * PAGE
    parts = bytearray(b"".join(seal(gcm, key, iv, aad, page)) + iv + aad)
    parts[at] ^= by
    cipher, tag, iv, aad = (
        parts[:PAGE],
        parts[PAGE : PAGE + 16],
        parts[PAGE + 16 : PAGE + 28],
        parts[PAGE + 28 :],
    )
    out = ctypes.create_string_buffer(b"\xff" * PAGE, PAGE)
    assert not gcm.open_(key, bytes(iv), bytes(aad), bytes(cipher), bytes(tag), out)
    assert out.raw == bytes(PAGE)
