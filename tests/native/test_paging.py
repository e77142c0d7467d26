"""EPC paging: enclaves several times the EPC, threads and processes at once, a hostile kernel with what was evicted."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import images
import pytest
from native_machine import Machine
from steps import steps

from strongroom.image.signer import KeySigner
from support.package_server import PackageServer, package_server

pytestmark = pytest.mark.skipif(
    " aes " not in Path("/proc/cpuinfo").read_text(), reason="this processor has no AES-NI: nothing is paged"
)
HEAP_PAGES = 1500


class Pager:
    """The pager program with an enclave of HEAP_PAGES pages of heap."""

    def __init__(self, directory: Path, size: int = images.SIZE, heap: int = images.HEAP) -> None:
        images.compile_all()
        self.image, self.signature, self.heap = directory / "heap.sgxs", directory / "heap.sig", heap
        mrenclave = images.build_image(self.image, heap_pages=HEAP_PAGES, size=size, heap=heap)
        images.sign_image(mrenclave, self.signature, KeySigner.generate())

    def run(
        self, server: PackageServer, scenario: str, *more: object, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        words = [scenario, self.image, self.signature, hex(self.heap), *more]
        return server.run([str(images.BUILD / "pager"), *map(str, words)], options, timeout=120)


@pytest.fixture(scope="module")
def pager(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Pager:
    directory = tmp_path_factory.mktemp("heap")
    directory.chmod(0o755)
    return Pager(directory)


@pytest.mark.parametrize(
    "options", [(), ("--no-secretmem",), ("--no-fsgsbase",), ("--warm", "1024:16"), ("--warm", "4096:16")]
)
def test_several_times_the_epc_and_nothing_lost(pager: Pager, options: tuple[str, ...]) -> None:
    with package_server(epc_pages=400) as server:
        done = pager.run(server, "walk", HEAP_PAGES, 3, options=options)
        assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, b"", [b"bad 0"] * 3)
        server.join()
        usage = server.last_usage
        assert usage is not None and usage.peak <= 400 and usage.demand > HEAP_PAGES
        assert usage.evicted >= usage.loaded > HEAP_PAGES
        assert server.epc.used_pages() == 0


@pytest.mark.parametrize("epc", [100, 400])
def test_pages_evicted_before_einit_were_measured(machine: Machine, tmp_path: Path, epc: int) -> None:
    """Measured pages wait to be hashed; those that leave the EPC meanwhile are hashed first."""
    tmp_path.chmod(0o755)
    image, signature = tmp_path / "e.sgxs", tmp_path / "e.sig"
    mrenclave = images.build_image(image, heap_pages=HEAP_PAGES, filled=True)
    images.sign_image(mrenclave, signature, KeySigner.generate())
    with package_server(epc_pages=epc) as server:
        words = ["walk", image, signature, hex(images.HEAP), HEAP_PAGES, 1]
        done = server.run([str(images.BUILD / "pager"), *map(str, words)], (), timeout=120)
        assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, b"", [b"bad 0"])


def test_evicted_pages_beyond_a_gigabyte(machine: Machine, tmp_path: Path) -> None:
    """They are kept by gigabyte of ELRANGE; the heap here lies on both sides of the first one's end."""
    tmp_path.chmod(0o755)
    far = Pager(tmp_path, size=1 << 31, heap=(1 << 30) - HEAP_PAGES // 2 * 4096)
    with package_server(epc_pages=400) as server:
        done = far.run(server, "walk", HEAP_PAGES, 2)
        assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, b"", [b"bad 0"] * 2)


def test_huge_enclaves_are_evicted_like_others(machine: Machine) -> None:
    """Six in one process, which an address space could not hold a second time: none keeps others from the EPC."""
    fill = ["source 0 1", "open 2", "create", *(f"add {0x100000 + 0x10000 * i:x} 10000" for i in range(8))]
    with package_server(epc_pages=300) as server:
        said = steps(machine, f"secs 0 8 {1 << 45:x}", *fill * 6, server=server)
        assert said == ["0", "0", *["0 count 65536"] * 8] * 6
        server.join()
        assert server.last_usage is not None and server.last_usage.evicted > 6 * 128 - 300
        assert server.epc.used_pages() == 0


