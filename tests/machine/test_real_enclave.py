"""An enclave that others built and signed, on our machine: measured by the library, initialised by the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.package_server import package_server
from support.programs import compile_c
from support.samples import sample

SOURCE = Path(__file__).resolve().parents[1] / "native" / "loader.c"


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(tmp_path_factory.mktemp("tools"), "loader", SOURCE.read_text())


def load(loader: Path, stream: Path, signature: Path) -> tuple[int, str]:
    """Exit status and standard error of the small loader of tests/native."""
    with package_server() as server:
        done = server.run([str(loader), str(stream), str(signature)])
        server.join()
        assert server.epc.used_pages() == 0
    return done.returncode, done.stderr.decode()


def test_it_starts_and_leaves(loader: Path) -> None:
    status, complaint = load(
        loader, sample("enclaves/test_enclave.sgxs"), sample("enclaves/test_enclave.sig")
    )
    assert (status, complaint) == (0, "")


@pytest.mark.parametrize("page", range(9))
def test_one_changed_byte_in_any_page_is_refused(loader: Path, tmp_path: Path, page: int) -> None:
    """SGX_INVALID_MEASUREMENT, which Linux's init ioctl answers with EPERM."""
    image = bytearray(sample("enclaves/test_enclave.sgxs").read_bytes())
    content = 64 + page * 5184 + 64 + 64  # behind ECREATE, EADD and the first EEXTEND
    image[content + 33] ^= 0x20  # in a TCS: OENTRY, which EADD does not check
    (tmp_path / "changed.sgxs").write_bytes(image)
    status, complaint = load(loader, tmp_path / "changed.sgxs", sample("enclaves/test_enclave.sig"))
    assert (status, complaint.strip()) == (1, "loader: init: EPERM")


def test_a_changed_signature_is_refused(loader: Path, tmp_path: Path) -> None:
    image = bytearray(sample("enclaves/test_enclave.sig").read_bytes())
    image[1500] ^= 1  # in Q2
    (tmp_path / "changed.sig").write_bytes(image)
    status, complaint = load(loader, sample("enclaves/test_enclave.sgxs"), tmp_path / "changed.sig")
    assert (status, complaint.strip()) == (1, "loader: init: EPERM")
