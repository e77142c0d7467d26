"""The ioctls, mmap and mprotect of /dev/sgx_enclave, a check at a time, with Linux's errnos: facts of the kernel's
arch/x86/kernel/cpu/sgx/{ioctl,encl,driver}.c, and of mm/mmap.c for what comes before the driver."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import images
import pytest
from native_machine import Machine
from steps import steps
from test_edmm import FRESH, MODIFIED, TCS, TRIM, told, wide

from strongroom.image.sgxs import Writer
from strongroom.image.sigstruct import Sigstruct, sign, template
from strongroom.isa.flags import Attributes
from support.package_server import package_server

__all__ = ["wide"]
PAGE = 0x1000
RDWR, RDONLY, WRONLY = 2, 0, 1
CREATED = ("open 2", "create")
ADDED = (*CREATED, "add 1000 2000 1")
SHARED, PRIVATE, FIXED, VALIDATE, NOREPLACE = 1, 2, 0x10, 3, 0x100000
ONES = "0x" + "f" * 16


def secs(offset: int, size: int, value: int) -> str:
    return f"secs {offset:x} {size:x} {value:x}"


def says(machine: Machine, before: tuple[str, ...], *expected: tuple[str, str]) -> None:
    """The steps of ``before`` succeed, then each step says what it is to say."""
    said = steps(machine, *before, *(step for step, _ in expected))
    assert [line.split()[0] for line in said[: -len(expected)]] == ["0"] * (len(said) - len(expected)), said
    assert list(zip((step for step, _ in expected), said[-len(expected) :], strict=True)) == list(expected)


# ---- CREATE ----


@pytest.mark.parametrize(
    ("change", "errno"),
    [
        (secs(0, 8, 0), "EINVAL"),
        (secs(0, 8, 3 * PAGE), "EINVAL"),
        (secs(0, 8, PAGE), "EIO"),  # the rest is ECREATE's
        (secs(0, 8, 1 << 47), "EIO"),
        (secs(8, 8, PAGE), "EIO"),  # BASEADDR is not a multiple of SIZE
        (secs(8, 8, 1 << 47), "EIO"),
        (secs(16, 4, 0), "EIO"),
        (secs(20, 4, 2), "EIO"),
        (secs(24, 1, 1), "EIO"),
        (secs(47, 1, 1), "EIO"),
        (secs(48, 8, 0), "EIO"),  # a 32-bit enclave: docs/deviations.md
        (secs(48, 8, 4 | 1), "EIO"),  # INIT
        (secs(48, 8, 4 | 8), "EIO"),
        (secs(48, 8, 4 | 0x40), "EIO"),  # CET
        (secs(48, 8, 4 | 0x400), "EIO"),  # AEX-Notify
        (secs(48, 8, 4 | 1 << 40), "EIO"),
        (secs(56, 8, 0), "EIO"),
        (secs(56, 8, 1), "EIO"),
        (secs(56, 8, 3 | 1 << 9), "EIO"),
        (secs(56, 8, 3 | 1 << 62), "EIO"),
        (secs(56, 8, 3 | 0x20), "EIO"),  # AVX-512 in part
        (secs(96, 1, 1), "EIO"),  # reserved
        (secs(160, 1, 1), "EIO"),
        (secs(192, 1, 1), "EIO"),  # CONFIGID without KSS
        (secs(260, 2, 1), "EIO"),
        (secs(262, 1, 1), "EIO"),
        (secs(4095, 1, 1), "EIO"),
        (secs(64, 1, 1), "0"),  # MRENCLAVE, MRSIGNER, ISVPRODID, ISVSVN are the processor's to write
        (secs(128, 1, 1), "0"),
        (secs(256, 4, 1), "0"),
    ],
)  # fmt: skip
def test_create(machine: Machine, change: str, errno: str) -> None:
    said = steps(machine, "open 2", change, "create", "create")
    assert said == ["0", errno, "EINVAL" if errno == "0" else errno]


def test_a_refused_create_may_be_tried_again(machine: Machine) -> None:
    says(machine, ("open 2",), (secs(16, 4, 0) + "\ncreate", "EIO"), (secs(16, 4, 1) + "\ncreate", "0"))


# ---- ADD_PAGES ----

BEYOND = 2**64 - PAGE


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("add 1000 1000 1", "0 count 4096"),
        ("add 1000 3000 1", "0 count 12288"),
        ("add 1000 1000 fffffffffffffffe", "0 count 4096"),  # other flags are not looked at
        ("add 1000 0", "EINVAL count -1"),  # refused as it stands: nothing is written back
        ("add 1000 800", "EINVAL count -1"),
        ("add 1008 1000", "EINVAL count -1"),
        ("add 100000 1000", "EINVAL count -1"),
        ("add ff000 2000", "EINVAL count -1"),
        (f"add {BEYOND:x} 2000", "EINVAL count -1"),
        (f"add 1000 {BEYOND:x}", "EINVAL count -1"),
        ("from 1008\nadd 1000 1000", "EINVAL count -1"),
        ("from 1000\nadd 1000 1000", "EFAULT count 0"),  # tried: written back
        ("info 0 202\nadd 1000 1000", "EINVAL count -1"),  # W without R
        ("info 0 0\nadd 1000 1000", "EINVAL count -1"),  # SECS
        ("info 0 303\nadd 1000 1000", "EINVAL count -1"),  # VA
        ("info 0 400\nadd 1000 1000", "EINVAL count -1"),  # TRIM
        ("info 0 103\nadd 1000 1000", "EINVAL count -1"),  # a TCS has no permissions
        ("info 0 20b\nadd 1000 1000", "EINVAL count -1"),  # PENDING
        ("info 0 213\nadd 1000 1000", "EINVAL count -1"),  # MODIFIED
        ("info 0 223\nadd 1000 1000", "EINVAL count -1"),  # PR
        ("info 0 10203\nadd 1000 1000", "EINVAL count -1"),
        ("info 8 1\nadd 1000 1000", "EINVAL count -1"),
        ("info 38 1\nadd 1000 1000", "EINVAL count -1"),
        ("info 0 204\nadd 1000 1000", "0 count 4096"),  # X alone
        ("info 0 200\nadd 1000 1000", "0 count 4096"),  # nothing
        ("info 0 100\nadd 1000 1000", "0 count 4096"),
        ("info 0 100\nsource 48 1\nadd 1000 1000", "EIO count 0"),  # EADD: OCETSSA, PREVSSP, reserved
        ("info 0 100\nsource 50 1\nadd 1000 1000", "EIO count 0"),
        ("info 0 100\nsource 58 1\nadd 1000 1000", "EIO count 0"),
        ("info 0 100\nsource ff8 1\nadd 1000 1000", "EIO count 0"),
        (
            "info 0 100\nsource 8 ffffffff00000001\nadd 1000 1000",
            "0 count 4096",
        ),  # FLAGS are EENTER's to check
    ],
)
def test_add_pages(machine: Machine, step: str, said: str) -> None:
    says(machine, CREATED, (step, said))


def test_add_pages_stops_where_it_must(machine: Machine) -> None:
    """``count`` says how far it came, and what came is there."""
    says(
        machine, CREATED,
        ("add 4000 1000 1", "0 count 4096"), ("add 2000 4000 1", "EBUSY count 8192"),
        ("add 2000 1000", "EBUSY count 0"), ("add 5000 1000", "0 count 4096"),
    )  # fmt: skip


@pytest.mark.parametrize("number", ["a4", "1"])
def test_null_and_unknown(machine: Machine, number: str) -> None:
    says(machine, CREATED, (f"ioctl {33:x} 0", "ENOTTY"))
    for known in (1, 2, 3):  # ADD_PAGES is _IOWR: by device.c's own call above
        said = "EFAULT" if known != 1 else "ENOTTY"
        says(machine, CREATED, (f"ioctl {known:x} 0", said))


# ---- order ----


def test_out_of_order(machine: Machine) -> None:
    says(
        machine,
        ("open 2",),
        ("add 1000 1000", "EINVAL count -1"),
        ("init", "EINVAL"),
        ("provision 0", "EINVAL"),
    )


@pytest.fixture(scope="module")
def signed(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SIGSTRUCT of an enclave of 1 MiB whose two pages at 0x1000 are zero: that of ADDED."""
    folder = tmp_path_factory.mktemp("signed")
    with (folder / "e.sgxs").open("wb") as file:
        writer = Writer(file, 0x100000, 1)
        for offset in (0x1000, 0x2000):
            writer.add_page(offset, images.REG | images.R | images.W, bytes(PAGE))
        unsigned = template(writer.mrenclave(), product=1, svn=1)
    path = folder / "e.sig"
    path.write_bytes(sign(unsigned, machine.signer).pack())
    return path


