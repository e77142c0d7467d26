"""A house per user: real injector, library and daemon, `worker` in the loader's place, an image of 3,000 heap pages."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "native"))

import images

from strongroom.image.signer import KeySigner
from support.house import House, Parts, compile_here
from support.vm import NATIVE, Command, require_other_user, users

HEAP_PAGES = 3000


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    found = [NATIVE / "strongroom-inject", NATIVE / "libstrongroom-processor.elf"]
    if not all(part.exists() for part in found):
        pytest.skip("native/ is not built: run `make`")
    images.compile_all()
    native, project = tmp_path_factory.mktemp("n"), tmp_path_factory.mktemp("p")
    build = project / "build"
    build.mkdir()
    compile_here("worker", native, "strongroom-loader")
    for part in found:
        shutil.copy(part, native)
    mrenclave = images.build_image(build / "enclave.sgxs", heap_pages=HEAP_PAGES)
    images.sign_image(mrenclave, build / "enclave.sig", KeySigner.generate())
    (build / "files.pack").write_bytes(b"")
    (build / "enclave.json").write_text("{}")
    for place in (native, project, build, *native.parents[:2]):
        place.chmod(0o755)
    for file in (*native.iterdir(), *build.iterdir()):
        file.chmod(0o755)
    return Parts(native, project)


@pytest.fixture(params=users())
def house(request: pytest.FixtureRequest, strongroom_home: Path, parts: Parts) -> Iterator[House]:
    """For each kind of user."""
    yield from _house(request.param, strongroom_home, parts)


@pytest.fixture
def own_house(strongroom_home: Path, parts: Parts) -> Iterator[House]:
    """For the user who runs the tests, who may change the limits of its processes."""
    yield from _house(os.geteuid(), strongroom_home, parts)


def _house(uid: int, strongroom_home: Path, parts: Parts) -> Iterator[House]:
    require_other_user(uid, strongroom_home)
    folder = strongroom_home.parent
    made = House(Command(strongroom_home, parts.native, uid), folder)
    for name in ("out", "tmp"):
        (folder / name).mkdir()
        os.chown(folder / name, uid, uid)
    made.open()
    try:
        yield made
    finally:
        made.close()
