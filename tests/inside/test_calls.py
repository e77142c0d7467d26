"""Exported functions over a channel: the two ends that are used, with an ordinary process in the enclave's place."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strongroom
from strongroom.host import Enclave, EnclaveError, EnclaveLost
from strongroom.inside import calls, codec
from strongroom.inside.errors import CodecError

SOURCE = Path(strongroom.__file__).parents[1]
PROGRAM = """
    import sys, os
    from strongroom.inside import export
    state = []

    @export
    def add(a, b=1):
        return a + b

    @export
    def echo(value):
        return value

    @export
    def remember(value):
        state.append(value)
        return len(state)

    @export
    def fail(text):
        raise ValueError(text)

    @export
    def unsendable():
        return object()

    @export
    def die():
        os._exit(7)

    @export
    def leave():
        sys.exit(3)

    @export
    def slow():
        import time
        time.sleep(60)

    @export
    def arguments():
        return sys.argv[1:]

    print("ready")
"""
# In the place of the enclave's start: an ordinary interpreter whose channel is an inherited descriptor.
CHILD = (
    "import sys; from strongroom.inside import calls, program; calls.CHANNEL = '/dev/fd/x'; "
    "calls.serve.__defaults__ = (calls.Channel(int(sys.argv[1])), None); program.run_program(sys.argv[2], sys.argv[3:])"
)


class Child:
    """A handle like the launcher's."""

    level, vm, mrenclave = "none", "none", bytes(32)

    def __init__(self, process):
        self.process = process

    def wait(self, timeout=None):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def starter(program):
    def start(path, vm, arguments, channel):
        path.write_text(textwrap.dedent(program))
        command = [sys.executable, "-c", CHILD, str(channel.fileno()), str(path), *arguments]
        process = subprocess.Popen(
            command,
            pass_fds=[channel.fileno()],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
        )
        return Child(process)

    return start


@pytest.fixture
def box(tmp_path):
    with Enclave(tmp_path / "score.py", arguments=["a", "b"], start=starter(PROGRAM)) as enclave:
        yield enclave


def test_calls(box):
    assert box.exports == {
        "add", "echo", "remember", "fail", "unsendable", "die", "leave", "slow", "arguments"
    }  # fmt: skip
    assert box.add(2) == 3
    assert box.add(2, b=40) == 42
    assert box.echo({"a": [1, b"\0", None, 1.5, "ü"]}) == {"a": [1, b"\0", None, 1.5, "ü"]}
    assert [box.remember(1), box.remember(1)] == [1, 2]
    assert box.arguments() == ["a", "b"]


def test_large_values(box):
    data = os.urandom(5 * 1024 * 1024)
    assert box.echo(data) == data


def test_an_exception_inside(box):
    with pytest.raises(EnclaveError) as caught:
        box.fail("no such record")
    assert (caught.value.kind, caught.value.text) == ("ValueError", "no such record")
    assert "Traceback" not in str(caught.value)
    assert box.add(1) == 2


def test_what_cannot_cross(box):
    with pytest.raises(TypeError, match="cannot cross"):
        box.echo(object())
    with pytest.raises(EnclaveError, match="cannot leave"):
        box.unsendable()
    with pytest.raises(EnclaveError, match="TypeError"):
        box.add()
    with pytest.raises(AttributeError, match="exports no 'missing'"):
        box.missing()
    assert box.add(1) == 2


def test_no_quote_outside(box):
    with pytest.raises(EnclaveError, match="DeviceError"):
        box.quote(b"x")


@pytest.mark.parametrize(("name", "status"), [("die", 7), ("leave", 3)])
def test_the_enclave_ends_amid_a_call(box, name, status):
    with pytest.raises(EnclaveLost) as caught:
        getattr(box, name)()
    assert caught.value.status == status
    with pytest.raises(EnclaveLost):
        box.add(1)


def test_a_slow_call(tmp_path):
    with Enclave(tmp_path / "p.py", timeout=0.5, start=starter(PROGRAM)) as box:
        with pytest.raises(EnclaveLost, match="too long"):
            box.slow()
        with pytest.raises(EnclaveLost):
            box.add(1)


def test_the_program_fails_at_its_start(tmp_path, capfd):
    with pytest.raises(EnclaveLost) as caught:
        Enclave(tmp_path / "p.py", start=starter("raise SystemExit(9)")).start()
    assert caught.value.status == 9
    with pytest.raises(EnclaveLost, match="has to export a function"):
        Enclave(tmp_path / "p.py", start=starter("print('no export')")).start()


def test_a_traceback_shows_the_programs_lines_only(tmp_path):
    program = tmp_path / "p.py"
    program.write_text("def f():\n    raise ValueError('no')\nf()\n")
    command = [sys.executable, "-m", "strongroom.inside", str(program)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ours = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    plain = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60)
    assert (ours.returncode, ours.stderr) == (1, plain.stderr)


