"""Signing keys: found by URI, refused by name, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from strongroom.errors import UsageError
from strongroom.image.signer import KeySigner, SignerError, create_key_file, load_key_file, open_signer
from support.enclaves import signer


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_file_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a key.pem", signer().to_pem())
    assert open_signer(f"file:{tmp_path}/a%20key.pem").modulus == signer().modulus
    assert open_signer(f"file://{path}".replace(" ", "%20")).modulus == signer().modulus
    monkeypatch.chdir(tmp_path)
    assert open_signer("file:a key.pem").modulus == signer().modulus


@pytest.mark.parametrize("uri", ["", "key.pem", "file:", "file://host/key.pem", "hsm:slot", "http://x/k"])
def test_other_uris_are_usage_errors(uri: str) -> None:
    with pytest.raises(UsageError):
        open_signer(uri)


def test_create_is_private_and_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    made = create_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(SignerError, match="exists"):
        create_key_file(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["key.pem"]
    assert load_key_file(path).modulus == made.modulus
    with pytest.raises(SignerError, match="cannot write"):
        create_key_file(tmp_path / "no" / "key.pem")


def test_keys_that_sgx_does_not_take(tmp_path: Path) -> None:
    small = rsa.generate_private_key(3, 2048)
    other = rsa.generate_private_key(65537, 3072)
    for key, reason in (
        (small, "RSA-2048"),
        (other, "65537"),
        (ec.generate_private_key(ec.SECP256R1()), "RSA"),
    ):
        with pytest.raises(SignerError, match=reason):
            load_key_file(write(tmp_path / "k.pem", pem(key)))
    with pytest.raises(SignerError, match="password"):
        load_key_file(write(tmp_path / "k.pem", pem(small, b"secret")))
    with pytest.raises(SignerError):
        KeySigner(small)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(SignerError, match="cannot read"):
        load_key_file(tmp_path / "nothing")
    with pytest.raises(SignerError, match="chmod"):
        load_key_file(write(tmp_path / "open.pem", signer().to_pem(), 0o644))
    with pytest.raises(SignerError, match="too large"):
        load_key_file(write(tmp_path / "large.pem", b"x" * 70000))
    text = signer().to_pem()
    with pytest.raises(SignerError) as caught:
        load_key_file(write(tmp_path / "cut.pem", text[: len(text) // 2]))
    assert "PRIVATE" not in str(caught.value)
    assert text[40:60].decode() not in str(caught.value)
