"""The fields of any SGX artefact as typed data. Nothing here is verified unless it says so."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import Any, ClassVar

from strongroom.errors import FormatError, StrongroomError
from strongroom.image import sdk, sgxs, sigstruct
from strongroom.image.measure import (
    ELF_MAGIC,
    FACTS_NAME,
    SIGNATURE_NAME,
    STREAM_NAME,
    Measurement,
    build_folder,
    measure_signed_object,
    measure_view,
    read_signature,
)
from strongroom.isa.flags import Attributes, KeyName, KeyPolicy, Miscselect, Xfrm
from strongroom.isa.report import Keyrequest, Report, ReportBody, Targetinfo
from strongroom.isa.sigstruct import SIGSTRUCT_HEADER, Sigstruct
from strongroom.isa.structure import Field, Structure, number, octets, part

QUOTE_VERSION = 3
ECDSA_P256 = 2


@dataclass(frozen=True)
class QuoteStart(Structure):
    """What a DCAP quote of version 3 starts with (Intel SGX ECDSA QuoteLibReference, Appendix A.4), 436
    bytes."""

    NAME: ClassVar[str] = "quote"
    SIZE: ClassVar[int] = 436
    FIELDS: ClassVar[tuple[Field, ...]] = (
        number("version", 0, 2),
        number("attestation_key_type", 2, 2),
        number("tee_type", 4, 4),
        number("qe_svn", 8, 2),
        number("pce_svn", 10, 2),
        octets("qe_vendor_id", 12, 16),
        octets("user_data", 28, 20),
        part("report", 48, ReportBody),
        number("signature_size", 432, 4),
    )
    version: int
    attestation_key_type: int
    tee_type: int
    qe_svn: int
    pce_svn: int
    qe_vendor_id: bytes
    user_data: bytes
    report: ReportBody
    signature_size: int


@dataclass(frozen=True)
class Artefact:
    """What was found: ``kind`` for people and programs, ``facts`` by the manual's names in lower case."""

    kind: str
    facts: dict[str, Any]


def inspect(path: Path | str) -> Artefact:
    """Read a file or a build folder. Raises FormatError where it is no SGX artefact, StrongroomError
    otherwise."""
    path = Path(path)
    if path.is_dir() or path.name == FACTS_NAME:
        folder = build_folder(path)
        with sgxs.mapped(folder / STREAM_NAME) as view:
            facts = {"folder": str(folder), **_stream(view)}
        signature = read_signature(folder / SIGNATURE_NAME)
        facts["format"] = "strongroom"
        facts["sigstruct"] = None if signature is None else describe_sigstruct(signature)
        return Artefact("build folder", facts)
    with sgxs.mapped(path) as view:
        return inspect_bytes(view)


def inspect_bytes(view: memoryview) -> Artefact:
    """The same for bytes: told by magic where there is one, else by size and reserved fields. Raises
    FormatError."""
    start = bytes(view[:16])
    if start[:8] in (sgxs.TAG_ECREATE, sgxs.TAG_UNSIZED):
        return Artefact("SGXS stream", _stream(view))
    if start[:4] == ELF_MAGIC:
        return Artefact("signed shared object (Intel SDK)", _signed_object(view))
    if start == SIGSTRUCT_HEADER:
        return Artefact("SIGSTRUCT", describe_sigstruct(sigstruct.parse(view)))
    if len(view) > QuoteStart.SIZE and start[:8] == bytes((QUOTE_VERSION, 0, ECDSA_P256, 0, 0, 0, 0, 0)):
        return Artefact("DCAP quote, version 3", _quote(view))
    for kind in (Report, Keyrequest, Targetinfo):
        if len(view) != kind.SIZE:
            continue
        try:
            structure = kind.unpack(view)
        except FormatError:
            continue
        if isinstance(structure, Keyrequest) and structure.key_name > max(KeyName):
            continue
        return Artefact(kind.NAME, _describe(structure))
    raise FormatError(
        "not an SGX artefact that is known here",
        "name an SGXS stream, a signed .so, a SIGSTRUCT, a quote, a REPORT or a build folder",
    )


def _names(value: int, kind: type[IntFlag]) -> list[str]:
    names = [flag.name or "" for flag in kind if value & flag]
    rest = value & ~sum(flag.value for flag in kind)
    return [*names, hex(rest)] if rest else names


