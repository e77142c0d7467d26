"""The owner's process as a user starts it: key, records, policy, release to an attested enclave's identity."""

from __future__ import annotations

import os
import socket
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


def test_ports_and_words(environment, platform, tmp_path):
    platform.qe()
    run(environment, "new-key", tmp_path / "records.key")
    policy = tmp_path / "policy.toml"
    policy.write_text(f'[keys.records]\nroot = "software"\nmrenclave = "{MRENCLAVE.hex()}"\n')
    for port in ("99999", "-1", "x", "٣"):
        done = run(environment, "serve", policy, f"--port={port}", status=2)
        assert "is no port: write 0 to 65535" in done.stderr and "Traceback" not in done.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(environment, "serve", policy, "--port", port, status=1)
    assert (
        done.stderr.count("\n") == 1
        and f"cannot listen on port {port} (Address already in use): choose" in done.stderr
    )
    assert "example:" in run(environment, "--help").stdout
    for verb in ("new-key", "encrypt", "decrypt", "serve"):
        text = run(environment, verb, "--help").stdout
        assert all(
            len(line.split()) > 1
            for line in text.split("arguments:")[1].splitlines()
            if line.startswith("  ")
        )


def test_what_was_written_is_said(environment, tmp_path):
    key, plain, sealed = tmp_path / "k", tmp_path / "plain", tmp_path / "sealed"
    plain.write_bytes(b"1" * 1234)
    assert (
        run(environment, "new-key", key).stdout == f"made {key}: keep it to yourself, it opens the records\n"
    )
    said = run(environment, "encrypt", key, "records", plain, sealed).stdout
    assert said == f"wrote {sealed}: {sealed.stat().st_size:,} bytes, encrypted\n"
    said = run(environment, "decrypt", key, "records", sealed, tmp_path / "again").stdout
    assert said == f"wrote {tmp_path}/again: 1,234 bytes, decrypted\n"
