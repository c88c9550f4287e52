"""Pictures: figures that are returned, saved where there is a path, drawn into given axes."""

import subprocess
import sys

import numpy as np
import pytest
from rnncore import Forest
from rnncore.training.gradient_flow import GradientNorms, plot_gradient_flow, plot_gradient_norms
from rnncore.training.plots import plot_attention, plot_history

pytest.importorskip("matplotlib", reason="matplotlib draws")

from matplotlib.figure import Figure

HISTORY = [
    {"step": step, "train_loss": 1 / step, "validation_loss": loss}
    for step, loss in ((1, None), (2, 0.7), (3, 0.5))
]


def norms():
    from rnncore import Linear

    record = GradientNorms(Linear(2, 2))
    record.record()
    return record


PLOTS = {
    "history": lambda **options: plot_history(HISTORY, **options),
    "attention": lambda **options: plot_attention(np.eye(2, 3), "abc", ["d", "e"], **options),
    "flow": lambda **options: plot_gradient_flow({"LSTM": np.ones((4, 2))}, **options),
    "norms": lambda **options: plot_gradient_norms(norms(), **options),
    "trees": lambda **options: Forest.from_nested([(1, 2)]).plot(
        values=[0.0, 1.0, 2.0], title="t", **options
    ),
}


@pytest.mark.parametrize("kind", PLOTS)
class TestEach:
    def test_returns_a_figure(self, kind):
        figure = PLOTS[kind]()
        assert isinstance(figure, Figure)
        axes, *others = figure.axes
        assert bool(others) is (kind in ("attention", "trees"))  # a bar of colours
        assert axes.lines or axes.images or axes.collections

    def test_is_saved_where_there_is_a_path(self, kind, tmp_path):
        figure = PLOTS[kind](path=tmp_path / "picture.png")
        assert isinstance(figure, Figure)
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
        PLOTS[kind]()
        assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]

    def test_draws_into_given_axes(self, kind, tmp_path):
        figure = Figure()
        left, right = figure.subplots(1, 2)
        right.set_title("mine")
        assert PLOTS[kind](ax=right, path=tmp_path / "both.svg") is figure
        assert right.lines or right.images or right.collections
        assert [*left.lines, *left.images, *left.collections] == []
        assert right.get_title() == ("t" if kind == "trees" else "mine")
        assert not figure.legends
        assert "<svg" in (tmp_path / "both.svg").read_text(encoding="utf-8")

    def test_draws_into_a_part_of_a_figure(self, kind, tmp_path):
        figure = Figure(layout="constrained")
        part = figure.subfigures(1, 2)[1]
        assert PLOTS[kind](ax=part.subplots(), path=tmp_path / "part.png") is figure
        assert (tmp_path / "part.png").stat().st_size > 1000

    def test_other_axes_are_refused(self, kind):
        for bad in (Figure(), "axes", np.zeros(2)):
            with pytest.raises(TypeError, match="ax must be a matplotlib Axes or None, got"):
                PLOTS[kind](ax=bad)

    def test_without_matplotlib_says_what_to_install(self, kind, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"pip install 'rnncore\[plot\]'"):
            PLOTS[kind]()


def test_what_they_show():
    axes = plot_history(HISTORY, unit="bits").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss (bits)")
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2, 3], [2, 3]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
    assert plot_history([]).axes[0].get_legend() is None
    figure = plot_gradient_flow({"LSTM": np.ones((4, 2)), "RNN": np.zeros((4, 1))})
    assert figure.axes[0].get_yscale() == "log"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["LSTM, layer 0", "LSTM, layer 1", "RNN"]


def test_of_an_estimator(tmp_path):
    pytest.importorskip("sklearn")
    from rnncore.estimators import SequenceRegressor
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        SequenceRegressor().plot_history()
    model = SequenceRegressor(max_iter=2, hidden_size=2).fit(np.ones((4, 3, 1)), [1.0, 2, 3, 4])
    figure = Figure()
    axes = figure.add_subplot()
    assert model.plot_history(tmp_path / "losses.pdf", ax=axes) is figure
    assert axes.get_ylabel() == "loss (variances of the target)"
    assert (tmp_path / "losses.pdf").read_bytes().startswith(b"%PDF")
    assert model.plot_history() is not figure


def test_pyplot_is_left_alone():
    program = (
        "import sys; from rnncore.training.plots import plot_history; plot_history([]);"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
