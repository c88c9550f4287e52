"""Distributions as heads: numbers of a network, read as the distribution of a value.

    head = StudentT()
    model = Chain(LSTM(1, 32), Linear(32, head.outputs))
    Trainer(model, head, Adam(model), batches)          # minimises -log p(target)
    y, state = model(x)
    head.quantile(y, [0.1, 0.5, 0.9]), head.sample(y, 1000, seed=0), head.log_prob(y, targets)

Each is a loss as those of `rnncore.losses` are, with gradients that are finite wherever x and
targets are.
"""

from .base import Distribution as Distribution
from .counts import NegativeBinomial as NegativeBinomial
from .counts import Poisson as Poisson
from .location_scale import Gaussian as Gaussian
from .location_scale import StudentT as StudentT
from .mixtures import GaussianMixture as GaussianMixture
from .mixtures import PenStrokes as PenStrokes
from .quantiles import Quantiles as Quantiles
