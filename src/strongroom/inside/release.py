"""Ask whoever owns the data for its key: challenge, quote, release. The program names a URL and a key, no more.

What the network or the host put in between can withhold the key or give one of its own; it cannot learn the owner's.
"""

from __future__ import annotations

import base64
import binascii
import json
from urllib.parse import urlsplit

from strongroom.inside import binding
from strongroom.inside.device import Attestation
from strongroom.inside.errors import KeyRefused, need_cryptography
from strongroom.inside.records import RecordKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_ANSWER_SIZE = 64 * 1024
TIMEOUT_SECONDS = 30.0


class Owner:
    """The one who holds the key, at ``url`` (http or https)."""

    def __init__(self, url: str, device: Attestation | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError("the owner's URL is http(s)://HOST[:PORT][/PATH]")
        self._parts = parts
        self._device = device or Attestation()

    def release_key(self, name: str) -> RecordKey:
        """The key ``name``, released to a key pair made here, for this once. Raises KeyRefused, DeviceError."""
        return RecordKey(name, self._release(name))

    def unlock(self, mount: str, name: str) -> None:
        """Open the ``encrypted:release`` mount at ``mount`` with the key ``name``. Raises KeyRefused, DeviceError.

        The program never has the key: it goes to the LibOS, which gives it to nobody.
        """
        self._device.unlock(mount, self._release(name))

    def _release(self, name: str) -> bytes:
        need_cryptography()
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        if not binding.valid_name(name):
            raise ValueError("a key's name is 1 to 128 bytes of printable text")
        nonce = _octets(self._post("challenge", {"name": name}), "nonce", binding.NONCE_SIZE)
        pair = X25519PrivateKey.generate()
        public_key = pair.public_key().public_bytes_raw()
        quote = self._device.quote(binding.release_report_data(nonce, public_key, name))
        answer = self._post(
            "release",
            {
                "name": name,
                "nonce": _text(nonce),
                "public_key": _text(public_key),
                "quote": _text(quote),
            },
        )
        ephemeral = _octets(answer, "ephemeral", binding.PUBLIC_KEY_SIZE)
        wrapped = _octets(answer, "wrapped", binding.WRAPPED_SIZE)
        try:
            return binding.unwrap(pair.private_bytes_raw(), nonce, ephemeral, wrapped, name)
        except ValueError:
            raise KeyRefused("bad-answer", "the owner's answer is not for this request") from None

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        import http.client

        host, port = self._parts.hostname or "", self._parts.port
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(host, port, timeout=TIMEOUT_SECONDS)
        where = f"{host}:{connection.port}"
        try:
            target = f"{self._parts.path.rstrip('/')}/{path}"
            connection.request("POST", target, json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read(MAX_ANSWER_SIZE + 1)
            status = response.status
        except PermissionError as error:
            why = "a socket was refused: inside it needs network = true in enclave.toml"
            raise KeyRefused("unreachable", f"{where} was not asked ({why})") from error
        except (OSError, http.client.HTTPException) as error:
            raise KeyRefused("unreachable", f"no answer from {where} ({type(error).__name__})") from None
        finally:
            connection.close()
        try:
            value = json.loads(data) if len(data) <= MAX_ANSWER_SIZE else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise KeyRefused("bad-answer", f"{where} did not answer as an owner does (status {status})")
        if status != 200:
            facts = value.get("error")
            if not isinstance(facts, dict):
                facts = {}
            raise KeyRefused(str(facts.get("code", status))[:40], str(facts.get("message", "refused"))[:400])
        return value


def owner(url: str, device: Attestation | None = None) -> Owner:
    """The owner at ``url``: first a data owner's process, later Azure's services; the program stays the same."""
    return Owner(url, device)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _octets(answer: dict[str, Any], name: str, size: int) -> bytes:
    try:
        data = base64.b64decode(answer[name], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        data = b""
    if len(data) != size:
        raise KeyRefused("bad-answer", f"the owner's answer has no {name} of {size} bytes")
    return data
