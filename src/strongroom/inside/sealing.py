"""Sealing: data that only this enclave, or its signer's enclaves, on this machine can read back.

``SRSEAL01``, u8 policy (1 MRENCLAVE, 2 MRSIGNER), nonce (12 bytes), ciphertext, tag. The AES-256-GCM key is derived
from the EGETKEY seal key by HKDF-SHA256. There is no protection against an old file in place of a new one.
"""

from __future__ import annotations

import os

from strongroom.inside.device import Attestation
from strongroom.inside.errors import RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    Policy = Literal["mrenclave", "mrsigner"]

MAGIC: Final = b"SRSEAL01"
_POLICIES: Final[dict[Policy, int]] = {"mrenclave": 1, "mrsigner": 2}
_HEAD_SIZE: Final = len(MAGIC) + 1 + 12


def _cipher(device: Attestation, policy: Policy):  # type: ignore[no-untyped-def]
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = device.key(f"_sgx_{policy}")
    return AESGCM(HKDF(hashes.SHA256(), 32, None, b"strongroom seal 1 " + policy.encode()).derive(key))


def seal(data: bytes, policy: Policy = "mrenclave", device: Attestation | None = None) -> bytes:
    """``data`` sealed to this enclave (``mrenclave``), or to all of its signer's (``mrsigner``)."""
    if policy not in _POLICIES:
        raise ValueError("policy is 'mrenclave' or 'mrsigner'")
    head = MAGIC + bytes([_POLICIES[policy]])
    nonce = os.urandom(12)
    sealed: bytes = _cipher(device or Attestation(), policy).encrypt(nonce, bytes(data), head)
    return head + nonce + sealed


def unseal(sealed: bytes, device: Attestation | None = None) -> bytes:
    """What ``seal`` was given. Raises RecordError for another enclave's, another machine's or altered data."""
    from cryptography.exceptions import InvalidTag

    sealed = bytes(sealed)
    policy = next((name for name, number in _POLICIES.items() if sealed[8:9] == bytes([number])), None)
    if not sealed.startswith(MAGIC) or policy is None or len(sealed) < _HEAD_SIZE + 16:
        raise RecordError("this is not sealed data")
    head, nonce = sealed[: len(MAGIC) + 1], sealed[len(MAGIC) + 1 : _HEAD_SIZE]
    try:
        data: bytes = _cipher(device or Attestation(), policy).decrypt(nonce, sealed[_HEAD_SIZE:], head)
    except InvalidTag:
        raise RecordError(
            "the data does not unseal: sealed by another enclave or on another machine, or altered"
        ) from None
    return data
