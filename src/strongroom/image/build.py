"""From a project's folder to ``build/``: enclave.sgxs, enclave.sig, files.pack, enclave.json. All or nothing."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from strongroom import paths
from strongroom.errors import StrongroomError
from strongroom.image import (
    boot,
    elf,
    layout,
    libraries,
    manifest,
    output,
    pack,
    python_files,
    rewrite,
    signer,
    sigstruct,
)
from strongroom.image.measure import FACTS_NAME, SIGNATURE_NAME, STREAM_NAME
from strongroom.image.project import APP, Plan, Progress, file_mode, plan_program
from strongroom.image.sgxs import Writer

FORMAT_VERSION = 1
ENTRY_SYMBOL = "libos_syscall_entry"
STREAM, SIGNATURE, PACK, FACTS = STREAM_NAME, SIGNATURE_NAME, pack.FILE_NAME, FACTS_NAME
_MOUNT_KINDS = {
    "trusted": boot.MOUNT_TRUSTED, "temporary": boot.MOUNT_TEMPORARY, "allowed": boot.MOUNT_ALLOWED,
    "encrypted:sealed": boot.MOUNT_SEALED, "encrypted:sealed:mrenclave": boot.MOUNT_SEALED_MRENCLAVE,
    "encrypted:release": boot.MOUNT_RELEASE,
}  # fmt: skip
_MOUNT_NAMES = {number: name for name, number in _MOUNT_KINDS.items()}
# Always there; POSIX semaphores and shared memory are files of /dev/shm.
TEMPORARY = ("/tmp", "/dev/shm")
# IANA's numbers of the services that programs ask for by name.
_PORTS = {
    "echo": 7, "discard": 9, "daytime": 13, "qotd": 17, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "time": 37,
    "domain": 53, "tftp": 69, "http": 80, "kerberos": 88, "pop3": 110, "ntp": 123, "imap2": 143, "snmp": 161,
    "ldap": 389, "https": 443, "submission": 587, "ldaps": 636, "imaps": 993, "pop3s": 995,
    "mysql": 3306, "postgresql": 5432,
}  # fmt: skip
SERVICES = "".join(f"{name} {port}/{kind}\n" for name, port in _PORTS.items() for kind in ("tcp", "udp"))
# A few files that C libraries look for; the same in every image.
ETC = {
    "/etc/passwd": b"root:x:0:0:root:/app:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "/etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "/etc/hosts": b"127.0.0.1 localhost\n127.0.1.1 enclave\n::1 localhost\n",
    "/etc/services": SERVICES.encode(),
    "/etc/protocols": b"ip 0 IP\nicmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6 41 IPv6\nipv6-icmp 58 IPv6-ICMP\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
}


@dataclass(frozen=True)
class BuildResult:
    """What was built. Sizes in bytes; ``measured_size`` and ``epc_size`` count whole pages."""

    directory: Path
    mrenclave: bytes
    mrsigner: bytes
    measured_size: int
    epc_size: int
    pack_size: int
    file_count: int
    object_count: int
    notes: tuple[str, ...]
    sites: dict[str, int]
    edmm: bool
    """The heap is not among the pages: it comes when it is used, on SGX2 only."""
    late_code: int
    """Bytes of pages that can be written and executed."""


def build(
    project_dir: Path | str,
    out_dir: Path | str | None = None,
    progress: Progress | None = None,
    *,
    key: str | None = None,
    python: str | None = None,
    libos: Path | None = None,
    rewriting: bool = True,
) -> BuildResult:
    """Build ``project_dir``'s image into ``out_dir`` (default: its ``build``). Raises StrongroomError.

    ``key`` is a signer's URI (a path in it: from the current folder; the manifest's: from the project's), ``python`` an
    interpreter; ``rewriting`` False leaves every ``syscall`` as it is.
    """
    say = progress or (lambda _text: None)
    project = Path(os.path.abspath(project_dir))
    if project.is_file():
        raise StrongroomError(
            f"{project_dir} is a file", f"name the project's folder, {Path(project_dir).parent}"
        )
    if not project.is_dir():
        raise StrongroomError(
            f"{project} is not a folder", f"make a project with `strongroom new {project_dir}`"
        )
    target = Path(os.path.abspath(out_dir)) if out_dir is not None else project / "build"
    found = manifest.read(project / manifest.NAME)
    libos_elf = libraries.load(libos or paths.native("libos.elf"))
    say("collecting files")
    plan = make_plan(found, project, python, say)
    add_common(plan, found, project)
    by = open_key(key, Path.cwd()) if key else open_key(found.key, project)
    with output.fresh(target, FACTS) as out:
        return _write(found, plan, libos_elf, by, out, target, say, rewriting)


def make_plan(found: manifest.Manifest, project: Path, python: str | None, say: Progress) -> Plan:
    """Collect what the project's kind of main needs."""
    host = project / found.main
    if found.main.endswith(".py") or (found.main == "python3" and not host.exists()):
        return python_files.plan(found, project, python, say)
    if found.packages:
        raise StrongroomError("packages are for Python, and main is not a .py file", "take packages out")
    return plan_program(found, project)


