"""What the software quoting enclave is: constants that the QE identity (signed JSON) and the QE's REPORT both carry.

It is a process, not an enclave, and no measurement of it exists: the values are hashes of sentences that say so.
"""

from __future__ import annotations

import hashlib
from typing import Final

from strongroom.isa.flags import Attributes, Xfrm

QE_MRENCLAVE: Final = hashlib.sha256(b"Strongroom SOFTWARE quoting enclave, version 1, NO HARDWARE").digest()
QE_MRSIGNER: Final = hashlib.sha256(b"Strongroom SOFTWARE quoting enclave signer, NO HARDWARE").digest()

QE_ATTRIBUTE_FLAGS: Final = int(Attributes.INIT | Attributes.MODE64BIT | Attributes.PROVISIONKEY)
QE_XFRM: Final = int(Xfrm.X87 | Xfrm.SSE)
QE_ATTRIBUTES: Final = QE_ATTRIBUTE_FLAGS.to_bytes(8, "little") + bytes(8)
"""As the QE identity has it: flags, then XFRM, of which the mask leaves everything open."""
QE_ATTRIBUTES_MASK: Final = bytes.fromhex("ffffffffffffffff0000000000000000")
QE_MISCSELECT_MASK: Final = bytes.fromhex("ffffffff")