def altered(machine: Machine, signed: Path, tmp_path: Path, **change: object) -> Path:
    """The same, with other fields, signed again."""
    path = tmp_path / "altered.sig"
    path.write_bytes(sign(replace(Sigstruct.unpack(signed.read_bytes()), **change), machine.signer).pack())  # type: ignore[arg-type]
    return path


def init(machine: Machine, signature: Path, *before: str, **more: object) -> str:
    return steps(machine, *before, *ADDED, "init", signature=signature, **more)[-1]  # type: ignore[arg-type]


def test_init(machine: Machine, signed: Path) -> None:
    said = steps(machine, *ADDED, "init", "init", "add 4000 1000", "create", "provision 0", signature=signed)
    assert said[3:] == ["0", "EINVAL", "EINVAL count -1", "EINVAL", "EINVAL"]


@pytest.mark.parametrize(
    ("change", "errno"),
    [
        ({"vendor": 0x8086}, "0"),
        ({"vendor": 1}, "EINVAL"),
        ({"attributes": 4 | 1}, "EINVAL"),  # bits that ECREATE never sets, and that the mask holds
        ({"attributes": 4 | 0x40}, "EINVAL"),
        ({"attributes": 4 | 0x80}, "EINVAL"),  # KSS, which this processor has not
        ({"attributes": 4 | 1 << 40}, "EINVAL"),
        ({"attributes": 4 | 0x40, "attributes_mask": 0xFFFFFFFFFFFFFFBF}, "0"),
        ({"attributes": 4 | 2}, "EPERM"),  # DEBUG: allowed, but not what SECS has
        ({"miscselect": 2, "misc_mask": 2}, "EINVAL"),
        ({"miscselect": 1, "misc_mask": 1}, "EPERM"),
        ({"xfrm": 3 | 1 << 62, "xfrm_mask": 1 << 62}, "EINVAL"),
        ({"xfrm": 7, "xfrm_mask": 7}, "EPERM"),
        ({"mrenclave": bytes(32)}, "EPERM"),
    ],
)
def test_init_by_the_signature(
    machine: Machine, signed: Path, tmp_path: Path, change: dict[str, int], errno: str
) -> None:
    assert init(machine, altered(machine, signed, tmp_path, **change)) == errno


