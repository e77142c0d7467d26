"""Small enclaves for tests: a stream of a few pages, its SECS and its SIGSTRUCT."""

from __future__ import annotations

import functools
import hashlib
import io

from strongroom.image.sgxs import Writer
from strongroom.image.signer import KeySigner
from strongroom.image.sigstruct import sign, template
from strongroom.isa.enclave import Secs, Tcs
from strongroom.isa.flags import Attributes, PageType, SecinfoFlags, secinfo_flags
from strongroom.isa.sigstruct import Sigstruct

R, W, X = SecinfoFlags.R, SecinfoFlags.W, SecinfoFlags.X
REG_RW = secinfo_flags(PageType.REG, R | W)
REG_RX = secinfo_flags(PageType.REG, R | X)
TCS = secinfo_flags(PageType.TCS)


@functools.cache
def signer() -> KeySigner:
    """One key for the whole run: making RSA-3072 takes a while."""
    return KeySigner.generate()


def stream(size: int = 0x10000, seed: bytes = b"") -> bytes:
    """Code, unmeasured data, an empty page, a TCS and its SSA."""
    file = io.BytesIO()
    writer = Writer(file, size)
    writer.add_page(0x1000, REG_RX, hashlib.shake_128(b"code" + seed).digest(4096))
    writer.add_page(0x2000, REG_RW, hashlib.shake_128(b"data" + seed).digest(4096), measured=False)
    writer.add_page(0x3000, REG_RW)
    writer.add_page(0x4000, TCS, Tcs(ssa_offset=0x5000, nr_ssa_frames=1, entry_offset=0x1000).pack())
    writer.add_page(0x5000, REG_RW)
    return file.getvalue()


def sigstruct(mrenclave: bytes = bytes(32), key: KeySigner | None = None, **facts: object) -> Sigstruct:
    """A signed SIGSTRUCT."""
    return sign(template(mrenclave, **facts), key or signer())  # type: ignore[arg-type]


def secs(
    mrenclave: bytes = bytes(32), attributes: int = int(Attributes.MODE64BIT), **members: object
) -> Secs:
    """A SECS as the library sends it with EINIT."""
    return Secs(size=0x10000, attributes=attributes, xfrm=7, mrenclave=mrenclave, **members)  # type: ignore[arg-type]
