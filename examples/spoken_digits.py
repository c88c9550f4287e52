"""Spoken digits, alone and in strings: a classifier, CTC, and a transducer that hears a stream.

    python examples/spoken_digits.py --data ../shared/data/fsdd/recordings.zip --plot speech.png

The data is the Free Spoken Digit Dataset: 3,000 recordings of six speakers, 8 kHz. As its README
says, recordings 0 to 4 of each digit and speaker are the test part, and 5 to 49 are trained on.

Strings are made of them: 3 to 7 recordings of one speaker with pauses of 50 to 500 ms between and
around them, and 200 ms more at the end. Over all lies noise, 10 to 30 dB below the speech, whose
power falls by 0 to 6 dB an octave. All of this is drawn: for training anew in each epoch, from the
training recordings; for the test once, with seed 2026, from the test recordings and noise of their
own. Digit errors are insertions, deletions and substitutions over the number of digits.

1. Each recording by itself: `SequenceClassifier`.
2. Strings: a bidirectional LSTM trained by CTC, decoded along the best path and by a beam.
3. Strings as a stream: a transducer whose encoder looks in one direction, fed 100 ms at a time.
4. A speaker who was never heard: the second model, trained on the training recordings of five
   speakers; the strings are of all 500 recordings of the sixth.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import time
import wave
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rnncore
from rnncore import (
    BatchNorm,
    Chain,
    Conv1d,
    Dropout,
    LayerNorm,
    Linear,
    Residual,
    SpecAugment,
    Transducer,
    TransducerJoint,
)
from rnncore.batches import Batch, bucketed, padded
from rnncore.estimators import SequenceClassifier
from rnncore.losses import Objective
from rnncore.schedules import warmup_cosine
from rnncore.training import Trainer
from rnncore.training.plots import require_matplotlib, save_figure

Rng = np.random.Generator
RATE = 8000
WINDOW, HOP, MELS = 200, 80, 40  # 25 ms, 10 ms
STRIDE = 3  # frames of 10 ms for one of the recurrent layers
CHUNK = 10  # frames that a stream is fed at a time
CLASSES = 11  # the blank, and the digits from 1 on
TEST_SEED = 2026
#: How loud the recordings are made (root mean square), and what counts as silence, in power.
LEVEL, SILENCE = 0.05, 1e-4
SPEEDS = (0.9, 0.95, 1.0, 1.05, 1.1)
REPEATED = 0.2  # how often a digit in training is the one before it, beyond chance


class Recording(NamedTuple):
    """One digit, said once."""

    digit: int
    speaker: str
    number: int
    samples: np.ndarray


def read(path: Path) -> list[Recording]:
    """Read the recordings of a zip file, all made equally loud."""
    found = []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            said = re.fullmatch(r"(?:.*/)?(\d)_([^_/]+)_(\d+)\.wav", name)
            if said is None:
                continue
            with wave.open(io.BytesIO(archive.read(name))) as sound:
                form = sound.getframerate(), sound.getnchannels(), sound.getsampwidth()
                if form != (RATE, 1, 2):
                    raise SystemExit(f"{path}: {name} must be 8 kHz, mono, 16 bits, got {form}")
                samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
            level = LEVEL / max(float(np.sqrt(np.mean(np.square(samples, dtype="d")))), 1.0)
            digit, speaker, number = said.groups()
            loud = (samples * level).astype(np.float32)
            found.append(Recording(int(digit), speaker, int(number), loud))
    if not found:
        raise SystemExit(f"{path}: there are no recordings named DIGIT_SPEAKER_NUMBER.wav")
    return found


def split(recordings: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Return the recordings to train on, and those to test on."""
    test = [one for one in recordings if one.number < 5]
    return [one for one in recordings if one.number >= 5], test


