"""Linear-chain conditional random fields (Lafferty et al. 2001)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import init
from ..arrays import (
    Array,
    as_array,
    as_shape,
    check_count,
    check_flag,
    check_kind,
    check_size,
    float_dtype,
)
from ..compiled import core
from ..hinting import hinted, put_hints
from ..hints import CRF as CRF_HINTS
from ..hints import DECODE
from ..init import Seed
from ..module import Module, Pullback, once
from ..stream.stages import Stages
from ..widths import check_width
from .arguments import Frames, read_frames
from .crf_targets import check_allowed, read_tags
from .sequence_loss import SequenceLoss, Sequences, as_sequence_weights
from .tags import Constraints, read_constraints


class Decoded(NamedTuple):
    """The best sequences of tags, the best first."""

    tags: Array  # (n, T, B) int64, or (n, B, T); -1 past the ends, and where there are no more
    scores: Array  # (n, B) float64; -inf where there are no more


class CRF(Module):
    """Scores of sequences of tags: emissions of each step, and transitions between neighbours.

        score(y) = start_y1 + sum_t x_t(y_t) + sum_t>1 transitions(y_(t-1), y_t) + end_yT
        p(y | x) = exp(score(y)) / sum over all y' of exp(score(y'))

    (Lafferty et al. 2001, "Conditional Random Fields"; over the outputs of a bidirectional LSTM:
    Huang et al. 2015, "Bidirectional LSTM-CRF Models for Sequence Tagging".)

    Emissions x `(T, B, K)`, `(B, T, K)` with `batch_first`, or `(T, K)` for one sequence, are what
    a linear layer gives; `lengths` `(B,)` in 0..T. It is the last module of a `Chain`, so that the
    chain has all parameters: a call hands the emissions on. Train it by `CRFLoss(crf)`, and
    `decode` what the chain returns.

    Parameters: `transitions (K, K)`, [from, to]; `start (K,)`, `end (K,)`; at first uniform in
    +-0.1. constraints: which transitions, starts and ends are allowed, as `tag_constraints` makes
    them of the names of tags; None: all. What is forbidden has no probability, whatever its score,
    and no gradient.

    All sums are float64. Emissions of -inf rule tags out; NaN or inf in a sequence make what is
    said of it NaN, and its tags -1. A sequence of no steps has one, empty sequence of tags.
    """

    pointwise = True

    def __new__(cls, *args: Any, **kwargs: Any) -> CRF:
        """Remember constraints in a form that files can hold."""
        if isinstance(kwargs.get("constraints"), (tuple, list)):
            kwargs["constraints"] = tuple(np.asarray(a).tolist() for a in kwargs["constraints"])
        return super().__new__(cls, *args, **kwargs)

    def __init__(
        self,
        num_tags: int,
        *,
        constraints: Constraints | None = None,
        batch_first: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: Seed = None,
    ) -> None:
        self.num_tags = check_size("num_tags", num_tags)
        self.batch_first = check_flag("batch_first", batch_first)
        self.dtype = float_dtype(dtype)
        #: (K + 2, K) booleans, of transitions, starts and ends; None: all are allowed.
        self.allowed = None if constraints is None else read_constraints(constraints, num_tags)
        rng, K = np.random.default_rng(seed), self.num_tags
        shapes: dict[str, tuple[int, ...]] = {"transitions": (K, K), "start": (K,), "end": (K,)}
        super().__init__(
            {name: init.uniform(rng, shape, 0.1, self.dtype) for name, shape in shapes.items()}
        )

    @property
    def constraints(self) -> Constraints | None:
        """Which transitions, starts and ends are allowed; None: all."""
        if self.allowed is None:
            return None
        *transitions, start, end = self.allowed
        return Constraints(np.array(transitions), start, end)

    def stages(self, batch: int, dtype: np.dtype[Any]) -> Stages:
        """Return nothing to go through."""
        return Stages(self.num_tags, None, [])

    def out_width(self, width: int | None) -> int | None:
        """Return how wide y is."""
        check_width(width, self.num_tags)
        return self.num_tags

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return x."""
        return self._emissions(x)

    def vjp(self, x: npt.ArrayLike) -> tuple[Array, Pullback]:
        """Return x, and the pullback, which returns what it is given."""
        x = self._emissions(x)
        return x, once(lambda dy: as_shape("dy", dy, self.dtype, x.shape))

    @hinted(DECODE)
    def decode(
        self,
        emissions: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        n_best: int | None = None,
    ) -> Any:
        """Return the best sequence of tags of each row, `(T, B)`, as emissions lie (Viterbi).

        With `n_best` the n best, as `Decoded`: tags `(n, T, B)`, scores `(n, B)` in float64. Tags
        past the ends are -1, and where no (further) sequence is possible. Of equal scores the one
        with the lower tag at the last step where they differ is first.
        """
        count = 1 if n_best is None else check_count("n_best", n_best)
        if count > (1 << 31) // self.num_tags - 1:
            raise ValueError(f"n_best must be less than 2^31 / {self.num_tags} tags, got {count}")
        frames = self.frames(emissions, lengths)
        tags, scores = self.batch(frames).decode(count)
        if not frames.batched:
            tags, scores = tags.reshape(count, -1), scores[:, 0]
        return tags[0] if n_best is None else Decoded(tags, scores)

    def marginals(self, emissions: npt.ArrayLike, lengths: npt.ArrayLike | None = None) -> Array:
        """Return p(y_t = j | x), as emissions `(T, B, K)`; zero past the ends."""
        frames = self.frames(emissions, lengths)
        found: Array = self.batch(frames).loss(None, np.ones(len(frames.lengths)))[1]
        return found if frames.batched else found.reshape(np.shape(emissions))

    def log_partition(
        self, emissions: npt.ArrayLike, lengths: npt.ArrayLike | None = None
    ) -> Array:
        """Return the log of the sum of exp(score) over all sequences of tags, `(B,)` in float64.

        A score less this is a log-probability. -inf: no sequence is possible.
        """
        frames = self.frames(emissions, lengths)
        found: Array = self.batch(frames).loss(None, None)[0]
        return found if frames.batched else found[0]

    def log_prob(
        self, emissions: npt.ArrayLike, tags: npt.ArrayLike, lengths: npt.ArrayLike | None = None
    ) -> Array:
        """Return the log-probability of tags, `(B,)` in float64: of all sequences that agree.

        tags: as the targets of `CRFLoss`.
        """
        frames = self.frames(emissions, lengths)
        found: Array = -self.batch(frames).loss(read_tags(tags, frames), None)[0] + 0.0
        return found if frames.batched else found[0]

    def frames(self, emissions: npt.ArrayLike, lengths: npt.ArrayLike | None) -> Frames:
        """Check emissions and lengths."""
        return read_frames(self._emissions(emissions), lengths, self.batch_first, "emissions")

    def batch(self, frames: Frames) -> Any:
        """Return what computes of a batch in the compiled core: it keeps the scores as they are."""
        K = self.num_tags
        transitions, start, end = (
            as_shape(name, self._params[name], self.dtype, shape)
            for name, shape in (("transitions", (K, K)), ("start", (K,)), ("end", (K,)))
        )
        x, lengths = frames.logits, frames.lengths
        return core(self.dtype).CrfBatch(
            x, self.batch_first, lengths, transitions, start, end, self.allowed
        )

    def _emissions(self, x: npt.ArrayLike) -> Array:
        x = as_array("emissions", x, self.dtype)
        if x.ndim < 1 or x.shape[-1] != self.num_tags:
            raise ValueError(f"emissions must have shape (..., {self.num_tags}), got {x.shape}")
        return x


