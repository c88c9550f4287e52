"""
Compute over trees
==================

A Tree-LSTM (Tai et al. 2015) reads nested operations along their brackets and tells the value of
each node: the smaller or the larger one of two values. All trees of a batch are one ``Forest``.

Data: made here, trees of 2 to 20 digits, drawn anew for every update.
"""

import matplotlib.pyplot as plt
import numpy as np
import rnncore

OPERATIONS = {"min": min, "max": max}
SYMBOLS = [*"0123456789", *OPERATIONS]


def draw(rng, leaves):
    """Return parents, symbols and values of a tree, children before parents."""
    parents, symbols, values, open_nodes = [], [], [], []
    for n in range(2 * leaves - 1):
        if n < leaves:
            symbol = str(rng.integers(10))
            value = int(symbol)
        else:
            # Two neighbours become one node.
            at = int(rng.integers(len(open_nodes) - 1))
            pair, open_nodes[at : at + 2] = open_nodes[at : at + 2], [None]
            symbol = str(rng.choice(list(OPERATIONS)))
            value = OPERATIONS[symbol](*(values[child] for child in pair))
            for child in pair:
                parents[child] = n
        parents.append(-1)
        symbols.append(SYMBOLS.index(symbol))
        values.append(value)
        if n < leaves:
            open_nodes.append(n)
        else:
            open_nodes[at] = n
    return np.array(parents), symbols, values


def batch(rng, count):
    """Return a forest, the symbols of its nodes and their values."""
    trees = [draw(rng, int(rng.integers(2, 21))) for _ in range(count)]
    parents, symbols, values = zip(*trees, strict=True)
    forest = rnncore.Forest.from_parents(parents)
    return forest, np.concatenate(symbols), np.concatenate(values)


# %%
# A composition of one's own: parts as attributes, a call, and ``vjp`` with the parts' pullbacks in
# reverse.


class Values(rnncore.Module):
    """Logits of ten values for each node."""

    def __init__(self):
        super().__init__()
        self.embedding = rnncore.Embedding(len(SYMBOLS), 16, seed=0)
        self.tree = rnncore.TreeLSTM(16, 48, arity=2, seed=1)
        self.head = rnncore.Linear(48, 10, seed=2)

    def __call__(self, symbols, forest):
        """Return the logits (N, 10)."""
        h, _ = self.tree(self.embedding(symbols), forest)
        return self.head(h)

    def vjp(self, symbols, forest):
        """Return the logits and the pullback of their gradient."""
        x, embedding_back = self.embedding.vjp(symbols)
        (h, _), tree_back = self.tree.vjp(x, forest)
        logits, head_back = self.head.vjp(h)
        return logits, lambda d: embedding_back(tree_back(head_back(d)))


model = Values()
loss, optimiser = rnncore.SoftmaxCrossEntropy(), rnncore.Adam(model, lr=1e-2)
rng = np.random.default_rng(0)
for _ in range(200):
    forest, symbols, values = batch(rng, 64)
    logits, pullback = model.vjp(symbols, forest)
    value, back = loss.vjp(logits, values)
    model.zero_grad()
    pullback(back())
    optimiser.step()

# %%
# The values at the roots of new trees, and one tree with what the model says at each node.

forest, symbols, values = batch(np.random.default_rng(1), 300)
said = model(symbols, forest).argmax(axis=1)
right = np.mean(said[forest.roots] == values[forest.roots])
print(f"right: {right:.1%} of 300 roots")

shown = forest.tree(int(np.argmax(np.diff(forest.begin) == 23)))
x, y = forest.spans[shown].mean(axis=1), forest.levels[shown]
figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
for child, parent in enumerate(forest.parent[shown] - shown.start):
    if parent >= 0:
        axes.plot(x[[child, parent]], y[[child, parent]], color="0.7", zorder=1)
axes.scatter(x, y, s=560, c=said[shown], cmap="viridis", vmin=0, vmax=14, zorder=2)
for left, height, symbol, answer in zip(x, y, symbols[shown], said[shown], strict=True):
    name = SYMBOLS[symbol]
    text = name if name.isdigit() else f"{name}\n{answer}"
    axes.text(left, height, text, ha="center", va="center", color="w", fontsize=7)
axes.set_axis_off()

# %%
# ListOps, with trees given and learnt: ``examples/listops.py``.
