"""Two things that estimators do with series: label every step, and tell what comes next.

Labels: a noisy signal changes its form now and then, sine, saw or square, at a random pitch; each
step is to be named. The plain rule beside it gives every step the commonest form.

Forecast: the x of a Lorenz system, 10 steps of 0.05 ahead. Beside it: that x stays as it is, and a
linear regression on the last 20 steps.

    python examples/label_and_forecast.py
"""

from __future__ import annotations

import argparse

import numpy as np
from rnncore.estimators import Forecaster, SequenceLabeller
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

FORMS = {
    "sine": lambda phase: np.sin(2 * np.pi * phase),
    "saw": lambda phase: 2 * (phase % 1) - 1,
    "square": lambda phase: np.sign(phase % 1 - 0.5),
}
HORIZON, READ = 10, 20


def signals(rng: np.random.Generator, count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw signals (T, 1) of 60 to 160 steps, and the name of each step's form (T,)."""
    x, labels = [], []
    for steps in rng.integers(60, 160, count):
        cuts = np.sort(rng.integers(0, steps, 3))
        names = np.repeat(rng.choice(list(FORMS), 4), np.diff([0, *cuts, steps]))
        phase = np.arange(steps) / rng.uniform(8, 16) + rng.random()
        values = np.select([names == name for name in FORMS], [f(phase) for f in FORMS.values()])
        x.append((values + 0.2 * rng.standard_normal(steps))[:, None])
        labels.append(names)
    return x, labels


def lorenz(steps: int, seed: int, dt: float = 0.05, inner: int = 10) -> np.ndarray:
    """Return x of a Lorenz system (sigma 10, rho 28, beta 8/3), (steps, 1), by Euler's method."""
    state = np.random.default_rng(seed).standard_normal(3)
    series = np.empty((steps, 1))
    for t in range(-100, steps):
        for _ in range(inner):
            x, y, z = state
            slope = np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])
            state = state + dt / inner * slope
        if t >= 0:
            series[t] = state[0]
    return series


def label(args: argparse.Namespace) -> dict[str, float]:
    rng = np.random.default_rng(args.seed)
    (x, labels), (test, wanted) = signals(rng, 20 if args.quick else 200), signals(rng, 50)
    model = SequenceLabeller(
        bidirectional=True, max_iter=3 if args.quick else 30, random_state=args.seed, verbose=True
    )
    steps = np.concatenate(wanted)
    commonest = max(np.mean(steps == name) for name in FORMS)
    return {"labels": model.fit(x, labels).score(test, wanted), "commonest_label": commonest}


def forecast(args: argparse.Namespace) -> dict[str, float]:
    series = lorenz(600 if args.quick else 4000, args.seed)
    cut = len(series) * 3 // 4
    model = Forecaster(
        horizon=HORIZON,
        batch_size=8,
        max_iter=3 if args.quick else 100,
        random_state=args.seed,
        verbose=True,
    )
    model.fit([series[:cut]])
    ends = np.arange(cut, len(series) - HORIZON)  # forecasts are made before each of these
    told = np.stack([series[end : end + HORIZON, 0] for end in ends])
    found = model.predict([series[end - 64 : end] for end in ends])[..., 0]
    windows = np.lib.stride_tricks.sliding_window_view(series[:, 0], READ + HORIZON)
    windows = windows[: cut - READ - HORIZON + 1]
    linear = LinearRegression().fit(windows[:, :READ], windows[:, READ:])
    linear_found = linear.predict(np.stack([series[end - READ : end, 0] for end in ends]))
    stays = np.repeat(series[ends - 1], HORIZON, axis=1)
    rivals = {"forecast_r2": found, "linear_r2": linear_found, "persistence_r2": stays}
    return {name: r2_score(told.ravel(), values.ravel()) for name, values in rivals.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="little data, to see that it runs")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    results = label(args) | forecast(args)
    print("result: " + " ".join(f"{name}={value:.4f}" for name, value in results.items()))


if __name__ == "__main__":
    main()
