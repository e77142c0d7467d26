"""``strongroom verify``: a quote of ours and a real one, each under either root."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from platform_fixtures import SAMPLES, platform
from strongroom import paths
from strongroom.cli.main import main

__all__ = ["platform"]


@pytest.fixture
def files(platform, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "home", lambda: platform.home)
    (tmp_path / "ours.quote").write_bytes(platform.quote())
    (tmp_path / "ours.json").write_text(platform.collateral().to_json())
    return tmp_path


def run(capsys, *arguments):
    status = main(["verify", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_ours(files, capsys):
    status, out, _ = run(capsys, files / "ours.quote", "--root", "software")
    assert status == 0
    assert "SOFTWARE, no hardware" in out
    status, out, _ = run(capsys, files / "ours.quote", "--root", "software", "--json")
    assert json.loads(out)["genuine"] is True
    assert json.loads(out)["software"] is True


def test_ours_by_the_roots_file_and_given_collateral(files, platform, capsys):
    root = platform.home / "pki" / "root.pem"
    status, _, _ = run(capsys, files / "ours.quote", "--root", root, "--collateral", files / "ours.json")
    assert status == 0


def test_ours_is_refused_by_default(files, capsys):
    for extra in ([], ["--collateral", files / "ours.json"]):
        status, out, err = run(capsys, files / "ours.quote", *extra)
        assert (status, out) == (1, "")
        assert err.count("\n") == 1
        assert "root" in err


def test_reason_in_json(files, capsys):
    status, out, _ = run(capsys, files / "ours.quote", "--json")
    assert status == 1
    assert json.loads(out)["reason"] == "unnamed-root"
    data = bytearray((files / "ours.quote").read_bytes())
    data[200] ^= 1
    (files / "altered").write_bytes(bytes(data))
    status, out, _ = run(capsys, files / "altered", "--root", "software", "--json")
    assert (status, json.loads(out)["reason"]) == (1, "altered-quote")


@pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"{SAMPLES} is not on this machine")
def test_a_real_one(files, capsys):
    quote = SAMPLES / "real-hardware-v3.quote"
    collateral = ["--collateral", SAMPLES / "real-hardware-v3.collateral.json"]
    status, out, _ = run(capsys, quote, *collateral, "--at", "1750330631")
    assert status == 0
    assert "ConfigurationAndSWHardeningNeeded" in out
    status, out, _ = run(capsys, quote, *collateral, "--at", "2027-01-01", "--json")
    assert (status, json.loads(out)["reason"]) == (1, "expired-collateral")
    status, out, _ = run(capsys, quote, *collateral, "--at", "1750330631", "--root", "software", "--json")
    assert (status, json.loads(out)["reason"]) == (1, "unnamed-root")
    status, _, err = run(capsys, quote)
    assert status == 2
    assert "--collateral" in err


@pytest.mark.parametrize("time", ["soon", "99999999999999999999", "-1"])
def test_bad_times(files, capsys, time):
    assert run(capsys, files / "ours.quote", f"--at={time}")[0] == 2


def test_bad_files(files, capsys, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    for name in ("empty", "none"):
        status, _, err = run(capsys, Path(tmp_path / name), "--root", "software")
        assert status == 1
        assert err.count("\n") == 1
