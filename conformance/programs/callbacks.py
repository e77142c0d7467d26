# /// script
# dependencies = ["cffi"]
# [tool.strongroom]
# late_code = "64K"
# [tool.conformance]
# note = "callbacks are code made at run time"
# ///
"""Callbacks from C into Python, by ctypes and by cffi."""

import ctypes

import cffi

compare_t = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
values = (ctypes.c_int * 5)(5, 3, 1, 4, 2)
ctypes.CDLL(None).qsort(values, 5, ctypes.sizeof(ctypes.c_int), compare_t(lambda a, b: a[0] - b[0]))
print(list(values))

ffi = cffi.FFI()
ffi.cdef("void *bsearch(const void *, const void *, size_t, size_t, int (*)(const void *, const void *));")


@ffi.callback("int(const void *, const void *)")
def compare(a, b):
    return ffi.cast("int *", a)[0] - ffi.cast("int *", b)[0]


sorted_values = ffi.new("int[]", [10, 20, 30, 40])
found = ffi.dlopen(None).bsearch(ffi.new("int *", 30), sorted_values, 4, ffi.sizeof("int"), compare)
print(ffi.cast("int *", found) - sorted_values)
