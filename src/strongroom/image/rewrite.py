"""``syscall`` becomes a jump into the LibOS, where a disassembler shows that nothing can notice.

Inside an enclave ``syscall`` raises #UD; the LibOS serves it from there, slowly. A site that is rewritten at build
goes ``jmp thunk`` (5 bytes, so that one neighbour or more move into the thunk too); the thunk loads RCX with where to
go on, as the instruction does, and jumps to ``libos_syscall_entry``. A jump, since a call would write the red zone.

A site is kept as it is where any of this holds: the bytes 0F 05 are not an instruction of a function whose bounds are
known; control could enter between the displaced instructions (direct branches of the whole object, symbols, other
functions' starts, and jump tables, landing pads); a neighbour cannot move (relative addressing, control flow); it is
the signal trampoline, whose bytes unwinders look for. Each site is recorded with its outcome and reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import capstone
from capstone import CS_ARCH_X86, CS_MODE_64, Cs, CsInsn
from capstone.x86 import (
    X86_GRP_BRANCH_RELATIVE,
    X86_GRP_CALL,
    X86_GRP_INT,
    X86_GRP_IRET,
    X86_GRP_JUMP,
    X86_GRP_PRIVILEGE,
    X86_GRP_RET,
    X86_INS_SYSCALL,
    X86_OP_IMM,
    X86_OP_MEM,
    X86_OP_REG,
    X86_REG_RIP,
)

from strongroom.image.elf import Elf, Segment

ANALYSIS_VERSION = 1  # raise when `analyse` decides otherwise
SYSCALL = b"\x0f\x05"
JUMP_SIZE = 5
THUNK_ALIGN = 16
REWRITTEN, KEPT, NOT_CODE = "rewritten", "kept", "not an instruction"
_MOST_NEIGHBOURS = 4
_FLOW = frozenset(
    (
        X86_GRP_JUMP,
        X86_GRP_CALL,
        X86_GRP_RET,
        X86_GRP_INT,
        X86_GRP_IRET,
        X86_GRP_PRIVILEGE,
        X86_GRP_BRANCH_RELATIVE,
    )
)
# Direct branches with a 32-bit displacement (SDM vol. 2: CALL E8, JMP E9, Jcc 0F 80..8F) and with 8 bits (JMP EB, Jcc
# 70..7F, LOOPcc and JrCXZ E0..E3), found by their bytes at any offset: more than there are, never fewer.
_FAR_BRANCH = re.compile(rb"(?=([\xe8\xe9]|\x0f[\x80-\x8f]).{4})", re.DOTALL)
_NEAR_BRANCH = re.compile(rb"[\xeb\x70-\x7f\xe0-\xe3]")
_TRAMPOLINES = frozenset({b"\x48\xc7\xc0\x0f\x00\x00\x00\x0f\x05", b"\xb8\x0f\x00\x00\x00\x0f\x05"})


@dataclass(frozen=True)
class Decision:
    """What is to become of one place where 0F 05 stands; it depends on the file alone. Addresses are the file's own.

    ``start`` to ``end`` are displaced; ``before`` and ``after`` are the neighbours' bytes.
    """

    address: int
    function: str | None
    outcome: str
    reason: str = ""
    start: int = 0
    end: int = 0
    before: bytes = b""
    after: bytes = b""


@dataclass(frozen=True)
class Site:
    """What became of one place, for ``enclave.json``. ``offset`` is the file's own address."""

    object: str
    offset: int
    function: str | None
    outcome: str
    reason: str


class _Keep(Exception):
    """A site stays as it is; the text says why."""