@pytest.mark.parametrize("attributes", [4, 6])
def test_what_is_written_after_add_pages_is_not_measured(
    machine: Machine, signed: Path, tmp_path: Path, attributes: int
) -> None:
    """Mapped before: a DEBUG enclave's pages are open to the host at once, another's never."""
    writer = Writer(io.BytesIO(), 0x100000, 1)
    for offset, first in ((0x1000, 5), (0x2000, 6)):
        writer.add_page(offset, images.REG | images.R | images.W, first.to_bytes(PAGE, "little"))
    signature = altered(machine, signed, tmp_path, attributes=attributes, mrenclave=writer.mrenclave())
    filled = "source 0 5", "source 1000 6"
    before = *filled, secs(48, 8, attributes), *CREATED, f"map 1000 2000 3 {SHARED | FIXED:x}"
    said = steps(machine, *before, "add 1000 2000 1", "peek 2000 1", "init", signature=signature)
    assert said[-2:] == ["written", "0"]


def test_init_may_be_tried_again(machine: Machine, signed: Path) -> None:
    """Refused for a signature of another enclave (a page is missing), then the page comes."""
    said = steps(machine, *CREATED, "add 1000 1000 1", "init", "add 2000 1000 1", "init", signature=signed)
    assert said[3:] == ["EPERM", "0 count 4096", "0"]


@pytest.mark.parametrize(
    ("attribute", "errno"), [(Attributes.PROVISIONKEY, "EACCES"), (Attributes.EINITTOKEN_KEY, "EACCES")]
)
def test_init_of_what_needs_a_right(
    machine: Machine, signed: Path, tmp_path: Path, attribute: Attributes, errno: str
) -> None:
    wanted = int(Attributes.MODE64BIT | attribute)
    signature = altered(machine, signed, tmp_path, attributes=wanted)
    assert init(machine, signature, secs(48, 8, wanted)) == errno


def test_provisioning(machine: Machine, signed: Path, tmp_path: Path) -> None:
    """The right is the enclave's: CREATE starts without it, whatever was allowed to the descriptor before."""
    if not machine.server.package.fuses.provision_allowed:
        pytest.skip("this package's fuses allow no provisioning")
    wanted = int(Attributes.MODE64BIT | Attributes.PROVISIONKEY)
    signature = altered(machine, signed, tmp_path, attributes=wanted)
    first = (secs(48, 8, wanted), "provisioner", "open 2")
    good = steps(machine, *first, "create", "add 1000 2000 1", "provision ffff", "init", signature=signature)
    assert good == ["0", "0", "0", "0 count 8192", "0", "0"]
    early = steps(machine, *first, "provision ffff", "create", "add 1000 2000 1", "init", signature=signature)
    assert early == ["0", "0", "0", "0", "0 count 8192", "EACCES"]


