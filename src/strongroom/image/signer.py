"""Whoever holds an enclave signing key: chosen by URI scheme, one class a backend. Today: ``file:PATH``
(PEM)."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from strongroom.errors import StrongroomError, UsageError

KEY_BITS = 3072
MAX_KEY_FILE = 64 << 10
MAKE_ONE = f"make one with `openssl genrsa -3 -out key.pem {KEY_BITS}`"


class SignerError(StrongroomError):
    """A signing key cannot be had or used."""


class Signer(Protocol):
    """An RSA-3072 key with exponent 3, wherever it is kept."""

    @property
    def modulus(self) -> int:
        """The public modulus."""

    def sign(self, message: bytes) -> int:
        """RSASSA-PKCS1-v1_5 with SHA-256 over ``message`` (RFC 8017, Section 8.2), as a number."""


class KeySigner:
    """A key in this process' memory."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        numbers = key.public_key().public_numbers()
        if numbers.e != 3 or key.key_size != KEY_BITS:
            raise SignerError(
                f"the key is RSA-{key.key_size} with exponent {numbers.e}, not RSA-{KEY_BITS} with exponent 3",
                MAKE_ONE,
            )
        self._key = key
        self._modulus = numbers.n

    @classmethod
    def generate(cls) -> KeySigner:
        """A fresh key that is written nowhere."""
        return cls(rsa.generate_private_key(public_exponent=3, key_size=KEY_BITS))

    @property
    def modulus(self) -> int:
        """The public modulus."""
        return self._modulus

    def sign(self, message: bytes) -> int:
        """See Signer."""
        return int.from_bytes(self._key.sign(message, padding.PKCS1v15(), hashes.SHA256()), "big")

    def to_pem(self) -> bytes:
        """The private key, PKCS #8, not encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def load_key_file(path: Path | str) -> KeySigner:
    """Read a PEM key without a password. Raises SignerError, also where others may read the file."""
    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            data = file.read(MAX_KEY_FILE + 1)
    except OSError as error:
        raise SignerError(
            f"cannot read the signing key {path} ({error.strerror})", "check the path"
        ) from error
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SignerError(f"others may read the signing key {path}", f"run `chmod 600 {path}`")
    if len(data) > MAX_KEY_FILE:
        raise SignerError(f"{path} is too large for a key", "name a PEM file with an RSA private key")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The library's text may quote what it read; ours does not.
        raise SignerError(
            f"{path} is not a PEM private key without a password", "name another file"
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise SignerError(f"{path} is not an RSA key", MAKE_ONE)
    return KeySigner(key)


def create_key_file(path: Path | str) -> KeySigner:
    """Make a key and write it (0600, complete or not at all). Raises SignerError where the file exists
    already."""
    signer = KeySigner.generate()
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(signer.to_pem())
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # unlike rename, refuses to replace a key that is there
        finally:
            os.unlink(temporary)
    except FileExistsError as error:
        raise SignerError(f"{path} exists already", "choose another name or remove it yourself") from error
    except OSError as error:
        raise SignerError(
            f"cannot write the signing key {path} ({error.strerror})", "choose another folder"
        ) from error
    return signer


def open_signer(uri: str) -> Signer:
    """The signer that a URI names: ``file:PATH``, relative or absolute. Raises UsageError or SignerError."""
    parts = urlsplit(uri)
    if parts.scheme == "file" and not parts.netloc and parts.path:
        return load_key_file(unquote(parts.path))
    if parts.scheme == "file":
        raise UsageError(f"{uri!r} names no file", "write file:PATH")
    raise UsageError(f"no signer for {uri!r}", "name a key as file:PATH")