class Rewriter:
    """Rewrites objects one after the other and collects their thunks for one region at ``thunk_base``."""

    def __init__(self, thunk_base: int, entry: int) -> None:
        self.thunks = bytearray()
        self.sites: list[Site] = []
        self._base = thunk_base
        self._entry = entry

    def rewrite(
        self, path: str, elf: Elf, base: int, text: dict[int, bytes], decisions: list[Decision]
    ) -> dict[int, bytes]:
        """The text (segment's vaddr -> content of its pages) with ``decisions`` carried out."""
        pages = {vaddr: bytearray(content) for vaddr, content in text.items()}
        for one in decisions:
            outcome, reason = one.outcome, one.reason
            if outcome == REWRITTEN:
                segment = next(part for part in elf.segments if part.vaddr in pages and part.holds(one.start))
                jump = self._place(one, base)
                if jump is None:
                    outcome, reason = KEPT, "the thunk is out of a jump's reach"
                else:
                    place = one.start - segment.first_page
                    pages[segment.vaddr][place : place + len(jump)] = jump
            self.sites.append(Site(path, one.address, one.function, outcome, reason))
        return {vaddr: bytes(content) for vaddr, content in pages.items()}

    def _place(self, one: Decision, base: int) -> bytes | None:
        """Add a thunk; returns what stands in place of the displaced bytes, or None where a jump does not reach."""
        thunk = self._base + len(self.thunks)
        code = self._thunk(thunk, one.before, one.after, base + one.end)
        jump = _relative(b"\xe9", base + one.start, thunk)
        if code is None or jump is None:
            return None
        self.thunks += code.ljust(-(-len(code) // THUNK_ALIGN) * THUNK_ALIGN, b"\xcc")
        return jump.ljust(one.end - one.start, b"\xcc")

    def _thunk(self, thunk: int, before: bytes, after: bytes, back: int) -> bytes | None:
        """Displaced neighbours before; RCX; jump to the LibOS, which goes on at RCX; neighbours after; jump back."""
        load = thunk + len(before)
        enter = load + 7
        # Without neighbours after it, the LibOS goes straight back to the program.
        go_on = enter + JUMP_SIZE if after else back
        lea = _relative(b"\x48\x8d\x0d", load, go_on)
        jump = _relative(b"\xe9", enter, self._entry)
        final = _relative(b"\xe9", enter + JUMP_SIZE + len(after), back) if after else b""
        if lea is None or jump is None or final is None:
            return None
        return before + lea + jump + after + final


def analyse(elf: Elf) -> list[Decision]:
    """What can become of every place in ``elf`` where the bytes of ``syscall`` stand, by address."""
    found: list[Decision] = []
    for segment in elf.segments:
        if not segment.executable:
            continue
        code = elf.data[segment.offset : segment.offset + segment.file_size]
        hits = [segment.vaddr + match.start() for match in re.finditer(re.escape(SYSCALL), code)]
        view = _Code(elf, segment, code)
        taken: list[tuple[int, int]] = []
        for address in hits:
            function = elf.function_name(address)
            try:
                window, at = view.window(address, taken)
            except _Keep as reason:
                outcome = NOT_CODE if str(reason) == NOT_CODE else KEPT
                found.append(Decision(address, function, outcome, "" if outcome == NOT_CODE else str(reason)))
                continue
            start, end = window[0].address, window[-1].address + window[-1].size
            taken.append((start, end))
            found.append(
                Decision(
                    address,
                    function,
                    REWRITTEN,
                    "",
                    start,
                    end,
                    b"".join(bytes(one.bytes) for one in window[:at]),
                    b"".join(bytes(one.bytes) for one in window[at + 1 :]),
                )
            )
    return found


def analyse_cached(elf: Elf, cache: Path) -> list[Decision]:
    """``analyse``, remembered in the folder ``cache`` by the file's content and the disassembler's version."""
    if SYSCALL not in elf.data:
        return []
    name = hashlib.sha256(elf.data).hexdigest()
    path = cache / f"{ANALYSIS_VERSION}-{capstone.__version__}-{name}.json"
    try:
        rows = json.loads(path.read_bytes())
        return [
            Decision(**(row | {key: bytes.fromhex(row[key]) for key in ("before", "after")})) for row in rows
        ]
    except (OSError, ValueError, TypeError, KeyError):
        pass  # not there yet, or not whole
    found = analyse(elf)
    rows = [asdict(one) | {"before": one.before.hex(), "after": one.after.hex()} for one in found]
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(rows), encoding="utf-8")
    os.replace(temporary, path)
    return found


def _relative(opcode: bytes, at: int, target: int) -> bytes | None:
    """An instruction whose last four bytes are a displacement, or None where it does not reach."""
    distance = target - (at + len(opcode) + 4)
    return opcode + struct.pack("<i", distance) if -(1 << 31) <= distance < 1 << 31 else None


class _Code:
    """One executable segment under the disassembler. Addresses are the file's own."""

    def __init__(self, elf: Elf, segment: Segment, code: bytes) -> None:
        self.elf = elf
        self.segment = segment
        self._code = code
        self._capstone = Cs(CS_ARCH_X86, CS_MODE_64)
        self._capstone.detail = True
        self._functions: dict[tuple[int, int], tuple[list[CsInsn], set[int], bool]] = {}

    def window(self, address: int, taken: list[tuple[int, int]]) -> tuple[list[CsInsn], int]:
        """The instructions to displace, the site among them at the returned index. Raises _Keep."""
        bounds = self.elf.function_bounds(address)
        if bounds is None:
            raise _Keep("the function's bounds are not known")
        start, end = bounds
        if start < self.segment.vaddr or end > self.segment.vaddr + len(self._code):
            raise _Keep("the function's bounds are not in the segment")
        instructions, targets, jumps_away = self._function(start, end)
        at = bisect_left([one.address for one in instructions], address)
        whole = bool(instructions) and instructions[-1].address + instructions[-1].size == end
        if at == len(instructions):
            raise _Keep("the function does not disassemble as far as here")
        one = instructions[at]
        if one.address != address or one.id != X86_INS_SYSCALL:
            raise _Keep(NOT_CODE)
        if one.size != len(SYSCALL):
            raise _Keep("the instruction has a prefix")
        if self._slice(address - 7, 9) in _TRAMPOLINES or self._slice(address - 5, 7) in _TRAMPOLINES:
            raise _Keep("unwinders know the signal trampoline by its bytes")
        if not whole:
            raise _Keep("the function does not disassemble to its end")
        reasons: list[str] = []
        for first, last in self._windows(at, len(instructions)):
            window = instructions[first : last + 1]
            if sum(part.size for part in window) < JUMP_SIZE:
                continue
            # Enough without its first or last neighbour: a smaller window was tried already.
            reason = self._refusal(window, at - first, targets, jumps_away, taken)
            if reason is None:
                return window, at - first
            reasons.append(reason)
        raise _Keep(reasons[0] if reasons else "the function is too small")

    @staticmethod
    def _windows(at: int, count: int) -> Iterator[tuple[int, int]]:
        """Neighbours before first (the LibOS then goes straight back), then after, then both."""
        for size in range(1, _MOST_NEIGHBOURS + 1):
            for before in range(size, -1, -1):
                if at - before >= 0 and at + size - before < count:
                    yield at - before, at + size - before

    def _refusal(
        self, window: list[CsInsn], at: int, targets: set[int], jumps_away: bool, taken: list[tuple[int, int]]
    ) -> str | None:
        start, end = window[0].address, window[-1].address + window[-1].size
        if any(start < two and one < end for one, two in taken):
            return "the neighbour is displaced already"
        for index, one in enumerate(window):
            if index == at:
                continue
            if one.id == X86_INS_SYSCALL or any(one.group(group) for group in _FLOW):
                return "a neighbour changes the flow of control"
            if any(part.type == X86_OP_MEM and part.mem.base == X86_REG_RIP for part in one.operands):
                return "a neighbour addresses relative to itself"
        interior = range(start + 1, end)
        if any(place in targets or place in self._far_targets for place in interior):
            return "a branch leads between the displaced instructions"
        if any(self._near_from_outside(place) for place in interior):
            return "a branch of a neighbouring function may lead between the displaced instructions"
        if any(place in self._named for place in interior):
            return "a symbol names a place between the displaced instructions"
        if jumps_away:
            return "the function has a jump table or landing pads"
        return None

    def _function(self, start: int, end: int) -> tuple[list[CsInsn], set[int], bool]:
        """Instructions, direct branch targets, and whether control may also come by a table."""
        known = self._functions.get((start, end))
        if known is None:
            instructions = list(self._capstone.disasm(self._slice(start, end - start), start))
            targets: set[int] = set()
            tables = self.elf.has_landing_pads(start)
            for one in instructions:
                if one.group(X86_GRP_JUMP) or one.group(X86_GRP_CALL) or one.group(X86_GRP_BRANCH_RELATIVE):
                    for part in one.operands:
                        if part.type == X86_OP_IMM:
                            targets.add(part.imm)
                        elif one.group(X86_GRP_JUMP) and (
                            part.type == X86_OP_REG
                            or (part.type == X86_OP_MEM and part.mem.base != X86_REG_RIP)
                        ):
                            tables = True
            known = self._functions[start, end] = instructions, targets, tables
        return known

    def _slice(self, address: int, size: int) -> bytes:
        start = address - self.segment.vaddr
        return self._code[max(start, 0) : max(start + size, 0)]

    @cached_property
    def _far_targets(self) -> set[int]:
        found = set()
        base, low, high = self.segment.vaddr, self.segment.vaddr, self.segment.vaddr + len(self._code)
        for match in _FAR_BRANCH.finditer(self._code):
            after = match.end(1) + 4
            target = base + after + int.from_bytes(self._code[after - 4 : after], "little", signed=True)
            if low <= target < high:
                found.add(target)
        return found

    def _near_from_outside(self, target: int) -> bool:
        """Whether bytes outside the target's function, read as a short branch, lead to ``target``."""
        bounds = self.elf.function_bounds(target)
        start, end = bounds if bounds else (target, target)
        low = max(target - 129, self.segment.vaddr)
        for match in _NEAR_BRANCH.finditer(self._slice(low, 129 + 128)):
            at = low + match.start()
            if start <= at < end:
                continue  # the disassembly knows these
            displacement = self._slice(at + 1, 1)
            if displacement and at + 2 + int.from_bytes(displacement, "little", signed=True) == target:
                return True
        return False

    @cached_property
    def _named(self) -> set[int]:
        return {symbol.address for symbol in self.elf.symbols} | set(self.elf.function_starts)
