# /// script
# dependencies = ["numpy"]
# [tool.strongroom]
# memory = "192M"
# [tool.conformance]
# note = "OpenBLAS takes 32 MiB a thread"
# ///
"""Linear algebra over all of OpenBLAS's threads, a transform, a generator, a file mapped into memory."""

import os
import tempfile

import numpy as np

random = np.random.default_rng(7)
matrix = random.standard_normal((400, 400))
symmetric = matrix @ matrix.T
print("eigenvalues", np.round(np.linalg.eigvalsh(symmetric)[-3:], 3).tolist())
print("solve", bool(np.allclose(matrix @ np.linalg.solve(matrix, np.ones(400)), 1)))
print("fft", np.round(np.abs(np.fft.rfft(np.sin(np.arange(4096) / 10)))[63:67], 3).tolist())
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "a.npy")
    np.save(path, np.arange(100_000))
    print("mapped", int(np.load(path, mmap_mode="r")[::1000].sum()))
