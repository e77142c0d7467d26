"""Signal storms against running enclaves, with and without paging pressure: no page wrong, no thread lost."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import images
import pytest

from support.house import Parts, compile_here
from support.package_server import package_server

MILLISECONDS = str(1000 + 200 * int(os.environ.get("STRONGROOM_FAULTS", "0")))
SEED = os.environ.get("STRONGROOM_SEED", "1")


@pytest.fixture(scope="session")
def storm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images.compile_all()
    return compile_here("storm", tmp_path_factory.mktemp("storm"))


@pytest.mark.parametrize("options", [(), ("--no-secretmem",), ("--sgx2",)], ids=["plain", "ordinary", "sgx2"])
@pytest.mark.parametrize("epc_pages", [8000, 600], ids=["fits", "pages"])
def test_signals_every_100_us(parts: Parts, storm: Path, epc_pages: int, options: tuple[str, ...]) -> None:
    sgx2 = "--sgx2" in options
    with package_server(epc_pages=epc_pages, sgx2=sgx2) as server:
        done = server.run([str(storm), *parts.image, "1500", MILLISECONDS, SEED], options)
        assert (done.returncode, done.stderr) == (0, b""), (done.stdout, done.stderr)
        told = re.fullmatch(r"rounds (\d+) signals (\d+) bad 0\n", done.stdout.decode())
        assert told, done.stdout
        assert int(told[1]) >= 3 and int(told[2]) > 1000, done.stdout
        server.join()
        assert server.epc.used_pages() == 0
        usage = server.last_usage
        assert usage is not None and (usage.evicted > 1000) == (epc_pages == 600)


def test_signals_kill_what_has_no_handler(parts: Parts, storm: Path) -> None:
    """A storm from outside, with default actions: the process is gone by the signal, its EPC is given back."""
    with package_server(epc_pages=600) as server:
        rpc, _ = server.connect()
        with rpc:
            command = server.command(rpc.fileno(), [str(storm), *parts.image, "1500", "60000", SEED])
            process = subprocess.Popen(
                command, pass_fds=(rpc.fileno(), server.epc.descriptor), stdout=subprocess.DEVNULL
            )
        try:
            while server.epc.used_pages() < 500 and process.poll() is None:
                pass
            process.terminate()
            assert process.wait(20) == -15
        finally:
            process.kill()
        server.join()
        assert server.epc.used_pages() == 0
