"""Runs in the interpreter that goes inside (``python -I -S -B -W ignore``), not in the builder: facts, or byte code.

It imports nothing of ours and works on every CPython from 3.9 on. ``facts`` prints JSON; ``compile`` reads a JSON list
of [host path, inside path, output path] and prints the list of those that do not compile.
"""

from __future__ import annotations

import importlib._bootstrap_external as loader
import importlib.util
import json
import os
import platform
import sys
import sysconfig


def facts() -> dict[str, object]:
    """What the builder must know. Paths are the host's."""
    version = sys.implementation.version
    full = "{}.{}.{}".format(*version[:3])
    return {
        "implementation": sys.implementation.name,
        "executable": getattr(sys, "_base_executable", sys.executable),
        "version": full,
        "cache_tag": sys.implementation.cache_tag,
        "magic": importlib.util.MAGIC_NUMBER.hex(),
        "build": sys.version,
        "machine": platform.machine(),
        "stdlib": sysconfig.get_path("stdlib"),
        "dynload": os.path.join(
            sys.base_exec_prefix,
            sys.platlibdir,
            os.path.basename(sysconfig.get_path("stdlib")),
            "lib-dynload",
        ),
        "path": sys.path,
        "environment": {
            "implementation_name": sys.implementation.name,
            "implementation_version": full
            + ("" if version.releaselevel == "final" else version.releaselevel[0]),
            "os_name": os.name,
            "platform_machine": platform.machine(),
            "platform_python_implementation": platform.python_implementation(),
            "platform_system": platform.system(),
            "python_full_version": platform.python_version(),
            "python_version": ".".join(platform.python_version_tuple()[:2]),
            "sys_platform": sys.platform,
            # These two name the host's kernel: nothing inside may depend on it.
            "platform_release": "",
            "platform_version": "",
        },
    }


def compile_all(tasks: list[list[str]]) -> list[list[str]]:
    """Write a ``.pyc`` with an unchecked source hash (PEP 552) for each task; returns [host path, error] pairs."""
    failed = []
    for host, inside, output in tasks:
        try:
            with open(host, "rb") as file:
                source = file.read()
            code = compile(source, inside, "exec", dont_inherit=True, optimize=0)
            digest = importlib.util.source_hash(source)
            content = loader._code_to_hash_pyc(code, digest, False)  # type: ignore[attr-defined]
        except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
            line = getattr(error, "lineno", None)
            text = getattr(error, "msg", None) or str(error)
            failed.append([host, f"line {line}: {text}" if line else text])
            continue
        temporary = f"{output}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, output)
    return failed


if __name__ == "__main__":
    if sys.argv[1] == "facts":
        json.dump(facts(), sys.stdout)
    else:
        json.dump(compile_all(json.load(sys.stdin)), sys.stdout)
