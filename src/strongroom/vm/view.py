"""A VM's own view of files: a small root made of the host's system folders (read-only) and the VM's own.

Runs in a fresh mount namespace, in the process that enters it. What a process in the VM sees:

=====================  ==========================================================================
/usr /lib* /bin /etc   the host's, read-only (the VM's image)
/opt /sbin             the same
/dev                   null, zero, full, random, urandom, tty; names for sgx_enclave and sgx_provision,
                       which the machine library serves
/proc                  of the VM's own process ids
/tmp                   the VM's, kept until it is deleted
/vm                    the VM's disk
/strongroom            the C parts, read-only
further binds          what the request allows (host files that a manifest allows; `exec`'s folder)
=====================  ==========================================================================
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass

from strongroom.machine import linux

SYSTEM = ("usr", "lib", "lib32", "lib64", "libx32", "bin", "sbin", "etc", "opt")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
SGX_DEVICES = ("sgx_enclave", "sgx_provision")
NATIVE = "/strongroom"
DISK = "/vm"


@dataclass(frozen=True)
class Bind:
    """``source`` (a host path) seen as ``target`` (absolute) in the VM."""

    source: str
    target: str
    read_only: bool


def _bind(source: str, target: str, read_only: bool) -> None:
    linux.mount(source, target, None, linux.MS_BIND | linux.MS_REC)
    wanted = linux.MOUNT_ATTR_NOSUID | (linux.MOUNT_ATTR_RDONLY if read_only else 0)
    try:
        linux.set_mount_attributes(target, wanted)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        if read_only:  # before Linux 5.12: remount, keeping the flags that a user namespace may not drop
            kept = os.statvfs(target).f_flag & (
                linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | 1024 | 2048
            )
            flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | kept
            linux.mount(None, target, None, flags)


def _bind_mapped(bind: Bind, target: str, userns: int | None, user: int | None) -> None:
    """A bind whose owners are mapped, so that ``user``, the loader's, may use what the VM's owner allows it."""
    if userns is not None:
        with contextlib.suppress(OSError):  # a file system without id-mapped mounts: its modes decide
            tree = linux.detached_tree(bind.source, bind.read_only, userns)
            try:
                linux.attach_tree(tree, target)
                return
            finally:
                os.close(tree)
    _bind(bind.source, target, bind.read_only)
    if user is not None:
        _refuse_shut(bind, user)


def _refuse_shut(bind: Bind, user: int) -> None:
    """Refuses what ``user`` could not read: inside, an import would pass it over without a word."""
    facts = os.stat(bind.source)
    need = 5 if stat.S_ISDIR(facts.st_mode) else 4
    if facts.st_uid != user and facts.st_mode & need != need:
        raise OSError(
            errno.EACCES,
            "the enclave has a user of its own, who may not read it, and this file system has no id-mapped mounts: "
            "`chmod -R o+rX` it (o+rwX for what the enclave writes), or keep it on another file system",
            bind.source,
        )


def _place(source: str, root: str, path: str) -> str:
    """An empty file or folder at ``path`` below ``root`` to mount ``source`` on; a name for it.

    A guest fills the VM's /tmp and disk, and this runs before the root is changed: no link of its is followed.
    """
    first, *names = [name for name in os.path.normpath(path).split("/") if name]
    if os.path.islink(f"{root}/{first}"):  # ours: /lib is usr/lib
        first = os.readlink(f"{root}/{first}").strip("/")
    *folders, last = [*first.split("/"), *names]
    at = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in folders:
        at = _folder(name, at)
    if os.path.isdir(source):
        _folder(last, at)
    else:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(last, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=at))
        if stat.S_ISLNK(os.stat(last, dir_fd=at, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, "a link is in the place of a bind", path)
    return f"/proc/self/fd/{at}/{last}"  # the descriptors are open until the program starts


def _folder(name: str, above: int) -> int:
    """A descriptor of the folder ``name`` in ``above``, made where it is missing. Raises OSError for a link."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        os.mkdir(name, dir_fd=above)
        return os.open(name, flags, dir_fd=above)


