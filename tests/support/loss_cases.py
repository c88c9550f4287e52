"""The losses that are tested, each with and without its options, and what they are given."""

from rnncore.losses import (
    BinaryCrossEntropy,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Pinball,
    SoftmaxCrossEntropy,
)

from tests.golden.make_training_golden import WEIGHT, loss_inputs

QUANTILES = [0.1, 0.3, 0.5, 0.8, 0.95]  # of the last axis

KINDS = {
    "softmax": lambda **options: SoftmaxCrossEntropy(**options),
    "smooth": lambda **options: SoftmaxCrossEntropy(0.1, **options),
    "weighted": lambda **options: SoftmaxCrossEntropy(0.1, class_weight=WEIGHT, **options),
    "binary": lambda **options: BinaryCrossEntropy(**options),
    "positive": lambda **options: BinaryCrossEntropy(pos_weight=WEIGHT, **options),
    "squared": lambda **options: MeanSquaredError(**options),
    "absolute": lambda **options: MeanAbsoluteError(**options),
    "huber": lambda **options: Huber(0.7, **options),
    "pinball": lambda **options: Pinball(QUANTILES, **options),
}


def given(loss, dtype="float64"):
    """x, targets and mask for a loss."""
    inputs = loss_inputs()
    if isinstance(loss, SoftmaxCrossEntropy):
        return inputs["x"].astype(dtype), inputs["classes"], inputs["mask"]
    return inputs["x"].astype(dtype), inputs["values"].astype(dtype), inputs["mask"]
