"""Fields of the daemon's messages: what a program could not be given is refused before anything is made for it."""

from __future__ import annotations

import pytest

from strongroom.machine import protocol


def test_strings_are_what_bytes_decode_to() -> None:
    message = protocol.parse(b'{"arguments": ["plain", "\\udcff"], "vm": "\xff"}')
    assert protocol.strings(message, "arguments") == ["plain", "\udcff"]
    assert protocol.text(message, "vm") == "\udcff"


@pytest.mark.parametrize("word", ["\\ud800", "a\\u0000b"])
def test_strings_that_no_bytes_decode_to(word: str) -> None:
    message = protocol.parse(f'{{"arguments": ["{word}"], "vm": "{word}"}}'.encode())
    with pytest.raises(protocol.ProtocolError):
        protocol.strings(message, "arguments")
    with pytest.raises(protocol.ProtocolError):
        protocol.text(message, "vm")
