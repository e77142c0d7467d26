# /// script
# dependencies = ["matplotlib"]
# [tool.strongroom]
# memory = "256M"
# [tool.strongroom.env]
# MPLCONFIGDIR = "/tmp"
# [tool.conformance]
# note = "MPLCONFIGDIR: where its cache of fonts goes"
# ///
"""A figure as PNG, SVG and PDF, without a screen."""

import hashlib
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

figure, axes = plt.subplots(1, 2, figsize=(6, 3))
axes[0].plot(np.sin(np.linspace(0, 6, 100)), label="sine")
axes[0].legend()
axes[1].imshow(np.arange(100).reshape(10, 10))
for kind in ("png", "svg", "pdf"):
    out = io.BytesIO()
    figure.savefig(
        out,
        format=kind,
        metadata={"Date" if kind == "svg" else "CreationDate": None} if kind != "png" else None,
    )
    digest = hashlib.sha256(out.getvalue()).hexdigest()[:16] if kind == "png" else out.tell() > 5000
    print(kind, digest)
