"""Every example runs with `--quick` and ends with a line that a machine can read."""

from __future__ import annotations

import gzip
import io
import re
import runpy
import sys
import wave
import zipfile
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rnncore

from tests.support.data import data
from tests.support.processes import run_python

ROOT = Path(__file__).parent.parent


def results(example: str, *args: str) -> dict[str, float]:
    """Run an example; return what its last line says."""
    last = run_python(str(ROOT / "examples" / example), "--quick", *args).splitlines()[-1]
    assert last.startswith("result: ")
    return {name: float(value) for name, value in re.findall(r"(\S+)=(\S+)", last)}


def test_long_memory(tmp_path):
    pytest.importorskip("matplotlib")
    pictures = tmp_path / "memory.png", tmp_path / "flow.png"
    found = results("long_memory.py", "--plot", str(pictures[0]), "--flow", str(pictures[1]))
    assert list(found) == ["adding_gru", "adding_rnn", "adding_indrnn", "copy_gru", "copy_rnn"]
    assert all(0 < value < 10 for value in found.values())
    assert all(picture.stat().st_size > 0 for picture in pictures)


def test_pytorch_training():
    pytest.importorskip("torch", reason="torch is not installed")
    found = results("pytorch_training.py")
    assert list(found) == ["loss_before", "seconds_before", "loss_after", "seconds_after"]
    assert abs(found["loss_before"] - found["loss_after"]) <= 2e-4


