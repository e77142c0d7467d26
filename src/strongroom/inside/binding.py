"""What ties a quote to one challenge and one key, and a released key to that quote. Used inside and by the owner.

Report data (64 bytes) is SHA-512/256 over a label and the fields, each with its length before it (u32, little endian),
then 32 zero bytes. Labels differ by purpose, so that a quote made for one cannot serve another.
"""

from __future__ import annotations

import hashlib
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NONCE_SIZE: Final = 32
PUBLIC_KEY_SIZE: Final = 32
KEY_SIZE: Final = 32
WRAPPED_SIZE: Final = KEY_SIZE + 16
MAX_NAME_SIZE: Final = 128

LABEL_RELEASE: Final = b"strongroom release 1"
LABEL_HOST: Final = b"strongroom host quote 1"


def valid_name(name: str) -> bool:
    """Whether ``name`` can name a key: 1 to 128 bytes of printable text."""
    return bool(name) and name.isprintable() and len(name.encode("utf-8", "replace")) <= MAX_NAME_SIZE


def _digest(*parts: bytes) -> bytes:
    state = hashlib.new("sha512_256")
    for part in parts:
        state.update(struct.pack("<I", len(part)) + part)
    return state.digest()


def release_report_data(nonce: bytes, public_key: bytes, name: str) -> bytes:
    """Report data for the release of key ``name`` to an X25519 ``public_key`` (32 bytes) under ``nonce`` (32 bytes)."""
    return _digest(LABEL_RELEASE, nonce, public_key, name.encode()) + bytes(32)


def host_report_data(data: bytes) -> bytes:
    """Report data for a quote that the host program asked for: never mistaken for that of a release."""
    return _digest(LABEL_HOST, data) + bytes(32)


def _wrapping_key(shared: bytes, nonce: bytes, ephemeral: bytes, public_key: bytes, name: str) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    info = _digest(LABEL_RELEASE, ephemeral, public_key, name.encode())
    return HKDF(hashes.SHA256(), 32, nonce, info).derive(shared)


def wrap(key: bytes, nonce: bytes, public_key: bytes, name: str) -> tuple[bytes, bytes]:
    """``key`` (32 bytes) for the holder of ``public_key``: an ephemeral public key and 48 wrapped bytes.

    X25519 with a fresh key, HKDF-SHA256, AES-256-GCM; the wrapping key serves once, hence its zero nonce.
    Raises ValueError for a public key of low order.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    own = X25519PrivateKey.generate()
    ephemeral = own.public_key().public_bytes_raw()
    shared = own.exchange(X25519PublicKey.from_public_bytes(public_key))
    wrapping = _wrapping_key(shared, nonce, ephemeral, public_key, name)
    return ephemeral, AESGCM(wrapping).encrypt(bytes(12), key, LABEL_RELEASE)


def unwrap(private_key: bytes, nonce: bytes, ephemeral: bytes, wrapped: bytes, name: str) -> bytes:
    """The key that ``wrap`` was given. Raises ValueError where it was not wrapped for this key pair and request."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    own = X25519PrivateKey.from_private_bytes(private_key)
    public_key = own.public_key().public_bytes_raw()
    shared = own.exchange(X25519PublicKey.from_public_bytes(ephemeral))
    wrapping = _wrapping_key(shared, nonce, ephemeral, public_key, name)
    try:
        return AESGCM(wrapping).decrypt(bytes(12), wrapped, LABEL_RELEASE)
    except InvalidTag:
        raise ValueError("the key was not wrapped for this request") from None
