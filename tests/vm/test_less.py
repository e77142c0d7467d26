"""A real enclave at each level, as root and as an ordinary user, with less than the machine has."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from strongroom import paths
from strongroom.image.build import build
from support.interpreter_image import need_runtime
from support.less import eight_mib, no_protection_keys, no_secret_memory
from support.programs import compile_c
from support.vm import Command, require_other_user, users

LEVELS = ["sealed", "separated", "faithful"]
LESS: dict[str, Callable[[], None]] = {
    "no secret memory": no_secret_memory,
    "8 MiB of locked memory": eight_mib,
    "no protection keys": no_protection_keys,
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the C parts, a built enclave), readable by everybody."""
    need_runtime("libos.elf", "strongroom-loader")
    folder = tmp_path_factory.mktemp("real")
    native, project = folder / "native", folder / "trusted"
    native.mkdir()
    for name in paths.NATIVE_NAMES:
        shutil.copy(paths.native_directory() / name, native)
    shutil.copytree(Path(__file__).parents[2] / "attacks" / "trusted", project)
    build(project)
    for place in [folder, *folder.parents[:2], *folder.rglob("*")]:
        place.chmod(0o755 if place.is_dir() or place.parent == native else 0o644)
    return native, project


@pytest.fixture(params=users())
def command(
    request: pytest.FixtureRequest, strongroom_home: Path, real: tuple[Path, Path]
) -> Iterator[Command]:
    uid: int = request.param
    require_other_user(uid, strongroom_home)
    found = Command(strongroom_home, real[0], uid)
    yield found
    found("daemon", "stop")


@pytest.mark.parametrize("less", LESS)
def test_every_level_that_is_left(command: Command, real: tuple[Path, Path], less: str) -> None:
    """What may not be had is refused and says why; what is left runs, and says its level."""
    before = LESS[less]

    def ask(*words: str) -> tuple[int, str, str]:
        with command.popen(*words, preexec_fn=before) as process:
            out, err = process.communicate(timeout=60)
            return process.returncode, out, err

    status, out, err = ask("run", str(real[1]))
    assert (status, out) == (0, "dose-of-medicine-5-mg\n"), err
    best = err.split()[1]
    if less == "no secret memory":
        assert best != "sealed"
    if command.uid != 0:
        assert best in ("separated", "faithful")
    for level in LEVELS:
        status, out, err = ask("run", "--level", level, str(real[1]))
        if LEVELS.index(level) < LEVELS.index(best):
            assert status == 125
            assert err.startswith(f"strongroom: level {level} is not to be had here (missing: ")
        else:
            assert (status, out) == (0, "dose-of-medicine-5-mg\n"), err
            assert err.startswith(f"strongroom: {level} · ")


def test_exec_in_a_user_namespace_has_the_limit_of_outside(command: Command, real: tuple[Path, Path]) -> None:
    """An ordinary user is root in the VM's user namespace, and its CAP_IPC_LOCK lifts nothing."""
    done = command("exec", "--", str(real[0] / "strongroom-loader"), str(real[1] / "build"))
    assert (done.returncode, done.stdout) == (0, "dose-of-medicine-5-mg\n"), done.stderr


GROWS = """
#include <stdio.h>
#include <sys/mman.h>
#define PAGES (320ul << 20 >> 12)
int main(void)
{
    unsigned long bad = 0;
    char *p = mmap(0, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned long i = 0; p != MAP_FAILED && i < PAGES; i++)
        bad += *(unsigned long *)(p + (i << 12)) != 0, *(unsigned long *)(p + (i << 12)) = i;
    for (unsigned long i = 0; p != MAP_FAILED && i < PAGES; i++)
        bad += *(unsigned long *)(p + (i << 12)) != i;
    printf("%s %lu\\n", p == MAP_FAILED ? "no memory" : "grown", bad);
}
"""


@pytest.fixture(scope="module")
def growing(real: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("growing")
    compile_c(project, "grows", GROWS, "-static")
    (project / "enclave.toml").write_text(
        '[enclave]\nmain = "grows"\nmemory = "512M"\nthreads = 1\nedmm = true\n'
    )
    build(project)
    for place in [project, *project.parents[:2], *project.rglob("*")]:
        place.chmod(0o755 if place.is_dir() else 0o644)
    return project


def test_a_heap_that_grows_past_what_may_be_locked(growing: Path, command: Command) -> None:
    """EDMM, page by page: 320 MiB under a limit of 8 MiB; extents that stayed small would fill their list."""
    if command.uid == 0:
        pytest.skip("root's programs keep CAP_IPC_LOCK")
    assert command("vm", "create", "new", "--size", "Standard_DC2s_v3").returncode == 0
    with command.popen("run", "--vm", "new", str(growing), preexec_fn=eight_mib) as process:
        out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (0, "grown 0\n"), err
