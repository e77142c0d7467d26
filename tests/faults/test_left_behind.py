"""Without namespaces a program may outlive its command: it goes on taking pages, and they are counted as its own."""

from __future__ import annotations

import subprocess
import time

from support.house import SECONDS, House, Parts
from support.less import no_namespaces


def test_the_next_program_has_its_pages(own_house: House, parts: Parts) -> None:
    command = own_house.command

    def start(*words: str) -> subprocess.Popen[str]:
        return command.popen("exec", "--vm", "small", "--", *words, preexec_fn=no_namespaces)

    def shell(text: str) -> subprocess.Popen[str]:
        begun = start("/bin/sh", "-c", text)
        assert begun.stdout is not None and begun.stdout.readline() == "begun\n"
        return begun

    def used() -> float:
        return own_house.used_pages().get("small", 0)

    assert command("vm", "create", "small", "--size", "Standard_DC1s_v2").returncode == 0
    worker = [str(parts.native / "strongroom-loader"), *parts.image, "work"]
    left = " ".join([*worker, "9000", "3000"])
    # Their slots lie below that of who stays, and are more than the next programs take.
    with shell(
        f"for i in 1 2 3 4 5 6; do {left} >/dev/null 2>&1 & done; echo begun; sleep 2"
    ) as command_of_six:
        deadline = time.monotonic() + SECONDS
        while used() < 20 * 256:
            assert time.monotonic() < deadline
        with shell("echo begun; exec sleep 300") as holder:
            assert command_of_six.wait(SECONDS) == 0
            assert used() > 0, "they are at work, and counted"
            while used():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            again = " ".join([*worker, "300", "3000"])
            with start("/bin/sh", "-c", f"for i in 1 2 3; do {again} & done; wait") as last:  # they page too
                out, err = last.communicate(timeout=SECONDS)
            assert (out.count("begun"), out.count("good "), err.count("worker")) == (3, 3, 0), out + err
            assert used() == 0
            holder.kill()