def test_provisioning_wants_its_own_device(machine: Machine) -> None:
    says(
        machine,
        CREATED,
        ("provision 1", "EINVAL"),
        ("provision 63", "EINVAL"),
        ("provision ffffffff", "EINVAL"),
    )


def test_one_ioctl_at_a_time(machine: Machine) -> None:
    """ADD_PAGES of half a gigabyte, and others meanwhile: EBUSY."""
    with package_server(epc_pages=1 << 18) as server:
        size = 1 << 30
        said = steps(machine, secs(0, 8, size), *CREATED, f"beside 1000 {size // 2:x}", server=server)
        assert said == ["0", "0", "0 busy 1"]


def test_a_sweep_waits_for_an_ioctl(machine: Machine) -> None:
    """The last descriptor is closed while ADD_PAGES by it is under way, others are opened: the enclave goes after."""
    with package_server(epc_pages=1 << 18) as server:
        size = 1 << 30
        said = steps(
            machine, secs(0, 8, size), *CREATED, f"orphan 1000 {size // 2:x}", "open 2", server=server
        )
        assert said == ["0", "0", "0 others 1", "0"]
        server.join()
        assert server.epc.used_pages() == 0


# ---- SGX2's three: what a partial result and a refusal leave behind (test_edmm.py has their work) ----


def test_trimmed_pages_may_be_mapped_as_before(wide: Machine) -> None:
    """MODIFY_TYPES to TRIM leaves the most that may be mapped; to TCS makes it R and W."""
    told(
        wide, ("map 0 8 7", "0"), (f"accept 0 {FRESH:x}", "0"), (f"accept 1 {FRESH:x}", "0"),
        ("types 0 1 4", "0 count 0x1000 result 0"), ("map 0 1 7", "0"), (f"accept 0 {TRIM | MODIFIED:x}", "0"),
        ("types 1 1 1", "0 count 0x1000 result 0"), ("map 1 1 7", "EACCES"), ("map 1 1 3", "0"),
        ("types 2 0 4", "EINVAL count 0 result 0"), ("types 2 1 104", "EINVAL count 0 result 0"),
        ("types 2 1 0", "EINVAL count 0 result 0"), ("types 1 2 4", "EFAULT count 0 result 20"),
        (f"accept 1 {TCS | MODIFIED:x}", "fault vector 13 error 0 at 0"),
    )  # fmt: skip


# ---- mmap, mprotect, madvise ----


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (f"map 1000 1000 3 {SHARED | FIXED:x}", "0"),
        (f"map 1000 1000 3 {VALIDATE | FIXED:x}", "0"),
        (f"map 1000 1000 1 {PRIVATE | FIXED:x}", "EINVAL"),
        (f"map 1000 1000 1 {FIXED:x}", "EINVAL"),
        (f"map 1000 0 1 {SHARED | FIXED:x}", "EINVAL"),
        (f"map 1008 1000 1 {SHARED | FIXED:x}", "EINVAL"),
        (f"map 1000 1000 1 {SHARED | FIXED:x} 800", "EINVAL"),
        (f"map 1000 1000 1 {SHARED | FIXED:x} 5000", "0"),  # the file offset means nothing
        (f"map 1000 1000 5 {SHARED | FIXED:x}", "EACCES"),
        (f"map 1000 1000 7 {SHARED | FIXED:x}", "EACCES"),
        (f"map 1000 1000 0 {SHARED | FIXED:x}", "0"),
        (f"map 1000 {BEYOND:x} 1 {SHARED | FIXED:x}", "ENOMEM"),
        (f"map 0 {1 << 48:x} 1 {SHARED | FIXED:x}", "ENOMEM"),
        (f"map 3000 1000 7 {SHARED | FIXED:x}", "0"),  # no page there yet to say no
    ],
)
def test_mmap(machine: Machine, step: str, said: str) -> None:
    base = 0x7E00_0000_0000
    says(machine, (secs(8, 8, base), *ADDED), (step, said))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_mmap_below_what_a_user_may_map(machine: Machine) -> None:
    """vm.mmap_min_addr: EPERM, also where the page is there."""
    words = (*CREATED, "add 0 1000 1", f"map 0 1000 1 {SHARED | FIXED:x}")
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    assert steps(machine, *words, **nobody)[3:] == ["EPERM"]
    assert steps(machine, *words)[3:] == ["0"], "root may"


