"""CRFs to try: their numbers, all sequences of tags, and the reference beside them."""

from __future__ import annotations

from itertools import product

import numpy as np
from rnncore import CRF
from rnncore.reference import crf as reference

NAMES = ("transitions", "start", "end")


def drawn(tags, rng, scale=1.0, **options):
    """A CRF whose scores are normal."""
    crf = CRF(tags, **{"dtype": "float64", **options})
    for name in NAMES:
        crf.params[name] = (scale * rng.standard_normal(crf.params[name].shape)).astype(crf.dtype)
    return crf


def scores(crf):
    """Its scores in float64, those that are forbidden -inf."""
    params = [crf.params[name].astype(np.float64) for name in NAMES]
    if crf.constraints is not None:
        params = [
            np.where(may, own, -np.inf) for may, own in zip(crf.constraints, params, strict=True)
        ]
    return reference.Scores(*params)


def partial(rng, tags, kinds):
    """Targets that agree with tags `(T, B)`: some unknown, or some others possible."""
    unknown = np.where(rng.random(tags.shape) < 0.5, -1, tags)
    possible = rng.random((*tags.shape, kinds)) < 0.4
    np.put_along_axis(possible, tags[..., None], True, axis=-1)
    return unknown, possible


def enumerated(x, targets, s):
    """All that there is to know of emissions `(T, K)`, from every sequence of tags in turn."""
    steps, kinds = x.shape
    all_tags = [np.array(tags) for tags in product(range(kinds), repeat=steps)]
    weights = np.array([np.exp(reference.score(x, tags, s)) for tags in all_tags])
    agrees = np.array([_agrees(tags, targets) for tags in all_tags])
    marginals = np.zeros_like(x)
    for tags, weight in zip(all_tags, weights, strict=True):
        marginals[np.arange(steps), tags] += weight / weights.sum()
    order = np.argsort(-weights, kind="stable")
    best = [(np.log(weights[i]), all_tags[i].tolist()) for i in order if weights[i] > 0]
    total, agreeing = weights.sum(), weights[agrees].sum()
    return np.log(total), np.log(total) - np.log(agreeing), marginals, best


def _agrees(tags, targets):
    if targets.dtype == bool:
        return targets[np.arange(len(tags)), tags].all()
    return bool(np.all((targets == tags) | (targets == -1)))
