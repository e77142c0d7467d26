"""An image, and a machine to start hosts on: what the tests of this folder share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import images

from strongroom.image.signer import KeySigner
from support.package_server import PackageServer


@dataclass
class Machine:
    """An image, and a package server to start hosts on."""

    server: PackageServer
    image: Path
    signature: Path
    mrenclave: bytes
    signer: KeySigner
    directory: Path

    def program(self, *program: str, options: tuple[str, ...] = (), **more: object) -> tuple[int, str, str]:
        """Run any program; (exit status, stdout, stderr)."""
        done = self.server.run(list(program), options, **more)  # type: ignore[arg-type]
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def host(
        self,
        scenario: str,
        *arguments: str,
        options: tuple[str, ...] = (),
        image: Path | None = None,
        signature: Path | None = None,
        status: int = 0,
        **more: object,
    ) -> list[str]:
        """Run one scenario of host.c; its lines. Asserts the exit status and an empty stderr."""
        paths = [str(image or self.image), str(signature or self.signature)]
        code, out, err = self.program(
            str(images.BUILD / "host"), scenario, *paths, *arguments, options=options, **more
        )
        assert (code, err) == (status, ""), (code, out, err)
        return out.splitlines()