def test_mmap_without_an_address_and_beside_others(machine: Machine) -> None:
    base = 0x7E00_0000_0000
    says(
        machine, (secs(8, 8, base), *ADDED),
        (f"map 1000 1000 1 {SHARED | NOREPLACE:x}", "0"), (f"map 1000 1000 1 {SHARED | NOREPLACE:x}", "EEXIST"),
        (f"map 1000 1000 1 {SHARED:x}", "0"),  # elsewhere: before EINIT a mapping may lie outside ELRANGE
    )  # fmt: skip


def test_mmap_after_einit_is_within_elrange(machine: Machine, signed: Path) -> None:
    base = 0x7E00_0000_0000
    outside = f"map 100000 1000 1 {SHARED | FIXED:x}", f"map ff000 2000 1 {SHARED | FIXED:x}"
    inside = f"map 0 100000 1 {SHARED | FIXED:x}"
    said = steps(machine, secs(8, 8, base), *ADDED, *outside, "init", *outside, inside, signature=signed)
    assert said[3:] == ["0", "0", "0", "EACCES", "EACCES", "0"]


@pytest.mark.parametrize(
    ("mode", "asked", "said"),
    [
        (RDONLY, 1, "0"), (RDONLY, 3, "EACCES"), (RDWR, 3, "0"),
        (WRONLY, 1, "EACCES"), (WRONLY, 2, "EACCES"), (WRONLY, 0, "EACCES"),
    ],
)  # fmt: skip
def test_mmap_by_the_descriptors_mode(machine: Machine, mode: int, asked: int, said: str) -> None:
    base = 0x7E00_0000_0000
    ready = (secs(8, 8, base), f"open {mode:x}", "create", "add 1000 1000 1")
    says(machine, ready, (f"map 1000 1000 {asked:x} {SHARED | FIXED:x}", said))
    if mode == RDONLY:
        says(machine, (*ready, f"map 1000 1000 1 {SHARED | FIXED:x}"), ("protect 1000 1000 3", "EACCES"))


def test_mprotect(machine: Machine) -> None:
    base = 0x7E00_0000_0000
    says(
        machine, (secs(8, 8, base), *ADDED, f"map 1000 2000 1 {SHARED | FIXED:x}"),
        ("protect 1000 2000 3", "0"), ("protect 1000 1000 5", "EACCES"), ("protect 1000 1000 0", "0"),
        ("protect 1008 1000 1", "EINVAL"),
        ("protect 1000 0 1", "0"), ("protect 1000 8000 1", "ENOMEM"), ("protect 1800 800 1", "EINVAL"),
        ("unmap 1000 1000", "0"), ("protect 1000 1000 1", "ENOMEM"),
    )  # fmt: skip


def test_read_implies_exec_is_refused(machine: Machine) -> None:
    base = 0x7E00_0000_0000
    says(
        machine, (secs(8, 8, base), *ADDED, f"map 1000 1000 1 {SHARED | FIXED:x}", "personality 400000"),
        (f"map 1000 1000 1 {SHARED | FIXED:x}", "EACCES"), ("protect 1000 1000 1", "EACCES"),
    )  # fmt: skip


def test_madvise(machine: Machine) -> None:
    """What would take pages away, or hand them out, is refused; the rest is as with other mappings."""
    base = 0x7E00_0000_0000
    says(
        machine, (secs(8, 8, base), *ADDED, f"map 1000 1000 3 {SHARED | FIXED:x}"),
        *((f"advise 1000 1000 {advice:x}", "0") for advice in (0, 1, 2, 10, 16)),
        *((f"advise 1000 1000 {advice:x}", "EINVAL") for advice in (4, 8, 9, 11, 17, 12, 63, 64, 100)),
    )  # fmt: skip


def test_host_accesses(machine: Machine) -> None:
    """Ones where a page is; SIGBUS where none is and the mapping allows the access; SIGSEGV where it does not."""
    base = 0x7E00_0000_0000
    maps = f"map 1000 7000 3 {SHARED | FIXED:x}", f"map 8000 1000 1 {SHARED | FIXED:x}"
    bus, segv = "SIGBUS code 2", "SIGSEGV code 2"
    says(
        machine, (secs(8, 8, base), *ADDED, *maps),
        ("peek 1000", ONES), ("peek 1000 1", "written"), ("peek 4000", bus), ("peek 4000 1", bus),
        ("peek 8000", bus), ("peek 8000 1", segv), ("protect 4000 1000 0", "0"), ("peek 4000", segv),
    )  # fmt: skip
    says(machine, ("open 2", f"map 100000 1000 3 {SHARED | FIXED:x}"), ("peek 100000", bus))  # before ECREATE
