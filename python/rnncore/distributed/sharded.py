"""An update from a batch that is cut into shards, of which each rank holds some.

Each shard goes forward and backward by itself, from a state and with random numbers of its own, and
its gradients are a sum over its targets. The sums of all shards are added up in one order
(`order.py`) and divided by what all targets count: the same bits for any number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..arrays import Array, check_count
from ..batches import Batch, BatchLike
from ..losses import Objective
from ..module import Module
from ..states import State
from .collective import Collective, RankFailed, check_collective, gathered, together
from .order import Node, Summing, halves, nodes, share
from .overlap import Overlap
from .sharding import MOST, Cut, cut_state, joined_state

#: Random generators, and where they stand.
Drawn: TypeAlias = list[tuple[np.random.Generator, Any]]


def total(loss: Objective, value: float, counted: float) -> float:
    """Return the sum over a batch of what `loss` reduced to `value`."""
    return value if loss.reduction == "sum" else value * counted


class Learnt(NamedTuple):
    """What became of a batch: its loss as it is reduced, its sum over targets, what these count."""

    loss: float
    loss_sum: float
    counted: float


@dataclass
class _Ran:
    """What this rank found out about its shards: losses and counts, states, sums of gradients."""

    cut: Cut
    told: list[tuple[float, float]] = field(default_factory=list)
    states: dict[int, State] = field(default_factory=dict)
    sums: list[Array] = field(default_factory=list)
    #: The last shard's backward, where it is still to run, and the watch over its layers.
    last: Callable[[], None] | None = None
    watch: ExitStack = field(default_factory=ExitStack)


class ShardedUpdate:
    """Computes the gradients of batches over ranks; `states` are those of this rank's shards."""

    def __init__(
        self, model: Module, loss: Objective, collective: Collective, shards: int | None
    ) -> None:
        self.collective = check_collective(collective)
        self.model, self.loss, self.shards = model, loss, _checked(shards, collective.size)
        self.states: dict[int, State] = {}
        self._next = self.states
        self._seeds: list[int] = []
        self._lay_out()

    def _lay_out(self) -> None:
        """Look where the gradients and buffers lie, and make room for their sums."""
        model, collective = self.model, self.collective
        self._grads = model.flat_grads()
        self._moves = Module._moves
        self._buffers = list(model.buffers.values())
        if any(array.dtype != self._grads.dtype for array in self._buffers):
            found = sorted({str(array.dtype) for array in self._buffers})
            raise ValueError(f"all buffers must be {self._grads.dtype}, got {', '.join(found)}")
        # Behind the gradients come the buffers, of which each shard makes others.
        length = self._grads.size + sum(array.size for array in self._buffers)
        self._summing = Summing(collective, length, self._grads.dtype)
        self._overlap = Overlap(model, collective, self._grads)

    def learn(self, batch: Batch, drawn: Drawn) -> Learnt:
        """Leave the gradients of a batch in the model's `grads`, its shards' mean in `buffers`.

        Where the loss is no finite number, neither is changed in a way that counts. drawn: the
        model's generators; each moves on by one number. What one rank raises, all raise.
        """
        if self._moves != Module._moves:  # as when the model has become a part of a flat one
            self._lay_out()
        self._seeds = [int(rng.integers(1 << 62)) for rng, _ in drawn]
        after = [rng.bit_generator.state for rng, _ in drawn]
        try:
            ran = self._run(batch, drawn)
        except Exception as error:
            with suppress(RankFailed):
                self._tell(None, f"{type(error).__name__}: {error}")
            raise
        finally:
            for (rng, _), state in zip(drawn, after, strict=True):
                rng.bit_generator.state = state
        with ran.watch:
            losses, counts = self._tell(ran)
            loss_sum, counted = float(losses.sum()), float(counts.sum())
            divisor = 1.0 if self.loss.reduction == "sum" else counted or 1.0
            learnt = Learnt(loss_sum / divisor, loss_sum, counted)
            if math.isfinite(learnt.loss):
                self._add_up(ran, divisor)
                self._next = ran.states
        return learnt

    def first_found(
        self, batch: Batch, drawn: Drawn, explain: Callable[[Batch, Drawn, State], Any]
    ) -> Any:
        """Return what `explain` says, not None, of the first shard for which it says something.

        It is asked by each rank about its own shards, with the generators as they then stood.
        """

        def mine() -> tuple[int, Any]:
            cut = Cut(batch, self.model, self.shards)
            for shard in share(cut.count, self.collective.rank, self.collective.size):
                self._draw_for(shard, drawn)
                stand = [(rng, rng.bit_generator.state) for rng, _ in drawn]
                said = explain(cut[shard], stand, self.states.get(shard))
                if said is not None:
                    return shard, said
            return cut.count, None

        found = gathered(self.collective, together(self.collective, mine))
        return min(found, key=lambda pair: pair[0])[1]

    def whole_state(self) -> State:
        """Return the state of all rows, on every rank."""
        every = gathered(self.collective, self.states)
        return joined_state({shard: state for states in every for shard, state in states.items()})

    def take_state(self, state: State) -> None:
        """Go on from a state of all rows."""
        self.states = cut_state(state, self.shards)

    def _run(self, batch: Batch, drawn: Drawn) -> _Ran:
        """Run the shards of this rank; of the last one forward alone, if backward is to overlap."""
        cut = Cut(batch, self.model, self.shards)
        ran, start = _Ran(cut), [array.copy() for array in self._buffers]

        def gradients(node: Node) -> Array:
            """The sum of a node, which is to be given back to `self._summing`."""
            if node[1] - node[0] == 1:
                into = self._summing.take()
                self._forward(node[0], ran, start, drawn)()
                self._pack(into)
                return into
            into, other = map(gradients, halves(node))
            into += other
            self._summing.give(other)
            return into

        held = share(cut.count, self.collective.rank, self.collective.size)
        mine = list(nodes((0, cut.count), held))
        if not self._overlaps(cut.count):
            ran.sums = [gradients(node) for node in mine]
            return ran
        (node,) = mine
        while node[1] - node[0] > 1:
            first, node = halves(node)
            ran.sums.insert(0, gradients(first))
        with ExitStack() as watch:
            watch.enter_context(self._overlap.watched(ran.sums, cut.count))
            ran.last = self._forward(node[0], ran, start, drawn)
            ran.watch = watch.pop_all()  # until backward has run
        return ran

    def _overlaps(self, count: int) -> bool:
        """Whether each rank has one node of the tree, and the model several buckets."""
        size = self.collective.size
        wanted = self.collective.overlaps and size > 1 and len(self._overlap.buckets) > 1
        held = (nodes((0, count), share(count, rank, size)) for rank in range(size))
        return wanted and not self._buffers and all(len(list(own)) == 1 for own in held)

    def _forward(
        self, shard: int, ran: _Ran, start: Sequence[Array], drawn: Drawn
    ) -> Callable[[], None]:
        """Run a shard forward; return what leaves its gradients in `grads`, summed over targets."""
        self._draw_for(shard, drawn)
        for array, first in zip(self._buffers, start, strict=True):
            array[...] = first
        batch = ran.cut[shard]
        args, options = batch.arguments(self.model, _carried(self.states, batch, shard, ran.cut))
        output, model_pullback = self.model.vjp(*args, **options)
        y, ran.states[shard] = output if self.model.recurrent else (output, None)
        given = batch.for_loss(self.loss, y, self.model)
        value, loss_pullback = self.loss.vjp(y, *given)
        counted = self.loss.counted(*given)
        ran.told.append((total(self.loss, value, counted), counted))

        def backward() -> None:
            self._grads.fill(0)
            if math.isfinite(value):  # else nobody will look at the gradients
                model_pullback(loss_pullback(1.0 if self.loss.reduction == "sum" else counted))

        return backward

    def _draw_for(self, shard: int, drawn: Drawn) -> None:
        """Set the generators to draw the numbers of a shard, whatever was drawn for others."""
        for (rng, _), seed in zip(drawn, self._seeds, strict=True):
            fresh: Any = type(rng.bit_generator)
            rng.bit_generator.state = fresh(np.random.SeedSequence([seed, shard])).state

    def _pack(self, into: Array) -> None:
        at = self._grads.size
        into[:at] = self._grads
        for array in self._buffers:
            into[at : at + array.size] = array.reshape(-1)
            at += array.size

    def _tell(self, ran: _Ran | None, said: str | None = None) -> tuple[Array, Array]:
        """Return losses and counts of all shards; raise what must be raised on all ranks."""
        most = -(-(self.shards or MOST) // self.collective.size)
        mine = np.zeros((most + 1, 2))
        mine[0] = said is not None, ran.cut.rows if ran else 0
        if ran and ran.told:
            mine[1 : len(ran.told) + 1] = ran.told
        told = self.collective.allgather(mine)
        failed, rows = np.flatnonzero(told[:, 0, 0]), told[:, 0, 1]
        if failed.size:
            text = gathered(self.collective, said)[failed[0]]
            size = self.collective.size
            raise RankFailed(f"rank {failed[0]} of {size} failed: {text}", int(failed[0]))
        assert ran is not None
        if (rows != rows[0]).any():
            found = ", ".join(str(int(count)) for count in rows)
            raise ValueError(f"batches must be the same on all ranks, got {found} rows")
        held = [len(share(ran.cut.count, r, len(told))) for r in range(len(told))]
        pairs = np.concatenate([row[1 : count + 1] for row, count in zip(told, held, strict=True)])
        return pairs[:, 0], pairs[:, 1]

    def _add_up(self, ran: _Ran, divisor: float) -> None:
        kind = self._grads.dtype.type
        if ran.last is not None:
            self._add_up_overlapping(ran, ran.last)
            self._grads *= kind(1 / divisor)
            return
        whole, at = self._summing.over_ranks(ran.cut.count, ran.sums), self._grads.size
        np.multiply(whole[:at], kind(1 / divisor), out=self._grads)
        for array in self._buffers:
            own = whole[at : at + array.size].reshape(array.shape)
            np.multiply(own, kind(1 / ran.cut.count), out=array)
            at += array.size

    def _add_up_overlapping(self, ran: _Ran, last: Callable[[], None]) -> None:
        """Run the last shard backward while sums go out; raise on all ranks what one raises."""
        said = None
        try:
            self._overlap.backward(last, ran.sums, ran.cut.count)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            self._overlap.sums()
            gathered(self.collective, said)
            raise
        for array in ran.sums:
            self._summing.give(array)
        if self._overlap.sums():
            texts = gathered(self.collective, said)
            rank = next(at for at, text in enumerate(texts) if text is not None)
            raise RankFailed(f"rank {rank} of {len(texts)} failed: {texts[rank]}", rank)

    def advance(self) -> None:
        """Let the next batch carry on from the one that was learnt."""
        self.states = self._next


def evaluate_over_ranks(
    model: Module,
    loss: Objective,
    batches: Iterable[BatchLike],
    collective: Collective,
    shards: int | None,
) -> tuple[float, float]:
    """Return the sum of a loss over all targets, and what they count; each rank runs its shards."""
    check_collective(collective)
    checked = _checked(shards, collective.size)

    def mine() -> dict[tuple[int, int], tuple[float, float]]:
        sums: dict[tuple[int, int], tuple[float, float]] = {}
        states: dict[int, State] = {}
        for item in batches:
            cut = Cut(Batch(*item), model, checked)
            for shard in share(cut.count, collective.rank, collective.size):
                batch = cut[shard]
                args, options = batch.arguments(model, _carried(states, batch, shard, cut))
                output = model(*args, **options)
                y, states[shard] = output if model.recurrent else (output, None)
                given = batch.for_loss(loss, y, model)
                counted = loss.counted(*given)
                before = sums.get((cut.count, shard), (0.0, 0.0))
                own = total(loss, loss(y, *given), counted), counted
                sums[cut.count, shard] = before[0] + own[0], before[1] + own[1]
        return sums

    found: dict[tuple[int, int], tuple[float, float]] = {}
    for sums in gathered(collective, together(collective, mine)):
        found |= sums
    rows = [found[key] for key in sorted(found)]
    return sum(row[0] for row in rows), sum(row[1] for row in rows)


def _checked(shards: int | None, size: int) -> int | None:
    if shards is not None and check_count("shards", shards) < size:
        raise ValueError(f"shards must be at least the number of ranks, {size}, got {shards}")
    return shards


def _carried(states: dict[int, State], batch: Batch, shard: int, cut: Cut) -> State:
    """Return the state that a shard goes on from, if it carries one on."""
    if not batch.carry or not states:
        return None
    if shard not in states or max(states) >= cut.count:
        raise ValueError(
            f"a batch that carries a state on must have the rows of the one before, got {cut.rows}"
        )
    return states[shard]
