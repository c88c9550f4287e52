"""One network for many series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..arrays import Array, check_choice, check_count, check_flag, check_number, check_size
from ..distributions import Distribution, PenStrokes, Quantiles
from .baselines import with_values
from .conformal import conformal_factors, corrected
from .covariates import Beside
from .frames import Panel, read_panel
from .learning import Network, Recipe, quantiles, train
from .metrics import check_levels
from .networks import NETWORKS, Forking
from .sampling import sample_paths
from .windows import Covariates, Plan, Windows

#: Of fewer series no interval is made narrower: the steps that are held out of one go wrong
#: together, and their shares say little.
_FEW = 30


@dataclass(kw_only=True, eq=False)
class GlobalForecaster:
    """Distributions of the next values of many series, by networks that learn from all of them.

    `fit(X)` learns from series in any form that `rnncore.forecasting.read_panel` takes; `predict`,
    `predict_quantiles` and `sample` return the `horizon` steps behind series in their form. Missing
    values (NaN) count neither as inputs nor as targets.

    Each window is scaled by its own level and spread, of logarithms where `log`. A network reads
    windows that end a season apart, and is told what follows each. What it is, says `network`:

    - "direct": it tells all steps at each origin (forking sequences, Wen et al. 2017).
    - "encoder-decoder": a decoder goes over the steps to be told, from the last state.
    - "autoregressive": it tells the next step, and paths are drawn step by step (DeepAR, Salinas et
      al. 2020). Quantiles are those of `paths` paths.

    horizon: how many steps are forecast. season: how many steps a season has. quantiles: increasing
    numbers in (0, 1), what `predict_quantiles` returns. head: a `rnncore.distributions`
    distribution of each value; None: `Quantiles` of these levels. Heads of counts learn values as
    they are.

    lags: how many values before an origin are inputs; None: 7 seasons or two horizons, whichever is
    more. window: how many origins are read one after another. log: whether logarithms are learnt;
    None: where all values are positive. residual: whether differences to the seasonal naive
    forecast are. calendar: whether the phases of day, week and year are inputs, where there are
    time stamps. relative: how much relative errors count beside those in units of the seasonal
    naive error, where quantiles of logarithms are learnt.

    members: how many networks, from other seeds and trained side by side, whose quantiles are
    averaged. calibrate: whether the last `horizon` steps of each series are first held out, to
    correct the quantiles by what they turn out to be (`conformal_factors_`); then all is learnt
    again. Of fewer than 30 series intervals are made wider by that, never narrower. hidden_size,
    num_layers, dropout, updates, batch_size, learning_rate, weight_decay: of each network and of
    its training. verbose: whether progress is printed. seed: the same seed gives the same forecasts
    for any number of threads.

    After `fit`: `networks_`, the members; `history_`, a list of records of each one's training;
    `conformal_factors_` (Q,), ones without `calibrate`; with it `held_out_`, the values (N, H) that
    were held out and their corrected quantiles (N, H, Q).
    """

    horizon: int = 1
    season: int = 1
    quantiles: Sequence[float] = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
    network: str = "direct"
    head: Distribution | None = None
    lags: int | None = None
    window: int = 7
    log: bool | None = None
    residual: bool = False
    calendar: bool = True
    relative: float = 20.0
    members: int = 1
    calibrate: bool = False
    paths: int = 200
    hidden_size: int = 64
    num_layers: int = 1
    dropout: float = 0.1
    updates: int = 1000
    batch_size: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.01
    verbose: bool = False
    seed: int | None = None
    reads_panels: ClassVar[bool] = True

    def fit(
        self, X: Any, y: Any = None, *, past: Any = None, ahead: Any = None, static: Any = None
    ) -> GlobalForecaster:
        """Learn from series.

        past: covariates that are known as long as the series: an array (T_n, P) for each. ahead:
        covariates that are known beforehand: an array (T_n or more, F) for each, whose first row
        goes with the first value; `predict` needs them for the `horizon` steps behind the end, too.
        Of one series, an array serves. static: categories of each series, (N,) or (N, S), numbers
        or text. y: nothing.

        Of series with times, covariates may be frames with times, too: a wide one goes with all
        series, a long one has rows for each. Rows are found by their times, and may begin before
        the series and end behind them; missing values count as the mean. static may be a frame of
        pandas with the names of series as its index.
        """
        self._check()
        panel = with_values(read_panel(X))
        self._beside = Beside(self.calendar)
        self._beside.fit(panel, past, ahead, static)
        self._log = self._choose_log(panel)
        self._plan = self._planned(panel)
        given = self._beside.read(panel, past, ahead, static, 0)
        self._fitted = panel, (past, ahead, static)
        self.conformal_factors_ = np.ones(len(self._levels))
        if self.calibrate:
            self._calibrate(panel, given)
        self._train(panel, given)
        return self

    def predict(
        self, X: Any = None, *, past: Any = None, ahead: Any = None, static: Any = None
    ) -> Any:
        """Return the median of each of the `horizon` steps behind each series, in the form of X.

        X: series; None: those of `fit`. past, ahead, static: as for `fit`, where they were given;
        `ahead` goes `horizon` steps beyond the series.
        """
        panel, windows = self._windows(X, past, ahead, static)
        return panel.forecast(self._quantiles(windows, np.array([0.5]))[..., 0])

    def predict_quantiles(
        self, X: Any = None, *, past: Any = None, ahead: Any = None, static: Any = None
    ) -> Any:
        """Return the `quantiles` of the `horizon` steps behind each series, in the form of X.

        Arguments: as for `predict`.
        """
        panel, windows = self._windows(X, past, ahead, static)
        found = corrected(self._with_middle(windows), self.conformal_factors_, self._middle)
        kept = windows.bounded(found)[..., np.isin(self._levels, self.quantiles)]
        return panel.quantiles(kept, self.quantiles)

    def sample(
        self,
        X: Any = None,
        paths: int | None = None,
        *,
        past: Any = None,
        ahead: Any = None,
        static: Any = None,
        seed: int | np.random.Generator | None = None,
    ) -> Any:
        """Draw ways in which series may go on, in the form of X.

        Of an autoregressive network they are paths; others tell each step by itself: their steps
        are drawn independently. paths: how many of each series; None: the parameter. Conformal
        factors are left out. Other arguments: as for `predict`.
        """
        panel, windows = self._windows(X, past, ahead, static)
        number = check_count("paths", self.paths if paths is None else paths)
        rng = np.random.default_rng(self.seed if seed is None else seed)
        if self.network == "autoregressive":
            return panel.samples(self._paths(windows, number, rng))
        levels = np.linspace(0, 1, 202)[1:-1]
        table = np.moveaxis(quantiles(windows, self._head, self.networks_, levels), -1, 0)
        at = rng.random((number, *table.shape[1:])) * (len(levels) - 1)
        low = at.astype(np.int64)
        below, above = (np.take_along_axis(table, part, 0) for part in (low, low + 1))
        return panel.samples(np.moveaxis(below + (at - low) * (above - below), 0, 1))

    def _check(self) -> None:
        for name in ("horizon", "season", "members", "paths", "updates", "window"):
            check_count(name, getattr(self, name))
        for name in ("hidden_size", "num_layers", "batch_size"):
            check_size(name, getattr(self, name))
        for name in ("residual", "calendar", "calibrate", "verbose"):
            check_flag(name, getattr(self, name))
        if self.lags is not None:
            check_count("lags", self.lags)
        if check_number("relative", self.relative) < 0:
            raise ValueError(f"relative must be at least 0, got {self.relative}")
        check_choice("network", self.network, tuple(NETWORKS))
        levels = check_levels(self.quantiles, "quantiles")
        if self.head is not None and not isinstance(self.head, Distribution):
            raise TypeError(
                "head must be a rnncore.distributions distribution or None, "
                f"got {type(self.head).__name__}"
            )
        # The median is the centre that conformal factors refer to, and the point forecast.
        self._levels = np.union1d(levels, [0.5])
        self._middle = int(np.searchsorted(self._levels, 0.5))
        self._head = Quantiles(tuple(self._levels)) if self.head is None else self.head
        if isinstance(self._head, PenStrokes):
            raise ValueError(f"head must tell one value, got {self.head!r}")

    def _choose_log(self, panel: Panel) -> bool:
        positive = all(bool(np.all(v[~np.isnan(v)] > 0)) for v in panel.values)
        if self.log is None:
            return positive and not self._head.counts
        if check_flag("log", self.log) and not positive:
            raise ValueError("log needs values above 0, X has others: leave it to be chosen")
        if self.log and self._head.counts:
            raise ValueError("log must be False or None for a head of counts")
        return self.log

    def _planned(self, panel: Panel) -> Plan:
        alone = self.network == "autoregressive"
        lags = max(7 * self.season, 2 * self.horizon) if self.lags is None else self.lags
        stride = 1 if alone else self.season
        reach = lags + stride * (self.window - 1) + self.horizon
        missing = any(np.isnan(values).any() for values in panel.values)
        return Plan(
            horizon=1 if alone else self.horizon,
            season=self.season,
            lags=lags,
            stride=stride,
            steps=self.window,
            log=self._log,
            counts=self._head.counts,
            masked=bool(missing or panel.lengths.min() < reach),
            residual=self.residual and not self._head.counts,
            room=self.horizon,
        )

    def _train(self, panel: Panel, given: Covariates) -> None:
        windows = Windows(panel.values, self._plan, given)
        recipe = Recipe(
            self.network,
            self.hidden_size,
            self.num_layers,
            self.dropout,
            self._beside.categories,
            self.updates,
            self.batch_size,
            self.learning_rate,
            self.weight_decay,
            self.relative,
            self.verbose,
        )
        seeds = np.random.SeedSequence(self.seed).spawn(self.members)
        trained = train(windows, self._head, recipe, seeds)
        self.networks_: list[Network] = [network for network, _ in trained]
        self.history_ = [history for _, history in trained]

    def _calibrate(self, panel: Panel, given: Covariates) -> None:
        """Hold out the last steps, learn from those before, and compare."""
        kept = panel.lengths - self.horizon
        if not np.any(kept > 1):
            raise ValueError(
                f"calibrate needs series of more than horizon + 1 = {self.horizon + 1} steps"
            )
        there = zip(kept, panel.values, strict=True)
        rows = [at for at, (n, v) in enumerate(there) if n > 1 and not np.isnan(v[:n]).all()]
        shorter = _picked(panel.cut(np.maximum(kept, 0)), rows)
        known = Covariates(
            [given.past[row][: kept[row]] for row in rows],
            [given.ahead[row] for row in rows],
            [given.calendar[row] for row in rows],
            given.codes[rows],
        )
        self._train(shorter, known)
        windows = Windows(shorter.values, self._plan, known)
        actual = np.stack([panel.values[row][kept[row] :] for row in rows])
        found = self._with_middle(windows)
        factors = conformal_factors(actual, found, self._levels, self._middle)
        self.conformal_factors_ = factors if len(rows) >= _FEW else np.maximum(factors, 1.0)
        self.held_out_ = actual, corrected(found, self.conformal_factors_, self._middle)

    def _windows(self, X: Any, past: Any, ahead: Any, static: Any) -> tuple[Panel, Windows]:
        if not hasattr(self, "networks_"):
            raise ValueError("fit must be called before forecasts are made")
        if X is None:
            panel, kept = self._fitted
            told = zip((past, ahead, static), kept, strict=True)
            past, ahead, static = (old if new is None else new for new, old in told)
        else:
            panel = with_values(read_panel(X))
        if self._log and any(np.any(values <= 0) for values in panel.values):
            raise ValueError("X must have values above 0, as those of fit: logarithms were learnt")
        beside = self._beside.read(panel, past, ahead, static, self.horizon)
        return panel, Windows(panel.values, self._plan, beside)

    def _with_middle(self, windows: Windows) -> Array:
        """Return the quantiles (N, H, Q) of `quantiles` and of the median."""
        return self._quantiles(windows, self._levels)

    def _quantiles(self, windows: Windows, levels: Array) -> Array:
        if self.network != "autoregressive":
            return np.sort(quantiles(windows, self._head, self.networks_, levels), axis=-1)
        paths = self._paths(windows, self.paths, np.random.default_rng(self.seed))
        return np.moveaxis(np.quantile(paths, levels, axis=1), 0, -1)

    def _paths(self, windows: Windows, number: int, rng: np.random.Generator) -> Array:
        """Draw paths (N, S, H), of the members in turn."""
        shares = [len(part) for part in np.array_split(np.arange(number), len(self.networks_))]
        drawn = [
            sample_paths(windows, self._head, network, self.horizon, share, rng)
            for network, share in zip(self.networks_, shares, strict=True)
            if share and isinstance(network, Forking)
        ]
        return np.concatenate(drawn, axis=1)


def _picked(panel: Panel, rows: Sequence[int]) -> Panel:
    """Return some of the series."""
    names = tuple(panel.names[row] for row in rows)
    values = tuple(panel.values[row] for row in rows)
    axes = tuple(panel.axes[row] for row in rows)
    starts = tuple(panel.starts[row] for row in rows)
    return replace(panel, names=names, values=values, axes=axes, starts=starts)
