"""Records: data under AES-256-GCM with the name of its key bound in. The one format, used inside and by the owner.

``SRREC001`` (8 bytes), nonce (12 bytes, random), ciphertext, tag (16 bytes). Authenticated besides: the magic and the
key's name. A random nonce allows 2^32 records a key (NIST SP 800-38D, section 8.3).
"""

from __future__ import annotations

import os

from strongroom.inside.errors import RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

MAGIC: Final = b"SRREC001"
KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
MAX_PLAINTEXT_SIZE: Final = 2**31 - 1 - 64
"""The limit of the library's one-shot AES-GCM."""


class RecordKey:
    """A key of 32 bytes by which records are encrypted and decrypted; its text form never shows it."""

    __slots__ = ("__cipher", "name")

    def __init__(self, name: str, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if len(key) != KEY_SIZE:
            raise RecordError(f"a record key is {KEY_SIZE} bytes, got {len(key)}")
        self.name = name
        self.__cipher = AESGCM(key)

    def __repr__(self) -> str:
        return f"<RecordKey {self.name!r}>"

    def __reduce__(self) -> NoReturn:
        raise RecordError("a record key is not to be pickled or copied")

    def encrypt(self, plaintext: bytes) -> bytes:
        """A record of ``plaintext``, 36 bytes longer. Raises RecordError."""
        if len(plaintext) > MAX_PLAINTEXT_SIZE:
            raise RecordError(f"a record holds at most {MAX_PLAINTEXT_SIZE} bytes")
        nonce = os.urandom(NONCE_SIZE)
        return MAGIC + nonce + self.__cipher.encrypt(nonce, bytes(plaintext), self._bound())

    def decrypt(self, record: bytes) -> bytes:
        """The plaintext of ``record``. Raises RecordError."""
        from cryptography.exceptions import InvalidTag

        record = bytes(record)
        if not record.startswith(MAGIC) or len(record) < len(MAGIC) + NONCE_SIZE + TAG_SIZE:
            raise RecordError("this is not an encrypted record")
        nonce, sealed = record[len(MAGIC) : len(MAGIC) + NONCE_SIZE], record[len(MAGIC) + NONCE_SIZE :]
        if len(sealed) > MAX_PLAINTEXT_SIZE:
            raise RecordError(f"a record holds at most {MAX_PLAINTEXT_SIZE} bytes")
        try:
            return self.__cipher.decrypt(nonce, sealed, self._bound())
        except InvalidTag:
            raise RecordError(
                f"the record does not decrypt with the key {self.name!r}: another key, or altered"
            ) from None

    def _bound(self) -> bytes:
        return MAGIC + self.name.encode()
