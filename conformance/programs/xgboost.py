# /// script
# dependencies = ["xgboost-cpu", "scipy"]
# [tool.strongroom]
# memory = "384M"
# threads = 12
# late_code = "64K"
# ///
"""Gradient boosting with OpenMP: train, keep as bytes, score."""

import numpy as np
import xgboost

random = np.random.default_rng(3)
x = random.standard_normal((2000, 10))
y = (x[:, 0] * x[:, 1] + x[:, 2] > 0).astype(int)
options = {"objective": "binary:logistic", "tree_method": "hist", "nthread": 2, "seed": 1, "verbosity": 0}
model = xgboost.train(options, xgboost.DMatrix(x[:1500], y[:1500]), 60)
again = xgboost.Booster()
again.load_model(bytearray(model.save_raw("ubj")))
scored = again.predict(xgboost.DMatrix(x[1500:]))
print("accuracy", float(((scored > 0.5) == y[1500:]).mean()))
print("alike", np.array_equal(scored, model.predict(xgboost.DMatrix(x[1500:]))))
print("importance", max(again.get_score(importance_type="gain").items(), key=lambda one: one[1])[0])
