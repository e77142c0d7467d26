"""Decide on releases: challenge, then quote and public key against the owner's rule, then the wrapped key.

A challenge serves once and for a short time, whatever comes of it. Each refusal has a reason code; none holds key
material, and what a stranger sent is not repeated.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from strongroom.attestation.errors import VerificationError
from strongroom.attestation.policy import AllOf, ReportDataIs
from strongroom.attestation.quote import MAX_QUOTE_SIZE
from strongroom.attestation.verify import Verified, verify_quote
from strongroom.errors import StrongroomError
from strongroom.inside import binding
from strongroom.owner.rules import Rule
from strongroom.owner.sources import Source

CHALLENGE_LIFE = 60.0
MAX_CHALLENGES = 1024


class ReleaseRefused(StrongroomError):
    """The key is not released. ``reason`` is a code for programs."""

    def __init__(self, reason: str, message: str, next_step: str = "") -> None:
        super().__init__(message, next_step)
        self.reason = reason


class Releaser:
    """The owner's decisions. Safe for several threads.

    ``clock`` answers the time (aware), for certificates; ``elapsed`` seconds that pass whoever sets it, for challenges.
    """

    def __init__(
        self,
        rules: Mapping[str, Rule],
        sources: Callable[[Rule], Source],
        clock: Callable[[], datetime],
        released: Callable[[str, Verified], None] = lambda name, verified: None,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """``released`` is told each release: for the owner's log."""
        self._rules = rules
        self._sources = sources
        self._clock = clock
        self._released = released
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._challenges: dict[bytes, tuple[str, float]] = {}

    def challenge(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer ``{"name"}`` with ``{"nonce", "seconds"}``. Raises ReleaseRefused."""
        name = self._rule(request).name
        now = self._elapsed()
        nonce = secrets.token_bytes(binding.NONCE_SIZE)
        with self._lock:
            self._challenges = {other: facts for other, facts in self._challenges.items() if facts[1] >= now}
            if len(self._challenges) >= MAX_CHALLENGES:
                raise ReleaseRefused("busy", "too many challenges are open", "try again in a minute")
            self._challenges[nonce] = (name, now + CHALLENGE_LIFE)
        return {"nonce": base64.b64encode(nonce).decode(), "seconds": int(CHALLENGE_LIFE)}

    def release(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer ``{"name", "nonce", "public_key", "quote"}`` with ``{"ephemeral", "wrapped"}``.

        Raises ReleaseRefused.
        """
        rule = self._rule(request)
        nonce = _octets(request, "nonce", binding.NONCE_SIZE, binding.NONCE_SIZE)
        public_key = _octets(request, "public_key", binding.PUBLIC_KEY_SIZE, binding.PUBLIC_KEY_SIZE)
        quote = _octets(request, "quote", 1, MAX_QUOTE_SIZE)
        self._spend(nonce, rule.name, self._elapsed())
        now = self._clock()
        expected = ReportDataIs(binding.release_report_data(nonce, public_key, rule.name))
        try:
            collateral = self._sources(rule)(quote, now)
            verified = verify_quote(quote, collateral, rule.root, now, AllOf(rule.policy, expected))
        except VerificationError as error:
            raise ReleaseRefused(error.reason, error.message, error.next_step) from None
        try:
            ephemeral, wrapped = binding.wrap(rule.key, nonce, public_key, rule.name)
        except ValueError:
            raise ReleaseRefused("bad-request", "the public key is not one to wrap to") from None
        self._released(rule.name, verified)
        return {
            "ephemeral": base64.b64encode(ephemeral).decode(),
            "wrapped": base64.b64encode(wrapped).decode(),
        }

    def _rule(self, request: dict[str, Any]) -> Rule:
        name = request.get("name")
        rule = self._rules.get(name) if isinstance(name, str) else None
        if rule is None:
            raise ReleaseRefused(
                "no-such-key", "no key of that name is here", "check the name in the program"
            )
        return rule

    def _spend(self, nonce: bytes, name: str, now: float) -> None:
        with self._lock:
            facts = self._challenges.pop(nonce, None)
        if facts is None or facts[0] != name:
            raise ReleaseRefused(
                "replayed-quote",
                "this challenge is not open: used before, or never given",
                "ask for a new one",
            )
        if now > facts[1]:
            raise ReleaseRefused("expired-challenge", "the challenge's time has passed", "ask for a new one")


def _octets(request: dict[str, Any], name: str, least: int, most: int) -> bytes:
    try:
        data = base64.b64decode(request[name], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error):
        data = b""
    if not least <= len(data) <= most:
        raise ReleaseRefused("bad-request", f"the request has no proper {name!r}")
    return data
