"""How well the latents are aligned with known factors."""

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveInt

from vaelab.data import Images
from vaelab.data.factors import Factors
from vaelab.distributions.pairwise import is_factorised
from vaelab.elbo import ELBO
from vaelab.evaluation.subject import Subject, needs
from vaelab.metrics import disentanglement as scores
from vaelab.metrics.disentanglement.pairs import Array
from vaelab.metrics.estimates import mean
from vaelab.randomness import stream


def no_factors(model: ELBO, data: Images) -> str | None:
    if data.splits.factors:
        return None
    return "the factors of these images are not known; data=sprites has them"


@needs(no_factors)
def disentanglement(
    subject: Subject,
    *,
    images: PositiveInt,
    points: PositiveInt,
    repeats: Annotated[int, Field(ge=2)],
) -> dict[str, Any]:
    """The scores of `vaelab.metrics.disentanglement`, for posteriors of all images of the grid.

    Each is a mean over repeats, and the standard error that of drawing images, not of training.
    `mig_chen` is of all factors but the first, the shape, as in its paper.

    Args:
        subject: A model and data whose factors are known.
        images: Drawn anew for each repeat; two thirds of them are fitted where there is a fit.
        points: Fitted for the BetaVAE and FactorVAE scores; half as many are scored.
        repeats: How often.
    """
    factors = subject.data.splits.factors
    assert factors is not None
    means, scales = posteriors(subject)
    found = []
    for repeat in subject.track(range(repeats), "disentanglement"):
        rng = np.random.default_rng(stream("disentanglement", subject.seed, repeat))
        values = once(means, factors, rng, images, points)
        if scales is not None:
            known = factors.of(torch.arange(len(means))).numpy()[:, 1:]
            values["mig_chen"] = scores.mig_chen(means, scales, known, rng, samples=1000)
        found.append(values)
    return {name: mean(torch.tensor([values[name] for values in found])) for name in found[0]}


def once(
    means: Array, factors: Factors, rng: np.random.Generator, images: int, points: int
) -> dict[str, float]:
    """The scores of posterior means [N, D] of all images of a grid."""
    rows = rng.integers(len(means), size=images)
    codes, known = means[rows], factors.of(torch.from_numpy(rows)).numpy()

    def represent(asked: Array) -> Array:
        return means[factors.rows(torch.from_numpy(asked)).numpy()]

    few = max(1, points // 2)
    sampled = (represent, factors.sizes, rng)
    trees = scores.dci(codes, known, rng)
    return {
        "mig": scores.mig(codes, known),
        **{f"dci_{name}": value for name, value in trees.items()},
        "sap": scores.sap(codes, known, rng),
        "beta_vae_score": scores.beta_vae_score(*sampled, fitted=points, scored=few),
        "factor_vae_score": scores.factor_vae_score(*sampled, fitted=points, scored=few),
        "modularity": scores.modularity(codes, known),
        "explicitness": scores.explicitness(codes, known, rng),
        "irs": scores.irs(codes, known),
    }


@torch.no_grad()
def posteriors(subject: Subject) -> tuple[Array, Array | None]:
    """Means [N, D] and scales [N, D] of q for all images; no scales where q is no diagonal."""
    means, scales = [], []
    for x, y in subject.every_image("codes of all images"):
        q = subject.model.encode(x, y)
        means.append(q.mean.cpu())
        if is_factorised(q):
            scales.append(q.stddev.cpu())
    return torch.cat(means).numpy(), torch.cat(scales).numpy() if scales else None
