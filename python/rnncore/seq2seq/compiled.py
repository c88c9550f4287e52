"""Decoders whose steps the compiled core takes by itself, and what it is given of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..arrays import Array
from ..compiled import Memory as CompiledMemory
from ..layers.activations import activation
from ..nonlinearities import SIGMOID, TANH
from ..stream.stages import Stage
from .attention import Attention, BahdanauAttention, LuongAttention
from .decoder import Decoder, DecoderState


class Parts(NamedTuple):
    """A decoder as lists of stages, and where its rows stand, one for each source."""

    embedding: list[Any]
    layers: list[Any]  # recurrent ones
    query: list[Any]  # from h to the queries
    centre: list[Any]  # from h to the centre of a window, as a share of the source's length
    merge: list[Any]  # from the context and h beside it to what the head sees
    head: list[Any]
    vocabulary: int
    memory: CompiledMemory | None
    before: bool  # the context is joined to the input
    feeds: bool  # what the head sees is joined to the next input
    sources: int
    h: Array  # (num_layers, B, H)
    c: Array | None
    feed: Array | None  # (B, F)
    context: Array | None  # (B, C)


def parts_of(decoder: Any, state: Any) -> Parts | None:
    """Return the parts of a decoder, None where only Python can tell what a step does."""
    if not _compiles(decoder, state):
        return None
    attention, dtype, rows = decoder.attention, decoder.dtype, len(state)
    width = decoder.rnn.output_size if attention is None else attention.output_size
    try:
        size, vocabulary = decoder.embedding.out_width(0), decoder.head.out_width(width)
        embedding, layers, head = (
            part.stages(rows, dtype).stages
            for part in (decoder.embedding, decoder.rnn, decoder.head)
        )
    except (TypeError, ValueError):  # a call says what is wrong
        return None
    if size != decoder.input_size or vocabulary is None:
        return None
    h, c = state.rnn if isinstance(state.rnn, tuple) else (state.rnn, None)
    return Parts(
        **_attending(attention, dtype),
        embedding=embedding,
        layers=layers,
        head=head,
        vocabulary=vocabulary,
        memory=None if attention is None else state.memory.kernels,
        before=attention is not None and attention.before,
        feeds=decoder.input_feeding,
        sources=rows,
        h=h,
        c=c,
        feed=state.feed,
        context=state.context,
    )


def _compiles(decoder: Any, state: Any) -> bool:
    """Whether steps are `Decoder`'s, of parts that say what they do, with a row for each source."""
    return (
        isinstance(decoder, Decoder)
        and getattr(decoder.step, "__func__", None) is Decoder.step
        and type(state) is DecoderState
        and np.array_equal(state.source, np.arange(len(state)))
        and decoder.embedding is not None
        and decoder.embedding.takes_indices
        and not (decoder.embedding.recurrent or decoder.head.recurrent)
        and type(decoder.attention) in (type(None), Attention, BahdanauAttention, LuongAttention)
        and all(part.compiles() for part in (decoder.embedding, decoder.rnn, decoder.head))
    )


def _attending(attention: Attention | None, dtype: np.dtype[Any]) -> dict[str, list[Stage]]:
    if attention is None:
        return {"query": [], "centre": [], "merge": []}
    tanh, sigmoid = (Stage(activation(spec, dtype)) for spec in (TANH, SIGMOID))
    query = [] if attention.query is None else [Stage(attention.query.kernels)]
    centre = []
    if attention.position is not None and attention.centre is not None:
        maps = Stage(attention.position.kernels), Stage(attention.centre.kernels)
        centre = [maps[0], tanh, maps[1], sigmoid]
    return {"query": query, "centre": centre, "merge": [Stage(attention.combine.kernels), tanh]}
