"""``inspect`` tells artefacts apart and names their fields."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.cli.main import main
from strongroom.errors import FormatError, StrongroomError
from strongroom.image.inspect import inspect, inspect_bytes
from strongroom.isa.report import Keyrequest, Report, ReportBody, Targetinfo
from support.enclaves import sigstruct, stream
from support.samples import sample


def test_kinds_made_here() -> None:
    key_request = Keyrequest(key_name=4, key_policy=2, isv_svn=3)
    cases = {
        "SGXS stream": stream(),
        "SIGSTRUCT": sigstruct().pack(),
        "REPORT": Report(body=ReportBody(mrenclave=b"m" * 32, attributes=7)).pack(),
        "TARGETINFO": Targetinfo(mrenclave=b"m" * 32).pack(),
        "KEYREQUEST": key_request.pack(),
    }
    for kind, image in cases.items():
        assert inspect_bytes(memoryview(image)).kind == kind
    facts = inspect_bytes(memoryview(cases["KEYREQUEST"])).facts
    assert (facts["key_name"], facts["key_policy"], facts["isv_svn"]) == ("SEAL", ["MRSIGNER"], 3)
    report = inspect_bytes(memoryview(cases["REPORT"])).facts
    assert report["body"]["attributes"] == ["INIT", "DEBUG", "MODE64BIT"]


def test_regions_of_a_stream() -> None:
    regions = inspect_bytes(memoryview(stream())).facts["regions"]
    assert [(r["start"], r["kind"], r["measured"]) for r in regions] == [
        ("0x1000", "r-x", "yes"),
        ("0x2000", "rw-", "no"),
        ("0x3000", "rw-", "no"),
        ("0x4000", "TCS", "yes"),
        ("0x5000", "rw-", "no"),
    ]


def test_build_folder(tmp_path: Path) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (build / "enclave.sgxs").write_bytes(stream())
    (build / "enclave.json").write_text("{}")
    for path in (tmp_path, build, build / "enclave.json"):
        found = inspect(path)
        assert found.kind == "build folder"
        assert found.facts["sigstruct"] is None
    (build / "enclave.sig").write_bytes(sigstruct(product=8).pack())
    assert inspect(tmp_path).facts["sigstruct"]["isv_prod_id"] == 8
    assert len(inspect(tmp_path).facts["regions"]) == 5


def test_a_broken_signature_is_shown_as_refused() -> None:
    image = bytearray(sigstruct().pack())
    image[960] ^= 1
    assert inspect_bytes(memoryview(image)).facts["signature"].startswith("refused")


def test_real_quote() -> None:
    path = sample("quote/real-hardware-v3.quote")
    facts = inspect(path).facts
    assert facts["report"]["mrenclave"].hex().startswith("33d8736db756ed49")
    with pytest.raises(FormatError, match="cut short"):
        inspect_bytes(memoryview(path.read_bytes()[:1000]))


def test_real_signed_object() -> None:
    facts = inspect(sample("enclaves/sdk-1.4-libsgx_tdqe.signed.so")).facts
    assert facts["metadata_version"] == "1.4"
    assert facts["sigstruct"]["vendor"] == "0x8086"


@given(
    st.binary(max_size=600) | st.binary(min_size=512, max_size=512) | st.binary(min_size=432, max_size=432)
)
def test_any_bytes(data: bytes) -> None:
    try:
        inspect_bytes(memoryview(data))
    except StrongroomError:
        pass


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.sgxs").write_bytes(stream())
    assert main(["measure", str(tmp_path / "a.sgxs")]) == 0
    mrenclave = capsys.readouterr().out.strip()
    assert main(["measure", "--json", str(tmp_path / "a.sgxs")]) == 0
    assert json.loads(capsys.readouterr().out)["mrenclave"] == mrenclave
    assert main(["inspect", "--json", str(tmp_path / "a.sgxs")]) == 0
    assert json.loads(capsys.readouterr().out)["mrenclave"] == mrenclave
    assert main(["inspect", str(tmp_path / "a.sgxs")]) == 0
    assert mrenclave in capsys.readouterr().out
    (tmp_path / "a.sig").write_bytes(sigstruct().pack())
    assert main(["measure", str(tmp_path / "a.sgxs")]) == 1
    assert "build and sign" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "nothing")]) == 1
    assert main(["measure"]) == 2