def add_common(plan: Plan, found: manifest.Manifest, project: Path) -> None:
    """Objects' files, [files] that are trusted, /etc, the environment."""
    # An object's file is packed as it was analysed: it may change on the host meanwhile.
    plan.files = [one for one in plan.files if one.path not in plan.objects]
    plan.files += [pack.PackFile(one.path, one.elf.data, 0o755) for one in plan.objects.values()]
    for mount in found.files:
        if mount.kind == "trusted":
            plan.files += trusted_files(mount, project)
        elif mount.kind.startswith("encrypted"):
            plan.files.append(pack.PackFile(mount.path, mode=0o755))
    there = {one.path for one in plan.files}
    plan.files += [pack.PackFile(path, content) for path, content in ETC.items() if path not in there]
    plan.files.append(pack.PackFile(APP, mode=0o755))
    plan.env |= dict(found.env)
    if isinstance(found.args, tuple):
        plan.argv += found.args


def trusted_files(mount: manifest.Mount, project: Path) -> list[pack.PackFile]:
    """The host file or folder behind a trusted mount."""
    host = project / (mount.host or mount.path)
    if host.is_file():
        return [pack.PackFile(mount.path, host, file_mode(host))]
    if not host.is_dir():
        raise StrongroomError(
            f"{host}, trusted as {mount.path}, is not there", "correct the path in enclave.toml"
        )
    found = [pack.PackFile(mount.path, mode=0o755)]
    for directory, names, files in os.walk(host):
        names.sort()
        inside = mount.path + directory[len(str(host)) :]
        found += [pack.PackFile(f"{inside}/{name}", mode=0o755) for name in names]
        for name in sorted(files):
            one = Path(directory, name)
            if not one.is_file():
                raise StrongroomError(f"{one} is not a regular file", "take it out of the trusted folder")
            found.append(pack.PackFile(f"{inside}/{name}", one, file_mode(one)))
    return found


def open_key(uri: str | None, base: Path) -> signer.Signer:
    """The signing key: a URI's, whose path may be relative to ``base``; or your developer key, made on first use."""
    if uri is None:
        path = paths.ensure_home() / "signing-key.pem"
        if not path.exists():
            with contextlib.suppress(signer.SignerError):  # two builds at once: the other one's key serves
                return signer.create_key_file(path)
        return signer.load_key_file(path)
    if uri.startswith("file:") and not uri.startswith("file:/"):
        uri = f"file:{quote(os.fspath(base))}/{uri[5:]}"
    return signer.open_signer(uri)


