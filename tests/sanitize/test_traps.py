"""Both halves built with every undefined behaviour a trap, at work: the device's scenarios, and Python inside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import build  # type: ignore[import-not-found]
from strongroom.image.signer import KeySigner
from strongroom.paths import native_directory
from support.package_server import package_server

NATIVE_TESTS = build.REPOSITORY / "tests" / "native"
sys.path.insert(0, str(NATIVE_TESTS))

import images  # noqa: E402

SCENARIOS = [
    ["call"], ["fault", "2"], ["resume", "6"], ["storm-altstack"], ["nested"], ["threads"], ["busy"], ["step"],
    ["permissions"], ["signals"], ["fork"], ["again"], ["tamper", "1"], ["report"], ["key"],
]  # fmt: skip
DEVICE_STEPS = """
secs 8 8 7e0000000000
open 2
add 1000 1000
secs 10 4 0
create
secs 10 4 1
create
add 1000 ffffffffffffe000
add 1008 1000
from 1000
add 1000 1000
from 0
add 1000 2000 1
add 0 4000 1
info 0 100
source 58 1
add 8000 1000
map 0 9000 3 11
map 1000 ffffffffffffe000 1 11
protect 1000 8000 1
peek 1000
peek 4000
advise 1000 1000 4
unmap 2000 1000
init
close
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder: Path = build.trapping(tmp_path_factory.mktemp("traps"))
    for place in (folder, *folder.parents[:2]):
        place.chmod(0o755)  # for the loaders' users
    return folder


def traps(file: Path) -> int:
    """UD2 instructions of a part."""
    done = subprocess.run(["objdump", "-d", str(file)], capture_output=True, text=True, check=True)
    return done.stdout.count("\tud2")


def test_the_traps_are_in(parts: Path) -> None:
    for name in ("libos.elf", "libstrongroom-processor.elf", "strongroom-loader"):
        assert traps(parts / name) > 80 > 10 * traps(native_directory() / name), (
            name
        )  # the ordinary build has a few


def test_the_machine_with_traps(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STRONGROOM_NATIVE", str(parts))
    images.compile_all()
    image, signature = tmp_path / "e.sgxs", tmp_path / "e.sig"
    images.sign_image(images.build_image(image), signature, KeySigner.generate())
    with package_server() as server:
        for scenario, *more in SCENARIOS:
            words = [str(images.BUILD / "host"), scenario, str(image), str(signature), *more]
            done = server.run(words)
            assert done.returncode == 0, (scenario, done)
            assert done.stderr == b"", (scenario, done)
        done = server.run([str(images.BUILD / "device")], input=DEVICE_STEPS.encode())
        assert (done.returncode, done.stderr) == (0, b""), done
        assert b"EIO" in done.stdout and b"SIGBUS" in done.stdout, done.stdout


def test_python_inside_with_traps(parts: Path, tmp_path: Path) -> None:
    """Files, sockets, threads, polls, clocks: attacks/iago's victim, with nobody lying."""
    project = Path(shutil.copytree(build.REPOSITORY / "attacks" / "iago", tmp_path / "iago"))
    environment = {**os.environ, "STRONGROOM_NATIVE": str(parts)}
    command = [sys.executable, "-m", "strongroom"]
    try:
        for words in (["build", str(project)], ["run", str(project)]):
            done = subprocess.run(
                [*command, *words], capture_output=True, text=True, env=environment, timeout=200, check=False
            )
            assert done.returncode == 0, done.stderr
    finally:
        subprocess.run([*command, "daemon", "stop"], capture_output=True, env=environment, check=False)
    assert done.stdout == "BELIEVED []\n"
