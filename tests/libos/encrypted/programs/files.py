"""Writes and reads files, and says how it went: one line a file. Usage: files.py VERB FOLDER NAME…

write FOLDER SIZE SEED NAME…    bytes of a generator of random numbers
change FOLDER AT SIZE NAME…     in place
read FOLDER NAME…               size by stat, then content
wait FOLDER NAME…               read, a line from standard input, read again
"""

import errno
import hashlib
import os
import random
import sys


def attempt(action, *words):
    try:
        return action(*words)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def content(path):
    with open(path, "rb") as file:
        data = file.read()
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def read(folder, names):
    for name in names or sorted(os.listdir(folder)):
        path = f"{folder}/{name}"
        print(name, attempt(os.path.getsize, path), attempt(content, path), flush=True)


def write(folder, size, seed, names):
    dice = random.Random(seed)
    for name in names:
        os.makedirs(os.path.dirname(f"{folder}/{name}"), exist_ok=True)
        with open(f"{folder}/{name}", "wb") as file:
            file.write(dice.randbytes(size))
    print("written", len(names), flush=True)


def main():
    verb, folder, *rest = sys.argv[1:]
    if os.path.exists("/dev/attestation/keys/data"):
        with open("/dev/attestation/keys/data", "w") as file:
            file.write("07" * 32)
    if verb == "write":
        print(attempt(write, folder, int(rest[0]), int(rest[1]), rest[2:]))
    elif verb == "change":
        for name in rest[2:]:
            with open(f"{folder}/{name}", "r+b") as file:
                file.seek(int(rest[0]))
                file.write(b"\x5a" * int(rest[1]))
    elif verb == "read":
        read(folder, rest)
    elif verb == "wait":
        read(folder, rest)
        sys.stdin.readline()
        read(folder, rest)


main()
