"""The whole exchange over HTTP, with real quotes: every refusal with its reason, and replays."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from platform_fixtures import MRENCLAVE, MRSIGNER, PackageDevice
from strongroom.errors import StrongroomError
from strongroom.inside import KeyRefused, binding, owner
from strongroom.inside.release import Owner
from strongroom.owner.keys import KeyFileError, load_key, new_key, record_key
from strongroom.owner.records import RecordFileError, decrypt_file, encrypt_file
from strongroom.owner.releaser import Releaser, ReleaseRefused
from strongroom.owner.rules import load_rules
from strongroom.owner.server import OwnerServer
from strongroom.owner.sources import FromSoftwarePki

POLICY = f"""
[keys.records]
root = "software"
mrenclave = "{MRENCLAVE.hex()}"
product = 1
min_svn = 3

[keys.signed]
file = "records.key"
root = "software"
mrsigner = ["{MRSIGNER.hex()}"]
product = 1
min_svn = 3
levels = ["sealed", "faithful"]

[keys.intel]
file = "records.key"
mrenclave = "{MRENCLAVE.hex()}"
"""


class Clock:
    def __init__(self, now):
        self.now = now

        self.seconds = 0.0

    def __call__(self):
        return self.now

    def elapsed(self):
        return self.seconds


@pytest.fixture
def clock(platform):
    return Clock(platform.now)


@pytest.fixture
def releaser(platform, tmp_path, clock):
    platform.qe()  # so that the root's file is there
    new_key(tmp_path / "records.key")
    (tmp_path / "policy.toml").write_text(POLICY)
    rules = load_rules(tmp_path / "policy.toml", platform.home / "pki" / "root.pem")
    return Releaser(rules, lambda rule: FromSoftwarePki(platform.home), clock, elapsed=clock.elapsed)


@pytest.fixture
def log():
    return []


@pytest.fixture
def server(releaser, log):
    with OwnerServer(releaser, log=log) as running:
        yield running


def reason(server, device, name="records"):
    with pytest.raises(KeyRefused) as caught:
        owner(server.url, device).release_key(name)
    return caught.value.reason


def test_release(server, platform, tmp_path):
    key = owner(server.url, PackageDevice(platform)).release_key("records")
    outside = record_key(tmp_path / "records.key", "records")
    assert key.decrypt(outside.encrypt(b"patients")) == b"patients"
    assert outside.decrypt(key.encrypt(b"report")) == b"report"


@pytest.mark.parametrize(
    ("expected", "changes", "name"),
    [
        ("wrong-enclave", {"mrenclave": b"o" * 32}, "records"),
        ("wrong-enclave", {"mrsigner": b"o" * 32}, "signed"),
        ("wrong-product", {"isv_prod_id": 2}, "signed"),
        ("old-svn", {"isv_svn": 2}, "records"),
        ("debug-enclave", {"attributes": 0x7}, "records"),
        ("exec-package", {"kind": "exec"}, "signed"),
        ("level", {"level": "faithful"}, "records"),
        ("unnamed-root", {}, "intel"),
        ("no-such-key", {}, "other"),
    ],
)
def test_refusals(server, platform, log, tmp_path, expected, changes, name):
    assert reason(server, PackageDevice(platform, **changes), name) == expected
    assert log == [f"refused ({expected})"]
    assert load_key(tmp_path / "records.key").hex() not in "".join(log)


def test_a_level_accepted_by_name(server, platform):
    owner(server.url, PackageDevice(platform, level="faithful")).release_key("signed")


def test_another_installation(server, other_platform):
    assert reason(server, PackageDevice(other_platform)) == "unnamed-root"


def test_an_altered_quote(server, platform):
    class Altering(PackageDevice):
        def quote(self, report_data):
            quote = bytearray(super().quote(report_data))
            quote[48 + 258] = 99  # ISVSVN
            return bytes(quote)

    assert reason(server, Altering(platform)) == "altered-quote"


def test_a_quote_of_another_challenge(server, platform):
    kept = []

    class Keeping(PackageDevice):
        def quote(self, report_data):
            kept.append(super().quote(report_data))
            return kept[0]

    owner(server.url, Keeping(platform)).release_key("records")
    assert reason(server, Keeping(platform)) == "replayed-quote"


def test_a_request_sent_twice(server, platform):
    """What was recorded on the wire is of no use again."""
    sent = []

    class Recording(Owner):
        def _post(self, path, body):
            if path == "release":
                sent.append(body)
            return super()._post(path, body)

    Recording(server.url, PackageDevice(platform)).release_key("records")
    with pytest.raises(KeyRefused) as caught:
        owner(server.url)._post("release", sent[0])
    assert caught.value.reason == "replayed-quote"


def test_a_public_key_in_place_of_the_enclaves(server, platform):
    """The host in the middle puts its own key in: the quote does not bind it."""

    class Middle(Owner):
        def _post(self, path, body):
            if path == "release":
                body = body | {"public_key": base64.b64encode(b"\t" + bytes(31)).decode()}
            return super()._post(path, body)

    with pytest.raises(KeyRefused) as caught:
        Middle(server.url, PackageDevice(platform)).release_key("records")
    assert caught.value.reason == "replayed-quote"


def test_a_quote_for_the_host_is_none_for_a_release(server, platform):
    class Host(PackageDevice):
        def quote(self, report_data):
            return super().quote(binding.host_report_data(report_data))

    assert reason(server, Host(platform)) == "replayed-quote"


def answering(answer, platform):
    return {
        "name": "records",
        "nonce": answer["nonce"],
        "public_key": base64.b64encode(bytes(32)).decode(),
        "quote": base64.b64encode(platform.quote()).decode(),
    }


def test_an_old_challenge(releaser, clock, platform):
    answer = releaser.challenge({"name": "records"})
    clock.seconds += 61
    with pytest.raises(ReleaseRefused) as caught:
        releaser.release(answering(answer, platform))
    assert caught.value.reason == "expired-challenge"


@pytest.mark.parametrize("days", [-365, 365])
def test_challenges_live_by_seconds_that_pass_not_by_the_clock(releaser, clock, platform, days):
    """The owner's clock is set while a challenge is open: it is neither over at once, nor open for a year."""
    first, second = (releaser.challenge({"name": "records"}) for _ in range(2))
    clock.now += timedelta(days=days)
    with pytest.raises(ReleaseRefused) as caught:
        releaser.release(answering(first, platform))
    assert caught.value.reason != "expired-challenge"  # what is refused is a quote at that date
    clock.seconds += 61
    with pytest.raises(ReleaseRefused) as caught:
        releaser.release(answering(second, platform))
    assert caught.value.reason == "expired-challenge"


