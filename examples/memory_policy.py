"""A policy that has to remember: a T-maze, learnt by recurrent policy gradient.

    python examples/memory_policy.py

T-maze (Bakker 2002, "Reinforcement Learning with Long Short-Term Memory"): at the first step of an
episode, and only there, a sign says whether the reward lies to the left or to the right of the far
end of a corridor. Actions: forward, left, right. Between its ends all steps look the same; at the
junction left and right end the episode, with 1 on the side that the sign said, else -1. A step
that leads nowhere costs 0.1. Without memory half of the episodes are lost.

Each of the mazes runs one episode after the other. An update learns from the last T steps of all
of them, whole arrays `(T, B)` in which episodes end where they end: `resets` is true at the first
step of each, and the state at the beginning is where the update before stopped. The policy acts
through a stream, with the same `resets`; what it did and what is trained are the same numbers to
the bit. Gradient: advantage actor-critic (Mnih et al. 2016) with lambda returns (Schulman et al.
2016). The memoryless policy is the same LSTM with a reset at every step.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import rnncore

FORWARD, LEFT, RIGHT = range(3)
ACTIONS, FEATURES = 3, 4  # of an observation: sign left, sign right, corridor, junction
DISCOUNT, TRACE, ENTROPY = 0.98, 0.95, 0.01


class Mazes:
    """B mazes, each with a new corridor of `shortest` to `longest` steps for every episode."""

    def __init__(self, count: int, shortest: int, longest: int, rng: np.random.Generator) -> None:
        self.lengths, self.rng = (shortest, longest), rng
        self.length, self.side, self.at = (np.zeros(count, int) for _ in range(3))
        self.ended = np.ones(count, bool)
        self.begin()

    def begin(self) -> None:
        """Start anew where an episode has ended."""
        count = self.ended.sum()
        self.length[self.ended] = self.rng.integers(*self.lengths, count, endpoint=True)
        self.side[self.ended] = self.rng.integers(LEFT, RIGHT, count, endpoint=True)
        self.at[self.ended] = 0

    def seen(self) -> np.ndarray:
        """Observations `(B, FEATURES)`."""
        sign, end = self.at == 0, self.at == self.length
        shown = (self.side == LEFT) & sign, (self.side == RIGHT) & sign, ~sign & ~end, end
        return np.stack(shown, axis=1).astype(np.float32)

    def act(self, action: np.ndarray) -> np.ndarray:
        """Take a step in every maze; return the rewards `(B,)`. `ended` says which are over."""
        end, forward = self.at == self.length, action == FORWARD
        self.ended = end & ~forward
        self.at += forward & ~end
        found = np.where(action == self.side, 1.0, -1.0)
        return np.where(self.ended, found, np.where(forward & ~end, 0.0, -0.1))


class Rollout(NamedTuple):
    """What T steps of B mazes were, arrays `(T, B, ...)`."""

    first: Any  # the state before them
    x: np.ndarray
    resets: np.ndarray  # where episodes begin
    outputs: np.ndarray  # of the policy: logits of the actions, and the value
    actions: np.ndarray
    rewards: np.ndarray
    ends: np.ndarray  # where episodes end
    after: np.ndarray  # (B,) the value of what came next


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


class Agent:
    """A policy and its value in one network, in B mazes at once."""

    def __init__(self, mazes: Mazes, hidden: int, memory: bool, seed: int) -> None:
        self.mazes, self.memory = mazes, memory
        self.model = rnncore.Chain(
            rnncore.LSTM(FEATURES, hidden, seed=seed),
            rnncore.Linear(hidden, ACTIONS + 1, seed=seed + 1),
        )
        self.optimiser = rnncore.Adam(self.model, lr=1e-2)
        self.rng = np.random.default_rng(seed)
        self.stream = self.model.stream(len(mazes.at))

    def look(self) -> tuple[np.ndarray, np.ndarray]:
        """What the mazes show, and which rows start anew with it."""
        return self.mazes.seen(), self.mazes.ended | (not self.memory)

    def rollout(self, steps: int) -> Rollout:
        """Act for so many steps."""
        first, kept = self.stream.state, []
        for _ in range(steps):
            x, anew = self.look()
            output = self.stream.step(x, resets=anew)
            shares = softmax(output[:, :ACTIONS]).cumsum(axis=1)
            drawn = self.rng.random(len(x), np.float32)[:, None] * shares[:, -1:]
            action = (drawn >= shares).sum(axis=1)
            rewards = self.mazes.act(action)
            kept.append((x, anew, output, action, rewards, self.mazes.ended))
            self.mazes.begin()
        state = self.stream.state  # a look ahead, which is taken back
        x, anew = self.look()
        after = self.stream.step(x, resets=anew)[:, ACTIONS]
        self.stream.state = state
        return Rollout(first, *map(np.stack, zip(*kept, strict=True)), after)

    def update(self, steps: int) -> Rollout:
        """Act, and learn from it."""
        seen = self.rollout(steps)
        (y, _), pullback = self.model.vjp(seen.x, seen.first, resets=seen.resets)
        assert np.array_equal(y, seen.outputs)  # the same numbers as when they were acted upon
        self.model.zero_grad()
        pullback(gradient(seen))
        rnncore.clip_grad_norm(self.model, 1.0)
        self.optimiser.step()
        self.stream.refresh()
        return seen


def advantages(seen: Rollout) -> np.ndarray:
    """Sums of temporal differences, which do not reach beyond the end of an episode."""
    values = np.concatenate((seen.outputs[..., ACTIONS], seen.after[None]))
    found, sums = np.zeros_like(seen.rewards), 0.0
    for t in reversed(range(len(found))):
        lasts = DISCOUNT * ~seen.ends[t]
        sums = seen.rewards[t] + lasts * values[t + 1] - values[t] + lasts * TRACE * sums
        found[t] = sums
    return found


def gradient(seen: Rollout) -> np.ndarray:
    """That of the loss with respect to the outputs: policy, entropy and value."""
    gain = advantages(seen)[..., None]
    p = softmax(seen.outputs[..., :ACTIONS])
    log_p = np.log(p + 1e-8)
    taken = np.eye(ACTIONS)[seen.actions]
    scaled = gain / (gain.std() + 1e-8)
    d_policy = (p - taken) * scaled + ENTROPY * p * (log_p - (p * log_p).sum(-1, keepdims=True))
    d = np.concatenate((d_policy, -0.5 * gain), axis=-1) / gain.size
    return d.astype(np.float32)


def success(agent: Agent, episodes: int, seed: int) -> float:
    """The share of episodes that end on the right side, taking the likeliest action."""
    mazes = Mazes(episodes, *agent.mazes.lengths, np.random.default_rng(seed))
    stream, found = agent.model.stream(episodes), np.zeros(episodes, bool)
    over, begins = np.zeros(episodes, bool), np.ones(episodes, bool)
    for _ in range(3 * agent.mazes.lengths[1]):
        output = stream.step(mazes.seen(), resets=begins | (not agent.memory))
        rewards = mazes.act(output[:, :ACTIONS].argmax(axis=1))
        found |= mazes.ended & ~over & (rewards > 0)
        over |= mazes.ended
        begins = mazes.ended
        mazes.begin()
    return float(found.mean())


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    shortest: int
    longest: int
    updates: int
    mazes: int = 32
    steps: int = 64
    hidden: int = 32


def trained(name: str, settings: Settings, memory: bool, seed: int) -> float:
    """Train a policy; return the share of new episodes that it solves."""
    rng, begun = np.random.default_rng(seed + 1000), time.perf_counter()
    mazes = Mazes(settings.mazes, settings.shortest, settings.longest, rng)
    agent = Agent(mazes, settings.hidden, memory, seed)
    for update in range(1, settings.updates + 1):
        seen = agent.update(settings.steps)
        if update % (settings.updates // 5) == 0:
            solved = np.mean(seen.rewards[seen.ends] > 0) if seen.ends.any() else 0.0
            speed = update * seen.rewards.size / (time.perf_counter() - begun)
            print(f"{name:10} update {update:4}  solved {solved:4.0%}  {speed:,.0f} steps/s")
    return success(agent, 1000, seed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short corridors, less training")
    parser.add_argument("--seed", type=int, default=0, help="of weights, mazes and actions")
    args = parser.parse_args()
    settings = Settings(3, 6, 100) if args.quick else Settings(5, 25, 400)
    found = {
        name: trained(name, settings, memory, args.seed)
        for name, memory in (("lstm", True), ("memoryless", False))
    }
    print("result: " + " ".join(f"{name}={share:.3f}" for name, share in found.items()))


if __name__ == "__main__":
    main()
