"""Recurrent networks with scikit-learn's contract: fit, predict, score, clone, pickle, search.

    model = make_pipeline(SequenceScaler(), SequenceClassifier(cell="gru", random_state=0))
    cross_val_score(model, X, y)

X is one of these; anything else raises `ValueError`, or `TypeError` if it is no array at all.

- A 3-D array (N, T, I).
- A list, a tuple, a 1-D array of objects or a Series of N arrays (T_n, I), each with a length of
  its own, that may be 0: the answer then comes from the zero state. Frames of pandas and polars
  serve as arrays; all must have the same columns in the same order.
- A table: a 2-D array, a frame or a list of lists of numbers, (N, I). It is N sequences of one
  step, for an estimator that was fitted on a table. One that was fitted on sequences refuses it: it
  may be one series, which is given as [X]. To a `Forecaster` without y it is one series.

1-D arrays (T,) are refused: a series of one feature is x[:, None]. What comes back for each step
has the form of X: an array, a list of arrays, or an array of objects.

`explore` compares architectures of one size on one's own data.

`feature_names_in_` holds the columns of frames, where X was such: others, or another order, raise
`ValueError`. Needs scikit-learn: pip install 'rnncore[estimators]'.
"""

from typing import TYPE_CHECKING

try:
    from sklearn.utils.validation import validate_data  # noqa: F401  (the youngest of what is used)
except ImportError as error:
    raise ImportError(
        "rnncore.estimators needs scikit-learn 1.6 or later: pip install 'rnncore[estimators]'"
    ) from error

from ..hinting import missing
from ..hints import ESTIMATORS
from .classifier import SequenceClassifier, SequenceLabeller
from .exploring import explore
from .forecaster import Forecaster
from .regressor import SequenceRegressor
from .scaler import SequenceScaler
from .transcriber import SequenceTranscriber

__all__ = [
    "Forecaster",
    "SequenceClassifier",
    "SequenceLabeller",
    "SequenceRegressor",
    "SequenceScaler",
    "SequenceTranscriber",
    "explore",
]

if not TYPE_CHECKING:
    __getattr__ = missing(__name__, ESTIMATORS)
