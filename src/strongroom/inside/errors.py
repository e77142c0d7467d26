"""Errors of the code inside. One root; the text never holds key material."""

from __future__ import annotations


class InsideError(Exception):
    """Something that this package does inside an enclave failed."""


class CodecError(InsideError):
    """Bytes on the channel, or a value that should cross it, are not what the codec allows."""


class DeviceError(InsideError):
    """/dev/attestation did not do what was asked: no enclave, or no quoting enclave behind it."""


class KeyRefused(InsideError):
    """The owner did not release the key. ``reason`` is the owner's word for why (such as ``old-svn``)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class RecordError(InsideError):
    """A record cannot be decrypted: another key, another name, or altered."""


class NoCryptography(InsideError, ModuleNotFoundError):
    """The image has no ``cryptography``, which all that has to do with keys is made of."""


def need_cryptography() -> None:
    """Raises NoCryptography, which says how it comes inside."""
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "cryptography":
            raise
        raise NoCryptography(
            'keys need the package cryptography inside: packages = ["cryptography"] in enclave.toml, then build again'
        ) from None
