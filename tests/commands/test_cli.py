"""The command `rnncore`: what it prints and saves, and how it fails."""

import math
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rnncore.arrays import load_arrays
from rnncore.cli import main
from rnncore.commands import compare, demo
from rnncore.text import CharModel
from rnncore.training.trainer import Trainer

TEXT = "".join(
    f"{n} bottles stand on the wall, and if one falls, {n - 1}.\n" for n in range(99, 9, -1)
)
SIZES = {"hidden": 8, "embedding": 4, "batch": 4, "length": 16, "dropout": 0.1, "validations": 3}
SMALL = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
RESULT = re.compile(r"result: val_loss=\d+\.\d+ seconds=\d+(\.\d+)? chars_per_second=\d+")

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def train(text: Path, out: Path, *more: str) -> int:
    return main(["train", "--text", str(text), "--out", str(out), *more])


def start_of(capsys: Capture, *argv: str) -> str:
    """Run a command that must fail, and return its one line of complaint."""
    try:
        status = main(argv)
    except SystemExit as leaving:  # argparse leaves by itself
        status = leaving.code
    said = capsys.readouterr().err
    assert status == 2, said
    assert said.count("\n") == 1, said
    assert "error: " in said
    return said


class TestTrain:
    def test_saves_a_model_and_ends_with_the_result(
        self, text: Path, tmp_path: Path, capsys: Capture
    ) -> None:
        out = tmp_path / "model"
        assert train(text, out, *SMALL, "--steps", "20", "--cell", "gru", "--layers", "2") == 0
        lines = capsys.readouterr().out.splitlines()
        assert RESULT.fullmatch(lines[-1])
        model = CharModel.from_file(out)
        assert (model.config.cell, model.config.layers, model.config.hidden) == ("gru", 2, 8)
        cut = int(0.9 * len(TEXT)) - 1
        assert f"val_loss={model.evaluate(TEXT[cut:]):.4f} " in lines[-1]
        assert (
            f"{cut + 1:,} characters to train on, {len(TEXT) - cut - 1:,} to validate" in lines[1]
        )

    def test_keeps_the_best_and_not_the_last(
        self, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        losses = iter([1.0, 3.0, 2.0])
        monkeypatch.setattr("rnncore.commands.recipe.evaluate", lambda *_: next(losses))
        at_first = {}
        original = Trainer._record

        def record(self: Trainer, *args: Any) -> None:
            original(self, *args)
            at_first.update(self.model.state_dict() if len(self.history) == 1 else {})

        monkeypatch.setattr(Trainer, "_record", record)
        train(text, tmp_path / "model", *SMALL, "--steps", "12")
        saved, _ = load_arrays(tmp_path / "model")
        for name, array in at_first.items():
            np.testing.assert_array_equal(saved[name], array)

    def test_epochs_make_steps(self, text: Path, tmp_path: Path, capsys: Capture) -> None:
        train(text, tmp_path / "model", *SMALL, "--epochs", "1")
        chunks = math.ceil(math.ceil((int(0.9 * len(TEXT)) - 1) / 4) / 16)
        assert f"plan: {chunks} steps of 4 x 16 characters" in capsys.readouterr().out

    def test_minutes_make_steps(self, text: Path, tmp_path: Path, capsys: Capture) -> None:
        train(text, tmp_path / "model", *SMALL, "--minutes", "0.005")
        assert RESULT.fullmatch(capsys.readouterr().out.splitlines()[-1])

    def test_plots(self, text: Path, tmp_path: Path) -> None:
        pytest.importorskip("matplotlib", reason="matplotlib draws the curves")
        curve = tmp_path / "curve.png"
        train(text, tmp_path / "model", *SMALL, "--steps", "3", "--plot", str(curve))
        assert curve.stat().st_size > 1000

    def test_ctrl_c_saves_and_resume_ends_as_if_nothing_had_happened(
        self, text: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, broken = tmp_path / "whole", tmp_path / "broken"
        train(text, whole, *SMALL, "--steps", "20")

        with monkeypatch.context() as patch:
            original = Trainer.update

            def update(self: Trainer) -> float:
                if self.progress.step == 10:
                    signal.raise_signal(signal.SIGINT)
                return original(self)

            patch.setattr(Trainer, "update", update)
            assert train(text, broken, *SMALL, "--steps", "20") == 130
        said = capsys.readouterr()
        assert "result:" not in said.out.splitlines()[-1]
        assert said.err.splitlines()[-1] == (
            "rnncore train: stopped after step 11; "
            f"the checkpoint is saved as {broken}.checkpoint; "
            f"the best model so far is saved as {broken}; --resume goes on from there"
        )
        CharModel.from_file(broken)

        assert train(text, broken, "--resume") == 0
        assert whole.read_bytes() == broken.read_bytes()
        one, two = (load_arrays(f"{path}.checkpoint")[0] for path in (whole, broken))
        assert one.keys() == two.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(array, two[name], err_msg=name)


class TestTrainComplains:
    def test_about_a_missing_text(self, tmp_path: Path, capsys: Capture) -> None:
        assert "no-text: No such file" in start_of(
            capsys, "train", "--text", str(tmp_path / "no-text")
        )

    def test_about_a_text_that_is_none(self, text: Path, capsys: Capture) -> None:
        text.write_bytes(b"\xff\xfe\x00")
        assert f"{text} is not text in UTF-8" in start_of(capsys, "train", "--text", str(text))

    @pytest.mark.parametrize("short", ["", "a", "too short to train on", TEXT[:70]])
    def test_about_a_text_too_short(self, short: str, text: Path, capsys: Capture) -> None:
        text.write_text(short)
        said = start_of(capsys, "train", "--text", str(text), *SMALL)
        assert "the text is too short to train on" in said
        assert "4 streams of 16 need 65" in said

    def test_about_a_folder_that_is_not_there(self, text: Path, capsys: Capture) -> None:
        out = text.parent / "none" / "model"
        said = start_of(capsys, "train", "--text", str(text), "--out", str(out))
        assert f"there is no folder {out.parent}" in said

    def test_about_a_folder_in_place_of_a_file(self, text: Path, capsys: Capture) -> None:
        said = start_of(capsys, "train", "--text", str(text), "--out", str(text.parent))
        assert f"{text.parent} is a folder" in said

    def test_about_plots_without_matplotlib(
        self, text: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        said = start_of(
            capsys, "train", "--text", str(text), "--out", str(tmp_path / "m"), "--plot", "c.png"
        )
        assert "pip install 'rnncore[plot]'" in said

    @pytest.mark.parametrize(
        "option",
        [
            "--hidden 0",
            "--hidden 1.5",
            "--layers -1",
            "--dropout 1",
            "--dropout -0.1",
            "--lr 0",
            "--lr nan",
            "--lr inf",
            "--clip x",
            "--minutes 0",
            "--seed -1",
            "--cell lsmt",
            "--steps",
            "--unheard-of",
        ],
    )
    def test_about_bad_options(self, option: str, text: Path, capsys: Capture) -> None:
        said = start_of(capsys, "train", "--text", str(text), *option.split())
        assert option.split()[0] in said

    def test_about_a_loss_that_explodes(
        self, text: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, explode_at, out = Trainer.update, 0, tmp_path / "model"

        def update(self: Trainer) -> float:
            if self.progress.step == explode_at:
                raise FloatingPointError("the training loss is nan")
            return original(self)

        monkeypatch.setattr(Trainer, "update", update)
        assert train(text, out, *SMALL, "--steps", "9") == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == "rnncore train: error: the training loss is nan"
        assert not out.exists()

        explode_at = 5
        assert train(text, out, *SMALL, "--steps", "9") == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.endswith(f"the training loss is nan; the best model so far is saved as {out}")
        CharModel.from_file(out)

    def test_about_nothing_to_resume(self, text: Path, tmp_path: Path, capsys: Capture) -> None:
        said = start_of(
            capsys, "train", "--text", str(text), "--out", str(tmp_path / "m"), "--resume"
        )
        assert f"{tmp_path / 'm'}.checkpoint" in said

    def test_about_resuming_another_run(self, text: Path, tmp_path: Path, capsys: Capture) -> None:
        out = tmp_path / "model"
        train(text, out, *SMALL, "--steps", "3")
        again = ["train", "--text", str(text), "--out", str(out), "--resume"]
        capsys.readouterr()
        assert "started with hidden=8, not 9" in start_of(capsys, *again, "--hidden", "9")
        text.write_text(TEXT + "x")
        assert "the text is not the one" in start_of(capsys, *again)

    def test_about_resuming_from_a_model(self, text: Path, tmp_path: Path, capsys: Capture) -> None:
        out = tmp_path / "model"
        train(text, out, *SMALL, "--steps", "3")
        out.replace(f"{out}.checkpoint")
        capsys.readouterr()
        said = start_of(capsys, "train", "--text", str(text), "--out", str(out), "--resume")
        assert "is not a checkpoint of this command" in said


class TestSample:
    @pytest.fixture
    def model(self, text: Path, tmp_path: Path, capsys: Capture) -> str:
        train(text, tmp_path / "model", *SMALL, "--steps", "3")
        capsys.readouterr()
        return str(tmp_path / "model")

    def test_goes_on_from_the_prompt_and_is_told_by_its_seed(
        self, model: str, capsys: Capture
    ) -> None:
        texts = []
        for seed in ("1", "1", "2"):
            assert (
                main(["sample", model, "--prompt", "99 b", "--length", "30", "--seed", seed]) == 0
            )
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1] != texts[2]
        assert texts[0].startswith("99 b")
        assert len(texts[0]) == 4 + 30 + 1

    def test_complains_about_unknown_characters(self, model: str, capsys: Capture) -> None:
        assert "'Q'" in start_of(capsys, "sample", model, "--prompt", "Q")

    def test_complains_about_an_empty_prompt(self, model: str, capsys: Capture) -> None:
        assert "prompt is empty" in start_of(capsys, "sample", model, "--prompt", "")

    def test_complains_about_bad_options(self, model: str, capsys: Capture) -> None:
        assert "--temperature" in start_of(capsys, "sample", model, "--temperature", "-1")
        assert "--length" in start_of(capsys, "sample", model, "--length", "-1")

    def test_complains_about_files(self, model: str, text: Path, capsys: Capture) -> None:
        assert "no such model file" in start_of(capsys, "sample", f"{model}-not-there")
        assert "not a readable safetensors file" in start_of(capsys, "sample", str(text))
        assert "describes no module" in start_of(capsys, "sample", f"{model}.checkpoint")
        whole = Path(model).read_bytes()
        Path(model).write_bytes(whole[: len(whole) // 2])
        assert "not a readable safetensors file" in start_of(capsys, "sample", model)


class TestDemo:
    def test_trains_samples_and_compares(
        self, text: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(compare, "in_own_process", lambda *shape: (0.001, 0.005))
        out = tmp_path / "demo"
        assert main(["demo", "--text", str(text), "--out", str(out), "--seconds", "0.2"]) == 0
        said = capsys.readouterr().out
        for line in (
            r"loss: \d\.\d{3} training, \d\.\d{3} validation",
            r"speed: [\d,]+ characters per second in training",
            r"1.0 ms; the NumPy reference: 5.0 ms \(5.0 times as long\)",
            rf"more: python -m rnncore sample {re.escape(str(out))}",
        ):
            assert re.search(line, said), line
        CharModel.from_file(out)

    def test_finds_a_text_on_every_machine(
        self, capsys: Capture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert len(demo.stdlib_text()) > 200_000
        assert "pydoc_data.topics" in capsys.readouterr().out
        monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
        assert len(demo.stdlib_text()) > 200_000
        assert "pydoc_data is not installed" in capsys.readouterr().out

    def test_compares_on_one_thread_each(self) -> None:
        ours, numpys = compare.in_own_process(4, 2, 3, 5)
        assert 0 < ours < 1
        assert 0 < numpys < 1


class TestCommand:
    def test_info(self, capsys: Capture) -> None:
        assert main(["info"]) == 0
        said = capsys.readouterr().out
        for name in ("version", "instruction_set", "compiler", "python", "numpy"):
            assert re.search(rf"^{name}: +\S", said, re.MULTILINE), name

    def test_runs_as_a_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "rnncore", "info"], capture_output=True, text=True, check=True
        )
        assert "instruction_set" in done.stdout
        assert done.stderr == ""

    def test_a_reader_that_has_enough_is_no_error(self, text: Path, tmp_path: Path) -> None:
        train(text, tmp_path / "model", *SMALL, "--steps", "1")
        command = f"'{sys.executable}' -m rnncore sample '{tmp_path / 'model'}' --length 9999"
        done = subprocess.run(
            f"{command} --prompt 9 | head -c 5",
            shell=True,
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(done.stdout) == 5
        assert done.stderr == ""

    @pytest.mark.parametrize("argv", [[], ["dance"]])
    def test_needs_a_command_that_it_knows(self, argv: list[str], capsys: Capture) -> None:
        start_of(capsys, *argv)

    def test_help_names_every_command(self, capsys: Capture) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
        said = capsys.readouterr().out
        for name in ("demo", "train", "sample", "info"):
            assert re.search(rf"^ +{name} +\w", said, re.MULTILINE), name

    def test_help_of_train_shows_the_defaults(self, capsys: Capture) -> None:
        with pytest.raises(SystemExit, match="0"):
            main(["train", "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "hidden units per layer (512)" in said
        assert "--steps STEPS updates" in said
