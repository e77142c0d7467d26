"""Records, sealing, wrapping and the device's files."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_fixtures import PackageDevice
from strongroom.inside import Attestation, DeviceError, RecordError, RecordKey, binding, seal, unseal

KEY = bytes(range(32))


@given(st.binary(max_size=500))
def test_records_round_trip(data):
    key = RecordKey("records", KEY)
    record = key.encrypt(data)
    assert key.decrypt(record) == data
    assert len(record) == len(data) + 36
    assert key.encrypt(data) != record


@given(st.data())
def test_an_altered_record_is_refused(data):
    key = RecordKey("records", KEY)
    record = bytearray(key.encrypt(b"patient 1"))
    at = data.draw(st.integers(0, len(record) - 1))
    record[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RecordError):
        key.decrypt(bytes(record))


@given(st.binary(max_size=100))
def test_hostile_records(data):
    key = RecordKey("records", KEY)
    for record in (data, b"SRREC001" + data):
        with pytest.raises(RecordError):
            key.decrypt(record)


def test_name_and_key_are_bound():
    record = RecordKey("records", KEY).encrypt(b"x")
    with pytest.raises(RecordError):
        RecordKey("other", KEY).decrypt(record)
    with pytest.raises(RecordError):
        RecordKey("records", bytes(32)).decrypt(record)
    with pytest.raises(RecordError):
        RecordKey("records", b"short")


def test_a_key_does_not_show_itself():
    key = RecordKey("records", KEY)
    assert KEY.hex() not in repr(key)
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(RecordError):
            act(key)


# --- sealing, by keys of a real package ---


def test_seal_to_the_enclave(platform, other_platform):
    here = PackageDevice(platform)
    sealed = seal(b"state", device=here)
    assert unseal(sealed, device=here) == b"state"
    for other in (
        PackageDevice(platform, mrenclave=b"o" * 32),
        PackageDevice(platform, "exec"),
        PackageDevice(other_platform),
    ):
        with pytest.raises(RecordError):
            unseal(sealed, device=other)


def test_seal_to_the_signer(platform):
    sealed = seal(b"state", "mrsigner", PackageDevice(platform))
    assert unseal(sealed, PackageDevice(platform, mrenclave=b"n" * 32)) == b"state"
    with pytest.raises(RecordError):
        unseal(sealed, PackageDevice(platform, mrsigner=b"o" * 32))


def test_seal_across_versions(platform):
    """Older data opens after an upgrade, newer data is refused after a downgrade."""
    old, new = (PackageDevice(platform, isv_svn=svn) for svn in (3, 4))
    for policy in ("mrenclave", "mrsigner"):
        assert unseal(seal(b"state", policy, old), new) == b"state"
        with pytest.raises(RecordError, match="newer version"):
            unseal(seal(b"state", policy, new), old)


@settings(max_examples=60)
@given(st.data())
def test_altered_sealed_data_is_refused(platform, data):
    device = PackageDevice(platform)
    sealed = bytearray(seal(b"state", device=device))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(RecordError):
        unseal(bytes(sealed), device=device)


def test_a_mounts_key_goes_to_its_node(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "srv.model").touch()
    device = Attestation(tmp_path)
    device.unlock("/srv/model", b"k" * 32)
    assert (tmp_path / "keys" / "srv.model").read_bytes() == b"k" * 32
    for mount, key in (("/srv/model", b"k" * 16), ("/", b"k" * 32), ("/other", b"k" * 32)):
        with pytest.raises(DeviceError):
            device.unlock(mount, key)


# --- wrapping ---


def pair():
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    private = X25519PrivateKey.generate()
    return private.private_bytes_raw(), private.public_key().public_bytes_raw()


def test_wrap_and_unwrap():
    private, public = pair()
    nonce = b"n" * 32
    ephemeral, wrapped = binding.wrap(KEY, nonce, public, "records")
    assert binding.unwrap(private, nonce, ephemeral, wrapped, "records") == KEY
    wrong = [
        (pair()[0], nonce, ephemeral, wrapped, "records"),
        (private, b"m" * 32, ephemeral, wrapped, "records"),
        (private, nonce, pair()[1], wrapped, "records"),
        (private, nonce, ephemeral, wrapped[:-1] + bytes([wrapped[-1] ^ 1]), "records"),
        (private, nonce, ephemeral, wrapped, "other"),
        (private, nonce, bytes(32), wrapped, "records"),
    ]
    for arguments in wrong:
        with pytest.raises(ValueError):
            binding.unwrap(*arguments)


def test_a_public_key_of_low_order_is_refused():
    with pytest.raises(ValueError):
        binding.wrap(KEY, bytes(32), bytes(32), "records")


def test_labels_keep_purposes_apart():
    """A quote that the host may ask for cannot be the one that a release needs."""
    data = binding.release_report_data(b"n" * 32, b"p" * 32, "records")
    assert len(data) == 64
    assert binding.host_report_data(b"n" * 32 + b"p" * 32 + b"records") != data
    assert binding.release_report_data(b"n" * 32, b"p" * 32, "record") != data


# --- the device's files ---


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "keys").mkdir()
    for name, size in (("user_report_data", 0), ("target_info", 0), ("my_target_info", 512), ("report", 432)):
        (tmp_path / name).write_bytes(b"\1" * size)
    (tmp_path / "quote").write_bytes(b"q" * 4000)
    (tmp_path / "keys" / "_sgx_mrenclave").write_bytes(bytes(16))
    return tmp_path


def test_files(folder):
    device = Attestation(folder)
    assert device.report(b"data") == b"\1" * 432
    assert (folder / "user_report_data").read_bytes() == b"data" + bytes(60)
    assert (folder / "target_info").read_bytes() == b"\1" * 512
    assert device.quote(b"") == b"q" * 4000
    assert device.key("_sgx_mrenclave") == bytes(16)


def test_hostile_sizes(folder):
    device = Attestation(folder)
    for name in ("report", "quote", "my_target_info"):
        (folder / name).write_bytes(b"x" * 70000)
    for act in (lambda: device.report(b""), lambda: device.quote(b""), lambda: device.quote(bytes(65))):
        with pytest.raises(DeviceError):
            act()
    (folder / "quote").write_bytes(b"")
    with pytest.raises(DeviceError):
        device.quote(b"")


def test_outside_an_enclave(tmp_path):
    with pytest.raises(DeviceError, match="enclave"):
        Attestation(tmp_path / "none").quote(b"")
