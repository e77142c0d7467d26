# /// script
# dependencies = ["h5py"]
# [tool.strongroom]
# memory = "192M"
# ///
"""HDF5 files: chunks, compression, locks."""

import os
import tempfile

import h5py
import numpy as np

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "a.h5")
    with h5py.File(path, "w") as file:
        data = file.create_dataset("v", data=np.arange(100_000), chunks=(1000,), compression="gzip")
        data.attrs["unit"] = "mmol"
    with h5py.File(path, "a") as file:
        file["v"][:10] = -1
        print(int(file["v"][:20].sum()), file["v"].attrs["unit"], file["v"].compression)
