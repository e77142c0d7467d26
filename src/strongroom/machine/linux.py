"""The Linux calls that Python's ``os`` does not offer, with numbers from the kernel's uapi headers (x86-64).

Every function raises OSError with the kernel's errno. No behaviour of ours lives here.
"""

from __future__ import annotations

import ctypes
import os

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
# include/uapi/linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
MOVE_MOUNT_F_EMPTY_PATH = 4
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_IDMAP = 0x00100000
AT_FDCWD = -100
# include/uapi/linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_SET_NAME = 15
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_SET_KEEPCAPS = 8
# include/uapi/linux/capability.h
CAP_SETGID = 6
CAP_SETUID = 7
CAP_IPC_LOCK = 14
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24
# arch/x86/entry/syscalls/syscall_64.tbl
NR_PIVOT_ROOT = 155
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_MOUNT_SETATTR = 442
NR_MEMFD_SECRET = 447
NR_PKEY_ALLOC, NR_PKEY_FREE = 330, 331

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str = "") -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what or None)
    return result


def unshare(flags: int) -> None:
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(descriptor: int, kind: int = 0) -> None:
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)), "setns")


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    def word(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    _check(
        _libc.mount(word(source), word(target), word(fstype), ctypes.c_ulong(flags), word(data)),
        f"mount {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    _check(_libc.syscall(NR_PIVOT_ROOT, os.fsencode(new), os.fsencode(old)), "pivot_root")


def sethostname(name: str) -> None:
    text = os.fsencode(name)
    _check(_libc.sethostname(text, ctypes.c_size_t(len(text))), "sethostname")


def prctl(option: int, *values: int) -> int:
    padded = [ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(ctypes.c_int(option), *padded), f"prctl {option}")


def keep_capability(capability: int) -> None:
    """Hold exactly this capability, across a later exec by another user too (ambient, capabilities(7)).

    For a process that has just changed its user with PR_SET_KEEPCAPS set.
    """

    class Header(ctypes.Structure):
        _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))

    bit, word = 1 << capability % 32, capability // 32
    sets = [[bit if word == place else 0] * 3 for place in range(2)]
    data = (ctypes.c_uint32 * 6)(*sets[0], *sets[1])
    header = Header(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def ptrace_traceme() -> None:
    """Let the parent trace this process."""
    _check(_libc.ptrace(ctypes.c_long(0), 0, None, None), "ptrace")


def memfd_secret() -> int:
    """A descriptor of secret memory. ENOSYS where the kernel offers none."""
    return _check(_libc.syscall(NR_MEMFD_SECRET, ctypes.c_uint(0)), "memfd_secret")


def protection_key() -> None:
    """Take a protection key and give it back. ENOSPC where the processor or the kernel has none."""
    key = _check(_libc.syscall(NR_PKEY_ALLOC, ctypes.c_ulong(0), ctypes.c_ulong(0)), "pkey_alloc")
    _check(_libc.syscall(NR_PKEY_FREE, ctypes.c_int(key)), "pkey_free")


class _MountAttr(ctypes.Structure):
    """struct mount_attr (include/uapi/linux/mount.h), 32 bytes."""

    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def detached_tree(path: str, read_only: bool, userns: int | None) -> int:
    """A detached copy of the mount at ``path``, its owners mapped by the user namespace where one is given."""
    tree = _check(
        _libc.syscall(
            NR_OPEN_TREE,
            ctypes.c_int(AT_FDCWD),
            os.fsencode(path),
            ctypes.c_uint(OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC),
        ),
        f"open_tree {path}",
    )
    try:
        wanted = MOUNT_ATTR_NOSUID | (MOUNT_ATTR_RDONLY if read_only else 0)
        attributes = _MountAttr(wanted | (0 if userns is None else MOUNT_ATTR_IDMAP), 0, 0, userns or 0)
        _check(
            _libc.syscall(
                NR_MOUNT_SETATTR,
                ctypes.c_int(tree),
                b"",
                ctypes.c_uint(AT_EMPTY_PATH),
                ctypes.byref(attributes),
                ctypes.c_size_t(ctypes.sizeof(attributes)),
            ),
            f"mount_setattr {path}",
        )
    except OSError:
        os.close(tree)
        raise
    return tree


def set_mount_attributes(path: str, attributes: int) -> None:
    """Add MOUNT_ATTR_* to the mount at ``path`` and those below it. ENOSYS before Linux 5.12."""
    wanted = _MountAttr(attributes, 0, 0, 0)
    _check(
        _libc.syscall(
            NR_MOUNT_SETATTR,
            ctypes.c_int(AT_FDCWD),
            os.fsencode(path),
            ctypes.c_uint(AT_RECURSIVE),
            ctypes.byref(wanted),
            ctypes.c_size_t(ctypes.sizeof(wanted)),
        ),
        f"mount_setattr {path}",
    )


def attach_tree(tree: int, target: str) -> None:
    _check(
        _libc.syscall(
            NR_MOVE_MOUNT,
            ctypes.c_int(tree),
            b"",
            ctypes.c_int(AT_FDCWD),
            os.fsencode(target),
            ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH),
        ),
        f"move_mount {target}",
    )


def effective_capabilities() -> int:
    """CapEff of this process as a bit mask (proc(5))."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def in_initial_user_namespace() -> bool:
    """Whether ids map one to one (user_namespaces(7)): nothing else tells from the inside."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as table:
            return table.read().split() == ["0", "0", "4294967295"]
    except OSError:
        return True
