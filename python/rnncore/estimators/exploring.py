"""Architectures side by side, at one size or one time: what a variation brings on one's own data.

    found = explore(SequenceClassifier(max_iter=27), X, y, ["gru", "lstm"], parameters=20_000)
    print(found)                                # a table, scores with intervals over the seeds
    found.plot("explored.png")                  # scores against size and time
    model = SequenceClassifier(max_iter=27).set_params(**found.best.settings).fit(X, y)

The search is scikit-learn's successive halving (Jamieson and Talwalkar 2016): all candidates train
for a few passes, the best third of them anew for three times as many, and so on. Its samples are
seeds: each candidate is trained once with each, on the same training part, and judged by the mean
of the scores on the same validation part.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import HalvingGridSearchCV, ParameterSampler, train_test_split

from ..arrays import Array, check_size, short
from ..module import named_modules
from ..training.divergence import Diverged
from .exploration import Divergence, Exploration, Row
from .widths import parameters as size_of
from .widths import width_of_size, width_of_time

#: Cells, depth in four places, and both directions: what is compared if nothing else is asked for.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "rnn": {"cell": "rnn"},
    "gru": {"cell": "gru"},
    "lstm": {"cell": "lstm"},
    "mgu": {"cell": "mgu"},
    "gru, 2 layers": {"cell": "gru", "num_layers": 2},
    "rnn, transition of 2": {"cell": "rnn", "transition_depth": 2, "shortcut": True},
    "gru, input of 2": {"cell": "gru", "input_depth": 2},
    "gru, output of 2": {"cell": "gru", "output_depth": 2},
    "gru, both directions": {"cell": "gru", "bidirectional": True},
}

#: What `architectures` may be.
Architectures = Mapping[str, Any] | Sequence[str]


def explore(
    estimator: Any,
    X: Any,
    y: Any = None,
    architectures: Architectures = ARCHITECTURES,
    *,
    parameters: int | Sequence[int] | None = None,
    seconds: float | Sequence[float] | None = None,
    options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    trials: int = 1,
    seeds: int = 3,
    validation: Any = 0.2,
    factor: int = 3,
    n_jobs: int | None = None,
    random_state: int = 0,
) -> Exploration:
    """Train architectures with several seeds under successive halving; return what they reached.

    estimator: of this package, or a pipeline that ends in one; its `max_iter` is the number of
    passes of those that come furthest. Any other of scikit-learn's contract serves that has
    `initialise(X, y)`, `network_`, and the parameters hidden_size, max_iter and random_state.
    architectures: names of cells; or a dict of names, each of the estimator's parameters (those
    that it does not have go to `cell_options`), a cell's name, or whatever `cell` may be.

    parameters: every architecture is as wide as it can be with so many, at most; seconds: as wide
    as takes about so long to train here, in `max_iter` passes. Several numbers: an exploration of
    each. Without either, hidden_size is the estimator's, or the architecture's, or is drawn.

    options: lists or distributions of further parameters of the estimator, as for scikit-learn's
    `ParameterSampler`, which draws `trials` of them; or a list of dicts of such parameters. Every
    architecture is tried with each.

    validation: the share that scores are computed on, or `(X, y)` of such a part. factor: one in so
    many candidates goes on. n_jobs: processes, as for `HalvingGridSearchCV`; let each have one
    thread then, by RNNCORE_NUM_THREADS=1.

    A run that diverges does not end the others: its row says after how many updates, in which layer
    and at which time step. Raises `ValueError` for budgets that are too small, and what the search
    raises.
    """
    if parameters is not None and seconds is not None:
        raise ValueError("parameters or seconds is the budget, not both")
    last = _Last.of(estimator)
    drawn = _draws(options, trials, random_state)
    for name in {name for draw in drawn for name in draw}:
        last.check(name)
        if name == "hidden_size" and (parameters is not None or seconds is not None):
            raise ValueError("options must not hold hidden_size, which the budget decides")
    parts = _parts(last.estimator, X, y, validation, random_state)
    seen = last.before(parts)
    budgets: Any = parameters if parameters is not None else seconds
    rows: list[Row] = []
    for budget in budgets if isinstance(budgets, (Sequence, np.ndarray)) else [budgets]:

        def width(trained: Any, budget: Any = budget) -> dict[str, int]:
            if budget is None:
                return {}
            if seconds is not None:
                return {"hidden_size": width_of_time(trained, *seen, float(budget))}
            return {"hidden_size": width_of_size(trained, *seen, check_size("parameters", budget))}

        candidates = list(_candidates(last, architectures, drawn, width))
        rows += _search(last, parts, candidates, seeds, factor, n_jobs)
    return Exploration(sorted(rows, key=_rank))


def _rank(row: Row) -> tuple[float, ...]:
    """Order: the furthest first, and of these the best; what diverged last."""
    return (bool(row.diverged), -row.passes, math.inf if row.diverged else -row.score)


def _draws(options: Any, trials: int, seed: int) -> list[dict[str, Any]]:
    """Return options to be tried, the same for every architecture."""
    if not options:
        return [{}]
    if not isinstance(options, Mapping):
        return [dict(given) for given in options]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The total space of parameters", UserWarning)
        return list(
            ParameterSampler(dict(options), check_size("trials", trials), random_state=seed)
        )


def _named(architectures: Architectures) -> Iterable[tuple[str, Any]]:
    """Return architectures by name."""
    if isinstance(architectures, str) or not isinstance(architectures, (Mapping, Sequence)):
        raise TypeError(
            f"architectures must be a list of names or a dict by name, got {short(architectures)}"
        )
    if not architectures:
        raise ValueError("there must be at least one architecture, got none")
    if isinstance(architectures, Mapping):
        return architectures.items()
    return [(name, name) for name in architectures]


@dataclass(frozen=True)
class _Candidate:
    """An architecture with options."""

    name: str
    settings: dict[str, Any]
    options: dict[str, Any]


#: Options on which neither the number of parameters nor the time of a pass depends.
_SIZELESS = frozenset(("learning_rate", "schedule", "weight_decay", "clip_norm", "dropout"))


def _candidates(
    last: _Last,
    architectures: Architectures,
    drawn: list[dict[str, Any]],
    width: Callable[[Any], dict[str, int]],
) -> Iterator[_Candidate]:
    """Yield every architecture with all options, as wide as `width` says of its estimator."""
    for name, given in _named(architectures):
        settings, known = last.settings(given), {}
        for draw in drawn:
            sized = {option: value for option, value in draw.items() if option not in _SIZELESS}
            key = repr(sorted(sized.items()))
            if key not in known:
                known[key] = width(clone(last.estimator).set_params(**{**settings, **sized}))
            yield _Candidate(name, {**settings, **known[key]}, draw)


@dataclass(frozen=True)
class _Last:
    """The estimator of sequences, which may be the last of a pipeline's."""

    whole: Any
    estimator: Any
    prefix: str

    @classmethod
    def of(cls, estimator: Any) -> _Last:
        """Find it."""
        steps = getattr(estimator, "steps", None)
        last, prefix = (steps[-1][1], f"{steps[-1][0]}__") if steps else (estimator, "")
        for name in ("hidden_size", "max_iter", "random_state"):
            if not hasattr(last, "get_params") or name not in last.get_params():
                kind = type(last).__name__
                raise TypeError(f"estimator must have a parameter {name}, which {kind} has not")
        return cls(estimator, last, prefix)

    def check(self, name: str) -> None:
        """Refuse an option that is no parameter of the estimator."""
        known = self.estimator.get_params()
        if name not in known:
            raise ValueError(f"options must be of {', '.join(known)}; got {name!r}")

    def settings(self, given: Any) -> dict[str, Any]:
        """Return an architecture as parameters of the estimator."""
        known = self.estimator.get_params()
        if not isinstance(given, Mapping):
            given = {"cell": given}
        own = {name: value for name, value in given.items() if name in known}
        others = {name: value for name, value in given.items() if name not in known}
        if others and "cell_options" not in known:
            raise ValueError(f"an architecture must be of {', '.join(known)}; got {list(others)}")
        if others:
            kept = own.get("cell_options") or known["cell_options"] or {}
            own["cell_options"] = {**kept, **others}
        return own

    def before(self, parts: _Parts) -> tuple[Any, Any]:
        """Return the training part as the estimator sees it, behind what a pipeline has before."""
        if not self.prefix or len(self.whole.steps) < 2:
            return parts.X, parts.y
        return clone(self.whole[:-1]).fit_transform(parts.X, parts.y), parts.y

    def within(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters of the estimator as those of the whole."""
        return {f"{self.prefix}{name}": value for name, value in params.items()}


@dataclass(frozen=True, eq=False)
class _Parts:
    """The training and the validation part, which no clone copies."""

    X: Any
    y: Any
    X_valid: Any
    y_valid: Any

    def __deepcopy__(self, memo: Any) -> _Parts:
        return self


def _parts(estimator: Any, X: Any, y: Any, validation: Any, seed: int) -> _Parts:
    """Split the data, classes alike in both parts; or take the two parts as they are."""
    if isinstance(validation, (tuple, list)):
        if len(validation) != 2:
            raise ValueError(f"validation must be a share or (X, y), got {short(validation)}")
        return _Parts(X, y, *validation)
    options = {"test_size": float(validation), "random_state": seed}
    if y is None:
        found = train_test_split(X, **options)
        return _Parts(found[0], None, found[1], None)
    labels = isinstance(y, np.ndarray) or (len(y) > 0 and isinstance(y[0], (str, int)))
    strata = None
    if is_classifier(estimator) and labels and np.ndim(y) == 1 and np.asarray(y).dtype != object:
        strata = y if np.unique(y, return_counts=True)[1].min() > 1 else None
    X, X_valid, y, y_valid = train_test_split(X, y, **options, stratify=strata)
    return _Parts(X, y, X_valid, y_valid)


class _Trial(BaseEstimator):
    """An estimator whose samples are seeds: one is what it is trained with, on all of its part."""

    def __init__(self, estimator: Any, prefix: str, parts: Any, number: int = 0) -> None:
        self.estimator, self.prefix, self.parts, self.number = estimator, prefix, parts, number

    def fit(self, X: Array, y: Any = None) -> _Trial:
        if len(X) > 1:  # the search's own last fit, of which nothing is asked
            return self
        self.model_ = clone(self.estimator).set_params(**{f"{self.prefix}random_state": int(X[0])})
        self.diverged_: Diverged | None = None
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                self.model_.fit(self.parts.X, self.parts.y)
        except Diverged as error:
            self.diverged_ = error
        return self

    def network(self) -> Any:
        return _Last.of(self.model_).estimator.network_


def _measured(trial: _Trial, X: Any, y: Any = None) -> dict[str, float]:
    """Return a trial's score, or where it diverged, as numbers."""
    error, parts = trial.diverged_, trial.parts
    if error is None:
        with np.errstate(over="ignore", invalid="ignore"):
            score = float(trial.model_.score(parts.X_valid, parts.y_valid))
        score = score if math.isfinite(score) else math.nan
        return {"score": score, "updates": math.nan, "layer": math.nan, "step": math.nan}
    names = [name for name, _ in named_modules(trial.network())]
    layer = names.index(error.layer) if error.layer in names else math.nan
    step = math.nan if error.step is None else error.step
    return {"score": math.nan, "updates": error.updates, "layer": layer, "step": step}


def _search(
    last: _Last,
    parts: _Parts,
    candidates: list[_Candidate],
    seeds: int,
    factor: int,
    n_jobs: int | None,
) -> list[Row]:
    """Let scikit-learn search; return the rows."""
    grid = []
    for number, candidate in enumerate(candidates):
        params = last.within({**candidate.settings, **candidate.options})
        values = {f"estimator__{name}": [value] for name, value in params.items()}
        grid.append({"number": [number], **values})
    numbers = np.arange(check_size("seeds", seeds) + 1)  # one more: two at least tell the last fit
    search = HalvingGridSearchCV(
        _Trial(last.whole, last.prefix, parts),
        grid,
        factor=factor,
        resource=f"estimator__{last.prefix}max_iter",
        max_resources=check_size("max_iter", last.estimator.max_iter),
        cv=[(numbers[[at]], numbers[[at]]) for at in range(seeds)],
        scoring=_measured,
        refit="score",
        error_score="raise",
        return_train_score=False,
        n_jobs=n_jobs,
    )
    with warnings.catch_warnings():  # a score that is not finite is what rows are there to say
        warnings.filterwarnings("ignore", "One or more of the test scores", UserWarning)
        search.fit(numbers)
    results, furthest = search.cv_results_, {}
    for at, params in enumerate(results["params"]):
        furthest[params["number"]] = at  # later rungs stand behind earlier ones
    return [_row(last, parts, candidates[n], results, at, seeds) for n, at in furthest.items()]


def _row(
    last: _Last, parts: _Parts, candidate: _Candidate, results: Any, at: int, seeds: int
) -> Row:
    """Return what the search found of a candidate."""
    settings = {**candidate.settings, **candidate.options}
    trained = clone(last.estimator).set_params(**settings).initialise(*last.before(parts))
    names = [name for name, _ in named_modules(trained.network_)]

    def told(what: str) -> list[float]:
        return [float(results[f"split{seed}_test_{what}"][at]) for seed in range(seeds)]

    runs = zip(told("score"), told("updates"), told("layer"), told("step"), strict=True)
    diverged = tuple(
        Divergence(
            seed,
            None if math.isnan(updates) else int(updates),
            None if math.isnan(layer) else names[int(layer)],
            None if math.isnan(step) else int(step),
        )
        for seed, (score, updates, layer, step) in enumerate(runs)
        if math.isnan(score)
    )
    return Row(
        candidate.name,
        settings,
        candidate.options,
        trained.hidden_size,
        size_of(trained),
        int(results["n_resources"][at]),
        tuple(told("score")),
        float(results["mean_fit_time"][at]),
        diverged,
    )
