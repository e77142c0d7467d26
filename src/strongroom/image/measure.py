"""MRENCLAVE of any enclave file: SGXS streams, shared objects signed with Intel's SDK, and our build
folders."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from strongroom.errors import FormatError, StrongroomError, UsageError
from strongroom.image import sdk, sgxs, sigstruct
from strongroom.isa.flags import Attributes, PageType, page_type
from strongroom.isa.sigstruct import Sigstruct

Format = Literal["sgxs", "intel-sdk", "strongroom"]
STREAM_NAME = "enclave.sgxs"
SIGNATURE_NAME = "enclave.sig"
FACTS_NAME = "enclave.json"
BUILD_NAME = "build"
ELF_MAGIC = b"\x7fELF"
MAX_SIGNATURE_FILE = 1 << 16


class MeasurementMismatch(StrongroomError):
    """An enclave's signature is over another measurement than its content has."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a file measures to. Sizes are bytes, counts are pages.

    ``mrsigner`` and what follows come from a SIGSTRUCT that was found with the file and are None without one;
    its signature has been verified, and ``signed_mrenclave`` may still differ: see ``check_signed``.
    """

    format: Format
    mrenclave: bytes
    enclave_size: int
    ssa_frame_size: int
    pages: int
    measured_pages: int
    tcs_count: int
    mrsigner: bytes | None = None
    signed_mrenclave: bytes | None = None
    product: int | None = None
    svn: int | None = None
    debug: bool | None = None

    def check_signed(self) -> None:
        """Raise MeasurementMismatch where a signature is over another measurement."""
        if self.signed_mrenclave is not None and self.signed_mrenclave != self.mrenclave:
            raise MeasurementMismatch(
                f"the signature is over MRENCLAVE {self.signed_mrenclave.hex()}, the content measures to "
                f"{self.mrenclave.hex()}",
                "build and sign the enclave again",
            )


def measure(path: Path | str) -> Measurement:
    """Measure a file or a build folder; the format is told by content. Raises StrongroomError subclasses."""
    path = Path(path)
    if path.is_dir() or path.name == FACTS_NAME:
        folder = build_folder(path)
        return _measure_stream(folder / STREAM_NAME, folder / SIGNATURE_NAME, "strongroom")
    with sgxs.mapped(path) as view:
        start = bytes(view[:8])
        if start[:4] == ELF_MAGIC:
            return measure_signed_object(view)
        if start in (sgxs.TAG_ECREATE, sgxs.TAG_UNSIZED):
            ours = path.name == STREAM_NAME and (path.parent / FACTS_NAME).is_file()
            # The same view: a pipe can be read once.
            return _measure_view(view, path.with_suffix(".sig"), "strongroom" if ours else "sgxs")
    raise FormatError(
        f"{path} is no enclave that can be measured", "name an SGXS stream, a signed .so or a project"
    )


def build_folder(path: Path) -> Path:
    """The folder with ``enclave.sgxs``: of a project, of its ``build`` folder or of ``enclave.json``. Raises
    UsageError."""
    given = path.parent if path.name == FACTS_NAME else path
    for folder in (given, given / BUILD_NAME):
        if (folder / STREAM_NAME).is_file():
            return folder
    raise UsageError(f"{path} holds no built enclave", f"run `strongroom build {given}` first")


def measure_view(view: memoryview, kind: Format = "sgxs", signature: Sigstruct | None = None) -> Measurement:
    """Measure an SGXS stream in memory. Raises FormatError, SignatureError."""
    summary, mrenclave = sgxs.mrenclave(view)
    return _with_signature(
        Measurement(
            format=kind,
            mrenclave=mrenclave,
            enclave_size=summary.size,
            ssa_frame_size=summary.ssa_frame_size,
            pages=summary.pages,
            measured_pages=summary.measured_pages,
            tcs_count=summary.tcs_count,
        ),
        signature,
    )


def measure_signed_object(view: memoryview) -> Measurement:
    """Measure a shared object signed with Intel's SDK. Raises FormatError, SignatureError."""
    signed = sdk.read(view)
    digest = hashlib.sha256(sgxs.ecreate_record(signed.enclave_size, signed.ssa_frame_size))
    count = measured = tcs = 0
    zeros = bytes(4096)
    for page in signed.pages(view):
        record = sgxs.eadd_record(page.offset, page.flags)
        if page.extended:
            record += sgxs.page_records(page.offset, zeros if page.data is None else page.data, True)
            measured += 1
        digest.update(record)
        count += 1
        tcs += page_type(page.flags) == PageType.TCS
    plain = Measurement(
        format="intel-sdk",
        mrenclave=digest.digest(),
        enclave_size=signed.enclave_size,
        ssa_frame_size=signed.ssa_frame_size,
        pages=count,
        measured_pages=measured,
        tcs_count=tcs,
    )
    return _with_signature(plain, signed.sigstruct)


def read_signature(path: Path) -> Sigstruct | None:
    """The SIGSTRUCT in a file, or None where there is no file. Raises FormatError, StrongroomError."""
    try:
        with open(path, "rb") as file:
            return sigstruct.parse(file.read(MAX_SIGNATURE_FILE))
    except FileNotFoundError:
        return None
    except FormatError as error:
        raise FormatError(f"{path}: {error}", "build and sign the enclave again") from error
    except OSError as error:
        raise StrongroomError(f"cannot read {path} ({error.strerror})", "check the path") from error


def _measure_stream(path: Path, signature_path: Path, kind: Format) -> Measurement:
    with sgxs.mapped(path) as view:
        return _measure_view(view, signature_path, kind)


def _measure_view(view: memoryview, signature_path: Path, kind: Format) -> Measurement:
    ours = kind == "strongroom"
    signature = read_signature(signature_path) if ours or _is_sigstruct(signature_path) else None
    return measure_view(view, kind, signature)


def _is_sigstruct(path: Path) -> bool:
    """Whether a file beside a foreign stream is its SIGSTRUCT: other signatures have the same suffix."""
    return path.is_file() and path.stat().st_size == Sigstruct.SIZE


def _with_signature(plain: Measurement, signature: Sigstruct | None) -> Measurement:
    if signature is None:
        return plain
    sigstruct.verify(signature)
    return Measurement(
        format=plain.format,
        mrenclave=plain.mrenclave,
        enclave_size=plain.enclave_size,
        ssa_frame_size=plain.ssa_frame_size,
        pages=plain.pages,
        measured_pages=plain.measured_pages,
        tcs_count=plain.tcs_count,
        mrsigner=sigstruct.mrsigner(signature),
        signed_mrenclave=signature.mrenclave,
        product=signature.isv_prod_id,
        svn=signature.isv_svn,
        debug=bool(signature.attributes & Attributes.DEBUG),
    )
