"""REPORT, TARGETINFO and KEYREQUEST (SDM vol. 3D, chapter 38)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from strongroom.isa.structure import Field, Structure, number, octets, part, reserved


@dataclass(frozen=True)
class ReportBody(Structure):
    """The first 384 bytes of a REPORT, those under its MAC (Table 38-21); a quote carries them too."""

    NAME: ClassVar[str] = "REPORT body"
    SIZE: ClassVar[int] = 384
    FIELDS: ClassVar[tuple[Field, ...]] = (
        octets("cpu_svn", 0, 16),
        number("miscselect", 16, 4),
        number("cet_attributes", 20, 1),
        reserved(21, 11),
        octets("isv_ext_prod_id", 32, 16),
        number("attributes", 48, 8),
        number("xfrm", 56, 8),
        octets("mrenclave", 64, 32),
        reserved(96, 32),
        octets("mrsigner", 128, 32),
        reserved(160, 32),
        octets("config_id", 192, 64),
        number("isv_prod_id", 256, 2),
        number("isv_svn", 258, 2),
        number("config_svn", 260, 2),
        reserved(262, 42),
        octets("isv_family_id", 304, 16),
        octets("report_data", 320, 64),
    )
    cpu_svn: bytes = bytes(16)
    miscselect: int = 0
    cet_attributes: int = 0
    isv_ext_prod_id: bytes = bytes(16)
    attributes: int = 0
    xfrm: int = 0
    mrenclave: bytes = bytes(32)
    mrsigner: bytes = bytes(32)
    config_id: bytes = bytes(64)
    isv_prod_id: int = 0
    isv_svn: int = 0
    config_svn: int = 0
    isv_family_id: bytes = bytes(16)
    report_data: bytes = bytes(64)


@dataclass(frozen=True)
class Report(Structure):
    """REPORT (Table 38-21): the body, then KEYID and the MAC over the body."""

    NAME: ClassVar[str] = "REPORT"
    SIZE: ClassVar[int] = 432
    FIELDS: ClassVar[tuple[Field, ...]] = (
        part("body", 0, ReportBody),
        octets("key_id", 384, 32),
        octets("mac", 416, 16),
    )
    body: ReportBody = ReportBody()
    key_id: bytes = bytes(32)
    mac: bytes = bytes(16)


@dataclass(frozen=True)
class Targetinfo(Structure):
    """TARGETINFO (Table 38-22): which enclave a REPORT is for."""

    NAME: ClassVar[str] = "TARGETINFO"
    SIZE: ClassVar[int] = 512
    FIELDS: ClassVar[tuple[Field, ...]] = (
        octets("mrenclave", 0, 32),
        number("attributes", 32, 8),
        number("xfrm", 40, 8),
        number("cet_attributes", 48, 1),
        reserved(49, 1),
        number("config_svn", 50, 2),
        number("miscselect", 52, 4),
        reserved(56, 8),
        octets("config_id", 64, 64),
        reserved(128, 384),
    )
    mrenclave: bytes = bytes(32)
    attributes: int = 0
    xfrm: int = 0
    cet_attributes: int = 0
    config_svn: int = 0
    miscselect: int = 0
    config_id: bytes = bytes(64)


@dataclass(frozen=True)
class Keyrequest(Structure):
    """KEYREQUEST (Table 38-26)."""

    NAME: ClassVar[str] = "KEYREQUEST"
    SIZE: ClassVar[int] = 512
    FIELDS: ClassVar[tuple[Field, ...]] = (
        number("key_name", 0, 2),
        number("key_policy", 2, 2),
        number("isv_svn", 4, 2),
        number("cet_attributes_mask", 6, 1),
        reserved(7, 1),
        octets("cpu_svn", 8, 16),
        number("attributes_mask", 24, 8),
        number("xfrm_mask", 32, 8),
        octets("key_id", 40, 32),
        number("misc_mask", 72, 4),
        number("config_svn", 76, 2),
        reserved(78, 434),
    )
    key_name: int = 0
    key_policy: int = 0
    isv_svn: int = 0
    cet_attributes_mask: int = 0
    cpu_svn: bytes = bytes(16)
    attributes_mask: int = 0
    xfrm_mask: int = 0
    key_id: bytes = bytes(32)
    misc_mask: int = 0
    config_svn: int = 0
