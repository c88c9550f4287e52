"""
Forecast a series
=================

``Forecaster`` learns from windows of a series what comes next. Here the series is that of Mackey
and Glass (1977), sampled once per unit of time; from 48 values the next 24 are forecast.

.. code-block:: none

    dx/dt = 0.2 x(t - 17) / (1 + x(t - 17)^10) - 0.1 x(t)

Data: made here, 1,500 values to learn from and 500 to test.
"""

import matplotlib.pyplot as plt
import numpy as np
from rnncore.estimators import Forecaster


def mackey_glass(length, delay=17, parts=10):
    """Integrate in steps of 0.1; the first 300 values are left out."""
    x = [1.2] * (delay * parts)
    for _ in range((length + 300) * parts):
        past = x[-delay * parts]
        x.append(x[-1] + (0.2 * past / (1 + past**10) - 0.1 * x[-1]) / parts)
    return np.array(x[-length * parts :: parts])


series = mackey_glass(2000)
series = (series - series[:1500].mean()) / series[:1500].std()

# %%
# A series is a sequence with one feature, ``(T, 1)``.

WINDOW, AHEAD = 48, 24
model = Forecaster(
    horizon=AHEAD,
    window=WINDOW,
    hidden_size=64,
    max_iter=300,
    learning_rate=0.01,
    random_state=0,
)
model.fit([series[:1500, None]])

# %%
# Each window of the test part is forecast. The line in grey says the last value again and again.

starts = np.arange(1500, 2000 - WINDOW - AHEAD)
windows = np.stack([series[s : s + WINDOW, None] for s in starts])
truth = np.stack([series[s + WINDOW : s + WINDOW + AHEAD] for s in starts])
forecast = model.predict(windows).reshape(truth.shape)
print(f"root mean square error: {np.sqrt(np.mean((forecast - truth) ** 2)):.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
steps = np.arange(1, AHEAD + 1)
left.plot(np.arange(1 - WINDOW, 1), windows[0, :, 0], "k", label="read")
left.plot(steps, truth[0], "k--", label="what came")
left.plot(steps, forecast[0], "C0", label="forecast")
left.set(xlabel="steps", title="one window")
left.legend()
for name, guess, style in (
    ("forecast", forecast, "C0"),
    ("last value", windows[:, -1:, 0], "0.6"),
):
    right.plot(steps, np.sqrt(np.mean((guess - truth) ** 2, axis=0)), style, label=name)
right.set(
    xlabel="steps ahead",
    ylabel="root mean square error",
    title="all windows",
    ylim=0,
)
right.legend()

# %%
# A model with an encoder and a decoder on more data: ``examples/forecasting.py``.
