"""The explorer: widths by budget, halving over seeds, and runs that diverge."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import rnncore
from rnncore import cells
from rnncore.estimators import (
    Forecaster,
    SequenceClassifier,
    SequenceLabeller,
    SequenceScaler,
    explore,
)
from rnncore.estimators.exploration import Divergence, Exploration, Row
from rnncore.estimators.exploring import ARCHITECTURES
from rnncore.estimators.widths import parameters as size_of
from rnncore.estimators.widths import width_of_size, width_of_time
from sklearn.base import clone
from sklearn.pipeline import make_pipeline


def sequences(count: int = 60) -> tuple[list[Any], Any]:
    """Two classes, told by the sign of the first sum."""
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((n, 3)).astype("f") for n in rng.integers(3, 12, count)]
    return X, np.array(["up" if x[:, 0].sum() > 0 else "down" for x in X])


def quick(**options: Any) -> SequenceClassifier:
    return SequenceClassifier(**{"max_iter": 3, "batch_size": 16, **options})


class TestWidths:
    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_the_budget_holds_and_one_unit_more_breaks_it(self, name: str) -> None:
        X, y = sequences()
        given = dict(ARCHITECTURES[name])
        if given.pop("shortcut", False):
            given["cell_options"] = {"shortcut": True}
        model = quick(**given)
        width = width_of_size(model, X, y, 3000)

        def count(width: int) -> int:
            return size_of(clone(model).set_params(hidden_size=width).initialise(X, y))

        assert count(width) <= 3000 < count(width + 1)

    def test_a_budget_for_no_network(self) -> None:
        with pytest.raises(ValueError, match=r"parameters must be at least \d+, .*, got 5"):
            width_of_size(quick(), *sequences(), 5)

    def test_more_seconds_are_more_width(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [0.0]

        class Timed(SequenceClassifier):
            def fit(self, X: Any, y: Any) -> Any:
                clock[0] += 1e-4 * self.hidden_size**2 * self.max_iter
                return self

        monkeypatch.setattr("time.perf_counter", lambda: clock[0])
        model = Timed(max_iter=10)
        assert width_of_time(model, None, None, 1e-3 * 100**2) == pytest.approx(100, abs=1)
        assert width_of_time(model, None, None, 1e-3 * 64**2) == 64
        with pytest.raises(ValueError, match=r"seconds must be at least 0.016, those of width 4"):
            width_of_time(model, None, None, 1e-3)


class TestExplore:
    def test_halving_gives_the_better_ones_more_passes(self) -> None:
        X, y = sequences()
        found = explore(quick(), X, y, ["gru", "lstm", "rnn", "mgu"], parameters=500, seeds=2)
        assert sorted(row.architecture for row in found.rows) == ["gru", "lstm", "mgu", "rnn"]
        assert [row.passes for row in found.rows] == [3, 3, 1, 1]
        assert found.rows[0].score >= found.rows[1].score
        for row in found.rows:
            assert len(row.scores) == 2
            assert row.parameters <= 500
            assert 0 <= row.score <= 1

    def test_scores_are_those_of_the_settings(self) -> None:
        """A row can be done again: the same estimator, part and seeds."""
        X, y = sequences()
        validation = (X[40:], y[40:])
        found = explore(quick(), X[:40], y[:40], ["gru"], seeds=3, validation=validation)
        (row,) = found.rows
        for seed, score in enumerate(row.scores):
            model = quick(random_state=seed, **row.settings).fit(X[:40], y[:40])
            assert model.score(*validation) == score
        assert row.score == pytest.approx(np.mean(row.scores))

    @pytest.mark.parametrize("seeds", [1, 2])
    def test_trains_each_once_a_seed(self, seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
        X, y = sequences()
        fitted, fit = [], SequenceClassifier.fit
        monkeypatch.setattr(
            SequenceClassifier,
            "fit",
            lambda self, *args: [fitted.append(self.random_state), fit(self, *args)][1],
        )
        explore(quick(), X, y, ["gru", "rnn"], parameters=300, seeds=seeds)
        assert sorted(fitted) == sorted([*range(seeds)] * 2)

    def test_pipelines_labels_and_forecasts(self) -> None:
        X, _ = sequences()
        labels = [np.where(x[:, 0] > 0, "up", "down") for x in X]
        labeller = make_pipeline(SequenceScaler(), SequenceLabeller(max_iter=1))
        found = explore(labeller, X, labels, ["gru"], seeds=2, parameters=300)
        assert found.best.parameters <= 300
        found = explore(Forecaster(max_iter=1), X, None, ["gru"], seeds=2, parameters=300)
        assert len(found.best.scores) == 2

    def test_own_cells_and_options_of_cells(self) -> None:
        class Own(rnncore.GRU):
            pass

        X, y = sequences()
        relu = {"cell": "rnn", "nonlinearity": "relu", "transition_depth": 2, "shortcut": True}
        found = explore(quick(max_iter=1), X, y, {"own": Own, "relu": relu}, seeds=1)
        by_name = {row.architecture: row for row in found.rows}
        assert by_name["own"].settings["cell"] is Own
        options = {"nonlinearity": "relu", "shortcut": True}
        assert by_name["relu"].settings["cell_options"] == options
        assert math.isnan(by_name["own"].interval)

    def test_a_cell_that_is_written_in_python(self) -> None:
        @cells.define(gates="zn", states="h")
        def gated(z: Any, n: Any, h: Any) -> Any:
            z = cells.sigmoid(z)
            return z * h + (1 - z) * cells.tanh(n)

        X, y = sequences()
        found = explore(quick(max_iter=1), X, y, {"gated": gated}, parameters=400, seeds=2)
        assert found.best.settings["cell"] is gated
        assert 300 < found.best.parameters <= 400

    def test_options_are_drawn_for_all_alike(self) -> None:
        X, y = sequences()
        options = {"learning_rate": [1e-3, 1e-2], "hidden_size": [4, 6]}
        found = explore(
            quick(max_iter=1), X, y, ["gru", "rnn"], options=options, trials=3, seeds=1, factor=8
        )
        drawn = {
            name: sorted(
                (row.options["learning_rate"], row.options["hidden_size"])
                for row in found.rows
                if row.architecture == name
            )
            for name in ("gru", "rnn")
        }
        assert drawn["gru"] == drawn["rnn"]
        assert len(found.rows) == 6
        assert sorted(row.architecture for row in found.shown()) == ["gru", "rnn"]
        assert all(row.hidden_size == row.options["hidden_size"] for row in found.rows)

    def test_options_in_a_list_are_tried_as_they_are(self) -> None:
        X, y = sequences()
        options = [{"learning_rate": 0.1}, {"dropout": 0.5, "hidden_size": 5}]
        found = explore(quick(max_iter=1), X, y, ["gru"], options=options, seeds=1)
        assert sorted(len(row.options) for row in found.rows) == [1, 2]
        assert all(row.options in options for row in found.rows)

    def test_options_count_in_the_budget(self) -> None:
        X, y = sequences()
        options = [{"num_layers": 1}, {"num_layers": 3}]
        found = explore(quick(max_iter=1), X, y, ["gru"], options=options, seeds=1, parameters=900)
        widths = {row.options["num_layers"]: row.hidden_size for row in found.rows}
        assert widths[1] > widths[3]
        assert all(700 < row.parameters <= 900 for row in found.rows)
        with pytest.raises(ValueError, match="which the budget decides"):
            explore(quick(), X, y, options=[{"hidden_size": 3}], parameters=900)

    def test_a_run_that_diverges_is_a_row(self) -> None:
        X, y = sequences()
        architectures = {"sane": "gru", "wild": {"cell": "rnn", "nonlinearity": "relu"}}
        wild = {"learning_rate": 1e30, "clip_norm": None}
        architectures["wild"] = {**architectures["wild"], **wild}  # type: ignore[dict-item]
        found = explore(quick(), X, y, architectures, seeds=2)
        sane, last = found.rows
        assert (sane.architecture, sane.diverged) == ("sane", ())
        assert [run.seed for run in last.diverged] == [0, 1]
        for run in last.diverged:
            assert run.updates >= 1
            assert run.layer == "0.layer"
            assert run.step is not None
        assert math.isnan(last.score)
        assert found.best is sane
        line = str(found).splitlines()[-1]
        assert line.startswith("wild")
        assert "diverged" in line
        assert "of layer 0.layer" in line

    def test_a_score_that_is_not_finite_is_a_row(self) -> None:
        class Vain(SequenceClassifier):
            def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
                return math.inf if self.random_state else 1.0

        (only,) = explore(Vain(max_iter=1), *sequences(), ["gru"], seeds=2).rows
        assert [str(run) for run in only.diverged] == ["seed 1 has no finite score"]

    def test_in_processes(self) -> None:
        X, y = sequences()
        runs = [
            explore(quick(max_iter=1), X, y, ["gru", "rnn"], seeds=2, n_jobs=jobs)
            for jobs in (None, 2)
        ]
        assert [row.scores for row in runs[0].rows] == [row.scores for row in runs[1].rows]

    def test_several_budgets(self) -> None:
        X, y = sequences()
        found = explore(quick(max_iter=1), X, y, ["gru"], seeds=1, parameters=[200, 800])
        assert sorted(row.parameters > 200 for row in found.rows) == [False, True]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"parameters": 500, "seconds": 1.0}, "parameters or seconds"),
            ({"options": {"lr": [1]}}, "options must be of .*; got 'lr'"),
            ({"parameters": 0}, "parameters must be at least 1"),
            ({"validation": (1, 2, 3)}, "validation must be a share or"),
            ({"seeds": 0}, "seeds must be at least 1"),
            ({"architectures": []}, "there must be at least one architecture"),
        ],
    )
    def test_refuses(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            explore(quick(), *sequences(), **{"architectures": ["gru"], **options})

    def test_refuses_what_is_no_estimator(self) -> None:
        with pytest.raises(TypeError, match="must have a parameter hidden_size"):
            explore(SequenceScaler(), *sequences(), ["gru"])
        with pytest.raises(TypeError, match="architectures must be"):
            explore(quick(), *sequences(), "gru")  # type: ignore[arg-type]


def row(name: str, scores: tuple[float, ...], **others: Any) -> Row:
    return Row(name, {}, {}, 8, others.pop("parameters", 100), 3, scores, 1.0, **others)


class TestExploration:
    def test_intervals_are_students(self) -> None:
        one = row("gru", (0.5, 0.6, 0.7))
        stats = pytest.importorskip("scipy.stats")
        low, high = stats.t.interval(0.95, 2, loc=0.6, scale=stats.sem(one.scores))
        assert one.interval == pytest.approx((high - low) / 2)
        assert one.score == pytest.approx(0.6)

    def test_the_table(self) -> None:
        runs = (Divergence(0, 20, "0", 1203), Divergence(1, 3, None, None))
        found = Exploration([row("gru", (0.5, 0.7)), row("wild", (math.nan,), diverged=runs)])
        head, first, second = str(found).splitlines()
        assert head.split()[::3] == ["architecture", "passes"]
        assert first.split()[:5] == ["gru", "8", "100", "3", "0.6000"]
        assert second.endswith(
            "seed 0 diverged after 20 updates in time step 1203 of layer 0, "
            "seed 1 diverged after 3 updates"
        )
        only = Exploration(found.rows[1:])
        with pytest.raises(ValueError, match="every candidate diverged"):
            _ = only.best

    def test_the_picture(self, tmp_path: Any) -> None:
        pytest.importorskip("matplotlib")
        rows = [row("gru", (0.5, 0.7)), row("gru", (0.8,), parameters=300), row("rnn", (0.4, 0.4))]
        figure = Exploration(rows).plot(tmp_path / "explored.png")
        assert (tmp_path / "explored.png").stat().st_size > 0
        labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
        assert labels == ["gru", "rnn"]
        line = figure.axes[0].lines[0]
        assert list(line.get_xdata()) == [100, 300]
