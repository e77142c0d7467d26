"""The owner's policy file: which enclave gets which key. TOML, one table a key.

```toml
[keys.records]
file      = "records.key"
root      = "software"            # "intel", "software" (this installation's), or a PEM file
mrenclave = ["<64 hex digits>"]   # or: mrsigner = ["..."], product = 1, min_svn = 3
levels    = ["sealed"]            # of a software machine; "sealed" alone where this is missing
tcb       = ["UpToDate"]
```
"""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from strongroom.attestation.policy import AllOf, MinSvn, MrEnclave, Policy, Product, Signer, Strict
from strongroom.attestation.roots import INTEL, Root
from strongroom.errors import StrongroomError
from strongroom.inside.binding import valid_name
from strongroom.isa.software_tcb import LEVEL_SVN, Level
from strongroom.owner.keys import load_key

_KNOWN = ("file", "root", "mrenclave", "mrsigner", "product", "min_svn", "levels", "tcb")


class RulesError(StrongroomError):
    """The policy file does not say what it must, or says something else."""


@dataclass(frozen=True)
class Rule:
    """Who gets one key."""

    name: str
    key: bytes
    root: Root
    policy: Policy

    def __repr__(self) -> str:
        return f"<Rule {self.name!r} under {self.root.name!r}>"


def load_rules(path: Path, software_root: Path) -> dict[str, Rule]:
    """The rules in ``path``, by key name; ``software_root`` is what "software" names. Raises StrongroomError."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise RulesError(f"cannot read {path} ({why})", "name a policy file") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RulesError(f"{path} is not TOML ({error})", "correct it") from None
    return parse_rules(document, path.parent, software_root)


def parse_rules(document: dict[str, Any], folder: Path, software_root: Path) -> dict[str, Rule]:
    """The rules in a document; file names are relative to ``folder``. Raises StrongroomError."""
    _refuse_unknown(document, ("keys",), "the policy file")
    keys = document.get("keys")
    if not isinstance(keys, dict) or not keys:
        raise RulesError("the policy file names no key", "add a table [keys.NAME]")
    found = {}
    for name, table in keys.items():
        if not valid_name(name):
            raise RulesError(f"{name!r} cannot name a key", "use 1 to 128 bytes of printable text")
        if not isinstance(table, dict):
            raise RulesError(f"keys.{name} is not a table", f"write [keys.{name}]")
        found[name] = _rule(name, table, folder, software_root)
    return found


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise RulesError(f"{where} has an unknown entry {name!r}", hint)


def _rule(name: str, table: dict[str, Any], folder: Path, software_root: Path) -> Rule:
    where = f"keys.{name}"
    _refuse_unknown(table, _KNOWN, where)
    parts: list[Policy] = [Strict(_levels(table, where), _statuses(table, where))]
    if "mrenclave" in table:
        parts.append(MrEnclave(*_hashes(table["mrenclave"], f"{where}.mrenclave")))
    if "mrsigner" in table:
        parts.append(Signer(*_hashes(table["mrsigner"], f"{where}.mrsigner")))
    if len(parts) == 1:
        raise RulesError(f"{where} names no enclave", "add mrenclave, or mrsigner with product and min_svn")
    for entry, policy in (("product", Product), ("min_svn", MinSvn)):
        if entry in table:
            parts.append(cast("Policy", policy(_number(table[entry], f"{where}.{entry}"))))
        elif "mrenclave" not in table:
            raise RulesError(f"{where} names a signer without {entry}", f"add {entry}: a signer signs many")
    file = table.get("file", f"{name}.key")
    if not isinstance(file, str) or "\0" in file:
        raise RulesError(f"{where}.file is not a file name", "name the key's file")
    key = load_key(folder / file)
    return Rule(name, key, named_root(table.get("root", "intel"), folder, software_root), AllOf(*parts))


def named_root(value: object, folder: Path, software_root: Path) -> Root:
    """``intel``, ``software`` or a certificate's file. Raises StrongroomError."""
    if value == "intel":
        return INTEL
    if value == "software":
        return Root.from_file(software_root)
    if not isinstance(value, str) or "\0" in value:
        raise RulesError("root is not a name", 'name "intel", "software" or a PEM file')
    return Root.from_file(folder / value)


def _hashes(value: object, where: str) -> list[bytes]:
    items = value if isinstance(value, list) else [value]
    if not items or not all(
        isinstance(item, str) and re.fullmatch("[0-9A-Fa-f]{64}", item) for item in items
    ):
        raise RulesError(f"{where} is not 64 hexadecimal digits", "see `strongroom measure`")
    return [bytes.fromhex(cast("str", item)) for item in items]


def _number(value: object, where: str) -> int:
    if type(value) is not int or not 0 <= value <= 0xFFFF:
        raise RulesError(f"{where} is not a number from 0 to 65535")
    return value


def _levels(table: dict[str, Any], where: str) -> frozenset[Level]:
    value = table.get("levels", ["sealed"])
    known = tuple(LEVEL_SVN)
    if not isinstance(value, list) or not value or not all(item in known for item in value):
        raise RulesError(f"{where}.levels is not a list of levels", f"known are {', '.join(known)}")
    return frozenset(value)


def _statuses(table: dict[str, Any], where: str) -> frozenset[str]:
    value = table.get("tcb", ["UpToDate"])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or "Revoked" in value:
        raise RulesError(f"{where}.tcb is not a list of TCB statuses", 'the strictest is ["UpToDate"]')
    return frozenset(value)
