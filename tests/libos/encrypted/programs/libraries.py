"""What Python's own libraries do with files, in the folder given: one line each, the same inside and outside."""

import csv
import glob
import gzip
import hashlib
import logging.handlers
import os
import pathlib
import shelve
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import threading
import zipfile

ROOT = pathlib.Path(sys.argv[1])


def check_sqlite():
    words = "select count(*), sum(a), count(distinct b) from t"
    with sqlite3.connect(ROOT / "t.db") as base:
        base.execute("create table t(a, b)")
        base.executemany("insert into t values(?, ?)", ((i, str(i) * 50) for i in range(3000)))
    base.execute("pragma journal_mode=truncate")
    for number in range(5):
        with base:
            base.execute("update t set b = 'x' where a % 7 = ?", (number,))
    base.close()
    again = sqlite3.connect(ROOT / "t.db")
    found = again.execute(words).fetchone(), again.execute("pragma integrity_check").fetchone()
    again.close()
    return found


def check_shelve():
    with shelve.open(str(ROOT / "s"), flag="n") as base:
        for number in range(40):
            base[str(number)] = list(range(number))
    with shelve.open(str(ROOT / "s")) as base:
        return sum(len(base[key]) for key in base)


def check_tempfile():
    with tempfile.NamedTemporaryFile(dir=ROOT, delete=False) as file:
        file.write(b"abc")
    with tempfile.TemporaryFile(dir=ROOT) as other:
        other.write(b"q" * 300_000)
        other.seek(0)
        size = len(other.read())
    folder = tempfile.mkdtemp(dir=ROOT)
    pathlib.Path(folder, "x").write_text("y")
    shutil.rmtree(folder)
    os.unlink(file.name)
    return size, os.path.exists(folder), os.path.exists(file.name)


def check_shutil():
    (ROOT / "tree" / "a" / "b").mkdir(parents=True)
    for number in range(8):
        (ROOT / "tree" / "a" / f"f{number}").write_bytes(bytes([number]) * number * 5000)
    (ROOT / "tree" / "a" / "b" / "g").write_text("g")
    shutil.copytree(ROOT / "tree", ROOT / "tree2")
    shutil.move(ROOT / "tree2", ROOT / "tree3")  # a folder: EXDEV inside, so it copies
    shutil.copy2(ROOT / "tree" / "a" / "f3", ROOT / "tree" / "c")
    names = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tree3").rglob("*"))
    return names, (ROOT / "tree2").exists(), (ROOT / "tree" / "c").stat().st_size


def check_archives():
    with zipfile.ZipFile(ROOT / "z.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(5):
            file.writestr(f"n{number}", b"data" * number * 1000)
    with zipfile.ZipFile(ROOT / "z.zip", "a") as file:
        file.writestr("more", "m")
    with zipfile.ZipFile(ROOT / "z.zip") as file:
        sizes = file.testzip(), [one.file_size for one in file.infolist()]
    with tarfile.open(ROOT / "t.tgz", "w:gz") as file:
        file.add(ROOT / "tree", "tree")
    with tarfile.open(ROOT / "t.tgz") as file:
        names = sorted(file.getnames())
        file.extractall(ROOT / "out", **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return sizes, names, (ROOT / "out" / "tree" / "a" / "f7").stat().st_size


def check_logging():
    handler = logging.handlers.RotatingFileHandler(ROOT / "l.log", maxBytes=500, backupCount=2)
    logger = logging.getLogger("x")
    logger.propagate = False
    logger.addHandler(handler)
    logger.setLevel(1)
    for number in range(60):
        logger.info("line %d", number)
    handler.close()
    return [(path.name, path.stat().st_size) for path in sorted(ROOT.glob("l.log*"))]


def check_threads():
    def work(number):
        path = ROOT / f"thread{number}"
        for _ in range(10):
            with open(path, "ab") as file:
                file.write(bytes([number]) * 7001)
        with open(path, "r+b") as file:
            file.seek(100)
            file.write(b"!")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [hashlib.sha256((ROOT / f"thread{number}").read_bytes()).hexdigest() for number in range(3)]


def check_text():
    with open(ROOT / "c.csv", "w", newline="") as file:
        csv.writer(file).writerows([i, i * i] for i in range(1000))
    with open(ROOT / "c.csv") as file:
        total = sum(int(row[1]) for row in csv.reader(file))
    with open(ROOT / "c.csv", "a+") as file:
        file.write("z")
        file.seek(0)
        size, at = len(file.read()), file.tell()
    with gzip.open(ROOT / "g.gz", "wt") as file:
        file.write("abc" * 1000)
    with gzip.open(ROOT / "g.gz", "rt") as file:
        return total, size, at, len(file.read())


def check_paths():
    path = ROOT / "p"
    path.write_text("1")
    path.touch()
    path.chmod(0o600)
    path.rename(ROOT / "q").replace(ROOT / "r")
    os.utime(ROOT / "r", (1000, 2000))
    when = (ROOT / "r").stat().st_mtime
    os.truncate(ROOT / "r", 5)
    return (ROOT / "r").read_bytes(), when, os.access(ROOT / "r", os.R_OK | os.W_OK), path.exists()


def check_listing():
    folder = ROOT / "many"
    folder.mkdir()
    for number in range(150):
        (folder / f"file{number:04}").write_bytes(b"x" * number)
    entries = list(os.scandir(folder))
    return len(entries), sum(entry.stat().st_size for entry in entries), len(glob.glob(str(folder / "*9")))


def check_large():
    path = ROOT / "large"
    with open(path, "wb") as file:
        for number in range(20):
            file.write(bytes([number]) * 200_000)
    with open(path, "r+b") as file:
        file.seek(1_234_567)
        file.write(b"hello")
        os.fsync(file.fileno())
        file.seek(0, 2)
        file.write(b"end")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 18):
            digest.update(block)
    return digest.hexdigest(), path.stat().st_size


def main():
    if os.path.exists("/dev/attestation"):
        with open("/dev/attestation/keys/data", "w") as file:
            file.write("07" * 32)
    ROOT.mkdir(exist_ok=True)
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            try:
                print(name, check(), flush=True)
            except Exception as error:
                print(name, "FAILED", repr(error), flush=True)


main()
