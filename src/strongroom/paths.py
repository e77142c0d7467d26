"""Where things are: the user's data folder, sockets, and the native parts.

One rule for everybody, root included: ``$STRONGROOM_HOME``, else ``$XDG_DATA_HOME/strongroom``, else
``~/.local/share/strongroom`` (XDG Base Directory Specification 0.8).
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from strongroom.errors import StrongroomError

# sockaddr_un.sun_path holds 108 bytes with its NUL (unix(7)).
SUN_PATH_SIZE = 108
NATIVE_NAMES = frozenset(
    {"libstrongroom-processor.elf", "strongroom-inject", "libos.elf", "strongroom-loader"}
)


def home() -> Path:
    """The data folder's path (absolute; it need not exist yet)."""
    chosen = os.environ.get("STRONGROOM_HOME")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    base = os.environ.get("XDG_DATA_HOME")
    if base and os.path.isabs(base):
        return Path(base) / "strongroom"
    return Path(os.path.abspath(os.path.expanduser("~/.local/share"))) / "strongroom"


def private_directory(path: Path) -> Path:
    """Make ``path`` (mode 0700) where it is missing and refuse one that others own or may write to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            pass
        facts = os.lstat(path)
    except OSError as error:
        raise StrongroomError(
            f"cannot make {path} ({error.strerror})", "set STRONGROOM_HOME to a folder of yours"
        ) from error
    if not stat.S_ISDIR(facts.st_mode):
        raise StrongroomError(f"{path} is not a folder", "set STRONGROOM_HOME to a folder of yours")
    if facts.st_uid != os.geteuid():
        raise StrongroomError(f"{path} belongs to another user", "set STRONGROOM_HOME to a folder of yours")
    if facts.st_mode & 0o077:
        os.chmod(path, 0o700)
    return path


def ensure_home() -> Path:
    """The data folder, made (0700) where it is missing. Raises StrongroomError."""
    return private_directory(home())


def socket_directory(longest_name: int = 32) -> Path:
    """A folder of ours (0700) whose sockets' paths fit ``sun_path``.

    This is STRONGROOM_HOME itself; where that is too long, a short folder whose name is derived from it.
    """
    own = ensure_home()
    if len(os.fsencode(own)) + 1 + longest_name < SUN_PATH_SIZE:
        return own
    tag = hashlib.sha256(os.fsencode(own)).hexdigest()[:16]
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    if len(os.fsencode(base)) > 40:
        base = "/tmp"
    return private_directory(Path(base) / f"strongroom-{os.geteuid()}-{tag}")


def native_directory() -> Path:
    """The folder of the C parts: ``$STRONGROOM_NATIVE``, the wheel's ``_native``, or the tree's ``build/native``."""
    chosen = os.environ.get("STRONGROOM_NATIVE")
    if chosen:
        return Path(os.path.abspath(chosen))
    package = Path(__file__).resolve().parent
    installed = package / "_native"
    if installed.is_dir():
        return installed
    return package.parent.parent / "build" / "native"


def native(name: str) -> Path:
    """The path of one C part (a name of NATIVE_NAMES). Raises StrongroomError where it is not built."""
    path = native_directory() / name
    if not path.is_file():
        raise StrongroomError(f"{name} is not built (looked in {path.parent})", "run `make`")
    return path
