"""The owner's process as a user starts it: key, records, policy, release to an attested enclave's identity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import strongroom
from platform_fixtures import MRENCLAVE, PackageDevice
from strongroom.inside import KeyRefused, owner

SOURCE = Path(strongroom.__file__).parents[1]


@pytest.fixture
def environment(platform):
    return {**os.environ, "PYTHONPATH": str(SOURCE), "STRONGROOM_HOME": str(platform.home)}


def run(environment, *words, status=0):
    command = [sys.executable, "-m", "strongroom.owner", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == status, done.stderr
    return done


def test_the_whole_of_it(environment, platform, tmp_path):
    platform.qe()
    key, plain = tmp_path / "records.key", tmp_path / "records.csv"
    plain.write_bytes(b"patient,1\n")
    run(environment, "new-key", key)
    run(environment, "encrypt", key, "records", plain, tmp_path / "records.enc")
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[keys.records]\nroot = "software"\nmrenclave = "{MRENCLAVE.hex()}"\n')
    process = subprocess.Popen(
        [sys.executable, "-m", "strongroom.owner", "serve", str(policy)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        url = process.stdout.readline().strip()
        inside = owner(url, PackageDevice(platform)).release_key("records")
        with pytest.raises(KeyRefused) as caught:
            owner(url, PackageDevice(platform, mrenclave=b"o" * 32)).release_key("records")
        assert caught.value.reason == "wrong-enclave"
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert inside.decrypt((tmp_path / "records.enc").read_bytes()) == b"patient,1\n"
    assert "released records to " + MRENCLAVE.hex() in said
    assert key.read_text().strip() not in said

    (tmp_path / "report.enc").write_bytes(inside.encrypt(b"report"))
    run(environment, "decrypt", key, "records", tmp_path / "report.enc", tmp_path / "report")
    assert (tmp_path / "report").read_bytes() == b"report"


def test_errors_are_one_line(environment, tmp_path):
    done = run(environment, "serve", tmp_path / "none.toml", status=1)
    assert done.stderr.count("\n") == 1
    run(environment, "nothing", status=2)
