"""The enclave that holds the interpreter's tests, and the VM that it runs in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
VM, SIZE = "conformance", "Standard_DC4s_v3"
ENVIRONMENT = {"PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1", "LANG": "C.UTF-8"}
MANIFEST = """[enclave]
main = "python3"
args = true
memory = "{memory}"
threads = {threads}
network = true
packages = [{packages}]
late_code = "4M"

[files]
"""
TESTS = ("test", "ctypes/test")
ZONES = Path("/usr/share/zoneinfo")


def _ask(python: str, code: str) -> str:
    return subprocess.run(
        [python, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def stage_tests(python: str, work: Path, name: str) -> Path:
    """A copy of one of the interpreter's packages of tests, with byte code for its place inside."""
    stage = work / "stage" / name
    if stage.is_dir():
        return stage
    host = Path(_ask(python, "import os; print(os.path.dirname(os.__file__))"), name)
    partial = work / "stage" / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(host, partial, ignore=shutil.ignore_patterns("__pycache__"), symlinks=False)
    subprocess.run(
        [python, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash", "-s", str(partial),
         "-p", f"/usr/lib/{host.relative_to(host.parents[name.count('/') + 1])}", str(partial)],
        check=False, stdout=subprocess.DEVNULL, env={**os.environ, **ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": ""},
    )  # some of the tests' data do not compile, on purpose  # fmt: skip
    stage.parent.mkdir(parents=True, exist_ok=True)
    partial.rename(stage)
    return stage


def stage_sample(python: str, work: Path, names: tuple[str, ...]) -> Path:
    """``test`` with its support and these modules only; byte code is made inside, as they are imported."""
    stage = work / "stage" / "test"
    if not stage.is_dir():
        host = Path(_ask(python, "import os; print(os.path.dirname(os.__file__))"), "test")
        partial = work / "stage" / "partial"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(host / "support", partial / "support", ignore=ignored)
        for name in ("__init__", *names):
            shutil.copy(host / f"{name}.py", partial)
        partial.rename(stage)
    return stage


def build(
    python: str, work: Path, numpy: bool, say: Callable[[str], None], sample: tuple[str, ...] = ()
) -> Path:
    """Make (again, if something changed) the project below ``work``; its folder."""
    from strongroom.image.build import build as build_image

    say("staging the tests")
    project = work / ("project-numpy" if numpy else "project")
    project.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "runner.py", project / "runner.py")
    dynload = _ask(python, "import sysconfig; print(sysconfig.get_config_var('DESTSHARED'))")
    for module in sorted(Path(dynload).glob("_*test*.so")) + sorted(Path(dynload).glob("xx*.so")):
        shutil.copy(module, project / module.name)  # left out of every other image
    library = "/usr/lib/" + Path(dynload).parent.name
    packages = '"numpy", "pytest", "hypothesis"' if numpy else ""
    memory, threads = ("64M", 16) if sample else ("1536M", 128)
    manifest = MANIFEST.format(packages=packages, memory=memory, threads=threads)
    if sample:
        manifest += f'"{library}/test" = "trusted:{stage_sample(python, work, sample)}"\n'
    for name in () if sample else TESTS:
        if Path(dynload).parent.joinpath(name).is_dir():
            manifest += f'"{library}/{name}" = "trusted:{stage_tests(python, work, name)}"\n'
    if ZONES.is_dir():
        manifest += f'"{ZONES}" = "trusted"\n'
    # Programs that tests look for before they start them: there, so that what is refused is the start.
    for program in ("sh", "bash", "tar", "zip", "unzip", "ip", "ifconfig"):
        host = shutil.which(program)
        if host:
            manifest += f'"/bin/{program}" = "trusted:{os.path.realpath(host)}"\n'
    (project / "enclave.toml").write_text(manifest)
    result = build_image(project, progress=say, python=python)
    say(f"MRENCLAVE {result.mrenclave.hex()[:16]}…, {result.epc_size >> 20} MiB of EPC")
    return project


def ensure_vm() -> None:
    """The VM, made at the first time."""
    done = subprocess.run(
        [sys.executable, "-m", "strongroom", "vm", "create", VM, "--size", SIZE],
        capture_output=True,
        text=True,
    )
    if done.returncode and "exists" not in done.stderr and "already" not in done.stderr:
        sys.exit(done.stderr.strip())


def inside_command(project: Path, name: str, *more: str) -> list[str]:
    strongroom = [sys.executable, "-m", "strongroom", "run", "--vm", VM, str(project), "--"]
    return [*strongroom, "-B", "/app/runner.py", name, *more]


def outside_command(python: str, project: Path, name: str, *more: str) -> list[str]:
    return [python, "-B", str(project / "runner.py"), name, *more]
