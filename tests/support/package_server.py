"""A package with its wire, served from a thread: what a test needs to start programs under
``strongroom-inject``.

As a library (``with package_server() as server: server.run([...])``) or from the shell:

    .venv/bin/python tests/support/package_server.py [--sgx2] [--epc-pages N] [--inject OPTION]... -- PROGRAM
    ARGS... .venv/bin/python tests/support/package_server.py --sign IN.sgxs OUT.sig [--key KEY.pem] [--debug]
"""

from __future__ import annotations

import argparse
import array
import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # the source tree without an installed package
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from strongroom.machine.epc import Epc, Usage
from strongroom.machine.leaf import Identity
from strongroom.machine.package import Package
from strongroom.machine.rpc import Event, serve_connection
from strongroom.paths import native


@dataclass
class PackageServer:
    """Hands out connections; ``events`` is what the processes' libraries told."""

    package: Package
    epc: Epc
    events: list[tuple[Event, Identity]] = field(default_factory=list)
    last_usage: Usage | None = None
    """Of the process that ended last."""
    _threads: list[threading.Thread] = field(default_factory=list)

    def connect(self) -> tuple[socket.socket, int]:
        """``(socket for --rpc-fd, EPC slot)``; the slot is given back when the last holder of the socket is
        gone."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        slot = self.epc.take_slot()

        def serve() -> None:
            try:
                serve_connection(
                    ours, self.package, slot, lambda event, who: self.events.append((event, who))
                )
            finally:
                self.last_usage = self.epc.usage(slot)
                self.epc.give_back(slot)

        thread = threading.Thread(target=serve, daemon=True, name=f"package-{slot}")
        thread.start()
        self._threads.append(thread)
        return theirs, slot

    def command(self, rpc_fd: int, program: Sequence[str], options: Sequence[str] = ()) -> list[str]:
        """The command line that starts ``program`` on this package."""
        inject = str(native("strongroom-inject"))
        descriptors = ["--rpc-fd", str(rpc_fd), "--epc-fd", str(self.epc.descriptor)]
        return [inject, *descriptors, *options, "--", *program]

    def run(
        self, program: Sequence[str], options: Sequence[str] = (), timeout: float = 60, **more: object
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``program`` under ``strongroom-inject`` to its end, output captured (see subprocess.run for
        ``more``)."""
        rpc, _ = self.connect()
        settings: dict[str, object] = {"capture_output": True, **more}
        passed = (rpc.fileno(), self.epc.descriptor, *settings.pop("pass_fds", ()))  # type: ignore[misc]
        with rpc:
            process = subprocess.run(  # type: ignore[call-overload]
                self.command(rpc.fileno(), program, options),
                pass_fds=passed,
                timeout=timeout,
                check=False,
                **settings,
            )
        return process  # type: ignore[no-any-return]

    @contextlib.contextmanager
    def lines(self) -> Iterator[socket.socket]:
        """What --line-fd takes: whoever asks there gets a connection of its own."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def serve() -> None:
            with contextlib.suppress(OSError), ours:
                while ours.recv(16):
                    line, _ = self.connect()
                    with line:
                        rights = array.array("i", [line.fileno(), self.epc.descriptor])
                        ours.sendmsg([b"l"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with theirs:
            yield theirs
            ours.shutdown(socket.SHUT_RDWR)
        thread.join(10)

    def join(self, timeout: float = 10) -> None:
        """Wait until every connection is closed and its slot given back."""
        for thread in self._threads:
            thread.join(timeout)


@contextlib.contextmanager
def package_server(
    kind: str = "run", sgx2: bool = False, epc_pages: int = 16384, backing_pages: int | None = None
) -> Iterator[PackageServer]:
    """A fresh package in a temporary folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="strongroom-test-") as folder:
        package = Package.manufacture(folder, kind, sgx2, epc_pages)  # type: ignore[arg-type]
        epc = Epc(epc_pages, backing_pages)
        try:
            yield PackageServer(package, epc)
        finally:
            epc.close()


def sign_sgxs(
    stream: Path | str, signature: Path | str, key: Path | str | None = None, debug: bool = False
) -> bytes:
    """Measure a stream, sign it (with a fresh key where none is named), write the SIGSTRUCT; returns
    MRENCLAVE."""
    from strongroom.image import sgxs, sigstruct
    from strongroom.image.signer import KeySigner, load_key_file

    with sgxs.mapped(stream) as view:
        _, mrenclave = sgxs.mrenclave(view)
    signer = load_key_file(key) if key else KeySigner.generate()
    signed = sigstruct.sign(sigstruct.template(mrenclave, debug=debug), signer)
    Path(signature).write_bytes(signed.pack())
    return mrenclave


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description="Start a program on a software SGX package, or sign a stream."
    )
    parser.add_argument("--sgx2", action="store_true")
    parser.add_argument("--kind", default="run", choices=["run", "exec"])
    parser.add_argument("--epc-pages", type=int, default=16384)
    parser.add_argument(
        "--inject", action="append", default=[], metavar="OPTION", help="for strongroom-inject"
    )
    parser.add_argument("--sign", nargs=2, metavar=("SGXS", "SIG"))
    parser.add_argument("--key")
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    words = parser.parse_args()
    if words.sign:
        stream, signature = words.sign
        print(sign_sgxs(stream, signature, words.key, words.debug).hex())
        return 0
    program = words.program[1:] if words.program[:1] == ["--"] else words.program
    if not program:
        parser.error("name a program after --")
    with package_server(words.kind, words.sgx2, words.epc_pages) as server:
        done = server.run(program, words.inject, timeout=3600, capture_output=False)
        server.join(2)
        for event, identity in server.events:
            print(f"package: {event.name} {identity.mrenclave.hex()}", file=sys.stderr)
        return done.returncode if done.returncode >= 0 else 128 - done.returncode


if __name__ == "__main__":
    sys.exit(main())
