"""Callbacks of ctypes and cffi inside: native code that calls Python, made at run time."""

from __future__ import annotations

import ctypes
import gc
import threading

import checks

libc = ctypes.CDLL(None)
COMPARE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
START = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)


def sort(values: list[int], function: object) -> list[int]:
    array = (ctypes.c_int * len(values))(*values)
    libc.qsort(array, len(values), ctypes.sizeof(ctypes.c_int), function)
    return list(array)


def check_qsort_with_a_python_comparison() -> None:
    values = [n * 7919 % 1009 for n in range(1000)]
    assert sort(values, COMPARE(lambda a, b: a[0] - b[0])) == sorted(values)


def check_many_callbacks_come_and_go() -> None:
    for round_ in range(5):
        made = [ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x, n=n: x + n) for n in range(300)]
        assert [one(round_) for one in made] == [n + round_ for n in range(300)]
        del made
        gc.collect()


def check_callbacks_in_threads() -> None:
    results: list[bool] = []

    def work(seed: int) -> None:
        values = [n * seed % 997 for n in range(300)]
        for _ in range(5):
            results.append(sort(values, COMPARE(lambda a, b: a[0] - b[0])) == sorted(values))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (31, 37, 41)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert results == [True] * 15


def check_a_thread_of_libc_calls_back() -> None:
    seen: list[int] = []

    def start(argument: int) -> int:
        seen.append(argument)
        return 0

    callback = START(start)
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, callback, ctypes.c_void_p(77)) == 0
    assert libc.pthread_join(thread, None) == 0
    assert seen == [77]


def check_callbacks_of_cffi() -> None:
    import cffi

    ffi = cffi.FFI()
    ffi.cdef("void qsort(void *, size_t, size_t, int (*)(const void *, const void *));")

    @ffi.callback("int(const void *, const void *)")
    def compare(a: object, b: object) -> int:
        return ffi.cast("int *", a)[0] - ffi.cast("int *", b)[0]  # type: ignore[no-any-return]

    array = ffi.new("int[]", [5, 1, 4, 2, 3])
    ffi.dlopen(None).qsort(array, 5, 4, compare)
    assert list(array) == [1, 2, 3, 4, 5]


if __name__ == "__main__":
    checks.run(globals())