def test_polyphonic_music(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")
    songs = data("jsb_chorales/JSB_Chorales.mat")
    plot = tmp_path / "music.png"
    found = results("polyphonic_music.py", "--data", str(songs), "--plot", str(plot))
    assert list(found) == ["rnn", "lstm", "gru", "dts", "dots_dropout"]
    assert all(5 < value < 88 for value in found.values())
    assert plot.stat().st_size > 0


def test_polyphonic_music_of_long_pieces(tmp_path):
    """A file of the same format; recipes that diverge are rows, and the others are trained."""
    pytest.importorskip("sklearn")
    example, made = str(ROOT / "examples" / "polyphonic_music.py"), str(tmp_path / "long.mat")
    said = run_python(example, "--make", made, "--frames", "600")
    assert said.strip().endswith("24 / 8 / 8 pieces of 600 frames")
    options = ["--models", "rnn", "--trials", "3", "--passes", "3", "--seeds", "1", "--jobs", "1"]
    options += ["--window", "600"]
    said = run_python(example, "--data", made, *options)
    assert "diverged after" in said
    assert "of layer 0" in said
    assert 5 < float(said.rsplit("result: rnn=", 1)[1]) < 88


@pytest.mark.skipif(
    not Path(sys.executable).with_name("mpiexec").exists(), reason="mpich is not installed"
)
def test_data_parallel():
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    found = results("data_parallel.py", "--text", str(ROOT / "CHANGELOG.md"))
    assert list(found) == ["bits_equal", "speedup"]
    assert found["bits_equal"] == 1
    assert 0 < found["speedup"] < 10


def test_large_data():
    for package in ("joblib", "distributed"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    engines = ["joblib", "futures", "dask"]
    assert list(results("large_data.py", "--engines", *engines)) == engines


def test_frames_of_large_data(tmp_path, rng):
    """What Spark runs in its workers, with data frames as it gives them."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    example = runpy.run_path(str(ROOT / "examples" / "large_data.py"))
    model = rnncore.Chain(rnncore.Readout(rnncore.GRU(8, 4, seed=0)), rnncore.Linear(4, 3, seed=1))
    model.save(tmp_path / "model")
    data = [rng.standard_normal((n, 8), dtype=np.float32) for n in (3, 1, 7)]
    rows = [sequence.ravel().tolist() for sequence in data]
    frame = pandas.DataFrame({"number": [4, 5, 6], "sequence": rows})
    (found,) = example["answer_frames"](iter([frame]), str(tmp_path / "model"))
    assert found["number"].tolist() == [4, 5, 6]
    assert found["answer"].tolist() == example["answer"](model, data).tolist()


def test_collectives_of_dask():
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    assert results("collectives.py", "--engine", "dask") == {"bits_equal": 1}


def test_serve_sessions(tmp_path):
    pytest.importorskip("matplotlib")
    for module in ("starlette", "uvicorn", "websockets"):
        pytest.importorskip(module)
    found = results("serve_sessions.py", "--plot", str(tmp_path / "latencies.png"))
    assert list(found) == ["bits_equal", "clients", "p50_ms", "p99_ms"]
    assert found["bits_equal"] == 1
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert (tmp_path / "latencies.png").stat().st_size > 0


def test_own_cell():
    pytest.importorskip("scipy", reason="reading MATLAB files needs SciPy")
    found = results("own_cell.py", "--data", str(data("jsb_chorales/JSB_Chorales.mat")))
    assert list(found) == ["overhead", "adding", "jsb"]
    assert 0.5 < found["overhead"] < 10  # one processor may be busy
    assert 0 < found["adding"] < 5
    assert 5 < found["jsb"] < 88


def test_irregular_series():
    found = results("irregular_series.py")
    assert list(found) == ["gru", "gru_gaps", "cfc", "fading", "gru_d"]
    assert all(0 <= accuracy <= 1 for accuracy in found.values())


def test_lookahead(tmp_path):
    pytest.importorskip("matplotlib")
    found = results("lookahead.py", "--plot", str(tmp_path / "lookahead.png"))
    assert len(found) > 1
    assert all(0 <= share <= 1 for share in found.values())
    assert (tmp_path / "lookahead.png").stat().st_size > 0


def test_listops(tmp_path):
    tests = data("listops/test_d20s.tsv")
    found = results("listops.py", "--test", str(tests), "--models", str(tmp_path))
    assert list(found) == ["tree_lstm", "lstm", "parser_f1", "parsed_tree_lstm"]
    assert {file.stem for file in tmp_path.iterdir()} == {"tree_lstm", "lstm", "parser"}
    assert all(0 <= share <= 100 for share in found.values())


def test_listops_sequence_recipes():
    pytest.importorskip("sklearn")
    tests = data("listops/test_d20s.tsv")
    said = run_python(
        *(str(ROOT / "examples" / "listops_sequence.py"), "--quick", "--test", str(tests)),
        *("--recipes", "--only", "none", "short expressions first", "hidden layer of 128 behind"),
    )
    assert "| short expressions first |" in said
    assert re.search(r"result: best=\S+ held_out=\d+\.\d+$", said.strip())


def test_listops_sequence_variations():
    pytest.importorskip("sklearn")
    tests = data("listops/test_d20s.tsv")
    said = run_python(
        *(str(ROOT / "examples" / "listops_sequence.py"), "--quick", "--test", str(tests)),
        *("--variations", "--longest", "30"),
    )
    assert "lstm, output of 2" in said
    assert re.search(r"result: best=\S+ valid=\d+\.\d+ test=\d+\.\d+$", said.strip())


@pytest.mark.parametrize("semi", [[], ["--questions"]], ids=["unsupervised", "semi-supervised"])
def test_autoencoder(tmp_path, semi):
    pytest.importorskip("matplotlib")
    found = results("autoencoder.py", "--plot", str(tmp_path / "trees.png"), *semi)
    names = ["error_before", "error_after", "words_right_branching", "words_random"]
    names += ["words_before", "words_after", *["questions"] * len(semi)]
    assert list(found) == names
    assert 0 < found["error_after"] < found["error_before"]
    assert all(0 <= found[name] <= 100 for name in names[2:])
    assert (tmp_path / "trees.png").stat().st_size > 0


def test_digits(tmp_path):
    pytest.importorskip("sklearn", reason="the estimators need scikit-learn")
    pytest.importorskip("matplotlib")
    found = results("digits.py", "--plot", str(tmp_path / "digits.png"))
    assert 0.9 < found["accuracy"] <= 1  # after 8 passes of 50
    assert (tmp_path / "digits.png").stat().st_size > 0


def test_label_and_forecast():
    pytest.importorskip("sklearn", reason="the estimators need scikit-learn")
    found = results("label_and_forecast.py")
    assert list(found) == [
        "labels",
        "commonest_label",
        "forecast_r2",
        "linear_r2",
        "persistence_r2",
    ]
    assert all(np.isfinite(value) for value in found.values())


def test_pronunciation(tmp_path):
    pytest.importorskip("matplotlib")
    words = data("cmudict/cmudict.dict")
    model, plot, picture = (tmp_path / name for name in ("model", "curve.png", "attention.png"))
    drawn = ("--plot", str(plot), "--plot-attention", str(picture))
    found = results("pronunciation.py", "--data", str(words), "--model", str(model), *drawn)
    assert list(found) == ["wer", "per", "wer_greedy", "train_seconds"]
    assert all(0 <= found[name] <= 100 for name in ("wer", "wer_greedy"))
    assert plot.stat().st_size > 0
    assert picture.stat().st_size > 0
    example = str(ROOT / "examples" / "pronunciation.py")
    lines = run_python(example, "--model", str(model), "hello", "world").splitlines()
    assert [line.split()[0] for line in lines] == ["hello", "world"]


def test_forecasting(tmp_path):
    pytest.importorskip("matplotlib")
    found = results("forecasting.py", "--plot", str(tmp_path / "forecast.png"))
    assert list(found) == ["seq2seq", "linear", "persistence", "train_seconds"]
    assert 0 < found["linear"] < found["persistence"] < 3
    assert 0 < found["seq2seq"] < 3
    assert (tmp_path / "forecast.png").stat().st_size > 0


def conllu(xpos: bool) -> str:
    """Sentences of which the words' ends tell the part of speech: with all that the format has."""
    found = []
    for noun, verb, glued in product(("cats", "dogs", "birds"), ("slept", "walked", "hid"), (0, 1)):
        words = [
            (noun, "NOUN", "NNS"),
            (verb, "VERB", "VBD"),
            ("now", "ADV", "RB"),
            (".", "PUNCT", "."),
        ]
        lines = ["# text = of some treebank"]
        if glued:
            lines.append(f"1-2\t{noun}{verb}\t" + "\t".join("_" * 8))
        for at, (form, upos, tag) in enumerate(words, 1):
            feats = "Number=Plur" if upos == "NOUN" else "_"
            tags = (upos, tag if xpos else "_", feats)
            lines.append("\t".join([str(at), form, form, *tags, "_", "_", "_", "_"]))
        lines.insert(-1, "3.1\tthen\tthen\tX\tX\t" + "\t".join("_" * 5))
        found.append("\n".join(lines) + "\n\n")
    return "".join(found)


@pytest.mark.parametrize("xpos", [True, False], ids=["xpos", "no xpos"])
@pytest.mark.parametrize("crf", [[], ["--no-crf"]], ids=["crf", "softmax"])
def test_tagger(tmp_path, xpos, crf):
    plain, packed = tmp_path / "some.conllu", tmp_path / "some.conllu.gz"
    plain.write_text(conllu(xpos), encoding="utf-8")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    files = ("--train", str(packed), "--dev", str(plain), "--test", str(plain))
    found = results("tagger.py", *files, *crf)
    assert list(found) == ["upos", "xpos", "seconds", "tokens_per_second"]
    assert found["upos"] > 95
    assert found["xpos"] > 95 if xpos else np.isnan(found["xpos"])


def test_tagger_says_what_is_no_conllu(tmp_path):
    (tmp_path / "words.txt").write_text("not\na treebank\n", encoding="utf-8")
    files = [f"--{part}={tmp_path / 'words.txt'}" for part in ("train", "dev", "test")]
    with pytest.raises(AssertionError, match=r"words\.txt:1: a word has 10 columns, got 1"):
        results("tagger.py", *files)


def spoken(path, rate=8000):
    """Write recordings, as those of the Free Spoken Digit Dataset are named: each digit a tone."""
    rng, time = np.random.default_rng(0), np.arange(rate // 5) / rate
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("README.md", "not a recording")
        for digit, speaker, number in product(range(10), ("ann", "ben"), (0, 4, 5, 49)):
            tone = np.sin(2 * np.pi * (300 + 300 * digit) * time) + rng.normal(0, 0.1, len(time))
            sound = io.BytesIO()
            with wave.open(sound, "wb") as file:
                file.setparams((1, 2, rate, 0, "NONE", ""))
                file.writeframes((8000 * tone).astype("<i2").tobytes())
            archive.writestr(f"recordings/{digit}_{speaker}_{number}.wav", sound.getvalue())
    return str(path)


def test_spoken_digits(tmp_path):
    pytest.importorskip("sklearn", reason="the estimators need scikit-learn")
    pytest.importorskip("matplotlib")
    recordings, plot = spoken(tmp_path / "recordings.zip"), tmp_path / "speech.png"
    found = results("spoken_digits.py", "--data", recordings, "--plot", str(plot))
    rates = ["ctc_der", "transducer_der", "unseen_speaker_der"]
    assert list(found) == ["isolated", *rates, "seconds"]
    assert 0 <= found["isolated"] <= 100
    assert all(found[name] >= 0 for name in rates)
    assert plot.stat().st_size > 0


def test_spoken_digits_says_what_is_wrong_with_recordings(tmp_path):
    pytest.importorskip("sklearn", reason="the estimators need scikit-learn")
    fast = spoken(tmp_path / "fast.zip", 16000)
    with pytest.raises(AssertionError, match=r"ann_0\.wav must be 8 kHz, mono, 16 bits, got"):
        results("spoken_digits.py", "--data", fast)
    with zipfile.ZipFile(tmp_path / "none.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    with pytest.raises(AssertionError, match="there are no recordings named DIGIT_SPEAKER_NUMBER"):
        results("spoken_digits.py", "--data", str(tmp_path / "none.zip"))


def test_memory_policy():
    found = results("memory_policy.py")
    assert list(found) == ["lstm", "memoryless"]
    assert found["lstm"] > 0.9
    assert found["memoryless"] < 0.7


def test_m4():
    hourly = [str(data(f"m4_hourly/Hourly-{part}.csv.gz")) for part in ("train", "test")]
    options = ["--train", hourly[0], "--test", hourly[1], "--horizon", "48", "--season", "24"]
    found = results("m4.py", *options)
    assert list(found) == ["smape", "mase", "msis", "coverage", "seconds"]
    assert 1 < found["smape"] < 20
    assert 50 < found["coverage"] <= 100


def test_m4_of_short_series(tmp_path):
    """As in its yearly part: 13 values, no season."""
    rng = np.random.default_rng(0)
    for name, length in (("train", 13), ("test", 6)):
        lines = ["V1"]
        for at in range(8):
            values = 1000 + np.cumsum(rng.standard_normal(length))
            lines.append(",".join([f'"Y{at}"', *(f"{value:.2f}" for value in values)]))
        (tmp_path / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    files = ["--train", str(tmp_path / "train.csv"), "--test", str(tmp_path / "test.csv")]
    found = results("m4.py", *files, "--horizon", "6", "--season", "1")
    assert 0 < found["smape"] < 20
