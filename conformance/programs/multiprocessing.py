# /// script
# dependencies = []
# [tool.strongroom]
# memory = "64M"
# threads = 8
# [tool.conformance]
# differs = "an enclave cannot be copied: use threads"
# ///
"""Other processes: refused, and said so; threads in their place."""

import multiprocessing
import subprocess
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.pool import ThreadPool


def attempt(name, what):
    try:
        print(name, what())
    except Exception as error:
        print(name, type(error).__name__, error)


def by_pool(method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(abs, [-1, 2])


def by_executor():
    with ProcessPoolExecutor(2) as pool:
        return list(pool.map(abs, [-1, 2]))


if __name__ == "__main__":
    attempt("fork", lambda: by_pool("fork"))
    attempt("spawn", lambda: by_pool("spawn"))
    attempt("executor", by_executor)
    attempt("subprocess", lambda: subprocess.run(["true"], check=True).returncode)
    attempt("threads", lambda: ThreadPool(2).map(abs, [-1, 2]))
