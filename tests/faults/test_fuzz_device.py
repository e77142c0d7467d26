"""Random arguments for the device: an errno or a fault of the program's, never one of the library, which still works.

``make fuzz`` takes STRONGROOM_FUZZ times as many, with a seed of its own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import images
import pytest

from strongroom.image.signer import KeySigner
from support.fuzzing import FACTOR
from support.house import compile_here
from support.package_server import package_server

pytestmark = pytest.mark.fuzz
SEED = int(os.environ.get("STRONGROOM_SEED", "1"))


@pytest.fixture(scope="session")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    images.compile_all()
    folder = tmp_path_factory.mktemp("fuzz")
    image, signature = folder / "e.sgxs", folder / "e.sig"
    images.sign_image(images.build_image(image), signature, KeySigner.generate())
    return [str(compile_here("fuzz", folder)), str(image), str(signature)]


OPTIONS = [
    ("--sgx2",),
    (),
    ("--level", "sealed"),
    ("--no-secretmem", "--tamper=disable"),
    ("--no-fsgsbase", "--sgx2"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
@pytest.mark.parametrize("epc_pages", [20000, 700], ids=["fits", "pages"])
def test_any_argument(fuzz: list[str], epc_pages: int, options: tuple[str, ...], tmp_path: Path) -> None:
    for seed in range(SEED, SEED + 2 * FACTOR):
        with package_server(epc_pages=epc_pages, sgx2="--sgx2" in options) as server:
            done = server.run([*fuzz, str(seed), "4000"], options, timeout=120, cwd=tmp_path)
            out, err = done.stdout.decode(), done.stderr.decode()
            assert (done.returncode, err) == (0, ""), (seed, done.returncode, out, err)
            told = re.fullmatch(r"zeros (\d+) errnos (\d+) faults (\d+) good 5\n", out)
            assert told, (seed, out)
            assert all(int(number) > 100 for number in told.groups()), out
            server.join()
            assert server.epc.used_pages() == 0
