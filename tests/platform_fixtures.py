"""A whole software platform a test: packages, quoting enclaves, root and collateral. Nothing here is a mock.

Folders whose tests need it import the fixtures in their conftest.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.attestation.collateral import Collateral
from strongroom.attestation.roots import Root
from strongroom.inside.device import Attestation
from strongroom.inside.errors import DeviceError
from strongroom.isa.flags import KeyName, KeyPolicy
from strongroom.isa.report import Keyrequest
from strongroom.isa.software_tcb import Kind, Level
from strongroom.machine.leaf import LeafError
from strongroom.machine.package import Identity, Package
from strongroom.machine.pki import Authority
from strongroom.machine.quoting import QuotingEnclave

SAMPLES = Path("/work/shared/samples/quote")
SAMPLE_TIME = datetime.fromtimestamp(1750330631, UTC)
MRENCLAVE = bytes(range(32))
MRSIGNER = bytes(range(32, 64))


@dataclass
class Platform:
    """One installation with a ``run`` and an ``exec`` package."""

    home: Path
    now: datetime
    _qes: dict[tuple[Kind, Level], QuotingEnclave] = field(default_factory=dict)
    _packages: dict[Kind, Package] = field(default_factory=dict)

    @property
    def authority(self) -> Authority:
        return Authority.open(self.home, self.now)

    @property
    def root(self) -> Root:
        return Root.from_certificate(self.authority.root_der)

    def package(self, kind: Kind) -> Package:
        if kind not in self._packages:
            self._packages[kind] = Package.manufacture(self.home / kind, kind, sgx2=False, epc_pages=1024)
        return self._packages[kind]

    def qe(self, kind: Kind = "run", level: Level = "sealed") -> QuotingEnclave:
        if (kind, level) not in self._qes:
            self._qes[kind, level] = QuotingEnclave(self.package(kind), self.home, level)
        return self._qes[kind, level]

    def report(self, qe: QuotingEnclave, kind: Kind = "run", **changes: object) -> bytes:
        """A REPORT of an enclave for ``qe``; ``changes`` to its identity, and ``report_data``."""
        report_data = changes.pop("report_data", bytes(64))
        assert isinstance(report_data, bytes)
        identity = self.identity(**changes)
        return self.package(kind).ereport(identity, qe.target_info(), report_data)

    def identity(self, **changes: object) -> Identity:
        """An enclave's identity with ``changes``."""
        facts: dict[str, object] = {
            "attributes": 0x5,
            "xfrm": 0x3,
            "miscselect": 0,
            "mrenclave": MRENCLAVE,
            "mrsigner": MRSIGNER,
            "isv_prod_id": 1,
            "isv_svn": 3,
        }
        return Identity(**(facts | changes))  # type: ignore[arg-type]

    def quote(self, kind: Kind = "run", level: Level = "sealed", **changes: object) -> bytes:
        qe = self.qe(kind, level)
        return qe.quote(self.report(qe, kind, **changes))

    def collateral(self, kind: Kind = "run", at: datetime | None = None) -> Collateral:
        return Collateral.from_json(json.dumps(self.authority.collateral(kind, at or self.now)))


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return Platform(tmp_path_factory.mktemp("home"), datetime.now(UTC).replace(microsecond=0))


@pytest.fixture(scope="session")
def other_platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    return Platform(tmp_path_factory.mktemp("other"), datetime.now(UTC).replace(microsecond=0))


@pytest.fixture(scope="session")
def real() -> tuple[bytes, Collateral]:
    """The quote of real hardware with Intel's collateral."""
    if not SAMPLES.is_dir():
        pytest.skip(f"{SAMPLES} is not on this machine")
    return (
        (SAMPLES / "real-hardware-v3.quote").read_bytes(),
        Collateral.load(SAMPLES / "real-hardware-v3.collateral.json"),
    )


class PackageDevice(Attestation):
    """What /dev/attestation does, by a real package and quoting enclave, for an enclave of the identity given."""

    def __init__(
        self, platform: Platform, kind: Kind = "run", level: Level = "sealed", **changes: object
    ) -> None:
        super().__init__()
        self.platform, self.kind, self.level, self.changes = platform, kind, level, changes

    def quote(self, report_data: bytes) -> bytes:
        data = report_data.ljust(64, b"\0")
        return self.platform.quote(self.kind, self.level, report_data=data, **self.changes)

    def versions(self) -> tuple[int, bytes]:
        return self.platform.identity(**self.changes).isv_svn, self.platform.package(self.kind).cpu_svn

    def sealing_key(self, policy: int, isv_svn: int, cpu_svn: bytes, key_id: bytes) -> bytes:
        request = Keyrequest(
            key_name=KeyName.SEAL, key_policy=policy, isv_svn=isv_svn, cpu_svn=cpu_svn, key_id=key_id
        )
        identity = self.platform.identity(**self.changes)
        try:
            return self.platform.package(self.kind).egetkey(identity, request.pack())
        except LeafError as error:
            raise DeviceError(str(error)) from None

    def key(self, name: str) -> bytes:
        """As the LibOS asks EGETKEY for a sealing key."""
        identity = self.platform.identity(**self.changes)
        policy = {"_sgx_mrenclave": KeyPolicy.MRENCLAVE, "_sgx_mrsigner": KeyPolicy.MRSIGNER}[name]
        package = self.platform.package(self.kind)
        request = Keyrequest(
            key_name=KeyName.SEAL, key_policy=int(policy), isv_svn=identity.isv_svn, cpu_svn=package.cpu_svn
        )
        return package.egetkey(identity, request.pack())