def test_without_pressure_nothing_is_paged(pager: Pager) -> None:
    with package_server(epc_pages=4000) as server:
        assert pager.run(server, "walk", HEAP_PAGES, 1).stdout == b"bad 0\n"
        server.join()
        assert server.last_usage is not None and server.last_usage.evicted == 0


def test_threads_under_pressure_lose_no_count(pager: Pager) -> None:
    with package_server(epc_pages=200) as server:
        done = pager.run(server, "threads", 400, 8, images.THREADS)
        count = 400 * 8 * images.THREADS
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"sum %d of %d\n" % (count, count))


def test_a_signal_storm_under_pressure(pager: Pager) -> None:
    with package_server(epc_pages=200) as server:
        done = pager.run(server, "storm", 400, 20, images.THREADS)
        count = 400 * 20 * images.THREADS
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.splitlines() == [b"sum %d of %d" % (count, count), b"alarms 1"]


def test_processes_share_what_there_is(pager: Pager) -> None:
    """Six processes that want six times the EPC: each is served, none holds more than there is, all is given back."""
    with package_server(epc_pages=900) as server:
        with ThreadPoolExecutor(6) as pool:
            runs = [pool.submit(pager.run, server, "walk", 800, 2) for _ in range(6)]
            for run in runs:
                done = run.result()
                assert (done.returncode, done.stderr, done.stdout) == (0, b"", b"bad 0\n" * 2)
        server.join()
        assert server.epc.used_pages() == 0


def test_what_was_evicted_comes_back_unchanged(pager: Pager) -> None:
    """The control of the attacks below: the same steps, nothing changed."""
    with package_server(epc_pages=400) as server:
        done = pager.run(server, "none", HEAP_PAGES)
        assert done.stdout.splitlines() == [
            b"read: function 4 vector 0 bad 0",
            b"entry: function 4 vector 0 error 0",
        ]


@pytest.mark.parametrize("attack", ["flip", "tag", "swap", "replay"])
def test_a_changed_page_disables_the_enclave(pager: Pager, attack: str) -> None:
    with package_server(epc_pages=400) as server:
        done = pager.run(server, attack, HEAP_PAGES)
        lines = done.stdout.splitlines()
        if attack == "replay":
            assert lines.pop(0) == b"same 0", "the page was evicted anew"
        assert lines == [
            b"read: function 3 vector 14 bad 0",
            b"entry: function 2 vector 14 error 0x8005",
        ]
        assert b"does not authenticate" in done.stderr
        server.join()
        assert [event.name for event, _ in server.events] == ["DISABLED"]


def test_room_for_what_is_evicted_and_not_a_cluster_more(pager: Pager) -> None:
    """Each reload is an exchange: what goes needs its room before what comes has left its own."""
    with package_server(epc_pages=4000) as server:
        pager.run(server, "walk", HEAP_PAGES, 1)
        server.join()
        assert server.last_usage is not None
        pages = server.last_usage.demand
    with package_server(epc_pages=400, backing_pages=pages - 400 + 15) as server:
        done = pager.run(server, "walk", HEAP_PAGES, 2)
        assert (done.returncode, done.stderr, done.stdout.splitlines()) == (0, b"", [b"bad 0"] * 2)
        server.join()
        usage = server.last_usage
        assert usage.refused == 0 and usage.loaded > HEAP_PAGES


def test_no_room_for_what_is_evicted(pager: Pager) -> None:
    with package_server(epc_pages=400, backing_pages=300) as server:
        done = pager.run(server, "walk", HEAP_PAGES, 1)
        assert (done.returncode, done.stdout) == (1, b"add: ENOMEM\n")
        server.join()
        assert server.last_usage is not None and server.last_usage.refused > 0
        server.join()
        assert server.epc.used_pages() == 0
