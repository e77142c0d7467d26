"""A random sequence of file operations in a folder, and what each gave: one line each, the same inside and outside.

Usage: operations.py ROOT STEPS SEED…; each seed has a folder below ROOT. `walk` for STEPS lists what is there.
"""

import errno
import hashlib
import mmap
import os
import random
import sys

NAMES = ("a", "b", "c", "d1", "d1/a", "d1/b", "d2", "d2/a", "none/a")
FILES = ("a", "b", "c", "d1/a", "d1/b", "d2/a")
FLAGS = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
MORE = (
    0,
    0,
    os.O_CREAT,
    os.O_CREAT | os.O_TRUNC,
    os.O_CREAT | os.O_EXCL,
    os.O_TRUNC,
    os.O_CREAT | os.O_APPEND,
)
KEY = "/dev/attestation/keys/data"


def told(data: bytes) -> str:
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:16]}"


class Runner:
    def __init__(self, root: str, seed: int) -> None:
        self.root = root
        self.dice = random.Random(seed)
        self.open: list[int] = []

    def path(self, names: tuple[str, ...] = NAMES) -> str:
        return f"{self.root}/{self.dice.choice(names)}"

    def descriptor(self) -> int:
        return self.dice.choice(self.open) if self.open else 999

    def size(self) -> int:
        top = self.dice.choice((10, 200, 5000, 40_000, 200_000))
        return self.dice.randrange(top)

    def step(self) -> str:
        ways = [
            self.opens,
            self.closes,
            self.writes,
            self.writes,
            self.pwrites,
            self.reads,
            self.preads,
            self.seeks,
        ]
        ways += [
            self.truncates,
            self.stats,
            self.fstats,
            self.renames,
            self.unlinks,
            self.mkdirs,
            self.rmdirs,
        ]
        ways += [self.lists, self.syncs, self.maps, self.whole]
        way = self.dice.choice(ways)
        try:
            return f"{way.__name__} {way()}"
        except OSError as error:
            return f"{way.__name__} {errno.errorcode[error.errno or 0]}"

    def opens(self) -> str:
        path, flags = self.path(), self.dice.choice(FLAGS) | self.dice.choice(MORE)
        if len(self.open) > 5:
            return "enough"
        self.open.append(os.open(path, flags, 0o644))
        return "ok"

    def closes(self) -> str:
        number = self.descriptor()
        if number in self.open:
            self.open.remove(number)
        os.close(number)
        return "ok"

    def writes(self) -> int:
        return os.write(self.descriptor(), self.dice.randbytes(self.size()))

    def pwrites(self) -> int:
        number, data, at = self.descriptor(), self.dice.randbytes(self.size()), self.size()
        return os.pwrite(number, data, at)

    def reads(self) -> str:
        return told(os.read(self.descriptor(), self.size()))

    def preads(self) -> str:
        number, size = self.descriptor(), self.size()
        return told(os.pread(number, size, self.size()))

    def seeks(self) -> int:
        number, how = self.descriptor(), self.dice.choice((os.SEEK_SET, os.SEEK_CUR, os.SEEK_END))
        to = self.size() - 1000
        if number in self.open and os.fstat(number).st_mode >> 12 == 4:
            return 0  # what a folder answers differs between file systems
        return os.lseek(number, to, how)

    def truncates(self) -> str:
        number, size = self.descriptor(), self.size()
        os.ftruncate(number, size)
        return "ok"

    def stats(self) -> str:
        found = os.stat(self.path())
        return f"{found.st_mode >> 12} {found.st_size if found.st_mode >> 12 == 8 else ''}"

    def fstats(self) -> str:
        found = os.fstat(self.descriptor())
        return f"{found.st_mode >> 12} {found.st_size if found.st_mode >> 12 == 8 else ''}"

    def renames(self) -> str:
        old, new = self.path(FILES), self.path()
        if os.path.isdir(old):  # EXDEV inside, see docs/encrypted-files.md
            return "a folder"
        os.rename(old, new)
        return "ok"

    def unlinks(self) -> str:
        os.unlink(self.path())
        return "ok"

    def mkdirs(self) -> str:
        os.mkdir(self.path())
        return "ok"

    def rmdirs(self) -> str:
        os.rmdir(self.path())
        return "ok"

    def lists(self) -> str:
        path = self.dice.choice((self.root, self.path()))
        found = []
        with os.scandir(path) as entries:
            for entry in entries:
                found.append(f"{entry.name}{'/' if entry.is_dir() else ''}")
        return " ".join(sorted(found))

    def syncs(self) -> str:
        os.fsync(self.descriptor())
        return "ok"

    def maps(self) -> str:
        with mmap.mmap(self.descriptor(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as data:
            return told(data[:])

    def whole(self) -> str:
        with open(self.path(FILES), "rb") as file:
            return told(file.read())


def walk(root: str) -> None:
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            path = f"{folder}/{name}"
            with open(path, "rb") as file:
                data = file.read()
            print(os.path.relpath(path, root), told(data), len(data) == os.path.getsize(path))


def main() -> None:
    root, steps, seeds = sys.argv[1], sys.argv[2], sys.argv[3:]
    if os.path.exists("/dev/attestation"):
        with open(KEY, "w") as file:
            file.write("07" * 32)
    if steps == "walk":
        walk(root)
        return
    for seed in seeds:
        os.makedirs(f"{root}/{seed}", exist_ok=True)
        runner = Runner(f"{root}/{seed}", int(seed))
        for number in range(int(steps)):
            try:
                print(seed, number, runner.step(), flush=False)
            except ValueError as error:  # mmap of nothing
                print(seed, number, "ValueError", error)
        for number in runner.open:
            os.close(number)
    walk(root)


main()
