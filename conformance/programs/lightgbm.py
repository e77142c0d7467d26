# /// script
# dependencies = ["lightgbm"]
# [tool.strongroom]
# memory = "384M"
# threads = 12
# late_code = "64K"
# [tool.conformance]
# note = "a callback of ctypes, which is code made at run time, at its import"
# ///
"""Gradient boosting with OpenMP: train, keep as text, score."""

import lightgbm
import numpy as np

random = np.random.default_rng(3)
x = random.standard_normal((2000, 10))
y = (x[:, 0] * x[:, 1] + x[:, 2] > 0).astype(int)
options = {"objective": "binary", "verbosity": -1, "deterministic": True, "num_threads": 2, "seed": 1}
model = lightgbm.train(options, lightgbm.Dataset(x[:1500], y[:1500]), 60)
again = lightgbm.Booster(model_str=model.model_to_string())
print("accuracy", float(((again.predict(x[1500:]) > 0.5) == y[1500:]).mean()))
print("importance", int(np.argmax(again.feature_importance())) in (0, 1))
