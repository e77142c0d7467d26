"""Reading and writing collateral."""

from __future__ import annotations

import json

import dcap_qvl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.attestation.collateral import Collateral
from strongroom.attestation.errors import BadCollateral


def test_round_trip(platform, tmp_path):
    collateral = platform.collateral()
    path = tmp_path / "c.json"
    path.write_text(collateral.to_json())
    assert Collateral.load(path) == collateral


def test_the_judge_reads_what_we_write_and_we_read_what_it_writes(platform):
    collateral = platform.collateral()
    theirs = dcap_qvl.QuoteCollateralV3.from_json(collateral.to_json())
    assert theirs.pck_crl == collateral.pck_crl
    assert Collateral.from_json(theirs.to_json()) == collateral


def test_real_collateral_is_read(real):
    _, collateral = real
    assert collateral.fmspc().hex() == "00a067110000"
    assert Collateral.from_json(collateral.to_json()) == collateral


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_hostile_json(data):
    with pytest.raises(BadCollateral):
        Collateral.from_json(data)


@given(st.data())
def test_hostile_members(platform, data):
    """Any member replaced by anything: a typed error, or an object whose dates are read or refused with one."""
    value = json.loads(platform.collateral().to_json())
    name = data.draw(st.sampled_from(sorted(value)))
    value[name] = data.draw(json_values | st.just(value[name][:-7]) | st.just("00") | st.just("{}"))
    try:
        collateral = Collateral.from_json(json.dumps(value))
        collateral.spans()
        collateral.root_certificates()
        collateral.fmspc()
    except BadCollateral:
        pass


@pytest.mark.parametrize("text", ["0", "000", "0g", "00 00", " 00", "00\n", "0x00", "٠٠"])
def test_hexadecimal_members_are_nothing_else(platform, text):
    value = json.loads(platform.collateral().to_json())
    value["pck_crl"] = text
    with pytest.raises(BadCollateral, match="'pck_crl' is not hexadecimal"):
        Collateral.from_json(json.dumps(value))


def test_what_is_kept_of_one_collateral_is_not_told_of_another(platform):
    """Parts that were read before are not read again; a part that differs is."""
    value = json.loads(platform.collateral().to_json())
    before = Collateral.from_json(json.dumps(value)).spans()
    info = json.loads(value["tcb_info"])
    info["nextUpdate"] = "2031-01-01T00:00:00Z"
    value["tcb_info"] = json.dumps(info)
    after = Collateral.from_json(json.dumps(value)).spans()
    assert after[0].end.year == 2031
    assert after[1:] == before[1:]
    assert [span.what for span in after] == [span.what for span in before]
    value["tcb_info"] += "x"
    for _ in range(2):  # a refusal is not kept as an answer either
        with pytest.raises(BadCollateral, match="TCB info"):
            Collateral.from_json(json.dumps(value)).spans()


def test_missing_file_and_deep_json(tmp_path):
    with pytest.raises(BadCollateral, match="cannot read"):
        Collateral.load(tmp_path / "none")
    with pytest.raises(BadCollateral):
        Collateral.from_json("[" * 100000)
