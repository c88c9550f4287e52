"""Recurrent networks with scikit-learn's contract: fit, predict, score, clone, pickle, search.

    model = make_pipeline(SequenceScaler(), SequenceClassifier(cell="gru", random_state=0))
    cross_val_score(model, X, y)

X is a 3-D array (N, T, I), a list of N arrays (T_n, I) with lengths of their own, or a 2-D array
(N, I) of sequences of one step. Needs scikit-learn: pip install 'rnncore[estimators]'.
"""

try:
    from sklearn.utils.validation import validate_data  # noqa: F401  (the youngest of what is used)
except ImportError as error:
    raise ImportError(
        "rnncore.estimators needs scikit-learn 1.6 or later: pip install 'rnncore[estimators]'"
    ) from error

from .classifier import SequenceClassifier, SequenceLabeller
from .forecaster import Forecaster
from .regressor import SequenceRegressor
from .scaler import SequenceScaler

__all__ = [
    "Forecaster",
    "SequenceClassifier",
    "SequenceLabeller",
    "SequenceRegressor",
    "SequenceScaler",
]
