"""
Remember for long
=================

The adding problem (Hochreiter and Schmidhuber 1997): each step has a number in [0, 1] and a
marker, set at two steps; wanted at the end is the sum of the two marked numbers. Saying 1 every
time costs 1/6. A vanilla RNN forgets the first number; an LSTM and a GRU do not. The LSTM starts
with its forget gates open, as is usual.

Data: made here, sequences of 60 steps, drawn anew for every update.
"""

import matplotlib.pyplot as plt
import numpy as np
import rnncore

STEPS, BATCH, UPDATES = 60, 32, 1000


def draw(rng):
    """Return x (T, B, 2) and the sums (B, 1)."""
    x = np.zeros((STEPS, BATCH, 2), np.float32)
    x[..., 0] = rng.random((STEPS, BATCH))
    rows = np.arange(BATCH)
    x[rng.integers(0, STEPS // 2, BATCH), rows, 1] = 1
    x[rng.integers(STEPS // 2, STEPS, BATCH), rows, 1] = 1
    return x, (x[..., 0] * x[..., 1]).sum(axis=0)[:, None]


# %%
# The loop without a trainer: loss, pullbacks, clipped gradients, an update.


def train(layer):
    """Return the loss of every update."""
    model = rnncore.Chain(rnncore.Readout(layer), rnncore.Linear(32, 1, seed=1))
    optimiser, loss = rnncore.Adam(model, lr=1e-2), rnncore.MeanSquaredError()
    rng, losses = np.random.default_rng(0), []
    for _ in range(UPDATES):
        x, wanted = draw(rng)
        (y, _), pullback = model.vjp(x)
        value, back = loss.vjp(y, wanted)
        model.zero_grad()
        pullback(back())
        rnncore.clip_grad_norm(model, 1.0)
        optimiser.step()
        losses.append(value)
    return losses


figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
for layer in (
    rnncore.RNN(2, 32, seed=0),
    rnncore.LSTM(2, 32, seed=0),
    rnncore.GRU(2, 32, seed=0),
):
    name = type(layer).__name__
    if name == "LSTM":
        rnncore.init.set_forget_bias(layer, 1.0)
    losses = np.array(train(layer))
    smooth = np.convolve(losses, np.ones(20) / 20, mode="valid")
    axes.semilogy(np.arange(len(smooth)) + 20, smooth, label=name)
    print(
        f"{name}: mean squared error {losses[-20:].mean():.4f} over the last 20 updates"
    )
axes.axhline(1 / 6, color="0.5", linestyle="--", label="saying 1 every time")
axes.set(xlabel="update", ylabel="mean squared error")
axes.legend()

# %%
# 600 steps, and a second task: ``examples/long_memory.py``.
