# /// script
# dependencies = ["scipy"]
# [tool.strongroom]
# memory = "256M"
# ///
"""Optimisation (with a callback from C into Python), integration, sparse systems, statistics."""

import numpy as np
from scipy import integrate, optimize, sparse, stats
from scipy.sparse.linalg import eigsh, spsolve

best = optimize.minimize(optimize.rosen, np.full(5, 1.3), method="L-BFGS-B")
print("minimum", np.round(best.x, 3).tolist())
print("integral", round(integrate.quad(lambda t: float(np.exp(-t * t)), -np.inf, np.inf)[0], 9))
orbit = integrate.solve_ivp(lambda _, s: [s[1], -s[0]], (0, 10), [1.0, 0.0], method="LSODA", rtol=1e-8)
print("orbit", np.round(orbit.y[:, -1], 4).tolist())
laplace = sparse.diags_array([-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(500, 500)).tocsc()
print("sparse", round(float(spsolve(laplace, np.ones(500)).max()), 3))
print("smallest", np.round(eigsh(laplace, k=2, sigma=0)[0] * 1e5, 4).tolist())
print("t", round(float(stats.ttest_1samp(np.arange(30) / 10, 1.2).pvalue), 9))
