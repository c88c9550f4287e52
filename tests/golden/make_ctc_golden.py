"""Writes ctc.npz: losses and gradients of torch's ctc_loss behind log_softmax, in float64.

python -m tests.golden.make_ctc_golden
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

FILE = Path(__file__).with_name("ctc.npz")
REDUCTIONS = ("mean", "sum", "none")


class Golden(NamedTuple):
    """Sizes of a batch, how many classes its labels are drawn from, and the blank."""

    steps: int
    batch: int
    classes: int
    labels: int
    drawn: int | None = None  # few: many repeats
    blank: int = 0


CASES = {
    "plain": Golden(20, 3, 6, 5),
    "repeats": Golden(30, 4, 5, 12, drawn=2),
    "last blank": Golden(15, 3, 7, 4, blank=6),
    "empty": Golden(9, 3, 4, 0),
    "one frame": Golden(1, 2, 3, 1),
    "blocks": Golden(135, 2, 9, 17),
    "one label class": Golden(12, 3, 2, 4),
    "wide": Golden(16, 2, 70, 8),
}


def given(case: Golden) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits, padded targets, lengths and target lengths; the last sequence has no labels."""
    rng = np.random.default_rng(11)
    logits = 3 * rng.standard_normal((case.steps, case.batch, case.classes))
    count = min(case.drawn or case.classes, case.classes - 1)
    targets = rng.permutation([k for k in range(case.classes) if k != case.blank])[:count]
    targets = rng.choice(targets, (case.batch, case.labels))
    target_lengths = rng.integers((case.labels + 1) // 2, case.labels + 1, case.batch)
    target_lengths[-1] = 0
    lengths = np.maximum(rng.integers(case.steps // 2, case.steps + 1, case.batch), 1)
    lengths[0] = case.steps
    return logits, targets, lengths, target_lengths


def main() -> None:
    """Write the file."""
    import torch

    arrays = {}
    for name, case in CASES.items():
        logits, targets, lengths, target_lengths = given(case)
        for reduction in REDUCTIONS:
            x = torch.tensor(logits, requires_grad=True)
            loss = torch.nn.functional.ctc_loss(
                x.log_softmax(-1),
                torch.tensor(targets),
                torch.tensor(lengths),
                torch.tensor(target_lengths),
                blank=case.blank,
                reduction=reduction,
                zero_infinity=True,
            )
            loss.sum().backward()
            arrays[f"{name}.{reduction}.loss"] = loss.detach().numpy()
            arrays[f"{name}.{reduction}.dx"] = x.grad.numpy()
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
