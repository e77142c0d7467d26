"""The attacks work: against an ordinary process each gets what it is after. (The enclave's side: test_attack.py.)"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from strongroom.cli import _attack, _attack_outcomes, _attack_targets, _projects
from strongroom.isa.flags import Attributes
from strongroom.machine.package import Identity, Package
from strongroom.machine.pki import Authority
from strongroom.machine.quoting import QuotingEnclave


@pytest.mark.parametrize("script", ["memory.py", "code_write.py", "data_write.py", "debugger.py"])
def test_an_ordinary_process_withstands_nothing(script: str) -> None:
    if script == "debugger.py" and not (shutil.which("gdb") and shutil.which("gcore")):
        pytest.skip("gdb is not installed")
    with _attack_targets.Ordinary() as target:
        attempts = _attack.on_process(script, target)
    assert len(attempts) >= 2
    assert {one["result"] for one in attempts} == {"got"}, attempts


def test_a_marker_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    """The search can fail: a marker that the process does not hold gives no "got" for data."""
    with _attack_targets.Ordinary() as target:
        words = ["--pid", str(target.pid), "--marker", "5a" * 32, "--scratch", str(tmp_path)]
        attempts = _attack_outcomes.program(["memory.py", *words])
    data = [one for one in attempts if "data" in one["name"]]
    assert len(data) == 2
    assert all(one["result"] != "got" for one in data)


def test_a_dead_process_is_no_got(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    words = ["--pid", str(done.pid), "--marker", "5a" * 32, "--scratch", str(tmp_path)]
    for script in ("memory.py", "code_write.py", "data_write.py"):
        attempts = _attack_outcomes.program([script, *words])
        assert attempts
        assert all(one["result"] == "refused" for one in attempts), attempts


def test_changed_file_is_believed_by_an_ordinary_program(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(_projects.shipped("attacks") / "trusted", tmp_path / "trusted"))
    before = (copy / "dose.txt").read_bytes()
    argv = json.dumps([sys.executable, str(copy / "main.py")])
    text = before.decode().strip()
    words = ["trusted_file.py", "--file", str(copy / "dose.txt"), "--text", text, "--argv"]
    assert [one["result"] for one in _attack_outcomes.program([*words, argv])] == ["got"]
    assert (copy / "dose.txt").read_bytes() == before
    broken = json.dumps([sys.executable, "-c", "raise SystemExit(3)"])
    assert [one["result"] for one in _attack_outcomes.program([*words, broken])] == ["not tried"]
    # A program that checks: refused.
    checks = f"import sys; t = open({str(copy / 'dose.txt')!r}).read(); t[0] == 'd' or sys.exit('altered'); print(t)"
    refused = _attack_outcomes.program([*words, json.dumps([sys.executable, "-c", checks])])
    assert [one["result"] for one in refused] == ["refused"]
    assert "altered" in refused[0]["text"]


def quote_files(home: Path, at: Path) -> list[str]:
    package = Package.manufacture(home / "run", "run", sgx2=False, epc_pages=64)
    now = datetime.now(UTC)
    enclave = QuotingEnclave(package, home, "sealed")
    identity = Identity(
        attributes=int(Attributes.INIT | Attributes.MODE64BIT), xfrm=3, miscselect=0,
        mrenclave=b"e" * 32, mrsigner=b"s" * 32, isv_prod_id=1, isv_svn=1,
    )  # fmt: skip
    (at / "quote").write_bytes(enclave.quote(package.ereport(identity, enclave.target_info(), b"d" * 64)))
    authority = Authority.open(home, now)
    (at / "root").write_text(authority.root_pem)
    (at / "collateral").write_text(json.dumps(authority.collateral("run", now)))
    return [word for name in ("quote", "root", "collateral") for word in (f"--{name}", str(at / name))]


def test_altered_quotes_are_refused_and_altered_statements_believed(tmp_path: Path) -> None:
    words = quote_files(tmp_path / "home", tmp_path)
    assert [one["result"] for one in _attack_outcomes.program(["altered_quote.py", *words])] == ["refused"]
    statement = str(_projects.shipped("attacks") / "ordinary.py")
    assert [
        one["result"] for one in _attack_outcomes.program(["altered_quote.py", "--statement", statement])
    ] == ["got"]
    whole = (tmp_path / "quote").read_bytes()
    (tmp_path / "quote").write_bytes(whole[:200] + b"\xff" + whole[201:])
    assert [one["result"] for one in _attack_outcomes.program(["altered_quote.py", *words])] == ["not tried"]


def test_a_control_that_fails_voids_the_attempt() -> None:
    one = [{"name": "a", "result": "refused", "text": "EIO"}]
    failed = [{"name": "a", "result": "refused", "text": "no gdb"}]
    (outcome,) = _attack_outcomes.pair("x", lambda: failed, lambda: ("sealed", one))
    assert outcome.result == "not tried"
    assert not _attack_outcomes.as_promised([outcome])
    worked = [{"name": "a", "result": "got", "text": "all"}]
    (outcome,) = _attack_outcomes.pair("x", lambda: worked, lambda: ("sealed", one))
    assert outcome.result == "refused"
    assert _attack_outcomes.as_promised([outcome])
    (outcome,) = _attack_outcomes.pair("memory", lambda: worked, lambda: ("sealed", worked))
    assert not _attack_outcomes.as_promised([outcome]), "got at sealed is a broken promise"
    (outcome,) = _attack_outcomes.pair("memory", lambda: worked, lambda: ("faithful", worked))
    assert _attack_outcomes.as_promised([outcome])


def test_a_program_that_fails_is_not_tried() -> None:
    (one,) = _attack_outcomes.program(["memory.py", "--no-such-option"])
    assert one["result"] == "not tried"
    assert "status 2" in one["text"]