def test_a_program_without_exports_just_ends(tmp_path):
    program = tmp_path / "p.py"
    program.write_text("import sys, beside\nprint(__name__, sys.argv[1:], beside.x)\nsys.exit(5)\n")
    (tmp_path / "beside.py").write_text("x = 7\n")
    command = [sys.executable, "-m", "strongroom.inside", str(program), "a", "--b"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert (ran.returncode, ran.stdout, ran.stderr) == (5, "__main__ ['a', '--b'] 7\n", "")


def test_a_closed_enclave(tmp_path):
    enclave = Enclave(tmp_path / "p.py", start=starter(PROGRAM))
    with pytest.raises(strongroom.errors.StrongroomError, match="does not run"):
        enclave.add(1)
    with enclave as box:
        assert box.add(1) == 2
    with pytest.raises(strongroom.errors.StrongroomError, match="does not run"):
        enclave.add(1)
    enclave.close()


def test_calls_from_threads(box):
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(box.add(n, 100))) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == list(range(100, 120))


# --- hostile ends ---


def test_a_hostile_host_ends_the_service():
    table = calls.Exports()
    table.export(test_calls)
    hostile = [["call", 1, "test_calls", [], []], ["call"], 7, ["call", True, "x", [], {}], ["evil", 1], []]
    for message in hostile:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.sendall(codec.frame(message))
            with pytest.raises(CodecError):
                calls.serve(calls.Channel(theirs.fileno()), table)


@settings(max_examples=60)
@given(st.binary(min_size=1, max_size=100))
def test_hostile_bytes_from_the_host(data):
    """Never anything but the end of the service or an answer; the function is not reached by accident."""
    reached = []
    table = calls.Exports()
    table.functions["f"] = lambda: reached.append(1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(data)
        ours.shutdown(socket.SHUT_WR)
        try:
            calls.serve(calls.Channel(theirs.fileno()), table)
        except CodecError:
            pass
    assert not reached


@pytest.mark.parametrize(
    "answer",
    [["ok", 99, 1], ["ok", 1], ["error", 1, b"x", "y"], 5, ["hello", 1, []], b"junk"],
)
def test_a_hostile_enclave(tmp_path, answer):
    """An enclave that answers wrongly is lost; nothing it says is taken for a result."""
    ends = []

    class Gone(Child):
        def wait(self, timeout=None):
            return 0

        def close(self):
            pass

    def start(path, vm, arguments, channel):
        end = channel.dup()
        ends.append(end)
        data = answer if isinstance(answer, bytes) else codec.frame(answer)
        end.sendall(codec.frame(["hello", 1, ["f"]]) + data + (b"" if answer != b"junk" else b"\xff" * 8))
        return Gone(None)

    with Enclave(tmp_path, start=start) as box, pytest.raises(EnclaveLost):
        box.f()
    for end in ends:
        end.close()


def test_names_that_cannot_be_exported():
    table = calls.Exports()

    def _hidden():
        pass

    def close():
        pass

    for function in (_hidden, close, lambda: 0):
        with pytest.raises(ValueError):
            table.export(function)

    def twice():
        pass

    table.export(twice)
    other = type(twice)(twice.__code__, {}, "twice")
    with pytest.raises(ValueError, match="two functions"):
        table.export(other)


def test_without_a_channel_there_is_nothing_to_serve(monkeypatch, tmp_path):
    monkeypatch.setattr(calls, "CHANNEL", str(tmp_path / "none"))
    calls.serve()


# --- what the image needs ---


def test_inside_needs_the_standard_library_only():
    """Importing it with nothing of ours beside it, and no third party, as the image has it."""
    script = """
        import sys, importlib.util, types
        sys.path[:] = [p for p in sys.path if "site-packages" not in p]
        package = types.ModuleType("strongroom"); package.__path__ = [sys.argv[1]]
        sys.modules["strongroom"] = package
        import strongroom.inside.calls, strongroom.inside.release, strongroom.inside.sealing
        assert all(hasattr(strongroom.inside, name) for name in strongroom.inside.__all__)
        ours = {n for n in sys.modules if n.startswith("strongroom.")}
        assert all(n.startswith("strongroom.inside") for n in ours), ours
        assert "cryptography" not in sys.modules
        for use in (lambda: strongroom.inside.owner("http://a").unlock("/m", "k"),
                    lambda: strongroom.inside.seal(b""), lambda: strongroom.inside.unseal(b"")):
            try:
                use()
            except strongroom.inside.InsideError as error:
                assert 'packages = ["cryptography"] in enclave.toml' in str(error), error
            else:
                raise AssertionError("used without cryptography")
    """
    folder = Path(strongroom.__file__).parent
    subprocess.run([sys.executable, "-I", "-c", textwrap.dedent(script), str(folder)], check=True, timeout=60)


def test_importing_strongroom_is_light():
    script = (
        "import sys, strongroom; assert 'strongroom.host' not in sys.modules; "
        "from strongroom import Enclave; assert Enclave.__module__ == 'strongroom.host'"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=60)