def _devices(root: str) -> None:
    dev = f"{root}/dev"
    os.mkdir(dev)
    for name in DEVICES:
        if os.path.exists(f"/dev/{name}"):
            _place(f"/dev/{name}", root, f"dev/{name}")
            linux.mount(f"/dev/{name}", f"{dev}/{name}", None, linux.MS_BIND)
    for name in SGX_DEVICES:
        # A character device to look at; to open it is the machine library's to serve.
        _place("/dev/null", root, f"dev/{name}")
        linux.mount("/dev/null", f"{dev}/{name}", None, linux.MS_BIND)
    os.mkdir(f"{dev}/sgx")
    os.symlink("../sgx_enclave", f"{dev}/sgx/enclave")
    os.symlink("../sgx_provision", f"{dev}/sgx/provision")
    for name, to in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(to, f"{dev}/{name}")
    os.mkdir(f"{dev}/shm", 0o1777)
    linux.mount("tmpfs", f"{dev}/shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    if os.path.isdir("/dev/pts"):
        os.mkdir(f"{dev}/pts")
        linux.mount("/dev/pts", f"{dev}/pts", None, linux.MS_BIND | linux.MS_REC)
        with contextlib.suppress(OSError):
            os.symlink("pts/ptmx", f"{dev}/ptmx")


def _calm_proc(proc: str) -> None:
    """Root in a VM shall not set the host's kernel by /proc (what container tools cover, too)."""
    for name in ("sys", "irq", "bus", "fs"):
        if os.path.isdir(f"{proc}/{name}"):
            _bind(f"{proc}/{name}", f"{proc}/{name}", read_only=True)
    for name in ("kcore", "sysrq-trigger", "timer_list", "keys"):
        if os.path.exists(f"{proc}/{name}"):
            linux.mount("/dev/null", f"{proc}/{name}", None, linux.MS_BIND)


def enter(
    folder: str,
    native: str,
    binds: list[Bind],
    mask: list[str],
    cwd: str,
    userns: int | None,
    user: int | None = None,
) -> None:
    """Make the view and make it the root. The caller is in mount and process-id namespaces of its own.

    ``folder`` is the VM's folder (``root``, ``tmp``, ``disk`` in it); ``mask``: paths covered by an empty folder;
    ``cwd`` is made where it is missing; ``userns`` (a descriptor) maps the owners of ``binds`` to ``user``'s,
    where it is given; where that cannot be, ``user`` has to have the rights. Raises OSError.
    """
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    root = f"{folder}/root"
    linux.mount("tmpfs", root, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755,size=4m")
    for name in SYSTEM:
        source, target = f"/{name}", f"{root}/{name}"
        if os.path.islink(source):
            os.symlink(os.readlink(source), target)
        elif os.path.isdir(source):
            os.mkdir(target)
            _bind(source, target, read_only=True)
    _devices(root)
    os.mkdir(f"{root}/proc")
    linux.mount("proc", f"{root}/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    _calm_proc(f"{root}/proc")
    os.mkdir(f"{root}/sys")
    with contextlib.suppress(OSError):  # not offered in some containers; nothing of ours needs it
        _bind("/sys", f"{root}/sys", read_only=True)
    for name in ("run", "var", "vm", "tmp", "strongroom"):
        os.mkdir(f"{root}/{name}", 0o755)
    _bind(f"{folder}/tmp", f"{root}/tmp", read_only=False)
    _bind(f"{folder}/disk", f"{root}{DISK}", read_only=False)
    _bind(native, f"{root}{NATIVE}", read_only=True)
    for bind in binds:
        target = os.path.normpath(f"{root}/{bind.target}")
        if not target.startswith(root + "/"):
            raise OSError(errno.EINVAL, "a bind leaves the VM's root", bind.target)
        _bind_mapped(bind, _place(bind.source, root, bind.target), userns, user)
    for path in mask:
        if os.path.isdir(f"{root}/{path}"):
            linux.mount(
                "tmpfs", f"{root}/{path}", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_RDONLY
            )
    if cwd != "/":
        _place("/", root, cwd)
    os.chdir(root)
    linux.pivot_root(".", ".")
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")
    with contextlib.suppress(OSError):
        flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
        linux.mount(None, "/", None, flags)
