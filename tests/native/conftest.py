"""The compiled test programs, one signed image, and the machine to run them on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("STRONGROOM_NATIVE", str(Path(__file__).resolve().parents[2] / "build" / "native"))

import images
from native_machine import Machine

from strongroom.image.signer import KeySigner
from support.package_server import package_server


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    images.compile_all()
    directory = tmp_path_factory.mktemp("enclave")
    directory.chmod(0o755)
    image, signature = directory / "e.sgxs", directory / "e.sig"
    signer = KeySigner.generate()
    mrenclave = images.build_image(image)
    images.sign_image(mrenclave, signature, signer)
    with package_server() as server:
        yield Machine(server, image, signature, mrenclave, signer, directory)
