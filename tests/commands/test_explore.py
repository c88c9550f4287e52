"""The command `explore`: forms of data, what it prints and draws, and how it fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from rnncore.cli import main
from rnncore.commands import datasets
from rnncore.commands.explore import architecture

RESULT = re.compile(r"result: best=\S+ score=-?\d+\.\d{4} parameters=\d+")
QUICK = ["--parameters", "400", "--seeds", "2", "--passes", "1", "--architectures"]


def complaint(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["explore", *argv]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def saved(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return str(path)


RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 6, 2))
LENGTHS = RNG.integers(2, 7, 24)
FORMS = {
    "classify": {"X": X, "y": np.array(["up" if x[:, 0].sum() > 0 else "down" for x in X])},
    "regress": {"X": X, "y": X.sum(axis=(1, 2)), "lengths": LENGTHS},
    "label": {"X": X, "y": (X[..., 0] > 0).astype(int), "lengths": LENGTHS},
    "forecast": {"X": X[..., 0]},
}


class TestCommand:
    @pytest.mark.parametrize("task", FORMS)
    def test_every_task(
        self, task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = saved(tmp_path / "data.npz", **FORMS[task])
        assert main(["explore", data, *QUICK, "gru", "rnn,nonlinearity=relu"]) == 0
        first, head, *rows, last = capsys.readouterr().out.splitlines()
        assert first == f"{task}: 24 sequences, 2 architectures, 2 seeds, up to 1 passes"
        assert head.startswith("architecture")
        assert {line.split()[0] for line in rows} == {"gru", "rnn,nonlinearity=relu"}
        assert RESULT.fullmatch(last)

    def test_one_series_and_the_picture(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pytest.importorskip("matplotlib")
        path, picture = tmp_path / "series.csv", tmp_path / "explored.svg"
        waves = np.sin(np.arange(200) / 5)
        path.write_text("wave\n" + "\n".join(map(str, waves)), encoding="utf-8")
        assert main(["explore", str(path), *QUICK, "gru", "--plot", str(picture)]) == 0
        assert RESULT.fullmatch(capsys.readouterr().out.splitlines()[-1])
        assert picture.stat().st_size > 0

    def test_seconds(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = saved(tmp_path / "data.npz", **FORMS["classify"])
        options = ["--seconds", "0.5", "--seeds", "1", "--passes", "2"]
        assert main(["explore", data, *options, "--architectures", "gru"]) == 0
        assert RESULT.fullmatch(capsys.readouterr().out.splitlines()[-1])

    def test_digits(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["explore", "digits", *QUICK, "gru"]) == 0
        assert "classify: 1,797 sequences" in capsys.readouterr().out

    def test_complaints(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = saved(tmp_path / "data.npz", **FORMS["forecast"])
        assert "data.txt must end in" in complaint(capsys, "data.txt")
        assert "No such file" in complaint(capsys, str(tmp_path / "none.npz"))
        assert "cell must be" in complaint(capsys, data, *QUICK, "grue")
        both = "gru,bidirectional=true"
        assert "from both directions" in complaint(capsys, data, *QUICK, both)
        options = ["--parameters", "4", "--architectures", "gru"]
        assert "parameters must be at least" in complaint(capsys, data, *options)
        with pytest.raises(SystemExit):
            main(["explore", data, *QUICK, "gru,layers"])
        assert "must be CELL,OPTION=VALUE" in capsys.readouterr().err

    def test_all_diverged(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        data = saved(tmp_path / "data.npz", **FORMS["classify"])
        relu = "rnn,nonlinearity=relu,clip_norm=null"
        options = ["--seeds", "1", "--passes", "2", "--lr", "1e30", "--architectures", relu]
        assert main(["explore", data, *options]) == 2
        out, err = capsys.readouterr()
        assert "seed 0 diverged after 1 updates in time step" in out
        assert "every candidate diverged" in err


def test_architectures_are_read() -> None:
    text = "rnn,transition_depth=2,shortcut=true,nonlinearity=relu"
    assert architecture(text) == (
        text,
        {"cell": "rnn", "transition_depth": 2, "shortcut": True, "nonlinearity": "relu"},
    )


class TestDatasets:
    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": X}, "there must be an array X, got x"),
            ({"X": X[0, 0]}, "X must be numbers"),
            ({"X": X.astype(str)}, "X must be numbers"),
            ({"X": X, "y": np.zeros(3)}, "y must have shape"),
            ({"X": X, "y": np.zeros((24, 3))}, "y must have shape"),
            ({"X": X, "lengths": LENGTHS + 9}, r"lengths must be in 1..6"),
            ({"X": X, "lengths": LENGTHS * 1.0}, "lengths must be .24,. whole numbers"),
            ({"X": np.array([None])}, "allow_pickle=False"),
        ],
    )
    def test_refuses(self, arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
        path = saved(tmp_path / "data.npz", **arrays)
        with pytest.raises(ValueError, match=message) as caught:
            datasets.read(path)
        assert "data.npz" in str(caught.value)

    def test_a_gap_in_a_series(self, tmp_path: Path) -> None:
        np.save(tmp_path / "series.npy", np.array([1.0, 2.0, np.nan, 3.0]))
        with pytest.raises(ValueError, match="step 2 of the series"):
            datasets.read(str(tmp_path / "series.npy"))

    def test_rows_are_cut_to_their_lengths(self, tmp_path: Path) -> None:
        found = datasets.read(saved(tmp_path / "data.npz", **FORMS["label"]))
        assert [len(x) for x in found.X] == list(LENGTHS)
        assert [len(labels) for labels in found.y] == list(LENGTHS)
        np.testing.assert_array_equal(found.X[3], X[3, : LENGTHS[3]].astype(np.float32))
