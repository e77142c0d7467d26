"""enclave.json and the files beside it are somebody else's: an image is opened, or refused in our words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import StrongroomError
from strongroom.machine import launch

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(("size", "pages", "kind", "path", "edmm", "env_allowed", "host_path")) | st.text(max_size=5),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
# Not `mounts` with a host path: such a folder is made where the image says (the user's own project).
_FACTS = st.dictionaries(
    st.sampled_from(("epc_size", "measured_size", "regions", "manifest", "heap", "notes")), _JSON, max_size=6
)


@given(_FACTS, st.binary(max_size=40))
def test_any_facts(tmp_path_factory: Any, facts: dict[str, Any], noise: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "facts"
    folder.mkdir(exist_ok=True)
    for name in ("enclave.sgxs", "files.pack"):
        (folder / name).write_bytes(noise)
    (folder / "enclave.sig").write_bytes(bytes(1808))
    (folder / "enclave.json").write_text(json.dumps(facts))
    before = len(os.listdir("/proc/self/fd"))
    with launch.open_image(folder) as image:
        request = launch._request(image, "default", [], {}, None, False)
        assert json.loads(json.dumps(request)) == request
        demand = launch.demand_of(image.facts)
        assert 0 <= demand.pages <= demand.most < 2**60 and demand.pinned >= 0
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.binary(max_size=200), st.binary(max_size=2000))
def test_any_bytes(tmp_path_factory: Any, text: bytes, signature: bytes) -> None:
    folder: Path = tmp_path_factory.getbasetemp() / "bytes"
    folder.mkdir(exist_ok=True)
    for name in ("enclave.sgxs", "files.pack"):
        (folder / name).write_bytes(b"")
    (folder / "enclave.sig").write_bytes(signature)
    (folder / "enclave.json").write_bytes(text)
    before = len(os.listdir("/proc/self/fd"))
    try:
        with launch.open_image(folder):
            assert len(signature) == 1808
    except StrongroomError as error:
        assert error.next_step
    assert len(os.listdir("/proc/self/fd")) == before
