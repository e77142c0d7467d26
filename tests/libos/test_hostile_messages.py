"""A host that lies about messages: lengths, ancillary records, descriptors. Each lie beside the honest answer."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom import paths
from support.guests import Guests
from support.interpreter_image import need_runtime

LOADER = Path(__file__).parents[2] / "libos" / "loader"
# Called after each system call that the LibOS asked for; the mode is the program's last argument.
HOSTILE = r"""
#include <sys/socket.h>
static int g_mode;
static void hostile(struct ocall_block *b)
{
    if (b->number == SYS_recvmsg && b->ret >= 0 && g_mode <= 6) {
        struct msghdr *m = (struct msghdr *)b->arg[1];
        struct cmsghdr *c = (struct cmsghdr *)m->msg_control;
        switch (g_mode) {
        case 1: m->msg_controllen = 1 << 20; break;
        case 2: c->cmsg_len = 0; break;
        case 3: c->cmsg_len = m->msg_controllen + 1; break;
        case 4: c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; break;
        case 5: m->msg_namelen = 1 << 16; break;
        case 6: b->ret = 1 << 20; break;
        }
    }
    if (b->number == SYS_recvfrom && g_mode == 7) b->ret = 1 << 20;
    if (b->number == SYS_getsockopt && g_mode == 8) *(uint32_t *)b->arg[4] = 1 << 20;
    if (b->number == SYS_sendto && g_mode == 9) b->ret = 1 << 20;
    if (b->number == SYS_getsockname && g_mode == 10) *(uint32_t *)b->arg[2] = 1 << 20;
    if (b->number == SYS_socket && g_mode == 11) b->ret = 1;
    if (b->number == SYS_recvfrom && g_mode == 12) b->ret = -5000;
    if (b->number == SYS_ioctl && b->arg[1] == 0x8933) /* SIOCGIFINDEX: the kernel leaves the rest as it came */
        for (int i = 0; i < 40; i++)
            if (b->data[i] == 0xaa) b->ret = -71;
    if (b->number == SYS_close && g_mode == 14) {
        if (b->ret) dprintf(2, "closed twice\n"); /* by then the number may be another thread's file */
        b->ret = -4;
    }
    if ((b->number == SYS_listen || b->number == SYS_shutdown) && g_mode == 13) b->ret = 7;
    if (b->number == SYS_setsockopt)
        for (uint64_t i = 0; i < b->arg[4]; i++)
            if (((uint8_t *)b->arg[3])[i] == 0xaa) b->ret = -71;
    if (b->number == SYS_sendto && b->arg[4])
        for (uint64_t i = 0; i < b->arg[5]; i++)
            if (((uint8_t *)b->arg[4])[i] == 0xaa) b->ret = -71;
    if (b->number == SYS_sendmsg) {
        const struct msghdr *m = (const struct msghdr *)b->arg[1];
        for (size_t i = 0; i < m->msg_namelen; i++)
            if (((uint8_t *)m->msg_name)[i] == 0xaa) b->ret = -71;
        for (size_t i = 0; i < m->msg_controllen; i++)
            if (((uint8_t *)m->msg_control)[i] == 0xaa) b->ret = -72;
    }
}
"""
HOOKS = {
    "static void serve(struct worker *w, struct ocall_block *b)\n": HOSTILE + "%s",
    "&g_pending : &g_never);\n": "%s        hostile(b);\n",
    "    worker_start(&g_worker[0]);\n": "    g_mode = o.rest_count ? atoi(o.rest[o.rest_count - 1]) : 0;\n%s",
}
PROGRAM = """
import ctypes, fcntl, json, socket, struct, sys
def attempt(what):
    try: return what()
    except OSError as error: return -error.errno
said = {}
def one():
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made = attempt(one)
if isinstance(made, int): print(json.dumps({"socket": made})); sys.exit()
made.bind(("127.0.0.1", 0))
def port(): return attempt(lambda: made.getsockname()[1])
while port() > 0 and 0xaa in struct.pack("!H", port()): # the mark of what must not leave
    made = one()
    made.bind(("127.0.0.1", 0))
