"""Boots a throwaway guest of QEMU, with this machine's files under a layer in memory, and runs a command in it.

    .venv/bin/python tools/machine/machine.py [options] -- COMMAND...     or: make machine COMMAND='...'

For what must not be tried on the machine itself, or what it has not: another kernel or its parameters, a clock that is
set, hibernation, protection keys. The kernel is Debian's (``apt-get download``, into build/machine; nothing is
installed). The processor is QEMU's own, in software, some 20 times slower than a real one, so timings mean nothing;
``--accel kvm`` where nested virtualisation works. No network but loopback. The guest sees the host's files read-only,
what it writes is gone with it; it runs the command by ``sh`` in this checkout, with STRONGROOM_HOME in its memory.
The status is the command's, 125 for our own failure or a guest that ended without one, 124 when time is over.
"""

from __future__ import annotations

import argparse
import ctypes
import lzma
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "machine"
MODULES = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "overlay")
STATUS = re.compile(rb"\nmachine: status (\d+)\r?\n")


def kernel(package: str) -> Path:
    """The folder of the unpacked package, downloaded the first time. A meta-package stands for what it depends on."""
    shown = subprocess.run(["apt-cache", "depends", package], capture_output=True, text=True, check=True)
    found = re.search(r"Depends: (linux-image-[^\s<>]*\d[^\s<>]*)", shown.stdout)
    name = found[1] if found else package
    folder = CACHE / name
    if not (folder / "boot").is_dir():
        with tempfile.TemporaryDirectory(prefix="sr-machine-") as place:
            os.chmod(place, 0o777)  # for apt's own user
            subprocess.run(["apt-get", "-q", "download", name], cwd=place, stdout=sys.stderr, check=True)
            packed = next(Path(place).glob("*.deb"))
            subprocess.run(["dpkg", "-x", packed, Path(place) / "all"], check=True)
            CACHE.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mv", Path(place) / "all", folder], check=True)
    return folder


def module_files(folder: Path) -> list[tuple[str, bytes]]:
    """MODULES that are not built in, what each depends on before it."""
    files = {
        p.name.split(".ko")[0].replace("-", "_"): p for p in folder.glob("lib/modules/*/kernel/**/*.ko*")
    }
    order: dict[str, bytes] = {}

    def take(name: str) -> None:
        if name in order or name not in files:
            return
        data = files[name].read_bytes()
        data = lzma.decompress(data) if files[name].suffix == ".xz" else data
        found = re.search(rb"\0depends=([\w,-]*)\0", data)
        for other in (found[1].decode() if found else "").split(","):
            take(other.replace("-", "_"))
        order[name] = data

    for name in MODULES:
        take(name)
    return list(order.items())


def initrd(folder: Path, command: str, place: Path) -> Path:
    """A cpio archive ("newc") of the first process, the modules and the command."""
    init = CACHE / "init"
    source = Path(__file__).with_name("init.c")
    if not init.is_file() or init.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["gcc", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", init, source], check=True
        )
    modules = module_files(folder)
    listed = "".join(f"/modules/{name}.ko\n" for name, _ in modules)
    files: list[tuple[str, int, bytes]] = [
        ("dev", 0o40755, b""),
        ("modules", 0o40755, b""),
        ("init", 0o100755, init.read_bytes()),
        ("command", 0o100644, command.encode()),
        ("modules/list", 0o100644, listed.encode()),
        *((f"modules/{name}.ko", 0o100644, data) for name, data in modules),
        ("TRAILER!!!", 0, b""),
    ]
    archive = bytearray()
    for number, (name, mode, data) in enumerate(files, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    path = place / "initrd"
    path.write_bytes(archive)
    return path


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run(command: str, options: argparse.Namespace) -> int:
    folder = kernel(options.kernel)
    exports = {"HOME": "/tmp", "PATH": os.environ["PATH"], "STRONGROOM_HOME": "/tmp/strongroom"}
    script = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in exports.items())
    script += f"cd {shlex.quote(str(ROOT))}\n"
    if options.uid:  # in the guest the checkout and the interpreter are for all to read
        folders = {*ROOT.parents, ROOT, *(ROOT / ".venv" / "bin" / "python").resolve().parents}
        script += "chmod o+rx " + shlex.join(map(str, sorted(folders))) + "\n"
        user = f"--reuid={options.uid} --regid={options.uid} --clear-groups --inh-caps=-all"
        command = f"exec setpriv {user} sh -c {shlex.quote(command)}"
    script += command + "\n"
    with tempfile.TemporaryDirectory(prefix="sr-machine-") as name:
        place = Path(name)
        words = ["qemu-system-x86_64", "-M", f"q35,accel={options.accel}", "-cpu", options.cpu, "-smp", "2"]
        words += [
            "-m",
            options.memory,
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-nic",
            "none",
        ]
        words += [
            "-serial",
            f"file:{place}/console",
            "-serial",
            "stdio",
            "-kernel",
            str(next(folder.glob("boot/vmlinuz-*"))),
        ]
        words += ["-initrd", str(initrd(folder, script, place))]
        words += ["-append", f"console=ttyS0 panic=-1 {options.append}"]
        words += ["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"]
        words += ["-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]
        for disk in options.disk:
            words += ["-drive", f"file={disk},format=raw,if=virtio"]
        with subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, preexec_fn=die_with_parent
        ) as guest:
            assert guest.stdout
            signal.signal(signal.SIGALRM, lambda *_: guest.kill())
            signal.alarm(options.time)
            seen = b""
            while part := os.read(guest.stdout.fileno(), 65536):
                seen = (seen + part)[-4096:]
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
            guest.wait()
            over = not signal.alarm(0)
        if found := STATUS.search(seen):
            return int(found[1])
        console = (place / "console").read_bytes().decode(errors="replace").splitlines()
        print(
            "machine:",
            "time is over" if over else "ended without a status",
            "; the console's last lines:",
            file=sys.stderr,
        )
        print("\n".join(console[-25:]), file=sys.stderr)
        return 124 if over else 125


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernel", default="linux-image-amd64", help="Debian's package, or the meta-package")
    parser.add_argument("--append", default="", help="kernel parameters, as secretmem.enable=1")
    parser.add_argument("--accel", default="tcg", choices=["tcg", "kvm"])
    parser.add_argument("--cpu", default="max", help="QEMU's name; max,-pku is one without protection keys")
    parser.add_argument("--memory", default="3G")
    parser.add_argument("--uid", type=int, default=0, help="of the command")
    parser.add_argument("--time", type=int, default=900, help="seconds until the guest is killed")
    parser.add_argument(
        "--disk", action="append", default=[], help="file that the guest has as /dev/vda, /dev/vdb, …"
    )
    parser.add_argument("command", nargs="+", help="words for the guest's shell")
    options = parser.parse_args()
    return run(" ".join(options.command), options)


if __name__ == "__main__":
    sys.exit(main())