def test_challenges_are_bounded_and_end(releaser, clock):
    for _ in range(1024):
        releaser.challenge({"name": "records"})
    with pytest.raises(ReleaseRefused, match="too many"):
        releaser.challenge({"name": "records"})
    clock.seconds += 61
    releaser.challenge({"name": "records"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["name", "nonce", "public_key", "quote"])


@settings(max_examples=100)
@given(st.dictionaries(names, json_values | st.just("records") | st.just("A" * 43 + "="), max_size=4))
def test_hostile_requests(platform, request_body):
    releaser = Releaser({}, lambda rule: FromSoftwarePki(platform.home), Clock(platform.now))
    for act in (releaser.challenge, releaser.release):
        with pytest.raises(ReleaseRefused):
            act(request_body)


def post(url, data, headers=None):
    request = urllib.request.Request(url, data, headers or {}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/challenge", b"{", 400),
        ("/challenge", b"[]", 400),
        ("/challenge", b"[" * 10000, 400),
        ("/challenge", b"", 411),
        ("/release", b"x" * 200000, 413),
        ("/release", b"{}", 403),
        ("/other", b"{}", 404),
    ],
)
def test_hostile_http(server, path, data, status):
    got, answer = post(server.url + path, data)
    assert got == status
    assert set(answer["error"]) == {"code", "message"}


def test_nobody_there(platform):
    with pytest.raises(KeyRefused, match="unreachable"):
        owner("http://127.0.0.1:1", PackageDevice(platform)).release_key("records")


def test_no_network_inside(platform, monkeypatch):
    """What socket(2) inside answers where the manifest has no `network`."""

    def refused(*_words):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.socket", refused)
    with pytest.raises(KeyRefused, match=r"needs network = true in enclave\.toml"):
        owner("http://127.0.0.1:1", PackageDevice(platform)).release_key("records")


@pytest.mark.parametrize("url", ["ftp://x", "x", "http://", "http://a:b@x/", "file:///etc/passwd"])
def test_bad_urls(url):
    with pytest.raises(ValueError):
        owner(url)


# --- the policy file and the key files ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no key"),
        ("[key.records]", "did you mean 'keys'"),
        ("[keys.records]\nmrenclav = 'x'", "did you mean 'mrenclave'"),
        ("[keys.records]", "names no enclave"),
        ("[keys.records]\nmrenclave = 'zz'", "64 hexadecimal"),
        ("[keys.records]\nmrenclave = []", "64 hexadecimal"),
        (f"[keys.records]\nmrsigner = '{'a' * 64}'", "without product"),
        (f"[keys.records]\nmrsigner = '{'a' * 64}'\nproduct = 1", "without min_svn"),
        (f"[keys.records]\nmrenclave = '{'a' * 64}'\nmin_svn = -1", "0 to 65535"),
        (f"[keys.records]\nmrenclave = '{'a' * 64}'\nlevels = ['none']", "list of levels"),
        (f"[keys.records]\nmrenclave = '{'a' * 64}'\ntcb = ['Revoked']", "TCB statuses"),
        (f"[keys.records]\nmrenclave = '{'a' * 64}'\nroot = 'nowhere.pem'", "cannot read the root"),
        (f"[keys.records]\nmrenclave = '{'a' * 64}'\nroot = 5", "root is not a name"),
        (f"[keys.records]\nfile = 'none'\nmrenclave = '{'a' * 64}'", "cannot read the key"),
        ("keys = [", "not TOML"),
    ],
)
def test_bad_policy_files(tmp_path, text, words):
    new_key(tmp_path / "records.key")
    (tmp_path / "policy.toml").write_text(text)
    with pytest.raises(StrongroomError, match=words):
        load_rules(tmp_path / "policy.toml", tmp_path / "root.pem")


def test_key_files(tmp_path):
    path = tmp_path / "k"
    new_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyFileError, match="already"):
        new_key(path)
    text = path.read_text()
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_key(path)
    path.chmod(0o600)
    path.write_text(text[:-5])
    with pytest.raises(KeyFileError) as caught:
        load_key(path)
    assert text[:20] not in str(caught.value)


def test_files_of_records(tmp_path):
    new_key(tmp_path / "k")
    key = record_key(tmp_path / "k", "records")
    (tmp_path / "plain").write_bytes(b"a,b\n1,2\n")
    encrypt_file(key, tmp_path / "plain", tmp_path / "sealed")
    decrypt_file(key, tmp_path / "sealed", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b"a,b\n1,2\n"
    with pytest.raises(RecordFileError):
        decrypt_file(key, tmp_path / "plain", tmp_path / "bad")
    with pytest.raises(RecordFileError):
        decrypt_file(key, tmp_path / "none", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "k", "plain", "sealed"]
