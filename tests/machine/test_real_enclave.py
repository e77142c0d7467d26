"""An enclave that others built and signed, on our machine: measured by the library, initialised by the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.package_server import package_server
from support.samples import sample

LOADER = Path(__file__).resolve().parents[2] / "build" / "tests" / "native" / "loader"


def load(stream: Path, signature: Path) -> tuple[int, str]:
    """Exit status and standard error of the small loader of tests/native."""
    if not LOADER.is_file():
        pytest.skip(f"{LOADER} is not built (run `make`)")
    with package_server() as server:
        done = server.run([str(LOADER), str(stream), str(signature)])
        server.join()
        assert server.epc.used_pages() == 0
    return done.returncode, done.stderr.decode()


def test_it_starts_and_leaves() -> None:
    status, complaint = load(sample("enclaves/test_enclave.sgxs"), sample("enclaves/test_enclave.sig"))
    assert (status, complaint) == (0, "")


@pytest.mark.parametrize("page", range(9))
def test_one_changed_byte_in_any_page_is_refused(tmp_path: Path, page: int) -> None:
    """SGX_INVALID_MEASUREMENT, which Linux's init ioctl answers with EPERM."""
    image = bytearray(sample("enclaves/test_enclave.sgxs").read_bytes())
    content = 64 + page * 5184 + 64 + 64  # behind ECREATE, EADD and the first EEXTEND
    image[content + 33] ^= 0x20  # in a TCS: OENTRY, which EADD does not check
    (tmp_path / "changed.sgxs").write_bytes(image)
    status, complaint = load(tmp_path / "changed.sgxs", sample("enclaves/test_enclave.sig"))
    assert (status, complaint.strip()) == (1, "loader: init: EPERM")


def test_a_changed_signature_is_refused(tmp_path: Path) -> None:
    image = bytearray(sample("enclaves/test_enclave.sig").read_bytes())
    image[1500] ^= 1  # in Q2
    (tmp_path / "changed.sig").write_bytes(image)
    status, complaint = load(sample("enclaves/test_enclave.sgxs"), tmp_path / "changed.sig")
    assert (status, complaint.strip()) == (1, "loader: init: EPERM")
