"""``enclave.toml``: what a project says about its enclave. One line suffices (``main``); unknown keys are refused."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from strongroom.errors import StrongroomError
from strongroom.image.sources import MANIFEST

NAME = MANIFEST
MAX_THREADS = 512  # 0x18000000 to 0x20000000 in strides of 0x40000
MIN_MEMORY, MAX_MEMORY = 1 << 20, 1 << 40
MAX_LATE_CODE = 256 << 20
PAGE_SIZE = 4096
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(\d{1,15})\s*([KMG]?)(?:i?B)?", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOUNT_WORDS = (
    "trusted", "encrypted:release", "encrypted:sealed", "encrypted:sealed:mrsigner", "encrypted:sealed:mrenclave",
    "temporary", "allowed",
)  # fmt: skip
_TABLES = ("enclave", "files", "env")
_KEYS = (
    "main", "packages", "memory", "threads", "product", "svn", "debug", "args", "env", "network", "edmm",
    "late_code", "exclude", "key",
)  # fmt: skip
# Inside paths that the image or the LibOS fills itself.
_RESERVED = ("/", "/app", "/usr", "/lib", "/lib64", "/bin", "/dev", "/proc", "/sys")


class ManifestError(StrongroomError):
    """``enclave.toml`` says something that cannot be built."""


@dataclass(frozen=True)
class Mount:
    """One line of [files]. ``kind``: trusted, encrypted:release, encrypted:sealed (to the signer),
    encrypted:sealed:mrenclave, temporary, allowed.

    ``host`` is the host path as written (relative: to the project's folder); empty where there is none.
    """

    path: str
    kind: str
    host: str = ""


@dataclass(frozen=True)
class Manifest:
    """The manifest as understood. ``memory`` in bytes.

    ``args``: False (the host's arguments are refused), True (they are taken), or the fixed, measured ones.
    ``env_allowed``: names that the host may set; ``env``: fixed, measured variables.
    """

    main: str
    packages: tuple[str, ...] = ()
    memory: int = 32 << 20  # with CPython alone it fits the default VM size
    threads: int = 4
    product: int = 0
    svn: int = 0
    debug: bool = False
    args: bool | tuple[str, ...] = False
    env_allowed: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    network: bool = False
    edmm: bool = False
    """The heap's pages come when they are used (SGX2); nothing of it is in the image."""
    late_code: int = 0
    """Bytes of pages that can be written and executed, for code made at run time; 0: none."""
    exclude: tuple[str, ...] = ()
    key: str | None = None
    files: tuple[Mount, ...] = ()

    def facts(self) -> dict[str, Any]:
        """For ``enclave.json``: plain values; the signing key's place is the builder's own matter and left out."""
        found = asdict(self)
        del found["key"]
        found["env"] = dict(self.env)
        return found


def key_name(path: str) -> str:
    """The name under /dev/attestation/keys by which a release mount is given its key."""
    return path.lstrip("/").replace("/", ".")


def parse_size(text: str) -> int:
    """``"48M"`` in bytes (K, M, G are powers of 1024). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(text)
    return int(match[1]) * _UNITS[match[2].upper()]


def _first_manifest(folder: Path) -> str:
    """The next step where there is no manifest: `new` would refuse a folder that has a program already."""
    names = sorted(file.name for file in folder.glob("*.py") if file.stem.isidentifier())
    if not names:
        return f"make a project with `strongroom new {folder}`"
    main = "main.py" if "main.py" in names else names[0]
    return f'write one line into it, main = "{main}": the program that is to start'


def read(path: Path) -> Manifest:
    """Read a project's manifest. Raises ManifestError with ``file:line`` where there is one."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ManifestError(f"{path} is not there", _first_manifest(path.parent)) from None
    except OSError as error:
        raise ManifestError(f"cannot read {path} ({error.strerror})", "make it a readable file") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ManifestError(f"{path}:{line}: not UTF-8", "save it as UTF-8") from error
    return parse(text, str(path))


def parse(text: str, name: str = NAME) -> Manifest:
    """Parse a manifest's text; ``name`` is what errors call it. Raises ManifestError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = int(place[1]) if place else max(1, len(text.splitlines()))
        what = (
            str(error)[: place.start()].strip() if place else str(error).removesuffix(" (at end of document)")
        )
        raise ManifestError(f"{name}:{line}: {what}", "write it as TOML") from None
    except RecursionError:
        raise ManifestError(f"{name}: nested too deep", "write it as flat TOML") from None
    return _Reader(text, name).manifest(document)


class _Reader:
    """Checks one document; knows the text for line numbers."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = name

    def _where(self, key: str, table: str) -> str:
        """``file:line`` of a key, found by its text; without a line where it is written in an unusual way."""
        current = ""
        word = re.compile(rf"""\s*(?:{re.escape(key)}|"{re.escape(key)}"|'{re.escape(key)}')\s*[=.]""")
        for number, line in enumerate(self._lines, 1):
            header = re.match(r"\s*\[+\s*[\"']?([^\]\"']+?)[\"']?\s*\]", line)
            if header:
                current = header[1]
                if table == "" and current.split(".")[0].strip() == key:
                    return f"{self._name}:{number}"
            elif current == table and word.match(line):
                return f"{self._name}:{number}"
            elif (
                word.match(line) is None and current == "" and table and line.strip().startswith(f"{table}.")
            ):
                if word.match(line.strip()[len(table) + 1 :]):
                    return f"{self._name}:{number}"
        return self._name

    def _error(self, key: str, table: str, message: str, step: str) -> ManifestError:
        return ManifestError(f"{self._where(key, table)}: {message}", step)

    def _known(self, found: Mapping[str, Any], allowed: tuple[str, ...], table: str) -> None:
        for key in found:
            if key not in allowed:
                near = difflib.get_close_matches(key, allowed, 1, 0.5)
                kind = "key" if table else "table"
                step = f"did you mean {near[0]}?" if near else f"it may be one of {', '.join(allowed)}"
                raise self._error(key, table, f"unknown {kind} {_shown(key)}", step)

    def _get(self, table: Mapping[str, Any], key: str, kind: type, what: str, default: Any) -> Any:
        value = table.get(key, default)
        if key in table and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise self._error(key, "enclave", f"{key} is not {what}", f"write {key} = {_EXAMPLES[key]}")
        return value

    def _texts(self, key: str, value: Any, table: str = "enclave") -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(one, str) and "\0" not in one for one in value):
            raise self._error(key, table, f"{key} is not a list of texts", f"write {key} = {_EXAMPLES[key]}")
        return tuple(value)

    def _number(self, table: Mapping[str, Any], key: str, low: int, high: int, default: int) -> int:
        value: int = self._get(table, key, int, "a number", default)
        if not low <= value <= high:
            raise self._error(
                key, "enclave", f"{key} = {value} is out of range", f"write a number from {low} to {high}"
            )
        return value

    def manifest(self, document: Mapping[str, Any]) -> Manifest:
        # One line suffices: `main = "score.py"` may stand without its table's header.
        if "enclave" not in document and any(key in _KEYS and key != "env" for key in document):
            loose = {k: v for k, v in document.items() if k not in _TABLES}
            document = {"enclave": loose, **{k: v for k, v in document.items() if k in _TABLES}}
            table_name = ""
        else:
            table_name = "enclave"
        self._known(document, _TABLES, "")
        for name in _TABLES:
            if name in document and not isinstance(document[name], dict):
                raise self._error(name, "", f"{name} is not a table", f"write [{name}]")
        table = document.get("enclave", {})
        self._known_in_enclave(table, table_name)
        if "main" not in table:
            raise ManifestError(f"{self._name}: main is missing", 'write main = "program.py" under [enclave]')
        main = self._get(table, "main", str, "a text", "")
        if not main or "\0" in main or main.startswith("/") or ".." in main.split("/"):
            raise self._error(
                "main",
                table_name,
                f"main = {_shown(main)} is not a file of the project",
                "name one relative to its folder",
            )
        args = table.get("args", False)
        if not isinstance(args, bool):
            args = self._texts("args", args)
        allow = self._texts("env", table.get("env", []))
        for variable in allow:
            self._variable(variable, "env", table_name)
        return Manifest(
            main=main, packages=self._packages(table),
            memory=self._size(table, "memory", Manifest.memory, "1M to 1024G", MIN_MEMORY, MAX_MEMORY),
            threads=self._number(table, "threads", 1, MAX_THREADS, Manifest.threads),
            product=self._number(table, "product", 0, 0xFFFF, 0), svn=self._number(table, "svn", 0, 0xFFFF, 0),
            debug=self._get(table, "debug", bool, "true or false", False), args=args,
            env_allowed=tuple(sorted(set(allow))), env=self._fixed_environment(document.get("env", {})),
            network=self._get(table, "network", bool, "true or false", False),
            edmm=self._get(table, "edmm", bool, "true or false", False),
            late_code=self._size(table, "late_code", 0, "4K to 256M", PAGE_SIZE, MAX_LATE_CODE),
            exclude=self._texts("exclude", table.get("exclude", [])),
            key=self._get(table, "key", str, "a text", None), files=self._mounts(document.get("files", {})),
        )  # fmt: skip

    def _known_in_enclave(self, table: Mapping[str, Any], table_name: str) -> None:
        for key in table:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, 1, 0.5)
                step = f"did you mean {near[0]}?" if near else f"it may be one of {', '.join(_KEYS)}"
                raise self._error(key, table_name, f"unknown key {_shown(key)}", step)

    def _packages(self, table: Mapping[str, Any]) -> tuple[str, ...]:
        found = self._texts("packages", table.get("packages", []))
        for text in found:
            try:
                Requirement(text)
            except InvalidRequirement:
                raise self._error(
                    "packages", "enclave", f"{_shown(text)} is not the name of a package",
                    'write it as for pip: "numpy" or "numpy>=2"',
                ) from None  # fmt: skip
        return found

    def _size(
        self, table: Mapping[str, Any], key: str, default: int, span: str, least: int, most: int
    ) -> int:
        value = self._get(table, key, str, "a size", None)
        if value is None:
            return default
        try:
            size = parse_size(value)
        except ValueError:
            raise self._error(
                key, "enclave", f"{_shown(value)} is not a size", f"write {key} = {_EXAMPLES[key]}"
            ) from None
        if 0 < size < least and value.strip().isdigit():
            raise self._error(
                key, "enclave", f"{key} = {_shown(value)} is in bytes, and out of range",
                f"name a unit, {key} = {_EXAMPLES[key]}, or write {span}",
            )  # fmt: skip
        if not least <= size <= most:
            raise self._error(key, "enclave", f"{key} = {_shown(value)} is out of range", f"write {span}")
        return (size + PAGE_SIZE - 1) & -PAGE_SIZE

    def _variable(self, name: str, key: str, table: str) -> None:
        if not _VARIABLE.fullmatch(name):
            raise self._error(
                key, table, f"{_shown(name)} is not the name of a variable", "use letters, digits and _"
            )

    def _fixed_environment(self, table: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        for name, value in table.items():
            self._variable(name, name, "env")
            if not isinstance(value, str) or "\0" in value:
                raise self._error(name, "env", f"{name} is not a text", f'write {name} = "value"')
        return tuple(sorted(table.items()))

    def _mounts(self, table: Mapping[str, Any]) -> tuple[Mount, ...]:
        found: list[Mount] = []
        for path, value in table.items():
            parts = path.split("/")
            if (
                len(path) < 2
                or parts[0]
                or any(part in ("", ".", "..") for part in parts[1:])
                or "\0" in path
            ):
                raise self._error(
                    path, "files", f"{_shown(path)} is not a path inside", 'write it as "/data"'
                )
            if path in _RESERVED or path.startswith(("/dev/", "/proc/", "/sys/")):
                raise self._error(
                    path, "files", f"{path} is filled by the image itself", "choose another path"
                )
            if not isinstance(value, str):
                raise self._error(
                    path, "files", f"{path} is not a text", f"write one of {', '.join(_MOUNT_WORDS)}"
                )
            found.append(self._mount(path, value))
        names: dict[str, str] = {}
        for mount in found:
            if mount.kind == "encrypted:release":
                other = names.setdefault(key_name(mount.path), mount.path)
                if other != mount.path:
                    raise self._error(
                        mount.path, "files", f"{other} and {mount.path} would have one name for their keys",
                        "rename one of them",
                    )  # fmt: skip
        return tuple(sorted(found, key=lambda mount: mount.path))

    def _mount(self, path: str, value: str) -> Mount:
        for word in sorted(_MOUNT_WORDS, key=len, reverse=True):
            kind, rest = value[: len(word)], value[len(word) :]
            if kind == word and rest[:1] in ("", ":"):
                host = rest[1:]
                if "\0" in host or (rest and not host):
                    raise self._error(
                        path, "files", f"{path} names no host path after {word}:", "name one, or drop the :"
                    )
                if word == "temporary" and host:
                    raise self._error(
                        path, "files", f"{path} is temporary and has no host path", 'write "temporary"'
                    )
                if word == "allowed" and not host:
                    host = path
                if word.startswith("encrypted") and not host:
                    host = path.lstrip("/")  # in the project's folder
                return Mount(path, word.removesuffix(":mrsigner"), host)
        near = difflib.get_close_matches(value, _MOUNT_WORDS, 1, 0.5)
        step = f"did you mean {near[0]}?" if near else f"write one of {', '.join(_MOUNT_WORDS)}"
        raise self._error(path, "files", f"unknown kind of file {_shown(value)}", step)


def _shown(text: str) -> str:
    """A user's own words, cut and without control characters."""
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."


_EXAMPLES = {
    "main": '"program.py"', "packages": '["cryptography"]', "memory": '"48M"', "threads": "4", "product": "1",
    "svn": "1", "debug": "false", "args": '["--fast"] or true', "env": '["LANG"]', "network": "true",
    "edmm": "true", "late_code": '"1M"', "exclude": '["*.enc"]', "key": '"file:key.pem"',
}  # fmt: skip