def _describe(structure: Structure) -> dict[str, Any]:
    """A structure's members; flag words by name."""
    facts = structure.facts()
    _name_flags(facts)
    if isinstance(structure, Keyrequest):
        facts["key_name"] = KeyName(structure.key_name).name
        facts["key_policy"] = _names(structure.key_policy, KeyPolicy)
    return facts


def _name_flags(facts: dict[str, Any]) -> None:
    kinds: dict[str, type[IntFlag]] = {"attributes": Attributes, "xfrm": Xfrm, "miscselect": Miscselect}
    for name, value in facts.items():
        if isinstance(value, dict):
            _name_flags(value)
        elif name in kinds:
            facts[name] = _names(value, kinds[name])
        elif name.endswith("_mask") and isinstance(value, int):
            facts[name] = hex(value)


def describe_sigstruct(value: Sigstruct) -> dict[str, Any]:
    """SIGSTRUCT's members that mean something to a reader, MRSIGNER, and whether its signature verifies."""
    facts = _describe(value)
    for name in ("header", "header2", "modulus", "signature", "q1", "q2"):
        del facts[name]
    facts["vendor"] = hex(value.vendor)
    facts["date"] = f"{value.date:08x}"
    facts["mrsigner"] = sigstruct.mrsigner(value)
    try:
        sigstruct.verify(value)
        facts["signature"] = "verifies with the key it carries"
    except StrongroomError as error:
        facts["signature"] = f"refused: {error.message}"
    return facts


def _measurement(measured: Measurement) -> dict[str, Any]:
    names = ("format", "mrenclave", "enclave_size", "ssa_frame_size", "pages", "measured_pages", "tcs_count")
    signed = ("mrsigner", "signed_mrenclave", "product", "svn", "debug")
    shown = names if measured.mrsigner is None else names + signed
    return {name: getattr(measured, name) for name in shown}


def _stream(view: memoryview) -> dict[str, Any]:
    facts = _measurement(measure_view(view))
    regions: list[dict[str, Any]] = []
    for page in sgxs.pages(view):
        measured = "yes" if page.measured == sgxs.ALL_CHUNKS else "in part" if page.measured else "no"
        content = "none" if page.data is None else "data"
        kind = (page.flags, measured, content)
        last = regions[-1] if regions else None
        if last and last["end"] == page.offset and (last["flags"], last["measured"], last["content"]) == kind:
            last["end"] += 4096
        else:
            regions.append(
                {
                    "start": page.offset,
                    "end": page.offset + 4096,
                    "flags": page.flags,
                    "measured": measured,
                    "content": content,
                }
            )
    for region in regions:
        flags = region.pop("flags")
        region["pages"] = (region["end"] - region["start"]) // 4096
        region["start"], region["end"] = hex(region["start"]), hex(region["end"])
        letters = "".join(letter if flags >> bit & 1 else "-" for bit, letter in enumerate("rwx"))
        region["kind"] = "TCS" if flags >> 8 == 1 else letters
    facts["regions"] = regions
    facts["writable_and_executable"] = sum(one["pages"] for one in regions if one["kind"] == "rwx")
    if facts["writable_and_executable"]:
        facts["warning"] = (
            "pages can be written AND executed: a fault inside can become code of an attacker's choice"
        )
    return facts


def _signed_object(view: memoryview) -> dict[str, Any]:
    signed = sdk.read(view)
    return {
        "metadata_version": f"{signed.version[0]}.{signed.version[1]}",
        "measurement": _measurement(measure_signed_object(view)),
        "tcs_policy": "bound" if signed.tcs_policy == 0 else "unbound",
        "misc_select": signed.misc_select,
        "sigstruct": describe_sigstruct(signed.sigstruct),
    }


def _quote(view: memoryview) -> dict[str, Any]:
    quote = QuoteStart.unpack(view[: QuoteStart.SIZE])
    if quote.signature_size > len(view) - QuoteStart.SIZE:
        raise FormatError("the quote is cut short: its signature data ends behind the file")
    facts = _describe(quote)
    facts["verified"] = "no: `strongroom verify` does that"
    return facts
