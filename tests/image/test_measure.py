"""MRENCLAVE of real enclaves made by others, and what happens when somebody touched them."""

from __future__ import annotations

import os
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from strongroom.errors import FormatError, StrongroomError, UsageError
from strongroom.image import sdk, sgxs
from strongroom.image.measure import MeasurementMismatch, measure, measure_signed_object, measure_view
from strongroom.image.sigstruct import SignatureError
from support.enclaves import sigstruct as make_sigstruct
from support.enclaves import stream
from support.fuzzing import examples
from support.samples import sample

# samples/README.md
REAL = {
    "enclaves/sdk-2.4-Enclave.signed.so": (
        "646e3cd04159cff4c14e8d57801b6b959a3d6ce9b603d050a780e54e32c287f1",
        "ab3189aec6971dd8a279a8d51ce9ef185a403daef36dda78063f6909902c68c7",
    ),
    "enclaves/sdk-1.4-libsgx_tdqe.signed.so": (
        "86fc4e0ec2c5ddcebac97062c0a0142a97c18a7a755147bcbc3fe17d6529781d",
        "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5",
    ),
    "enclaves/test_enclave.sgxs": ("784acfd7d5096a8f0fbd3265760bff21b120f62407a9a9e5ba31aa3c8ed198fc", None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_enclaves(name: str) -> None:
    found = measure(sample(name))
    mrenclave, mrsigner = REAL[name]
    assert found.mrenclave.hex() == mrenclave
    assert found.signed_mrenclave == found.mrenclave
    if mrsigner is not None:
        assert found.mrsigner is not None
        assert found.mrsigner.hex() == mrsigner
    found.check_signed()


def test_a_changed_byte_of_code_no_longer_fits_the_signature() -> None:
    image = bytearray(sample("enclaves/sdk-2.4-Enclave.signed.so").read_bytes())
    image[0x1100] ^= 1  # .text, see readelf
    found = measure_signed_object(memoryview(image))
    assert found.signed_mrenclave is not None
    with pytest.raises(MeasurementMismatch):
        found.check_signed()


def test_a_changed_byte_of_the_sigstruct_is_refused() -> None:
    image = bytearray(sample("enclaves/sdk-2.4-Enclave.signed.so").read_bytes())
    at = image.index(bytes.fromhex("06000000e10000000000010000000000"))
    image[at + 600] ^= 1
    with pytest.raises(SignatureError):
        measure_signed_object(memoryview(image))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=examples(60))
@given(data=st.data())
def test_hostile_signed_objects(data: st.DataObject) -> None:
    """Bytes changed where structure is (headers, dynamic section, metadata): our errors only, and bounded work."""
    image = bytearray(sample("enclaves/sdk-2.4-Enclave.signed.so").read_bytes())
    zones = ((0, 0x300), (0x18E50, 0x170), (0x19918, 256), (0x19918 + 0xE10, 600), (0x236B8, 34 * 64))
    for _ in range(data.draw(st.integers(1, 4))):
        start, size = data.draw(st.sampled_from(zones))
        at = start + data.draw(st.integers(0, size - 1))
        image[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(image)) | st.just(len(image)))
    view = memoryview(image)[:cut]
    try:
        sdk.read(view)
        measure_signed_object(view)
    except StrongroomError:
        pass


def test_metadata_of_the_layout_is_bounded() -> None:
    """A group that repeats without end, and an entry of 2^32 pages."""
    image = bytearray(sample("enclaves/sdk-2.4-Enclave.signed.so").read_bytes())
    metadata = 0x19918 + 25
    layout, size = struct.unpack_from("<II", image, metadata + 1880)
    for row in range(metadata + layout, metadata + layout + size, 32):
        kind = struct.unpack_from("<H", image, row)[0]
        changed = bytearray(image)
        if kind & 0x1000:
            struct.pack_into("<HHIQ", changed, row, kind, 0, 0xFFFFFFFF, 0)
        elif struct.unpack_from("<H", image, row + 2)[0] & 1:
            struct.pack_into("<I", changed, row + 4, 0xFFFFFFFF)
        else:
            continue
        with pytest.raises(FormatError):
            measure_signed_object(memoryview(changed))


def test_streams_with_and_without_a_signature_beside(tmp_path: Path) -> None:
    (tmp_path / "a.sgxs").write_bytes(stream())
    bare = measure(tmp_path / "a.sgxs")
    assert bare.mrsigner is None
    assert bare.format == "sgxs"
    (tmp_path / "a.sig").write_bytes(b"-----BEGIN PGP SIGNATURE-----")
    assert measure(tmp_path / "a.sgxs") == bare, "another tool's signature is not our business"
    (tmp_path / "a.sig").write_bytes(make_sigstruct(bare.mrenclave, product=5, svn=6).pack())
    found = measure(tmp_path / "a.sgxs")
    found.check_signed()
    assert (found.product, found.svn, found.debug) == (5, 6, False)
    (tmp_path / "a.sgxs").write_bytes(stream(seed=b"other"))
    with pytest.raises(MeasurementMismatch):
        measure(tmp_path / "a.sgxs").check_signed()


def test_build_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="strongroom build"):
        measure(tmp_path)
    build = tmp_path / "build"
    build.mkdir()
    (build / "enclave.sgxs").write_bytes(stream())
    (build / "enclave.json").write_text("{}")
    (build / "enclave.sig").write_bytes(make_sigstruct(measure_view(memoryview(stream())).mrenclave).pack())
    for path in (tmp_path, build, build / "enclave.json", build / "enclave.sgxs"):
        found = measure(path)
        assert found.format == "strongroom"
        found.check_signed()
    (build / "enclave.sig").write_bytes(b"short")
    with pytest.raises(FormatError):
        measure(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"MZ", b"\x7fELF", b"\x7fELF" + bytes(60), b"ECREATE\0", bytes(4096)]
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(FormatError):
        measure(tmp_path / "file")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StrongroomError, match="cannot read"):
        measure(tmp_path / "nothing")


def test_a_pipe_is_read_once_and_whole(tmp_path: Path) -> None:
    """`measure` looks at the first bytes to tell the format: they do not come a second time."""
    content = stream()
    (tmp_path / "e.sgxs").write_bytes(content)
    whole = measure(tmp_path / "e.sgxs")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(content,))
    writer.start()
    assert measure(fifo).mrenclave == whole.mrenclave
    writer.join(10)


def test_an_endless_pipe_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgxs, "MAX_PIPE_SIZE", 1 << 16)
    with pytest.raises(StrongroomError, match="name a file"):
        measure("/dev/zero")
