# /// script
# dependencies = ["joblib"]
# [tool.strongroom]
# memory = "96M"
# threads = 8
# ///
"""Threads of joblib and of concurrent.futures; a cache on disk. Processes cannot be made inside."""

import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed

from joblib import Memory, Parallel, delayed


def square(number: int) -> int:
    return number * number


print(sum(Parallel(n_jobs=4, backend="threading")(delayed(square)(n) for n in range(1000))))
with ThreadPoolExecutor(6) as pool:
    print(sum(one.result() for one in as_completed([pool.submit(square, n) for n in range(1000)])))
with tempfile.TemporaryDirectory() as folder:
    cached = Memory(folder, verbose=0).cache(square)
    print(cached(12), cached(12), cached.check_call_in_cache(12))
