"""Programs that an injected program executes: each has the device, the vDSO and signals as the first one had."""

from __future__ import annotations

import os
import subprocess
import sys

import images
import pytest
from native_machine import Machine

ENTERED = "ret 0 function 4 vector 0 error 0 addr 0 out 0x2a\n"


def follow(machine: Machine, *program: str, timeout: float = 60) -> tuple[int, str, str]:
    with machine.server.lines() as lines:
        done = machine.server.run(
            list(program),
            ("--follow", "--line-fd", str(lines.fileno())),
            timeout=timeout,
            pass_fds=(lines.fileno(),),
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def loader(machine: Machine) -> list[str]:
    return [str(images.BUILD / "loader"), str(machine.image), str(machine.signature), "0", "41"]


@pytest.mark.parametrize(
    ("way", "before"),
    [("exec", ""), ("execveat", ""), ("thread", ""), ("mask", ""),
     ("fork", "child 0\n"), ("vfork", "child 0\n"), ("spawn", "child 0\n")],
)  # fmt: skip
def test_every_way_to_execute(machine: Machine, way: str, before: str) -> None:
    status, out, err = follow(machine, str(images.BUILD / "follower"), way, *loader(machine))
    assert (status, out, err) == (0, ENTERED + before, "")


def test_a_process_with_an_enclave_executes_programs(machine: Machine) -> None:
    """The traps that guard an enclave's mappings outlive it and the exec."""
    words = loader(machine)
    assert follow(machine, *words, "/bin/echo", "there") == (0, f"{ENTERED}there\nthere\n", "")
    assert follow(machine, *words, *words) == (0, ENTERED * 3, "")
    text = "import mmap; print(len(mmap.mmap(-1, 1 << 20)))"
    assert follow(machine, *words, sys.executable, "-c", text) == (0, f"{ENTERED}1048576\n1048576\n", "")


def test_shells_env_and_python(machine: Machine) -> None:
    words = loader(machine)
    line = " ".join(words)
    assert follow(machine, "/bin/sh", "-c", line) == (0, ENTERED, "")
    twice = f"{line}; echo between; ({line}) | cat"
    assert follow(machine, "/bin/sh", "-c", twice) == (0, f"{ENTERED}between\n{ENTERED}", "")
    assert follow(machine, "/usr/bin/env", "A=b", "/bin/sh", "-c", f"exec {line}") == (0, ENTERED, "")
    text = (
        f"import subprocess; print(subprocess.run({words!r}, capture_output=True, text=True).stdout, end='')"
    )
    assert follow(machine, sys.executable, "-c", text) == (0, ENTERED, "")


def test_status_and_signals_of_what_is_executed(machine: Machine) -> None:
    assert follow(machine, "/bin/sh", "-c", "/bin/sh -c 'exit 7'; echo $?; /bin/sh -c 'kill -TERM $$'; echo $?") == (
        0, "7\n143\n", "Terminated\n",
    )  # fmt: skip
    assert follow(machine, "/bin/sh", "-c", "exec /bin/sh -c 'kill -TERM $$'")[0] == -15


def test_errors_are_the_kernels_and_the_program_goes_on(machine: Machine) -> None:
    status, out, err = follow(machine, str(images.BUILD / "follower"), "failing", *loader(machine))
    assert (status, err) == (0, "")
    assert out == f"missing 2\nfolder 13\nformat 8\nmode 13\naddress 14\n{ENTERED}child 0\n"


def test_mask_and_ignored_signals_pass_handlers_do_not(machine: Machine) -> None:
    show = ["/bin/grep", "-E", "^(SigBlk|SigIgn|SigCgt|ShdPnd|SigPnd)", "/proc/self/status"]
    plain = subprocess.run(
        [str(images.BUILD / "follower"), "mask", *show], capture_output=True, text=True, check=True
    )
    status, out, _ = follow(machine, str(images.BUILD / "follower"), "mask", *show)
    assert status == 0

    def facts(text: str) -> dict[str, int]:
        return {line.split(":")[0]: int(line.split()[1], 16) for line in text.splitlines()}

    expected, got = facts(plain.stdout), facts(out)
    # The six that the library always handles are caught by it: SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV SIGSYS.
    six = sum(1 << number - 1 for number in (4, 5, 7, 8, 11, 31))
    assert got.pop("SigCgt") & ~six == expected.pop("SigCgt") & ~six
    assert got == expected


def test_many_at_once(machine: Machine) -> None:
    status, out, err = follow(machine, str(images.BUILD / "follower"), "many", *loader(machine))
    assert (status, err) == (0, "")
    assert out == ENTERED * 40 + "good 40\n"


def test_parent_and_child_have_signal_stacks_of_their_own(machine: Machine) -> None:
    status, out, err = follow(machine, str(images.BUILD / "follower"), "beside", *loader(machine))
    assert (status, out, err) == (0, f"{ENTERED}child 0\n", "")


def test_a_thousand_one_after_the_other(machine: Machine) -> None:
    """Nothing is used up: descriptors, processes, slots of the EPC."""
    line = "i=0; while [ $i -lt 1000 ]; do /bin/true || exit 1; i=$((i+1)); done; echo $i"
    assert follow(machine, "/bin/sh", "-c", line) == (0, "1000\n", "")


def test_without_a_follower_execve_is_refused(machine: Machine) -> None:
    status, out, _ = machine.program("/bin/sh", "-c", "/bin/echo no; echo $?")
    assert status == 0
    assert out != "no\n0\n"


def test_the_follower_ends_with_the_program(machine: Machine) -> None:
    before = injectors()
    assert follow(machine, "/bin/sh", "-c", "/bin/true")[0] == 0
    for _ in range(100):
        if injectors() <= before:
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(f"left behind: {injectors() - before}")


def injectors() -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.getsid(int(name)) != os.getsid(0):
                    continue  # other runs on this machine come and go
                with open(f"/proc/{name}/comm") as file:
                    if file.read().startswith("strongroom-inje"):
                        found.add(int(name))
            except OSError:
                pass
    return found
