"""Sequence to sequence: an encoder reads, a decoder writes.

    model = Seq2Seq(encoder, decoder, bridge)
    logits = model(source, target, source_lengths=..., target_lengths=...)
    logits, pullback = model.vjp(source, target, source_lengths=..., target_lengths=...)

Everything is time-major. The decoder reads `target[t]` at step t and answers with what comes next:
see `shifted`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Array, as_array, as_integers, as_lengths, read
from ..compositions.composition import agreed, run
from ..module import Module, once
from ..states import State
from .bridge import Bridge, Start, finals
from .decoder import Decoder, DecoderState


class Seq2Seq(Module):
    """An encoder, a decoder, and a bridge between their states.

    encoder: any module `(x, state, lengths) -> (y, state)`, time-major, e.g. `Chain(Embedding(...),
    LSTM(..., bidirectional=True))`; one in `Reversed` reads each source from its end (Sutskever et
    al. 2014). bridge: how its final state begins the decoder; None: not at all, the decoder begins
    with zeros.
    """

    def __init__(self, encoder: Module, decoder: Decoder, bridge: Bridge | None = None) -> None:
        super().__init__()
        if not isinstance(encoder, Module) or not encoder.recurrent:
            raise TypeError(f"encoder must be a recurrent Module, got {type(encoder).__name__}")
        if agreed("batch_first", {"encoder": encoder}):
            raise ValueError("encoder must be time-major: batch_first=False")
        if not isinstance(decoder, Decoder):
            raise TypeError(f"decoder must be a Decoder, got {type(decoder).__name__}")
        if bridge is not None and not isinstance(bridge, Bridge):
            raise TypeError(f"bridge must be a Bridge or None, got {type(bridge).__name__}")
        self.has_cell_state = decoder.rnn.has_cell_state
        if bridge is not None and bridge.cell_state and not self.has_cell_state:
            raise ValueError("the decoder has no cell state: the bridge needs cell_state=False")
        self.encoder, self.decoder, self.bridge = encoder, decoder, bridge

    def __call__(
        self,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        *,
        source_lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
    ) -> Array:
        """Return logits `(T, B, V)` after each of the given targets.

        source `(S, B)` tokens or `(S, B, I)` features; target `(T, B)` tokens or `(T, B, I)`
        features, what the decoder reads; lengths `(B,)` whole numbers from 1. Past a target's
        length the logits are zero.
        """
        return self._forward(False, source, target, source_lengths, target_lengths)[0]

    def attention(
        self,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        *,
        source_lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
    ) -> Array:
        """Return the attention weights `(T, B, S)` of a call with these arguments."""
        weights = self._forward(False, source, target, source_lengths, target_lengths)[1]
        if weights is None:
            raise TypeError("this model's decoder has no attention")
        return weights

    def vjp(
        self,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        *,
        source_lengths: npt.ArrayLike | None = None,
        target_lengths: npt.ArrayLike | None = None,
    ) -> tuple[Array, Callable[[npt.ArrayLike], tuple[Any, Any]]]:
        """As a call, with dropout and the pullback.

        `pullback(dlogits) -> (dsource, dtarget)`, each None where it is tokens.
        """
        logits, _, pullback = self._forward(True, source, target, source_lengths, target_lengths)
        return logits, once(pullback)

    def start(
        self, source: npt.ArrayLike, source_lengths: npt.ArrayLike | None = None
    ) -> DecoderState:
        """Read the sources; return the decoder's state before its first `decoder.step`."""
        encoded, lengths, start, _ = self._encode(False, source, source_lengths)
        return self.decoder.start(encoded, self._state(start), lengths, start.context)

    def scheduled(
        self,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        rate: float,
        rng: np.random.Generator,
        *,
        source_lengths: npt.ArrayLike | None = None,
    ) -> Array:
        """Return targets to train on in which the model's own outputs replace some of those given.

        Scheduled sampling (Bengio et al. 2015): each target but a sequence's first is replaced with
        probability `rate`, by a token drawn from what the model predicts after all that stands
        before it, or by the features that it predicts.
        """
        if not 0 <= rate <= 1:
            raise ValueError(f"rate must be in [0, 1], got {rate}")
        features = self.decoder.embedding is None
        mixed = np.array(
            as_array("target", target, self.decoder.dtype)
            if features
            else as_integers("target", target)
        )
        replaced = rng.random(mixed.shape[:2]) < rate
        state = self.start(source, source_lengths)
        last = int(np.flatnonzero(replaced[1:].any(axis=1)).max(initial=-1)) + 1
        for t in range(1, last + 1):
            logits, state = self.decoder.step(mixed[t - 1], state)
            own = logits if features else sampled(logits, rng)
            mixed[t, replaced[t]] = own[replaced[t]]
        return mixed

    def _state(self, start: Start) -> State:
        """The decoder's own."""
        return (start.h, start.c) if self.has_cell_state else start.h

    def _encode(
        self, record: bool, source: npt.ArrayLike, lengths: npt.ArrayLike | None
    ) -> tuple[Array, Array | None, Start, Any]:
        """What the encoder makes of the sources, and the pullback to dsource."""
        x, _ = read("source", source)
        if x.ndim < 2:
            raise ValueError(f"source must have shape (S, B) or (S, B, features), got {x.shape}")
        own = as_lengths(lengths, x.shape[0], x.shape[1], "source_lengths")
        (y, state), encoder_back = run(self.encoder, record, source, lengths=own)
        start, bridge_back, state_back = Start(), None, None
        if self.bridge is not None:
            layers, state_back = finals(self.encoder, state)
            if not layers:
                raise TypeError("the encoder has no state for the bridge: it must be None")
            start, bridge_back = run(self.bridge, record, layers)

        def pullback(dencoded: Array | None, dstate: State, dcontext: Array | None) -> Any:
            dfinal = None
            if bridge_back is not None and state_back is not None:
                dh, dc = dstate if self.has_cell_state else (dstate, None)
                dfinal = state_back(bridge_back(Start(dh, dc, dcontext)))
            return encoder_back(dencoded, dfinal)[0]

        return y, None if own is None else self.encoder.out_lengths(own), start, pullback

    def _forward(
        self,
        record: bool,
        source: npt.ArrayLike,
        target: npt.ArrayLike,
        source_lengths: npt.ArrayLike | None,
        target_lengths: npt.ArrayLike | None,
    ) -> tuple[Array, Array | None, Any]:
        given = (("source", source), ("target", target))
        rows = [read(name, array)[0].shape[1:2] for name, array in given]
        if all(rows) and rows[0] != rows[1]:
            raise ValueError(f"target has {rows[1][0]} rows, the source {rows[0][0]}")
        encoded, lengths, start, encode_back = self._encode(record, source, source_lengths)
        (logits, weights), decode_back = run(
            self.decoder,
            record,
            target,
            encoded,
            self._state(start),
            lengths,
            target_lengths,
            start.context,
        )

        def pullback(dlogits: npt.ArrayLike) -> tuple[Any, Any]:
            dtarget, dencoded, dstate, dcontext = decode_back(dlogits)
            return encode_back(dencoded, dstate, dcontext), dtarget

        return logits, weights, pullback


def shifted(target: npt.ArrayLike, first: Any) -> Array:
    """Return what a decoder reads to write `target (T, B, ...)`: `first`, and all but the last."""
    array, _ = read("target", target)
    if not array.ndim:
        raise ValueError("target must have shape (T, B, ...), got ()")
    inputs = np.empty_like(array)
    try:
        inputs[:1] = first
    except OverflowError as error:
        raise ValueError(f"first must be a number that {array.dtype} holds: {error}") from error
    inputs[1:] = array[:-1]
    return inputs


def sampled(logits: Array, rng: np.random.Generator) -> Array:
    """Draw a token from each row of logits `(R, V)`."""
    noise = rng.gumbel(size=logits.shape)
    tokens: Array = (logits + noise).argmax(axis=-1)
    return tokens
