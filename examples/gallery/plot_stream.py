"""
Serve a stream
==============

A model that was trained on whole sequences answers frame by frame: ``model.stream()`` keeps the
state. The answers are those of a call on the whole sequence, bit for bit.

Data: made here, a noisy oscillation whose frequency drifts; the model is to say the frequency.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import rnncore
from rnncore.training import Trainer


def draw(rng, steps, count):
    """Return x (T, B, 1) and the frequency (T, B, 1) in turns per step."""
    walk = np.cumsum(rng.standard_normal((steps, count)) * 0.03, axis=0)
    frequency = 0.08 + 0.05 * np.tanh(walk + rng.standard_normal(count))
    phase = np.cumsum(frequency, axis=0) + rng.random(count)
    x = np.sin(2 * np.pi * phase) + 0.1 * rng.standard_normal((steps, count))
    return x[..., None].astype(np.float32), frequency[..., None].astype(np.float32)


rng = np.random.default_rng(0)
batches = [draw(rng, 100, 32) for _ in range(40)]
model = rnncore.Chain(rnncore.GRU(1, 32, seed=0), rnncore.Linear(32, 1, seed=1))
trainer = Trainer(
    model,
    rnncore.MeanSquaredError(),
    rnncore.Adam(model, lr=1e-2),
    [(x, 10 * frequency) for x, frequency in batches],  # ten times, to be about 1
    clip_norm=1.0,
)
trainer.fit(steps=400, quiet=True)

# %%
# One sequence, frame by frame, and the time of a step.

x, frequency = draw(np.random.default_rng(1), 400, 1)
stream = model.stream()
answers, seconds = [], []
for frame in x:
    start = time.perf_counter()
    answers.append(stream.step(frame))
    seconds.append(time.perf_counter() - start)
answers = np.array(answers)
assert np.array_equal(answers, model(x)[0])
print(f"median of a step: {1e6 * np.median(seconds):.1f} microseconds")

figure, (above, below) = plt.subplots(
    2, 1, figsize=(9, 5), sharex=True, layout="constrained"
)
above.plot(x[:, 0, 0], "k", linewidth=0.6)
above.set(ylabel="x")
below.plot(frequency[:, 0, 0], "k--", label="frequency")
below.plot(answers[:, 0, 0] / 10, "C0", label="said at this step")
below.set(xlabel="step", ylabel="turns per step", ylim=0)
below.legend(loc="lower right")
