"""
Label every step
================

A noisy signal changes its form now and then: sine, saw, square, at a random pitch. Each step is to
be named. ``SequenceLabeller`` with both directions reads the whole signal before it says anything.

Data: made here, 120 signals of 60 to 160 steps to learn from, 40 to test.
"""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
from rnncore.estimators import SequenceLabeller

FORMS = {
    "sine": lambda phase: np.sin(2 * np.pi * phase),
    "saw": lambda phase: 2 * (phase % 1) - 1,
    "square": lambda phase: np.sign(phase % 1 - 0.5),
}


def signals(rng, count):
    """Return signals (T, 1) and the form of each step (T,)."""
    X, y = [], []
    for _ in range(count):
        length = int(rng.integers(60, 161))
        bounds = [
            0,
            *sorted(rng.choice(np.arange(15, length - 15), 2, replace=False)),
            length,
        ]
        parts, names = [], []
        for a, b in pairwise(bounds):
            name = str(rng.choice(list(FORMS)))
            parts.append(
                FORMS[name](np.arange(b - a) / rng.uniform(6, 14) + rng.random())
            )
            names += [name] * (b - a)
        X.append((np.concatenate(parts) + 0.2 * rng.standard_normal(length))[:, None])
        y.append(np.array(names))
    return X, y


rng = np.random.default_rng(0)
X, y = signals(rng, 120)
X_test, y_test = signals(rng, 40)

# %%
# Signals are of different lengths; lists of arrays are taken as they are.

model = SequenceLabeller(
    cell="gru",
    hidden_size=24,
    bidirectional=True,
    max_iter=25,
    learning_rate=0.01,
    random_state=0,
).fit(X, y)
print(f"right: {model.score(X_test, y_test):.1%} of the steps")

# %%
# Probabilities along one signal.

figure, (above, below) = plt.subplots(
    2, 1, figsize=(9, 5), sharex=True, layout="constrained"
)
above.plot(X_test[0][:, 0], "k", linewidth=0.8)
change = np.flatnonzero(y_test[0][1:] != y_test[0][:-1]) + 1
for axes in (above, below):
    for step in change:
        axes.axvline(step, color="0.6", linestyle="--")
above.set(ylabel="signal", title="dashed: where the form changes")
for name, values in zip(model.classes_, model.predict_proba(X_test)[0].T, strict=True):
    below.plot(values, label=name)
below.set(xlabel="step", ylabel="probability")
below.legend(loc="center right")

# %%
# With a forecast of the Lorenz system beside it: ``examples/label_and_forecast.py``. For tags that
# constrain one another, ``crf=True``.