def mel_filters(low: float = 60.0, high: float = 3800.0) -> np.ndarray:
    """Return `(129, MELS)`: triangles of equal width on the mel scale, over 256-point spectra."""
    ends = 2595 * np.log10(1 + np.array([low, high]) / 700)
    edges = 700 * (10 ** (np.linspace(*ends, MELS + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(256, 1 / RATE)[:, None]
    up = (hertz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - hertz) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(up, down)).astype(np.float32)


FILTERS, HANN = mel_filters(), np.hanning(WINDOW + 1)[:-1].astype(np.float32)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Return the log mel spectrum `(T, MELS)`, a frame every 10 ms."""
    if len(samples) < WINDOW:
        samples = np.pad(samples, (0, WINDOW - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * HANN
    power = np.abs(np.fft.rfft(frames, 256)) ** 2
    return np.log(power.astype(np.float32) @ FILTERS + SILENCE)


def faster(samples: np.ndarray, speed: float) -> np.ndarray:
    """Return the samples played faster, and so higher."""
    if speed == 1:
        return samples
    at = np.arange(int(len(samples) / speed)) * speed
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


class Studio:
    """Draws recordings, and puts them together under noise; `varied`: each as it might have been.

    For training digits are faster or slower, and a digit is more often said twice, so that models
    learn to tell two of them from one that lasts.
    """

    def __init__(self, recordings: Sequence[Recording], rng: Rng, *, varied: bool = False) -> None:
        self.varied = varied
        names = sorted({one.speaker for one in recordings})
        self.speakers = [[one for one in recordings if one.speaker == name] for name in names]
        self.noises = [self._noise(rng) for _ in range(16)]

    @staticmethod
    def _noise(rng: Rng, samples: int = 1 << 19) -> np.ndarray:
        """Return noise of a power of 1, white or with less of high frequencies."""
        spectrum = np.fft.rfft(rng.standard_normal(samples))
        bins = np.maximum(np.arange(len(spectrum)), 50 * samples // RATE)
        sound = np.fft.irfft(spectrum * bins ** -rng.uniform(0, 1))
        return (sound / sound.std()).astype(np.float32)

    def noisy(self, samples: np.ndarray, rng: Rng, decibels: tuple[float, float]) -> np.ndarray:
        """Put noise over samples, so many decibels below the speech."""
        noise = self.noises[rng.integers(len(self.noises))]
        at = rng.integers(len(noise) - len(samples))
        share = LEVEL * 10 ** (-rng.uniform(*decibels) / 20)
        return samples + np.float32(share) * noise[at : at + len(samples)]

    def digit(self, one: Recording, rng: Rng) -> np.ndarray:
        """Return a recording as it might have been: faster, later, louder, with noise."""
        samples = np.pad(faster(one.samples, rng.choice(SPEEDS)), rng.integers(0, RATE // 8, 2))
        return self.noisy(samples, rng, (10, 50)) * np.float32(rng.uniform(0.7, 1.4))

    def string(self, rng: Rng, fewest: int = 3, most: int = 7) -> tuple[np.ndarray, np.ndarray]:
        """Return a string of digits of one speaker: samples, and labels from 1 on."""
        speaker = self.speakers[rng.integers(len(self.speakers))]
        drawn = [speaker[at] for at in rng.integers(len(speaker), size=most)]
        drawn = drawn[: rng.integers(fewest, most + 1)]
        if self.varied:
            for at in range(1, len(drawn)):
                if rng.random() < REPEATED:
                    same = [one for one in speaker if one.digit == drawn[at - 1].digit]
                    drawn[at] = same[rng.integers(len(same))]
        pieces = [self._pause(rng)]
        for one in drawn:
            speed = rng.choice(SPEEDS) if self.varied else 1.0
            pieces += [faster(one.samples, speed), self._pause(rng)]
        pieces.append(np.zeros(RATE // 5, np.float32))
        samples = self.noisy(np.concatenate(pieces), rng, (10, 30))
        labels = np.array([one.digit + 1 for one in drawn])
        return samples * np.float32(rng.uniform(0.7, 1.4)), labels

    @staticmethod
    def _pause(rng: Rng) -> np.ndarray:
        return np.zeros(int(rng.uniform(0.05, 0.5) * RATE), np.float32)


class Features:
    """Log mel spectra, normalised by mean and deviation of each band over training strings."""

    def __init__(self, studio: Studio, rng: Rng) -> None:
        frames = np.concatenate([log_mel(studio.string(rng)[0]) for _ in range(200)])
        self.mean, self.deviation = frames.mean(axis=0), frames.std(axis=0)

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return `(T, MELS)`."""
        return (log_mel(samples) - self.mean) / self.deviation


class Strings(NamedTuple):
    """Strings to test on."""

    features: list[np.ndarray]
    labels: list[np.ndarray]

    @classmethod
    def drawn(cls, studio: Studio, features: Features, count: int, rng: Rng) -> Strings:
        """Draw so many."""
        drawn = [studio.string(rng) for _ in range(count)]
        return cls([features(samples) for samples, _ in drawn], [labels for _, labels in drawn])

    def errors(self, found: Iterable[Any]) -> float:
        """Return the digit error rate of transcripts in percent."""
        return 100 * rnncore.error_rate([one.labels for one in found], self.labels)


class Course:
    """What a model learns from: strings of one to three digits first, then of 3 to 7.

    Short ones show sooner what a digit is. With single digits alone, a bidirectional model learns
    to say each of them at the first frame, and a transducer to be silent after the first label.
    """

    def __init__(
        self, studio: Studio, features: Features, args: argparse.Namespace, passes: Sequence[int]
    ) -> None:
        self.studio, self.features, self.batch = studio, features, args.batch
        lengths = [(1, 3), (3, 7)]
        self.lessons = [pair for pair, n in zip(lengths, passes, strict=True) for _ in range(n)]
        self.counts = [2 * args.digits // sum(pair) for pair in self.lessons]
        self.updates = sum(-(-count // args.batch) for count in self.counts)
        self._next = 0

    def __call__(self, rng: Rng) -> Iterator[tuple[np.ndarray, ...]]:
        """Make the next epoch: features `(T, B, MELS)`, lengths, labels `(B, U)`, lengths."""
        count, lesson = self.counts[self._next], self.lessons[self._next]
        self._next += 1
        drawn = [self.studio.string(rng, *lesson) for _ in range(count)]
        frames = [self.features(samples) for samples, _ in drawn]
        for rows in bucketed([len(x) for x in frames], self.batch, rng):
            labels, counts = padded([drawn[at][1] for at in rows])
            yield *padded([frames[at] for at in rows]), labels.T, counts


def encoder(hidden: int, output: int, dropout: float, rng: Rng, *, both: bool) -> Chain:
    """Masks, a convolution that makes one frame of three, two LSTM layers, a linear one."""
    width = hidden * (2 if both else 1)

    def lstm(inputs: int) -> rnncore.LSTM:
        return rnncore.LSTM(inputs, hidden, bidirectional=both, seed=rng)

    def norm(size: int) -> BatchNorm:
        return BatchNorm(size, batch_first=False)

    return Chain(
        SpecAugment(1, 8, 1, 2, p=0.1, seed=rng),
        Conv1d(MELS, hidden, 5, stride=STRIDE, seed=rng),
        norm(hidden),
        rnncore.ReLU(),
        lstm(hidden),
        norm(width),
        Dropout(dropout, seed=rng),
        Residual(lstm(width)),
        Dropout(dropout, seed=rng),
        Linear(width, output, seed=rng),
    )


def train(
    model: rnncore.Module,
    loss: Objective,
    course: Course,
    as_batch: Callable[..., Batch],
    args: argparse.Namespace,
) -> None:
    """Train on all that the course has."""
    optimiser = rnncore.AdamW(
        model,
        lr=warmup_cosine(args.lr, course.updates, min(100, course.updates // 10)),
        weight_decay=args.weight_decay,
    )
    trainer = Trainer(
        model,
        loss,
        optimiser,
        lambda rng: (as_batch(*arrays) for arrays in course(rng)),
        clip_norm=5.0,
        seed=args.seed,
    )
    trainer.fit(course.updates, validate_every=-(-course.updates // 10))


def train_ctc(course: Course, args: argparse.Namespace) -> Chain:
    """Return a bidirectional model, which gives logits for each of its frames."""
    rng = np.random.default_rng(args.seed)
    model = encoder(args.hidden, CLASSES, args.dropout, rng, both=True)
    train(
        model,
        rnncore.CTCLoss(),
        course,
        lambda x, lengths, y, counts: Batch(x, y, lengths, target_lengths=counts),
        args,
    )
    return model


def train_transducer(course: Course, args: argparse.Namespace) -> Transducer:
    """Return a transducer whose encoder looks in one direction."""
    rng, size = np.random.default_rng(args.seed), args.one_way
    reads = encoder(size, size, args.dropout, rng, both=False)
    labels = Chain(
        rnncore.Embedding(CLASSES, 16, seed=rng),
        rnncore.GRU(16, 64, seed=rng),
        Linear(64, size, seed=rng),
    )
    # Normalised: the tanh of their sum would be nearly linear at first, and nearly a sum.
    model = Transducer(
        Chain(*reads.layers, LayerNorm(size)),
        Chain(*labels.layers, LayerNorm(size)),
        TransducerJoint(size, CLASSES, seed=rng),
    )
    train(
        model,
        rnncore.TransducerLoss(),
        course,
        lambda x, lengths, y, counts: Batch((x, y), y, lengths, target_lengths=counts),
        args,
    )
    return model


def logits_of(model: Chain, features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the logits `(T', CLASSES)` of each string."""
    found: list[Any] = [None] * len(features)
    for rows in bucketed([len(x) for x in features], 64):
        x, lengths = padded([features[at] for at in rows])
        logits, _ = model(x, lengths=lengths)
        for row, (at, end) in enumerate(zip(rows, model.out_lengths(lengths), strict=True)):
            found[at] = logits[:end, row]
    return found


def heard(model: Transducer, features: np.ndarray, beam_size: int | None = 4) -> Any:
    """Let a transducer hear a string as it comes, `CHUNK` frames at a time: labels and frames.

    In the pause behind a digit each frame may say it, none of them with a probability above one
    half: a greedy search (None) then says nothing. A beam sums over the frames.
    """
    stream = model.stream(beam_size=beam_size)
    for at in range(0, len(features), CHUNK):
        stream.run(features[at : at + CHUNK])
    return stream.finish()[0]


def isolated(
    train_part: Sequence[Recording], test: Sequence[Recording], args: argparse.Namespace
) -> float:
    """Return how many of the test's recordings are told apart, in percent."""
    rng = np.random.default_rng(args.seed)
    studio = Studio(train_part, rng, varied=True)
    features = Features(studio, rng)

    def pairs(samples: np.ndarray) -> np.ndarray:
        frames = features(samples)
        return frames[: len(frames) // 2 * 2].reshape(-1, 2 * MELS)

    classifier = SequenceClassifier(
        hidden_size=args.hidden,
        num_layers=2,
        bidirectional=True,
        reading="mean",
        dropout=0.3,
        batch_size=64,
        weight_decay=args.weight_decay,
        random_state=args.seed,
    )
    digits = [one.digit for one in train_part]
    for done in np.arange(args.isolated_passes) / args.isolated_passes:
        classifier.set_params(learning_rate=3e-3 * float(1 + np.cos(np.pi * done)) / 2)
        drawn = [pairs(studio.digit(one, rng)) for one in train_part]
        classifier.partial_fit(drawn, digits, classes=np.arange(10))
        say(f"isolated digits: {classifier.history_[-1]['train_loss']:.4f} nats")
    found = classifier.predict([pairs(one.samples) for one in test])
    return 100 * float(np.mean(found == [one.digit for one in test]))


def leave_one_out(
    recordings: Sequence[Recording], args: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """Return the digit errors of each speaker, of whom nothing was heard: best path, beam."""
    found = {}
    for speaker in sorted({one.speaker for one in recordings}):
        others, _ = split([one for one in recordings if one.speaker != speaker])
        rng, test_rng = np.random.default_rng(args.seed), np.random.default_rng(TEST_SEED)
        studio = Studio(others, rng, varied=True)
        features = Features(studio, rng)
        own = Studio([one for one in recordings if one.speaker == speaker], test_rng)
        strings = Strings.drawn(own, features, args.strings, test_rng)
        model = train_ctc(Course(studio, features, args, args.unseen_passes), args)
        found[speaker] = ctc_errors(model, strings)
        say(f"without {speaker}: {found[speaker][0]:.2f} % digit errors")
    return found


def ctc_errors(model: Chain, strings: Strings) -> tuple[float, float]:
    """Return the digit error rates along the best path and by a beam, in percent."""
    logits = logits_of(model, strings.features)
    search = rnncore.CTCBeamSearch(8)
    return (
        strings.errors(rnncore.ctc_best_path(one)[0] for one in logits),
        strings.errors(search(one)[0][0] for one in logits),
    )


def plot(ctc: Chain, transducer: Transducer, strings: Strings, path: Path) -> None:
    """Draw the first string: its spectrum, and what the models say of its digits at which time."""
    from matplotlib.figure import Figure

    features, labels = strings.features[0], strings.labels[0]
    (logits,) = logits_of(ctc, [features])
    (aligned,) = rnncore.ctc_align(logits, labels)
    streamed, step = heard(transducer, features), STRIDE * HOP / RATE
    figure = Figure(figsize=(8, 6), layout="constrained")
    spectrum, classes = figure.subplots(2, 1, sharex=True)
    seconds = len(features) * HOP / RATE
    spectrum.imshow(
        features.T, origin="lower", aspect="auto", cmap="magma", extent=(0, seconds, 0, MELS)
    )
    spectrum.set_ylabel("mel band")
    spectrum.set_title("log mel spectrum; lines: when the transducer says a digit", fontsize=10)
    for label, frame in zip(streamed.labels, streamed.frames, strict=True):
        at = (frame + 1) * step
        spectrum.axvline(at, color="w", lw=1)
        spectrum.text(at, MELS - 1, f" {label - 1}", color="w", va="top")
    likely = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
    times = np.arange(len(logits)) * step
    classes.step(times, likely[:, 0], color="0.7", where="post", label="blank")
    for label in sorted({*labels}):
        classes.step(times, likely[:, label], f"C{label - 1}", where="post")
    for label, start, end in zip(aligned.labels, aligned.starts, aligned.ends, strict=True):
        classes.axvspan(start * step, end * step, color=f"C{label - 1}", alpha=0.2)
        classes.text(start * step, 1.02, str(label - 1), color=f"C{label - 1}")
    classes.set(xlabel="seconds", ylabel="probability", ylim=(0, 1.12))
    classes.set_title("CTC: classes at each frame; shaded: labels aligned", fontsize=10)
    classes.legend(loc="center right")
    save_figure(figure, path)


def say(text: str) -> None:
    """Print what happens meanwhile."""
    print(text, file=sys.stderr, flush=True)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="recordings.zip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=96, help="units of each of two directions")
    parser.add_argument("--one-way", type=int, default=128, help="units where there is but one")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=16, help="strings at a time")
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-2)
    parser.add_argument("--digits", type=int, default=2700, help="drawn for an epoch of strings")
    parser.add_argument("--strings", type=int, default=400, help="to test on")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a string")
    parser.add_argument("--quick", action="store_true", help="a few seconds, for tests")
    args = parser.parse_args()
    if not args.data.is_file():
        parser.error(f"no such file: {args.data}")
    # Epochs: of the classifier; of strings of one to three digits, and of three to seven.
    args.isolated_passes = 24
    args.ctc_passes, args.transducer_passes, args.unseen_passes = (3, 40), (9, 56), (3, 18)
    if args.quick:
        args.hidden, args.one_way, args.batch, args.digits, args.strings = 8, 8, 8, 40, 4
        args.isolated_passes = 2
        args.ctc_passes = args.transducer_passes = args.unseen_passes = (1, 1)
    return args


def main() -> None:
    """Train and test all models."""
    args = options()
    if args.plot:
        require_matplotlib()
    started = time.perf_counter()
    recordings = read(args.data)
    train_part, test = split(recordings)
    if not train_part or not test:
        raise SystemExit(f"{args.data}: there must be recordings numbered below 5, and others")
    accuracy = isolated(train_part, test, args)
    print(f"isolated digits: {accuracy:.2f} % of {len(test)} recordings")
    rng, test_rng = np.random.default_rng(args.seed), np.random.default_rng(TEST_SEED)
    studio = Studio(train_part, rng, varied=True)
    features = Features(studio, rng)
    strings = Strings.drawn(Studio(test, test_rng), features, args.strings, test_rng)
    print(f"{args.strings} strings of {sum(map(len, strings.labels))} digits")
    ctc = train_ctc(Course(studio, features, args, args.ctc_passes), args)
    path, beam = ctc_errors(ctc, strings)
    print(f"CTC: {path:.2f} % digit errors along the best path, {beam:.2f} % by a beam of 8")
    transducer = train_transducer(Course(studio, features, args, args.transducer_passes), args)
    greedy, streamed = (
        strings.errors(heard(transducer, one, size) for one in strings.features)
        for size in (None, 4)
    )
    print(f"transducer: {greedy:.2f} % digit errors greedily, {streamed:.2f} % by a beam of 4")
    if args.plot:
        plot(ctc, transducer, strings, args.plot)
    unseen = leave_one_out(recordings, args)
    print("| speaker left out | digit errors, best path | beam of 8 |\n| --- | ---: | ---: |")
    for speaker, rates in unseen.items():
        print(f"| {speaker} | {rates[0]:.2f} % | {rates[1]:.2f} % |")
    mean = float(np.mean([rates[0] for rates in unseen.values()]))
    print(
        f"result: isolated={accuracy:.2f} ctc_der={path:.2f} transducer_der={streamed:.2f} "
        f"unseen_speaker_der={mean:.2f} seconds={time.perf_counter() - started:.0f}"
    )


if __name__ == "__main__":
    main()
