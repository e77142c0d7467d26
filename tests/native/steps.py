"""Plays steps of ``device.c``: what the tests of the device's interface share."""

from __future__ import annotations

import images
from native_machine import Machine

from support.package_server import PackageServer


def steps(
    machine: Machine,
    *lines: str,
    server: PackageServer | None = None,
    options: tuple[str, ...] = (),
    **more: object,
) -> list[str]:
    """What each step said. Asserts that the program ended well."""
    program = [str(images.BUILD / "device")]
    if "signature" in more:
        program.append(str(more.pop("signature")))
    done = (server or machine.server).run(program, options, input="\n".join(lines).encode(), **more)  # type: ignore[arg-type]
    assert (done.returncode, done.stderr) == (0, b""), done
    return done.stdout.decode().splitlines()