made.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTTL if hasattr(socket, "IP_RECVTTL") else 12, 1)
said["name"] = attempt(lambda: made.getsockname()[0])
to = ("127.0.0.1", made.getsockname()[1]) if said["name"] == "127.0.0.1" else None
if to:
    said["sent"] = attempt(lambda: made.sendto(b"hello", to))
    def message():
        data, control, flags, source = made.recvmsg(100, 1000)
        return [data.decode(), [[level, kind] for level, kind, _ in control], source[0]]
    made.settimeout(5)
    said["message"] = attempt(message)
    if said["sent"] == 5: made.sendto(b"again", to)
    said["received"] = attempt(lambda: made.recvfrom(100)[0].decode()) if said["sent"] == 5 else None
    asked = b"lo" + bytes(1) + b"\\xaa" * 37
    said["index"] = attempt(lambda: fcntl.ioctl(made, 0x8933, asked)[16:20] == b"\\x01" + bytes(3))
    libc = ctypes.CDLL(None, use_errno=True)
    storage = struct.pack("=H2s4s", 2, struct.pack("!H", to[1]), bytes([127, 0, 0, 1])) + b"\\xaa" * 120
    said["address"] = libc.sendto(made.fileno(), b"x", 1, 0, storage, 128) or -ctypes.get_errno()
    hop = struct.pack("=QiiI", 20, 0, 2, 64) + b"\\xaa" * 4 # IP_TTL, and what lies in the gap behind it
    room, name = ctypes.create_string_buffer(hop, 24), ctypes.create_string_buffer(storage, 128)
    text = ctypes.create_string_buffer(b"y", 1)
    part = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(text), 1), 16)
    header = (ctypes.addressof(name), 128, 0, ctypes.addressof(part), 1, ctypes.addressof(room), 24, 0, 0)
    header = struct.pack("=QIIQQQQII", *header)
    said["gaps"] = libc.sendmsg(made.fileno(), header, 0)
    if said["gaps"] < 0: said["gaps"] = -ctypes.get_errno()
    def tell(level, option, value):
        return libc.setsockopt(made.fileno(), level, option, value, len(value)) and -ctypes.get_errno()
    gap, group = b"\\xaa" * 4, struct.pack("=H2s4s", 2, bytes(2), bytes([224, 0, 0, 200])) + b"\\xaa" * 120
    source = struct.pack("=H2s4s", 2, bytes(2), bytes([127, 0, 0, 1])) + b"\\xaa" * 120
    loopback = struct.pack("=I", 1)
    filter = bytes([224, 0, 0, 202, 127, 0, 0, 1]) + struct.pack("=II4s", 1, 1, bytes([127, 0, 0, 1]))
    join = struct.pack("=4s4s", bytes([224, 0, 0, 202]), bytes([127, 0, 0, 1]))
    said["options"] = [
        tell(1, 6, struct.pack("=i", 1) + gap * 9), # SO_BROADCAST, of a longer buffer
        tell(0, 33, b"\\1"), # IP_MULTICAST_TTL: one byte is as good as four
        tell(1, 13, struct.pack("=ii", 0, 3) + gap), # SO_LINGER
        tell(1, 20, struct.pack("=qq", 5, 0) + gap), # SO_RCVTIMEO
        tell(0, 42, loopback + gap + group), # MCAST_JOIN_GROUP
        tell(0, 45, loopback + gap + group), # MCAST_LEAVE_GROUP
        tell(0, 46, loopback + gap + group + source), # MCAST_JOIN_SOURCE_GROUP
        tell(0, 35, join), tell(0, 41, filter + gap * 3), # IP_ADD_MEMBERSHIP, IP_MSFILTER
        tell(0, 4, b"\\1" * 41), # IP_OPTIONS: too many
    ]
    stream = socket.socket()
    name = b"reno\\0" + gap * 9 # TCP_CONGESTION: as far as the NUL
    said["name of an algorithm"] = libc.setsockopt(stream.fileno(), 6, 13, name, len(name)) and -ctypes.get_errno()
    said["zero"] = [libc.listen(stream.fileno(), 1), libc.shutdown(stream.fileno(), 2)]
    said["option"] = attempt(lambda: made.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE))
