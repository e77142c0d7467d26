"""Sealing: data that only this enclave, or its signer's enclaves, on this machine can read back.

``SRSEAL02``, u8 policy (1 MRENCLAVE, 2 MRSIGNER), the key request's ISVSVN (u16), CPUSVN (16) and KEYID (32), nonce
(12), ciphertext, tag. The AES-256-GCM key is derived from the EGETKEY seal key by HKDF-SHA256. Data that was sealed at
lower versions opens after an upgrade, and is refused after a downgrade. There is no protection against an old file in
place of a new one.
"""

from __future__ import annotations

import os
import struct

from strongroom.inside.device import Attestation
from strongroom.inside.errors import DeviceError, RecordError, need_cryptography

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Literal

    Policy = Literal["mrenclave", "mrsigner"]

MAGIC: Final = b"SRSEAL02"
_POLICIES: Final[dict[Policy, int]] = {"mrenclave": 1, "mrsigner": 2}
_HEAD: Final = struct.Struct("<8sBH16s32s")
_NONCE_SIZE: Final = 12


def _cipher(device: Attestation, policy: int, isv_svn: int, cpu_svn: bytes, key_id: bytes):  # type: ignore[no-untyped-def]
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = device.sealing_key(policy, isv_svn, cpu_svn, key_id)
    return AESGCM(HKDF(hashes.SHA256(), 32, None, b"strongroom seal 2").derive(key))


def seal(data: bytes, policy: Policy = "mrenclave", device: Attestation | None = None) -> bytes:
    """``data`` sealed to this enclave (``mrenclave``), or to all of its signer's (``mrsigner``)."""
    need_cryptography()
    if policy not in _POLICIES:
        raise ValueError("policy is 'mrenclave' or 'mrsigner'")
    device = device or Attestation()
    request = (_POLICIES[policy], *device.versions(), os.urandom(32))
    head = _HEAD.pack(MAGIC, *request)
    nonce = os.urandom(_NONCE_SIZE)
    sealed: bytes = _cipher(device, *request).encrypt(nonce, bytes(data), head)
    return head + nonce + sealed


def unseal(sealed: bytes, device: Attestation | None = None) -> bytes:
    """What ``seal`` was given. Raises RecordError: another enclave's, another machine's or altered data, or sealed by a
    newer version of the program or under newer microcode."""
    need_cryptography()
    from cryptography.exceptions import InvalidTag

    sealed = bytes(sealed)
    if len(sealed) < _HEAD.size + _NONCE_SIZE + 16:
        raise RecordError("this is not sealed data")
    head, rest = sealed[: _HEAD.size], sealed[_HEAD.size :]
    magic, *request = _HEAD.unpack(head)
    if magic != MAGIC or request[0] not in _POLICIES.values():
        raise RecordError("this is not sealed data")
    try:
        cipher = _cipher(device or Attestation(), *request)
        data: bytes = cipher.decrypt(rest[:_NONCE_SIZE], rest[_NONCE_SIZE:], head)
    except InvalidTag:
        raise RecordError(
            "the data does not unseal: sealed by another enclave or on another machine, or altered"
        ) from None
    except DeviceError:
        raise RecordError(
            "the data does not unseal: sealed by a newer version, under newer microcode, or altered"
        ) from None
    return data
