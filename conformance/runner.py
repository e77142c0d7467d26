"""Runs inside, and outside as the control: one module's tests, one line a case on standard output.

A line is U+001E and a JSON object: ``{"start": id}``, ``{"stop": id, "outcome": …, "why": …}``, and for the module as a
whole ``{"module": …, "why": …}``. What the tests themselves print lies between. Imports nothing of Strongroom.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
import tempfile
import traceback
import unittest
from types import TracebackType
from typing import Any

OPTIONAL = (BaseException, BaseException, TracebackType)
SEPARATOR = "\x1e"


class Lines:
    """Writes result lines to a copy of standard output, which tests may close or replace."""

    def __init__(self) -> None:
        self._fd = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 200)

    def put(self, **what: object) -> None:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass  # a test closed or replaced it
        line = f"\n{SEPARATOR}{json.dumps(what)}\n".encode("ascii", "backslashreplace")
        while line:
            line = line[os.write(self._fd, line) :]


def last_line(error: Any) -> str:
    """A traceback's last line and where in the test it came from; addresses and names of temporary files taken out."""
    kind, value, trace = error
    said = traceback.format_exception_only(kind, value)[-1].strip().splitlines()
    frames = [one for one in traceback.extract_tb(trace) if "/unittest/" not in one.filename]
    place = f" [{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}]" if frames else ""
    text = re.sub(r"0x[0-9a-f]{6,}", "0x…", said[0] if said else kind.__name__)
    return text[:300] + place


class Result(unittest.TestResult):
    """Each case's outcome: ok, skip, bad (failure or error), xfail, xpass."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines
        self._open: dict[str, tuple[str, str]] = {}

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._open[self._id(test)] = ("ok", "")
        self._lines.put(start=self._id(test))

    @staticmethod
    def _id(test: Any) -> str:
        return re.sub(r"0x[0-9a-f]{6,}", "0x", str(test.id()))

    def _set(self, test: Any, outcome: str, why: str) -> None:
        name = self._id(getattr(test, "test_case", test))  # of a subtest: its case
        if name not in self._open:  # setUpClass, setUpModule: never started
            self._lines.put(stop=name, outcome=outcome, why=why)
        elif self._open[name][0] != "bad":
            self._open[name] = (outcome, why)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        name = self._id(test)
        outcome, why = self._open.pop(name, ("ok", ""))
        self._lines.put(stop=name, outcome=outcome, why=why)

    def addError(self, test: Any, err: Any) -> None:
        self._set(test, "bad", last_line(err))

    def addFailure(self, test: Any, err: Any) -> None:
        self._set(test, "bad", last_line(err))

    def addSkip(self, test: Any, reason: str) -> None:
        self._set(test, "skip", str(reason))

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self._set(test, "xfail", last_line(err))

    def addUnexpectedSuccess(self, test: Any) -> None:
        self._set(test, "xpass", "")

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self._set(test, "bad", last_line(err))


def run_python(name: str, lines: Lines) -> None:
    """One module of CPython's ``test`` package, set up as ``python -m test -u none`` does it."""
    import faulthandler
    import socket

    from test import support
    from test.support import os_helper

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    sys.modules["numpy"] = None  # type: ignore[assignment]  # optional: the same on both sides
    # Not tried: on some virtual machines connecting to one's own VSOCK address waits for ever.
    if hasattr(socket, "IOCTL_VM_SOCKETS_GET_LOCAL_CID"):
        del socket.IOCTL_VM_SOCKETS_GET_LOCAL_CID
    faulthandler.enable(all_threads=True)
    faulthandler.register(signal.SIGUSR1, chain=True)
    support.use_resources = []
    support.verbose = 0
    support.record_original_stdout(sys.stdout)
    unittest.BaseTestSuite._cleanup = False  # as regrtest: tests may look at their suite
    os.environ.setdefault("PYTHONREGRTEST_UNICODE_GUARD", "\udcff")
    os.chdir(tempfile.gettempdir())
    with os_helper.temp_cwd(name=f"conformance_{os.getpid()}"):
        try:
            __import__(f"test.{name}")
            module = sys.modules[f"test.{name}"]
            suite = unittest.defaultTestLoader.loadTestsFromModule(module)
        except unittest.SkipTest as error:
            lines.put(module="skip", why=str(error))
            return
        suite.run(Result(lines))
        support.reap_children()


class NumpyPlugin:
    """pytest's hooks: every ``stride``-th case, each one's outcome as a line."""

    def __init__(self, lines: Lines, stride: int) -> None:
        self._lines, self._stride = lines, stride
        self._outcome: dict[str, tuple[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = items[:: self._stride]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._outcome[nodeid] = ("ok", "")
        self._lines.put(start=nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.skipped:
            expected = hasattr(report, "wasxfail")
            self._outcome[report.nodeid] = ("xfail" if expected else "skip", str(report.longrepr)[-200:])
        elif report.failed:
            self._outcome[report.nodeid] = ("bad", str(report.longrepr).strip().splitlines()[-1][:300])

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        outcome, why = self._outcome.pop(nodeid)
        self._lines.put(stop=nodeid, outcome=outcome, why=why)


def run_numpy(path: str, stride: int, lines: Lines) -> None:
    """One of numpy's own test files, by pytest."""
    import numpy
    import pytest

    root = os.path.dirname(os.path.dirname(numpy.__file__))
    os.chdir("/tmp")
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--rootdir=/tmp", "-W", "ignore"]
    pytest.main([*options, os.path.join(root, path)], plugins=[NumpyPlugin(lines, stride)])


def _no_progress(*_: object) -> None:
    raise TimeoutError("no progress: the driver's signal")


def main() -> None:
    lines = Lines()
    name = sys.argv[1]
    signal.signal(signal.SIGUSR2, _no_progress)  # a case that waits for what cannot come ends, the others run
    try:
        if name.startswith("numpy/"):
            run_numpy(name, int(sys.argv[2]), lines)
        else:
            run_python(name, lines)
    except BaseException:
        lines.put(module="bad", why=last_line(sys.exc_info()))
        raise
    lines.put(module="done", why="")


if __name__ == "__main__":
    main()
