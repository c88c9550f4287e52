"""The model of examples/pronunciation.py here and in PyTorch: training, greedy and beam search.

python benchmarks/seq2seq.py                                   # a few minutes, one thread
python benchmarks/seq2seq.py --model g2p.model --data cmudict.dict --threads 2
python benchmarks/seq2seq.py --check                           # do both compute the same?

With a trained model and the words of the dictionary, hypotheses end where the model ends them; else
both are made to say seven phonemes. An update is forward, loss, backward, clipping and Adam.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import pronunciation
import rnncore
from rnncore import Vocabulary, search
from rnncore.batches import padded
from rnncore.commands.measure.contest import Contestant, Entry, compete, contest
from rnncore.commands.measure.report import table
from rnncore.commands.measure.serve import answer
from rnncore.commands.measure.timing import ratio, time_call

LETTERS, PHONEMES, BEAM = 33, 43, 5
#: In the last one, rnncore's beam gives up what is 3 nats less likely than the best.
MODES = ("training", "greedy", "beam", "beam, pruned")
MEBI = 1 << 20


@dataclass(frozen=True)
class Task:
    """What is timed, and the example's settings."""

    mode: str  # one of MODES
    batch: int
    model: str | None = None
    data: str | None = None
    hidden: int = 256
    layers: int = 2
    embedding: int = 64
    dropout: float = 0.25
    label_smoothing: float = 0.1
    lr: float = 1.5e-3
    seed: int = 0
    dtype: str = "float32"
    weights: str = ""

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Task:
        """Read a task as it is written."""
        return cls(**json.loads(text))

    def seq2seq(self) -> rnncore.Seq2Seq:
        """The model, the same for every engine."""
        if self.model:
            return rnncore.load(self.model)
        return pronunciation.build(LETTERS, PHONEMES, self)

    @property
    def rules(self) -> dict[str, int]:
        """Limits of what is said."""
        least, most = (0, 40) if self.model else (7, 7)
        return {
            "bos": Vocabulary.BOS,
            "eos": Vocabulary.EOS,
            "min_length": least,
            "max_length": most,
        }

    def pairs(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Spellings and what is said, ended: of the dictionary's, or random ones as long."""
        rng = np.random.default_rng(0)
        if not self.data:
            sizes = rng.normal(7.5, 2, (2, self.batch)).clip(2, 15).astype(int)
            words = [rng.integers(4, LETTERS, n) for n in sizes[0]]
            return words, [np.append(rng.integers(4, PHONEMES, n - 1), 2) for n in sizes[1]]
        speller = pronunciation.Speller.from_file(Path(self.model or ""))
        words = pronunciation.split(pronunciation.read(Path(self.data)))["test"]
        drawn = rng.choice(sorted(words), self.batch, replace=False)
        return (
            [speller.letters.encode(word) for word in drawn],
            [speller.phonemes.encode(words[word][0], end=True) for word in drawn],
        )

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Source, its lengths, what the decoder reads, what it shall say, the lengths of that."""
        words, said = self.pairs()
        (source, lengths), (target, steps) = padded(words), padded(said)
        return source, lengths, rnncore.shifted(target, Vocabulary.BOS), target, steps


class Work:
    """A task made ready."""

    def __init__(self, run: Any) -> None:
        self.run = run

    def time(self, seconds: float) -> float:
        """Seconds that a call takes."""
        return time_call(self.run, seconds)

    def results(self) -> dict[str, np.ndarray]:
        """The loss, or what was said."""
        found = self.run()
        return {"found": np.array(found) if np.isscalar(found) else padded(found)[0]}


class RnnCore:
    """This package."""

    def about(self) -> str:
        """Version and instruction set."""
        info = rnncore.info()
        return f"rnncore {info['version']}, {info['instruction_set']}"

    def prepare(self, task: Task) -> Work:
        """As the example does it."""
        model = task.seq2seq()
        source, lengths, before, target, steps = task.arrays()
        if task.mode != "training":
            return Work(lambda: self._say(model, task, source, lengths))
        loss, optimiser = (
            rnncore.SoftmaxCrossEntropy(task.label_smoothing),
            rnncore.Adam(model, lr=task.lr),
        )
        mask = rnncore.length_mask(steps, len(target))

        def update() -> float:
            logits, pullback = model.vjp(
                source, before, source_lengths=lengths, target_lengths=steps
            )
            value, back = loss.vjp(logits, target, mask)
            model.zero_grad()
            pullback(back())
            rnncore.clip_grad_norm(model, 1.0)
            optimiser.step()
            return value

        return Work(update)

    def _say(self, model: Any, task: Task, *source: np.ndarray) -> list[np.ndarray]:
        if task.mode == "greedy":
            return [said.tokens for said in search.greedy(model, *source, **task.rules)]
        prune = 3.0 if task.mode == "beam, pruned" else np.inf
        found = search.beam(model, *source, width=BEAM, prune=prune, **task.rules)
        return [best.tokens for best, *_ in found]


class Torch:
    """PyTorch."""

    def __init__(self) -> None:
        self.torch, self.made = import_module("torch"), import_module("seq2seq_torch")

    def about(self) -> str:
        """Version and instruction set."""
        capability = self.torch.backends.cpu.get_cpu_capability()
        return f"PyTorch {self.torch.__version__}, {capability}"

    def prepare(self, task: Task) -> Work:
        """With the same parameters."""
        made, params = self.made, task.seq2seq().params
        letters, phonemes = (
            len(params[name]) for name in ("encoder.0.weight", "decoder.embedding.0.weight")
        )
        model = made.Model(letters, phonemes, task)
        model.load(params)
        source, lengths, before, target, _ = map(self.torch.from_numpy, task.arrays())
        limits = (task.rules["min_length"], task.rules["max_length"])
        if task.mode == "greedy":
            return Work(lambda: made.greedy(model, source, lengths, *limits))
        if task.mode != "training":
            return Work(lambda: made.beam(model, source, lengths, BEAM, *limits))
        trainer = made.Trainer(model, task)
        return Work(lambda: trainer.update(source, lengths, before, target))


ENGINES: dict[str, Any] = {"rnncore": RnnCore, "torch": Torch}


def start(entry: Entry) -> Contestant:
    """Start an engine's process."""
    return Contestant(entry, [sys.executable, __file__, "--serve", entry.engine])


def added_memory(entry: Entry, task: Task) -> float:
    """MiB that a task adds at its peak to what a fresh process has."""
    with contest([entry], start) as (contestant,):
        before = contestant.peak_memory()
        contestant.load(task)
        contestant.time(0)
        return (contestant.peak_memory() - before) / MEBI


def check(task: Task, entries: list[Entry]) -> None:
    """Print how far the engines agree: on the losses of the first updates, on what is said."""
    with contest(entries, start) as contestants:
        found = []
        for contestant in contestants:
            contestant.load(replace(task, dropout=0.0))
            found.append(contestant.results()["found"])
    ours, theirs = found
    if task.mode == "training":
        print(f"training: losses {float(ours):.6f} and {float(theirs):.6f}")
        return
    steps = max(len(ours), len(theirs))
    ours, theirs = (np.pad(part, ((0, steps - len(part)), (0, 0))) for part in (ours, theirs))
    same = int((ours == theirs).all(axis=0).sum())
    print(f"{task.mode}: {same} of {ours.shape[1]} the same")


def measure(task: Task, entries: list[Entry], rounds: int) -> list[str]:
    """A row of the table."""
    with contest(entries, start) as contestants:
        times = compete(task, contestants, rounds)
    ours, theirs = (times[str(entry)] for entry in entries)
    targets = int(task.arrays()[-1].sum())
    memory = [added_memory(entry, task) for entry in entries]
    what = "phonemes/s" if task.mode == "training" else "words/s"
    size = targets if task.mode == "training" else task.batch
    rates = [f"{size / median(part):,.0f} {what}" for part in (ours, theirs)]
    return [task.mode, *rates, f"{ratio(theirs, ours):.2f}", *(f"{m:.0f}" for m in memory)]


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--serve"]:
        answer(ENGINES[sys.argv[2]](), Task.parse)
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", help="what examples/pronunciation.py has saved")
    parser.add_argument("--data", help="cmudict.dict, with --model")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=256, help="without --model")
    parser.add_argument(
        "--batch", type=int, default=128, help="of training; searches have twice it"
    )
    parser.add_argument("--check", action="store_true", help="compare what comes out instead")
    args = parser.parse_args()
    if bool(args.model) != bool(args.data):
        parser.error("--model and --data go together")
    entries = [Entry(name, args.threads) for name in ENGINES]
    tasks = [
        Task(
            mode, args.batch * (1 if mode == "training" else 2), args.model, args.data, args.hidden
        )
        for mode in MODES
    ]
    if args.check:
        for task in tasks:
            check(task, entries)
        return
    head = ["", *map(str, entries), "times as fast"]
    head += [f"{entry} (MiB added)" for entry in entries]
    print(table(head, [measure(task, entries, args.rounds) for task in tasks]))


if __name__ == "__main__":
    main()