put_hints(CRF, CRF_HINTS)


class CRFLoss(SequenceLoss):
    """-log p(targets | x) of the sequences of a batch by a `CRF`.

    `loss.vjp(emissions, targets, lengths, weights)`: emissions as the CRF takes them, what a chain
    with the CRF at its end gives; lengths `(B,)` in 0..T; weights `(B,)`, at least 0: how much each
    sequence counts. A pullback adds the gradients of transitions, start and end to `crf.grads`.

    targets: tags `(T, B)` in 0..K-1, -1 where the tag is unknown; or booleans `(T, B, K)`, true for
    the tags that may be. Where they leave a choice, the probability is that of all sequences that
    agree. What lies past the ends may be anything.

    reduction: "mean" over the sequences, "sum", "none", or "token_mean", the sum over the number of
    steps. Targets that the CRF's constraints forbid raise `ValueError`. Where emissions of -inf
    leave none that agrees, the loss is infinite and its gradient zero. NaN or inf in a sequence
    make its loss and gradient NaN.
    """

    takes: tuple[str, ...] = ("lengths", "weights")
    reductions = (*SequenceLoss.reductions, "token_mean")

    def __init__(self, crf: CRF, reduction: str = "mean") -> None:
        self.crf = check_kind("crf", crf, CRF)
        super().__init__(reduction, batch_first=crf.batch_first)

    def __call__(  # type: ignore[override]
        self,
        x: npt.ArrayLike,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> Any:
        """Return the loss."""
        return super().vjp(x, targets, lengths, None, weights)[0]

    def vjp(  # type: ignore[override]
        self,
        x: npt.ArrayLike,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> tuple[Any, Pullback]:
        """Return the loss, and the pullback from dloss (1 if it is not given) to dx."""
        if self.reduction == "none":
            return super().vjp(x, targets, lengths, None, weights)
        # How much each loss counts is known: one pass gives the losses and all gradients.
        given = self._checked(x, targets, lengths)
        steps = given.frames.lengths
        scales = self._scales(as_sequence_weights(weights, len(steps)), steps)
        losses, *gradients = given.batch.loss(given.tags, scales)
        self._check_possible(losses, given)

        def pullback(dloss: npt.ArrayLike = 1.0) -> Array:
            factor = self.crf.dtype.type(as_array("dloss", dloss, np.float64))
            if factor != 1:
                with np.errstate(invalid="ignore", over="ignore"):
                    gradients[:] = [factor * gradient for gradient in gradients]
            return self._add(gradients, np.shape(x))

        with np.errstate(invalid="ignore", over="ignore"):
            return float((losses * scales).sum()), once(pullback)

    def counted(  # type: ignore[override]
        self,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        weights: npt.ArrayLike | None = None,
    ) -> float:
        """Return what the mean divides by: sequences or steps, or the sum of their weights."""
        shape = (*np.shape(targets), 1)[:2]  # (T, B), or (T,)
        steps, batch = shape[::-1] if self.batch_first and np.ndim(targets) > 1 else shape
        own = np.ones(batch) if weights is None else np.asarray(weights, np.float64)
        if self.reduction == "token_mean":
            own = own * (steps if lengths is None else np.asarray(lengths))
        return float(own.sum())

    def _sequences(
        self,
        x: Any,
        targets: npt.ArrayLike,
        lengths: npt.ArrayLike | None,
        target_lengths: npt.ArrayLike | None,
    ) -> Sequences:
        given = self._checked(x, targets, lengths)
        losses = given.batch.loss(given.tags, None)[0]
        self._check_possible(losses, given)

        def backward(scales: Array) -> Array:
            return self._add(given.batch.loss(given.tags, scales)[1:], np.shape(x))

        return Sequences(losses, backward, self.crf.dtype, given.frames.lengths)

    def _scales(self, weights: Array, sizes: Array | None) -> Array:
        """Return how much of each loss is in the reduced one; `sizes`: steps of the sequences."""
        if self.reduction != "token_mean" or sizes is None:
            return super()._scales(weights, None)
        with np.errstate(over="ignore"):
            return weights / (float((weights * sizes).sum()) or 1)

    def _checked(self, x: Any, targets: npt.ArrayLike, lengths: npt.ArrayLike | None) -> _Given:
        frames = self.crf.frames(x, lengths)
        return _Given(frames, read_tags(targets, frames), self.crf.batch(frames))

    def _check_possible(self, losses: Array, given: _Given) -> None:
        """Refuse targets that have no probability because they are forbidden."""
        if self.crf.allowed is not None and np.isinf(losses).any():
            rows = np.flatnonzero(np.isinf(losses))
            check_allowed(given.tags, given.frames, self.crf.allowed, rows)

    def _add(self, gradients: Sequence[Array], shape: tuple[int, ...]) -> Array:
        """Add the gradients of the scores to the CRF's, and return that of x."""
        grads = self.crf.grads
        for name, gradient in zip(("transitions", "start", "end"), gradients[1:], strict=True):
            grads[name] += gradient
        return gradients[0].reshape(shape)


class _Given(NamedTuple):
    """What a loss was given, checked."""

    frames: Frames
    tags: Array
    batch: Any
