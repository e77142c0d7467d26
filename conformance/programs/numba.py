# /// script
# dependencies = ["numba"]
# [tool.strongroom]
# memory = "1G"
# threads = 12
# edmm = true
# late_code = "1M"
# [tool.conformance]
# note = "compiles at run time: memory is written, then made executable, which takes edmm (SGX2 sizes) and late_code"
# ///
"""A loop compiled by LLVM at run time, a vectorised function, a parallel one."""

import numba
import numpy as np


@numba.njit
def squares(values):
    total = 0.0
    for value in values:
        total += value * value
    return total


@numba.vectorize(["float64(float64, float64)"])
def larger(one, two):
    return one if one > two else two


@numba.njit(parallel=True)
def spread(values):
    out = np.empty_like(values)
    for i in numba.prange(len(values)):
        out[i] = values[i] * 2
    return out


numba.set_num_threads(2)
data = np.arange(1000.0)
print(squares(data), larger(data, 500.0).sum(), spread(data).sum())
