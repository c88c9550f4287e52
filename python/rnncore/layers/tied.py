"""One table for what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..arrays import Array
from ..module import Module
from .embedding import Embedding
from .linear import Linear


class TiedLinear(Linear):
    """y = x E^T + b, E being the table of an `Embedding` (Press and Wolf 2017).

    `(..., embedding_dim)` to `(..., num_embeddings)`. Of its own it has only `bias`, at first zero:
    `params` of a model list the table once, with the embedding, whose gradient both add to.
    """

    _built = Linear._built | {"_compiled", "_table"}

    def __init__(self, embedding: Embedding, bias: bool = True) -> None:
        if not isinstance(embedding, Embedding):
            raise TypeError(f"embedding must be an Embedding, got {type(embedding).__name__}")
        self.in_features, self.out_features = embedding.embedding_dim, embedding.num_embeddings
        self.bias, self.dtype, self.embedding = bool(bias), embedding.dtype, embedding
        own = {"bias": np.zeros(self.out_features, self.dtype)} if bias else {}
        Module.__init__(self, own)
        self._build()

    @property
    def kernels(self) -> Any:
        """The compiled layer over the table as it is: an embedding may be given another."""
        if self._table is not self.embedding._params["weight"]:
            self._build()
        return self._compiled

    @kernels.setter
    def kernels(self, compiled: Any) -> None:
        self._compiled, self._table = compiled, self.embedding._params["weight"]

    def _weights_in(self) -> str:
        return self.embedding._weights_in()

    def _check_trains(self) -> None:
        self.embedding._check_trains()

    def _arrays(self) -> tuple[Array, Array | None]:
        return self.embedding.weights(), self._params.get("bias")

    def gradients(self) -> tuple[Array, Array | None]:
        """Return the gradients of the table and the bias, to add to."""
        return self.embedding.gradients(), self._own_grads().get("bias")

    def children(self) -> Iterator[tuple[str, Module]]:
        """Yield nothing: the embedding belongs to somebody else."""
        return iter(())