def _mounts(found: manifest.Manifest) -> tuple[boot.BootMount, ...]:
    mounts = [boot.BootMount(one.path, _MOUNT_KINDS[one.kind], one.host) for one in found.files]
    for path in TEMPORARY:
        if not any(one.path == path for one in found.files):
            mounts.append(boot.BootMount(path, boot.MOUNT_TEMPORARY))
    # A trusted file's host path is where the builder found it; it is in the pack now.
    return tuple(
        boot.BootMount(one.path, one.kind, "" if one.kind == boot.MOUNT_TRUSTED else one.host_path)
        for one in sorted(mounts, key=lambda one: one.path)
    )


def _boot_objects(placed: list[layout.Placed]) -> tuple[boot.BootObject, ...]:
    return tuple(
        boot.BootObject(
            one.path,
            one.base,
            one.elf.high,
            one.flags,
            tuple(
                boot.BootSegment(
                    part.vaddr, part.memory_size, part.offset, part.file_size, part.prot, part.executable
                )
                for part in one.elf.segments
            ),
        )
        for one in placed
    )


def _write(
    found: manifest.Manifest,
    plan: Plan,
    libos: elf.Elf,
    by: signer.Signer,
    out: Path,
    target: Path,
    say: Progress,
    rewriting: bool,
) -> BuildResult:
    say(f"packing {len(plan.files)} files")
    with (out / PACK).open("wb") as file:
        packed = pack.write(plan.files, file)

    # Main first, then the interpreter, then by path: the order is part of the measurement.
    def rank(one: libraries.Object) -> tuple[int, bytes]:
        first = 0 if one.path == plan.program else 1 if one.path == plan.interpreter else 2
        return first, os.fsencode(one.path)

    objects = [
        (
            one.path,
            one.elf,
            boot.OBJECT_MAIN * (one.path == plan.program)
            | boot.OBJECT_INTERPRETER * (one.path == plan.interpreter),
        )
        for one in sorted(plan.objects.values(), key=rank)
    ]
    # The boot information's size does not depend on addresses: make room for it first, fill it in at the end.
    draft = boot.BootInfo(
        0, 0, 0, 0, found.memory, layout.THREAD_BASE, layout.THREAD_STRIDE, found.threads, _flags(found),
        packed.index_sha256, packed.index_size, plan.program, plan.interpreter, APP, plan.argv,
        tuple(f"{name}={value}" for name, value in sorted(plan.env.items())), found.env_allowed, (), _mounts(found),
    )  # fmt: skip
    sized = boot.encode(
        replace(draft, objects=_boot_objects([layout.Placed(p, e, 0, f) for p, e, f in objects]))
    )
    placed, cursor = layout.place_objects(objects, boot.BOOT_ADDRESS + elf.page_up(len(sized)))
    say(f"laying out {len(placed)} objects")
    thunks, texts, sites = rewrite_sites(placed, cursor, libos, say, rewriting)
    if thunks is not None:
        cursor = elf.page_up(thunks.end, layout.LARGE)
    regions = layout.libos_regions(libos) + layout.thread_regions(found.threads, libos.entry)
    for one in placed:
        regions += layout.object_regions(one, texts[one.path])
    if thunks is not None:
        regions.append(thunks)
    late, cursor = layout.late_regions(cursor, found.late_code)
    regions += late
    heap = layout.Region("heap", cursor, found.memory, layout.READ_WRITE)
    if not found.edmm:
        regions.append(heap)
    size = layout.elrange(heap.end)
    info = replace(
        draft, elrange_size=size, libos_base=libos.low, libos_size=libos.high - libos.low, heap_base=heap.address,
        objects=_boot_objects(placed), late_base=late[0].address if late else 0, late_size=found.late_code,
    )  # fmt: skip
    regions.append(layout.boot_region(boot.encode(info)))
    regions = layout.check(regions)

    say("measuring")
    with (out / STREAM).open("wb") as file:
        writer = Writer(file, size)
        for region in regions:
            for address, content in region.pages():
                writer.add_page(address, region.flags, content)
    mrenclave = writer.mrenclave()
    say("signing")
    signed = sigstruct.sign(
        sigstruct.template(mrenclave, debug=found.debug, product=found.product, svn=found.svn), by
    )
    (out / SIGNATURE).write_bytes(signed.pack())
    counts = dict(Counter(one.outcome for one in sites))
    result = BuildResult(
        target, mrenclave, sigstruct.mrsigner(signed),
        sum(one.size for one in regions if one.content is not None), sum(one.size for one in regions),
        packed.total_size, packed.file_count, len(placed), tuple(plan.notes), counts, found.edmm,
        found.late_code,
    )  # fmt: skip
    facts = _facts(found, info, regions, placed, packed, result, sites)
    (out / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return result


def _flags(found: manifest.Manifest) -> int:
    return (
        boot.FLAG_DEBUG * found.debug
        | boot.FLAG_NETWORK * found.network
        | boot.FLAG_EDMM * found.edmm
        | boot.FLAG_HOST_ARGUMENTS * (found.args is True)
        | boot.FLAG_HOST_ENVIRONMENT * bool(found.env_allowed)
    )


def rewrite_sites(
    placed: list[layout.Placed], base: int, libos: elf.Elf, say: Progress, rewriting: bool
) -> tuple[layout.Region | None, dict[str, dict[int, bytes]], list[rewrite.Site]]:
    """The thunks' region at ``base`` (None: no site), each object's text as it goes in, what became of each site."""
    say("rewriting system calls")
    rewriter = rewrite.Rewriter(base, libos.symbol(ENTRY_SYMBOL))
    cache = paths.ensure_home() / "cache" / "sites"

    def decide(file: elf.Elf) -> list[rewrite.Decision]:
        return rewrite.analyse_cached(file, cache) if rewriting else []

    texts = {
        one.path: rewriter.rewrite(one.path, one.elf, one.base, layout.segment_text(one.elf), decide(one.elf))
        for one in placed
    }
    thunks = (
        layout.measured("thunks", base, layout.READ_EXECUTE, bytes(rewriter.thunks))
        if rewriter.thunks
        else None
    )
    return thunks, texts, rewriter.sites


def _facts(
    found: manifest.Manifest,
    info: boot.BootInfo,
    regions: list[layout.Region],
    placed: list[layout.Placed],
    packed: pack.PackResult,
    result: BuildResult,
    sites: list[rewrite.Site],
) -> dict[str, Any]:
    """``enclave.json``: for people and tools, never for trust. Nothing of the host is in it."""
    names = {layout.READ: "r", layout.READ_WRITE: "rw", layout.READ_EXECUTE: "rx", layout.TCS: "tcs",
             layout.READ_WRITE_EXECUTE: "rwx"}  # fmt: skip
    return {
        "format_version": FORMAT_VERSION,
        "mrenclave": result.mrenclave.hex(),
        "mrsigner": result.mrsigner.hex(),
        "elrange_size": info.elrange_size,
        "measured_size": result.measured_size,
        "epc_size": result.epc_size,
        "epc_pages": result.epc_size // elf.PAGE_SIZE + 1,  # with the SECS
        "manifest": found.facts(),
        "program": info.program_path,
        "interpreter": info.interp_path,
        "argv": info.argv,
        "env": info.env,
        "mounts": [
            {"path": one.path, "kind": _MOUNT_NAMES[one.kind], "host_path": one.host_path}
            for one in info.mounts
        ],
        "heap": {"address": info.heap_base, "size": info.heap_size},
        "regions": [
            {
                "name": one.name,
                "address": one.address,
                "size": one.size,
                "pages": names[one.flags],
                "measured": one.content is not None,
            }
            for one in regions
        ],
        "objects": [
            {"path": one.path, "base": one.base, "span": one.elf.high, "sha256": packed.hashes[one.path]}
            for one in placed
        ],
        "pack": {
            "index_sha256": packed.index_sha256.hex(),
            "index_size": packed.index_size,
            "size": packed.total_size,
            "files": packed.file_count,
        },
        "sites": [asdict(one) for one in sites],
        "notes": list(result.notes),
    }
