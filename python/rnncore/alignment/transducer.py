"""The RNN transducer (Graves 2012): labels without alignment, for streams.

model = Transducer(encoder, predictor, TransducerJoint(64, len(labels)))
trainer = Trainer(model, TransducerLoss(), optimiser, batches)
# of Batch((x, y), y, lengths=..., target_lengths=...)
found = model.greedy(x, lengths)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_integers, as_lengths, check_count, check_kind, read
from ..compositions.composition import agreed, check_one_way, run
from ..compositions.ragged import length_mask, lengths_after, told
from ..module import Module, Pullback, once
from ..widths import width_through
from .joint import Joined, JointGradients, TransducerJoint
from .transducer_search import Beam, Greedy, Limits, Searcher, TimedTranscript, TransducerStream


class Transducer(Module):
    """An encoder reads frames, a prediction network reads labels, a joint network tells the next.

        f = encoder(x)                           what is heard, for each frame
        g = predictor([blank, y_1, ..., y_U])    what comes after so many labels
        log P(k | t, u) = log softmax(joint(f_t, g_u))_k

    At each frame labels are emitted until the blank goes on to the next frame. encoder: any module
    from x `(T, B, ...)` to `(T', B, H)`, with H the joint network's size, e.g. `Chain(LSTM(40, 64),
    Linear(64, H))`; for streams it looks in one direction. predictor: from labels `(U+1, B)` to
    `(U+1, B, H)`, in one direction, e.g. `Chain(Embedding(V, 16), GRU(16, 32), Linear(32, H))`; it
    begins with the blank. All is time-major but the labels, which are `(B, U)` as in the loss.

    Like `Seq2Seq` it reads its targets in training. A call takes one argument, (x, labels) or (x,
    labels, label_lengths), so that a trainer makes it from `Batch((x, y), y, lengths=...,
    target_lengths=...)`, and returns a `Joined`, which `TransducerLoss` takes.
    """

    def __init__(
        self, encoder: Module, predictor: Module, joint: TransducerJoint, blank: int = 0
    ) -> None:
        super().__init__()
        parts = {
            "encoder": check_kind("encoder", encoder, Module),
            "predictor": check_kind("predictor", predictor, Module),
            "joint": check_kind("joint", joint, TransducerJoint),
        }
        if agreed("batch_first", parts):
            raise ValueError("encoder and predictor must be time-major: batch_first=False")
        self.dtype = agreed("dtype", parts)
        if not predictor.takes_indices:
            raise ValueError("predictor must take labels: an Embedding comes first in it")
        check_one_way("predictor", predictor)
        for name in ("encoder", "predictor"):
            width = width_through([(name, parts[name])])
            if width not in (None, joint.joint_size):
                raise ValueError(
                    f"{name} must give {joint.joint_size} features, the joint network's size, but "
                    f"gives {width}"
                )
            if not parts[name].keeps_steps:
                raise ValueError(f"{name} must give an output for each step")
        self.encoder, self.predictor, self.joint = encoder, predictor, joint
        self.blank = check_count("blank", blank, 0)
        if blank >= joint.num_labels:
            raise ValueError(f"blank must be in 0..{joint.num_labels - 1}, got {blank}")

    def __call__(self, inputs: Any, *, lengths: npt.ArrayLike | None = None) -> Joined:
        """Return what the logits are made of.

        inputs: x `(T, B, ...)`; labels `(B, U)`, of which those past the end of a row may be any,
        as `padded` has them; and, or not, how many labels each row has `(B,)`: then labels past the
        end are not looked at. lengths `(B,)`: of x.
        """
        return self._run(inputs, lengths, False)[0]

    def vjp(self, inputs: Any, *, lengths: npt.ArrayLike | None = None) -> tuple[Joined, Pullback]:
        """As a call, with dropout and the pullback: from `JointGradients` to dx."""
        joined, pullback = self._run(inputs, lengths, True)
        return joined, once(pullback)

    def out_lengths(self, lengths: npt.ArrayLike) -> Array:
        """Return how many frames the encoder makes of so many."""
        return self.encoder.out_lengths(lengths)

    def greedy(
        self, x: npt.ArrayLike, lengths: npt.ArrayLike | None = None, *, max_symbols: int = 10
    ) -> list[TimedTranscript]:
        """Take the likeliest symbol at every node of the lattice; return what each row says.

        x and lengths as in a call. max_symbols: so many labels at a frame, then the next. A score
        is the log-probability of the alignment that was found.
        """
        return [best for (best,) in self._search(Greedy, x, lengths, Limits(1, 1, max_symbols))]

    def beam(
        self,
        x: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        *,
        beam_size: int = 4,
        n_best: int = 1,
        max_symbols: int = 3,
        prune: float = math.inf,
    ) -> list[list[TimedTranscript]]:
        """Keep the `beam_size` likeliest label sequences at each frame; return a row's n best.

        Time-synchronous decoding (Saon, Tuske and Audhkhasi 2020, "Alignment-length synchronous
        decoding for RNN transducer", section 2.2): alignments that say the same are one hypothesis,
        their probabilities summed, so a score is the log-probability of the labels, as far as the
        beam has seen it. What is `prune` nats less likely than the best is given up.
        """
        return self._search(Beam, x, lengths, Limits(beam_size, n_best, max_symbols, prune))

    def stream(
        self,
        batch: int = 1,
        *,
        beam_size: int | None = None,
        max_symbols: int | None = None,
        prune: float = math.inf,
    ) -> Any:
        """Return a `TransducerStream`, which takes chunks of frames and says what it has heard.

        The results are those of one call of `greedy` or, if `beam_size` is given, of `beam`, to the
        bit. Raises `TypeError` or `ValueError` where the encoder depends on all later frames.
        """
        kind, symbols = (Greedy, 10) if beam_size is None else (Beam, 3)
        symbols = symbols if max_symbols is None else max_symbols
        limits = Limits(1 if beam_size is None else beam_size, 1, symbols, prune)
        return TransducerStream(self._searcher(limits), self.encoder, kind, batch)

    def _searcher(self, limits: Limits) -> Searcher:
        return Searcher(self.predictor, self.joint, self.blank, limits)

    def _search(
        self, kind: type[Greedy] | type[Beam], x: npt.ArrayLike, lengths: Any, limits: Limits
    ) -> list[list[TimedTranscript]]:
        searcher = self._searcher(limits)
        f, ends, _ = self._encode(x, lengths, False)
        found = []
        for b in range(f.shape[1]):
            decoder = kind(searcher)
            decoder.take(np.ascontiguousarray(f[: None if ends is None else ends[b], b]))
            found.append(decoder.best(limits.n_best))
        return found

    def _encode(self, x: npt.ArrayLike, lengths: Any, record: bool) -> tuple[Array, Any, Any]:
        """Return f, the lengths of its rows, and the pullback."""
        given, _ = read("x", x)
        if given.ndim < 2:
            raise ValueError(f"x must have shape (T, B, ...), got {given.shape}")
        own = as_lengths(lengths, *given.shape[:2])
        output, back = run(self.encoder, record, x, **told(self.encoder, own))
        f = output[0] if self.encoder.recurrent else output
        return f, lengths_after(self.encoder, own), back

    def _run(self, inputs: Any, lengths: Any, record: bool) -> tuple[Joined, Any]:
        x, labels = self._inputs(inputs)
        f, _, encoder_back = self._encode(x, lengths, record)
        if len(labels) != f.shape[1]:
            raise ValueError(f"labels must have {f.shape[1]} rows as x, got shape {labels.shape}")
        read_by = np.full((labels.shape[1] + 1, len(labels)), self.blank, np.intp)
        read_by[1:] = labels.T
        output, predictor_back = run(self.predictor, record, read_by)
        g = output[0] if self.predictor.recurrent else output
        joined, joint_back = run(self.joint, record, f, g)

        def pullback(d: JointGradients) -> Any:
            df, dg = joint_back(d)
            predictor_back(dg)
            dx = encoder_back(df)
            return dx[0] if self.encoder.recurrent else dx

        return joined, pullback

    def _inputs(self, inputs: Any) -> tuple[Any, Array]:
        """Return x, and labels without what stands past their ends."""
        if not isinstance(inputs, (tuple, list)) or len(inputs) not in (2, 3):
            raise TypeError("inputs must be (x, labels) or (x, labels, label_lengths)")
        labels = as_integers("labels", inputs[1])
        if labels.ndim != 2:
            raise ValueError(f"labels must have shape (B, U), got {labels.shape}")
        if len(inputs) == 3 and inputs[2] is not None:
            counts = as_integers("label_lengths", inputs[2])
            if counts.shape != labels.shape[:1]:
                raise ValueError(
                    f"label_lengths must have shape ({len(labels)},), got {counts.shape}"
                )
            labels = np.where(length_mask(counts, labels.shape[1], True), labels, self.blank)
        most = self.joint.num_labels - 1
        low, high = labels.min(initial=0), labels.max(initial=0)
        if low < 0 or high > most:
            raise ValueError(
                f"labels must be in 0..{most}, got {low if low < 0 else high}: fill what is past "
                "the end of a row with the blank, or give label_lengths"
            )
        return inputs[0], labels
