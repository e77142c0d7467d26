# /// script
# dependencies = ["scikit-learn"]
# [tool.strongroom]
# memory = "384M"
# threads = 12
# [tool.strongroom.env]
# OMP_NUM_THREADS = "2"
# [tool.conformance]
# note = "without OMP_NUM_THREADS joblib asks the program lscpu, which is refused, and warns"
# ///
"""Train, validate and keep models: OpenMP, BLAS and joblib's threads."""

import pickle

from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

x, y = make_classification(2000, 20, n_informative=8, random_state=1)
x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=1)
models = [
    make_pipeline(StandardScaler(), LogisticRegression()),
    RandomForestClassifier(50, random_state=1, n_jobs=2),
    HistGradientBoostingClassifier(max_iter=50, random_state=1),
]
for model in models:
    model.fit(x_train, y_train)
    again = pickle.loads(pickle.dumps(model))
    score = roc_auc_score(y_test, again.predict_proba(x_test)[:, 1])
    print(type(model).__name__, round(score, 3))