print(json.dumps(said))
"""
HONEST = {
    "name": "127.0.0.1",
    "sent": 5,
    "message": ["hello", [[0, 2]], "127.0.0.1"],
    "received": "again",
    "index": True,  # -71: bytes of the program's struct ifreq behind the name have reached the host
    "address": 1,  # the same of the bytes behind a struct sockaddr_in
    "gaps": 1,  # -72: of those between records of ancillary data
    "options": [0, 0, 0, 0, 0, 0, 0, 0, 0, -errno.EINVAL],  # -71: bytes that no option has
    "name of an algorithm": 0,
    "zero": [0, 0],
    "option": 2,
}
EIO = -5
LIES = {
    1: {"message": EIO}, 2: {"message": EIO}, 3: {"message": EIO},
    4: {"message": ["hello", [], "127.0.0.1"]},  # a descriptor of the host's choice: taken out
    5: {"message": EIO}, 6: {"message": EIO}, 7: {"received": EIO}, 8: {"option": EIO},
    9: {"sent": EIO, "received": None, "address": -1}, 12: {"received": EIO},
    13: {"zero": [-1, -1]},
}  # fmt: skip


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guests, Path]]:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    need_runtime()
    native = tmp_path_factory.mktemp("native")
    for place in (native, *native.parents[:2]):
        place.chmod(0o755)
    for name in ("strongroom-inject", "libstrongroom-processor.elf", "libos.elf"):
        shutil.copy(paths.native_directory() / name, native)
    source = (LOADER / "loader.c").read_text()
    for place, text in HOOKS.items():
        assert source.count(place) == 1, place
        source = source.replace(place, text.replace("%s", place))
    (native / "loader.c").write_text(source)
    others = [str(file) for file in LOADER.glob("*.c") if file.name != "loader.c"]
    subprocess.run(
        ["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-static-pie", "-fPIE", "-pthread",
         f"-I{LOADER.parent}/include", f"-I{LOADER}", "-o", str(native / "strongroom-loader"), str(native / "loader.c"),
         *others],
        check=True, timeout=60,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="sr-lying-") as parent:
        guests = Guests(Path(parent) / "h", STRONGROOM_NATIVE=str(native))
        try:
            guests.start()
            manifest = (
                '[enclave]\nmain = "python3"\nargs = true\nmemory = "24M"\nthreads = 2\nnetwork = true\n'
            )
            yield guests, guests.build("lying", {"p.py": PROGRAM}, manifest)
        finally:
            guests.stop()


def said(lying: tuple[Guests, Path], mode: int) -> dict[str, object]:
    guests, project = lying
    done = guests.run(project, "/app/p.py", str(mode), timeout=60)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_honest(lying: tuple[Guests, Path]) -> None:
    assert said(lying, 0) == HONEST


@pytest.mark.parametrize("mode", LIES)
def test_lie(lying: tuple[Guests, Path], mode: int) -> None:
    expected = {**HONEST, **LIES[mode]}
    if mode == 9:
        expected["message"] = "any"
    found = said(lying, mode)
    if mode == 9:
        found["message"] = "any"
    assert found == expected


def test_a_name_that_is_too_long(lying: tuple[Guests, Path]) -> None:
    assert said(lying, 10) == {"name": EIO}


def test_a_descriptor_that_is_in_use(lying: tuple[Guests, Path]) -> None:
    """Standard output's number as that of a new socket."""
    assert said(lying, 11) == {"socket": EIO}


def test_an_interrupted_close_is_over(lying: tuple[Guests, Path]) -> None:
    """Linux gives the number up even so; by a second close another thread's new file would go."""
    guests, project = lying
    done = guests.run(project, "/app/p.py", "14", timeout=60)
    assert (done.returncode, json.loads(done.stdout)) == (0, HONEST), done.stderr
    assert "closed twice" not in done.stderr
