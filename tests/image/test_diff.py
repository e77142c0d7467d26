"""Why two images differ (strongroom.image.diff), and the verbs new, build and diff."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strongroom.cli.main import main
from strongroom.errors import StrongroomError
from strongroom.image.build import FACTS, STREAM
from strongroom.image.diff import FileChange, diff
from support.programs import HELLO, compile_c

from .conftest import Build


@pytest.fixture
def hello(tmp_path: Path) -> bytes:
    return compile_c(tmp_path / "made", "hello", HELLO).read_bytes()


def test_same(image: Build, tmp_path: Path, hello: bytes) -> None:
    one = image(tmp_path / "a", {"hello": hello}, 'main = "hello"')
    two = image(tmp_path / "b", {"hello": hello}, 'main = "hello"')
    found = diff(tmp_path / "a", two.directory)
    assert found.same and not (found.fields or found.files or found.pages)
    assert found.mrenclave_one == found.mrenclave_two == one.mrenclave


def test_file_manifest_and_page_are_named(image: Build, tmp_path: Path, hello: bytes) -> None:
    data = bytes(60000)
    image(tmp_path / "a", {"hello": hello, "data": data, "gone": ""}, 'main = "hello"\nmemory = "2M"')
    changed = data[:40000] + b"\1" + data[40001:]
    image(
        tmp_path / "b",
        {"hello": hello, "data": changed, "new": ""},
        'main = "hello"\nmemory = "1M"\nthreads = 5',
    )
    found = diff(tmp_path / "a", tmp_path / "b")
    assert not found.same
    assert {(one.name, one.one, one.two) for one in found.fields} == {
        ("memory", 2 << 20, 1 << 20), ("threads", 4, 5)
    }  # fmt: skip
    assert found.files == [
        FileChange("/app/data", "content", 32768), FileChange("/app/gone", "only in A"),
        FileChange("/app/new", "only in B"),
    ]  # fmt: skip
    regions = {(one.region, one.what, one.count) for one in found.pages}
    assert ("boot information", "content", 1) in regions
    assert ("heap", "only in A", 256) in regions
    assert ("thread 4 TCS", "only in B", 1) in regions


def test_page_of_a_library_is_named(image: Build, tmp_path: Path, hello: bytes) -> None:
    image(tmp_path / "a", {"hello": hello}, 'main = "hello"')
    image(tmp_path / "b", {"hello": hello}, 'main = "hello"', rewriting=False)
    found = diff(tmp_path / "a", tmp_path / "b")
    assert not found.files
    assert any(
        one.region == "/lib/x86_64-linux-gnu/libc.so.6 text" and one.what == "content" for one in found.pages
    )
    assert any(one.region == "thunks" for one in found.pages)


def test_refused(image: Build, tmp_path: Path, hello: bytes) -> None:
    with pytest.raises(StrongroomError, match="holds no built enclave: run `strongroom build"):
        diff(tmp_path, tmp_path)
    result = image(tmp_path / "a", {"hello": hello}, 'main = "hello"')
    stream = (result.directory / STREAM).read_bytes()
    (result.directory / STREAM).write_bytes(stream[: len(stream) // 2 + 7])
    with pytest.raises(StrongroomError):
        diff(tmp_path / "a", tmp_path / "a")
    (result.directory / STREAM).write_bytes(stream)
    for text in ("", "[]", "[" * 100000):
        (result.directory / FACTS).write_text(text)
        with pytest.raises(StrongroomError, match=r"enclave\.json is not"):
            diff(tmp_path / "a", tmp_path / "a")


def test_verbs(
    tmp_path: Path, libos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], shared_cache: Path,
    strongroom_home: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("STRONGROOM_NATIVE", str(libos.parent))
    strongroom_home.mkdir(parents=True, mode=0o700)
    (strongroom_home / "cache").symlink_to(shared_cache)
    project = str(tmp_path / "hello")
    assert main(["new", project]) == 0
    assert "next: strongroom build" in capfd.readouterr().out
    assert main(["new", project]) == 1
    assert (
        capfd.readouterr().err == f"strongroom: {project} is not empty: name a new folder, "
        "or write enclave.toml into this one (docs/manifest.md)\n"
    )
    assert main(["build", project, "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert "Standard_DC2s_v2" in facts["vm_sizes"] and "Standard_DC1s_v2" not in facts["vm_sizes"]
    assert main(["build", project, "--out", str(tmp_path / "other")]) == 0
    out = capfd.readouterr().out
    assert f"MRENCLAVE  {facts['mrenclave']}" in out and "Standard_DC2s_v2 and larger hold it" in out
    assert main(["diff", project, str(tmp_path / "other")]) == 0
    assert capfd.readouterr().out == f"same MRENCLAVE {facts['mrenclave']}\n"
    with (tmp_path / "hello" / "main.py").open("a") as file:
        file.write("print()\n")
    assert main(["build", project]) == 0
    capfd.readouterr()
    assert main(["diff", project, str(tmp_path / "other")]) == 1
    assert "file /app/main.py: size\n" in capfd.readouterr().out
    (tmp_path / "hello" / "enclave.toml").write_text('[enclave]\nmian = "main.py"\n')
    assert main(["build", project]) == 1
    assert capfd.readouterr().err.endswith("enclave.toml:2: unknown key 'mian': did you mean main?\n")
