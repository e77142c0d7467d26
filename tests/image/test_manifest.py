"""enclave.toml (strongroom.image.manifest)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.errors import StrongroomError
from strongroom.image.manifest import Manifest, ManifestError, Mount, key_name, parse, parse_size, read


def test_one_line_suffices() -> None:
    assert parse('main = "score.py"') == Manifest("score.py") == parse('[enclave]\nmain = "score.py"')


def test_everything_is_understood() -> None:
    found = parse(
        """
        [enclave]
        main = "score.py"
        packages = ["cryptography>=42"]
        memory = "64M"
        threads = 8
        product = 2
        svn = 3
        debug = true
        args = ["--fast"]
        env = ["B", "A"]
        network = true
        late_code = "1000K"
        exclude = ["*.enc"]
        key = "file:release.pem"
        [files]
        "/data" = "encrypted:release"
        "/in" = "allowed:input"
        "/t" = "temporary"
        "/ca.pem" = "trusted:ca.pem"
        "/sealed" = "encrypted:sealed:place/of/it"
        [env]
        MODE = "quick"
        """
    )
    assert found == Manifest(
        main="score.py", packages=("cryptography>=42",), memory=64 << 20, threads=8, product=2, svn=3, debug=True,
        args=("--fast",), env_allowed=("A", "B"), env=(("MODE", "quick"),), network=True,
        late_code=1000 << 10, exclude=("*.enc",), key="file:release.pem",
        files=(
            Mount("/ca.pem", "trusted", "ca.pem"), Mount("/data", "encrypted:release", "data"),
            Mount("/in", "allowed", "input"), Mount("/sealed", "encrypted:sealed", "place/of/it"),
            Mount("/t", "temporary"),
        ),
    )  # fmt: skip
    assert "key" not in found.facts()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[enclave]\nmain = "a.py"\nmemroy = "1M"', "m.toml:3: unknown key 'memroy': did you mean memory?"),
        ('main = "a.py"\nthread = 2', "m.toml:2: unknown key 'thread': did you mean threads?"),
        ('[enclave]\nmain = "a.py"\n[file]\n"/x" = "trusted"', "m.toml:3: unknown table 'file': did you mean files?"),
        ('[enclave]\nmain = "a.py"\nzzz = 1', "m.toml:3: unknown key 'zzz': it may be one of main, packages"),
        ("[enclave]\nthreads = 2", "m.toml: main is missing: write main ="),
        ("", "m.toml: main is missing"),
        ('[enclave]\nmain = "a.py"\nmemory = "48Q"', "m.toml:3: '48Q' is not a size: write memory = \"48M\""),
        ('[enclave]\nmain = "a.py"\nmemory = 48', "m.toml:3: memory is not a size"),
        ('[enclave]\nmain = "a.py"\nmemory = "1K"', "m.toml:3: memory = '1K' is out of range"),
        ('[enclave]\nmain = "a.py"\nlate_code = true', 'm.toml:3: late_code is not a size: write late_code = "1M"'),
        ('[enclave]\nmain = "a.py"\nlate_code = "some"', "m.toml:3: 'some' is not a size: write late_code = \"1M\""),
        ('[enclave]\nmain = "a.py"\nlate_code = "1G"', "m.toml:3: late_code = '1G' is out of range: write 4K to 256M"),
        ('[enclave]\nmain = "a.py"\nlate_code = "0"', "m.toml:3: late_code = '0' is out of range: write 4K to 256M"),
        ('[enclave]\nmain = "a.py"\nlatecode = "1M"', "m.toml:3: unknown key 'latecode': did you mean late_code?"),
        ('[enclave]\nmain = "a.py"\nthreads = 0', "m.toml:3: threads = 0 is out of range: write a number from 1"),
        ('[enclave]\nmain = "a.py"\nthreads = true', "m.toml:3: threads is not a number"),
        ('[enclave]\nmain = "a.py"\nsvn = 65536', "m.toml:3: svn = 65536 is out of range"),
        ('[enclave]\nmain = "a.py"\ndebug = 1', "m.toml:3: debug is not true or false"),
        ('[enclave]\nmain = "a.py"\nnetwork = ["x"]', "m.toml:3: network is not true or false"),
        ('[enclave]\nmain = "a.py"\npackages = ["a b"]', "m.toml:3: 'a b' is not the name of a package"),
        ('[enclave]\nmain = "a.py"\npackages = "numpy"', "m.toml:3: packages is not a list of texts"),
        ('[enclave]\nmain = "a.py"\nenv = ["A=B"]', "m.toml:3: 'A=B' is not the name of a variable"),
        ('[enclave]\nmain = "../a.py"', "m.toml:2: main = '../a.py' is not a file of the project"),
        ('[enclave]\nmain = "a.py"\n[files]\n"/d" = "encrypted"', "m.toml:4: unknown kind of file 'encrypted'"),
        ('[enclave]\nmain = "a.py"\n[files]\n"/d" = "trustd"', "did you mean trusted?"),
        ('[enclave]\nmain = "a.py"\n[files]\n"d" = "trusted"', "m.toml:4: 'd' is not a path inside"),
        ('[enclave]\nmain = "a.py"\n[files]\n"/a/../b" = "trusted"', "is not a path inside"),
        ('[enclave]\nmain = "a.py"\n[files]\n"/dev/x" = "trusted"', "is filled by the image itself"),
        ('[enclave]\nmain = "a.py"\n[files]\n"/t" = "temporary:x"', "is temporary and has no host path"),
        ('main = "a.py"\n[files]\n"/a/b" = "encrypted:release"\n"/a.b" = "encrypted:release"',
         "/a/b and /a.b would have one name for their keys: rename one of them"),
        ('main = "a.py"\n[files]\n"/d" = "encrypted:sealed:"', "names no host path after encrypted:sealed:"),
        ('[enclave]\nmain = "a.py"\n[env]\nA = 1', "m.toml:4: A is not a text"),
        ("[enclave\n", "m.toml:1: "),
        ('main = "a.py"\nmain = "b.py"', "m.toml:2: Cannot overwrite a value"),
        ('enclave = 3', "m.toml:1: enclave is not a table"),
    ],
)  # fmt: skip
def test_refused_in_one_line_with_the_place(text: str, said: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse(text, "m.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("words", "kind", "host"),
    [
        ("encrypted:release", "encrypted:release", "d/e"),
        ("encrypted:release:host", "encrypted:release", "host"),
        ("encrypted:sealed", "encrypted:sealed", "d/e"),
        ("encrypted:sealed:host", "encrypted:sealed", "host"),
        ("encrypted:sealed:mrsigner", "encrypted:sealed", "d/e"),
        ("encrypted:sealed:mrsigner:host", "encrypted:sealed", "host"),
        ("encrypted:sealed:mrenclave", "encrypted:sealed:mrenclave", "d/e"),
        ("encrypted:sealed:mrenclave:host", "encrypted:sealed:mrenclave", "host"),
        ("encrypted:sealed:./mrenclave", "encrypted:sealed", "./mrenclave"),
        ("encrypted:sealed:mrenclaves", "encrypted:sealed", "mrenclaves"),
    ],
)
def test_encrypted_kinds(words: str, kind: str, host: str) -> None:
    found = parse(f'main = "a.py"\n[files]\n"/d/e" = "{words}"')
    assert found.files == (Mount("/d/e", kind, host),)
    assert key_name("/d/e") == "d.e"


def test_file_problems(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is not there: make a project with `strongroom new"):
        read(tmp_path / "enclave.toml")
    (tmp_path / "score.py").touch()
    with pytest.raises(ManifestError, match=r'write one line into it, main = "score\.py"'):
        read(tmp_path / "enclave.toml")
    (tmp_path / "enclave.toml").write_bytes(b'main = "a"\n# \xff')
    with pytest.raises(ManifestError, match=r"enclave.toml:2: not UTF-8"):
        read(tmp_path / "enclave.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ManifestError, match="cannot read"):
        read(tmp_path / "folder.toml")


@given(
    st.integers(0, 10**6),
    st.sampled_from([("", 1), ("K", 1024), ("M", 1 << 20), ("G", 1 << 30), ("MiB", 1 << 20)]),
)
def test_sizes(number: int, unit: tuple[str, int]) -> None:
    assert parse_size(f"{number}{unit[0]}") == number * unit[1]
    assert parse_size(f" {number} {unit[0].lower()} ") == number * unit[1]


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        assert isinstance(parse(text), Manifest)
    except StrongroomError as error:
        assert error.next_step


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(["main", "packages", "memory", "threads", "args", "env", "key"]), _values)
)
def test_any_value_is_parsed_or_refused(table: dict[str, object]) -> None:
    def toml(value: object) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, list):
            return "[" + ", ".join(toml(one) for one in value if one is not None) + "]"
        if isinstance(value, str):
            return '"' + "".join(f"\\U{ord(c):08x}" for c in value if not 0xD800 <= ord(c) < 0xE000) + '"'
        return str(value)

    text = "[enclave]\n" + "".join(
        f"{key} = {toml(value)}\n" for key, value in table.items() if value is not None
    )
    try:
        assert isinstance(parse(text), Manifest)
    except ManifestError as error:
        assert error.next_step


@given(
    st.builds(
        Manifest,
        main=st.sampled_from(["a.py", "bin/prog"]),
        memory=st.integers(256, 10**6).map(lambda pages: pages * 4096),
        threads=st.integers(1, 512),
        product=st.integers(0, 65535),
        svn=st.integers(0, 65535),
        debug=st.booleans(),
        network=st.booleans(),
        args=st.booleans() | st.lists(st.from_regex(r"[a-z-]{1,5}", fullmatch=True), max_size=3).map(tuple),
    )
)
def test_round_trip(manifest: Manifest) -> None:
    args = str(manifest.args).lower() if isinstance(manifest.args, bool) else str(list(manifest.args))
    text = (
        f'[enclave]\nmain = "{manifest.main}"\nmemory = "{manifest.memory}"\nthreads = {manifest.threads}\n'
        f"product = {manifest.product}\nsvn = {manifest.svn}\ndebug = {str(manifest.debug).lower()}\n"
        f"network = {str(manifest.network).lower()}\nargs = {args}\n"
    )
    assert parse(text) == manifest
