"""The owner's HTTP server: ``POST /challenge`` and ``POST /release`` on loopback, JSON in and out.

Keys travel wrapped to the enclave's own key pair, so that this connection need not be secret.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from strongroom.errors import StrongroomError
from strongroom.owner.releaser import Releaser, ReleaseRefused

MAX_BODY_SIZE = 128 * 1024
TIMEOUT_SECONDS = 30


class _Handler(BaseHTTPRequestHandler):
    server: OwnerServer
    protocol_version = "HTTP/1.1"
    server_version = "strongroom-owner"
    sys_version = ""
    timeout = TIMEOUT_SECONDS

    def do_POST(self) -> None:
        actions = {"/challenge": self.server.releaser.challenge, "/release": self.server.releaser.release}
        action = actions.get(self.path)
        if action is None:
            self._refuse(404, "not-found", "there is nothing here: POST /challenge or /release")
            return
        request = self._body()
        if request is None:
            return
        try:
            self._answer(200, action(request))
        except ReleaseRefused as error:
            status = 400 if error.reason == "bad-request" else 403
            self.server.note(f"refused ({error.reason})")
            self._refuse(status, error.reason, str(error))
        except StrongroomError:
            self.server.note("failed")
            self._refuse(500, "failed", "the owner's side failed: ask its operator")

    def do_GET(self) -> None:
        self._refuse(405, "method", "POST /challenge or /release")

    def _body(self) -> dict[str, Any] | None:
        text = self.headers.get("Content-Length", "")
        size = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        if not 0 < size <= MAX_BODY_SIZE:
            self.close_connection = True
            self._refuse(
                413 if size > 0 else 411, "bad-request", f"a body of 1 to {MAX_BODY_SIZE} bytes is needed"
            )
            return None
        try:
            value = json.loads(self.rfile.read(size))
        except (ValueError, RecursionError):
            value = None
        except OSError:
            self.close_connection = True
            return None
        if not isinstance(value, dict):
            self._refuse(400, "bad-request", "the body is not a JSON object")
            return None
        return value

    def _answer(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, status: int, reason: str, message: str) -> None:
        self._answer(status, {"error": {"code": reason, "message": message}})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what strangers send stays out of the log."""


class OwnerServer(ThreadingHTTPServer):
    """Serves a Releaser on 127.0.0.1. Use as a context manager (a thread serves), or call ``serve_forever``."""

    daemon_threads = True

    def __init__(self, releaser: Releaser, port: int = 0, log: list[str] | None = None) -> None:
        """``port`` 0 takes a free one; ``log`` gets a line a refusal. Raises OSError where the port is taken."""
        super().__init__(("127.0.0.1", port), _Handler)
        self.releaser = releaser
        self._log = log
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """What an enclave names."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def note(self, line: str) -> None:
        """One line for the owner."""
        if self._log is not None:
            self._log.append(line)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection broke; never print what it carried."""

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="owner", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        if self._thread is not None:
            self._thread.join()
        self.server_close()
