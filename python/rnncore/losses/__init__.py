"""Losses: `loss(x, targets, mask=None) -> float`, and `loss.vjp(...) -> (float, pullback)`.

`pullback(dloss=1.0)` gives the gradient of x, the first argument. A mask is true where an element
counts (`length_mask` makes one from lengths), or says in numbers of x's dtype, at least 0, how much
it counts; what counts nothing is never looked at, so that NaN and invalid targets there do no harm,
and its gradient is zero. `reduction="mean"` divides by the number of counted elements, or by the
sum of their weights; where none is counted, the loss is 0 and the gradient zero. The sum is taken
in float64.

`Objective` is all that the trainer and `evaluate` know of a loss. One that takes lengths instead of
a mask derives from it, and says so in `takes`.
"""

from ..compositions.ragged import length_mask as length_mask
from .base import Loss as Loss
from .base import Objective as Objective
from .base import Terms as Terms
from .base import as_weights as as_weights
from .classes import BinaryCrossEntropy as BinaryCrossEntropy
from .classes import SoftmaxCrossEntropy as SoftmaxCrossEntropy
from .errors import Huber as Huber
from .errors import MeanAbsoluteError as MeanAbsoluteError
from .errors import MeanSquaredError as MeanSquaredError
from .errors import Pinball as Pinball
