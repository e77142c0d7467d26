"""Parsing and serialising quotes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.attestation.errors import MalformedQuote
from strongroom.attestation.quote import MAX_QUOTE_SIZE, Quote
from strongroom.isa import dcap
from strongroom.isa.report import ReportBody
from strongroom.isa.software_tcb import QE_USER_DATA


def test_round_trip_of_ours(platform):
    data = platform.quote(report_data=b"d" * 64)
    quote = Quote.parse(data)
    assert quote.serialise() == data
    assert quote.body.report_data == b"d" * 64
    assert len(quote.pem_chain()) == 3


def test_a_quote_of_ours_says_what_it_is_without_a_parser(platform):
    data = platform.quote()
    assert QE_USER_DATA in data[:48]
    assert data[:2] == b"\x03\x00"


def test_round_trip_of_a_real_one(real):
    data, _ = real
    # Tools append bytes after the certification data's own; this sample is exact.
    quote = Quote.parse(data)
    assert quote.serialise() == data
    assert quote.body.mrenclave.hex() == "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb"


@given(st.data())
def test_every_truncation_is_refused(platform, data):
    whole = platform.quote()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(MalformedQuote):
        Quote.parse(whole[:cut])


@given(st.binary(max_size=3000))
def test_hostile_bytes(data):
    with pytest.raises(MalformedQuote):
        Quote.parse(data)


@given(st.data())
def test_hostile_change(platform, data):
    """Any bytes changed anywhere: refused as malformed, or parsed and given back the same."""
    whole = bytearray(platform.quote())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.integers(0, 255))
    try:
        quote = Quote.parse(bytes(whole))
    except MalformedQuote:
        return
    assert quote.serialise() == bytes(whole)


def test_trailing_bytes_and_size_are_refused(platform):
    with pytest.raises(MalformedQuote):
        Quote.parse(platform.quote() + b"\0")
    with pytest.raises(MalformedQuote, match="at most"):
        Quote.parse(bytes(MAX_QUOTE_SIZE + 1))


@pytest.mark.parametrize(("offset", "value"), [(0, 4), (2, 3), (4, 0x81)])
def test_other_kinds_of_quote_are_refused(platform, offset, value):
    data = bytearray(platform.quote())
    struct.pack_into("<H", data, offset, value)
    with pytest.raises(MalformedQuote):
        Quote.parse(bytes(data))


@given(
    st.binary(min_size=64, max_size=64),
    st.binary(max_size=300),
    st.integers(0, 0xFFFF),
    st.binary(max_size=300),
    st.binary(min_size=64, max_size=64),
)
def test_serialise_then_parse(signature, auth, kind, certification, report_data):
    quote = Quote(
        dcap.QuoteHeader(qe_svn=7, pce_svn=9),
        ReportBody(report_data=report_data),
        signature,
        bytes(64),
        ReportBody(),
        signature,
        auth,
        kind,
        certification,
    )
    assert Quote.parse(quote.serialise()) == quote
