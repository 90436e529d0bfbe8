"""The metric of disentanglement: how well the latents are aligned with known factors.

Shapes: N images of the whole grid, n of a sample, D latents, F factors.
"""

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, PositiveInt

from vaelab.data import Images
from vaelab.data.factors import Factors
from vaelab.distributions.pairwise import is_factorised_normal
from vaelab.elbo import ELBO
from vaelab.evaluation.subject import Subject, applicable_unless
from vaelab.metrics import disentanglement as scores
from vaelab.metrics.disentanglement.pairs import Array
from vaelab.metrics.estimates import mean_estimate
from vaelab.randomness import stream_seed


def disentanglement_obstacle(model: ELBO, data: Images) -> str | None:
    """Returns why `disentanglement` is not applicable, or None if the factors are known."""
    if data.splits.factors:
        return None
    return "the factors of these images are not known; data=sprites has them"


@applicable_unless(disentanglement_obstacle)
def disentanglement(
    subject: Subject,
    *,
    images: PositiveInt,
    points: PositiveInt,
    repeats: Annotated[int, Field(ge=2)],
) -> dict[str, Any]:
    """Encodes all images once; estimates MIG, DCI, SAP and others over repeated draws of `images`.

    Raises NotApplicable if the factors of the images are unknown. Encodes every image of the grid
    once. Each score is a mean over repeats; its standard error is that of drawing images, not of
    training. `mig_chen` leaves out the first factor, the shape, as in its paper, and is omitted if
    a posterior is no product of normals.

    Args:
        subject: A model and data whose factors are known.
        images: Images drawn anew for each repeat; scores with a fit are fitted to two thirds.
        points: Points to fit the BetaVAE and FactorVAE scores to; half as many are scored.
        repeats: The number of repeats.
    """
    factors = subject.data.splits.factors
    assert factors is not None
    means, scales = encode_all_images(subject)
    found = []
    for repeat in subject.track(range(repeats), "disentanglement"):
        rng = np.random.default_rng(stream_seed("disentanglement", subject.seed, repeat))
        values = disentanglement_scores(means, factors, rng, images, points)
        if scales is not None:
            known = factors.values_at(torch.arange(len(means))).numpy()[:, 1:]
            values["mig_chen"] = scores.mig_chen(means, scales, known, rng, samples=1000)
        found.append(values)
    return {
        name: mean_estimate(torch.tensor([values[name] for values in found])) for name in found[0]
    }


def disentanglement_scores(
    means: Array, factors: Factors, rng: np.random.Generator, images: int, points: int
) -> dict[str, float]:
    """Returns the scores of a random sample of images, all but `mig_chen`, by name.

    Args:
        means: Posterior means [N, D] of all images of the grid.
        factors: The grid.
        rng: Draws the sample.
        images: Images in the sample, with replacement.
        points: See `disentanglement`.
    """
    rows = rng.integers(len(means), size=images)
    codes, known = means[rows], factors.values_at(torch.from_numpy(rows)).numpy()

    def represent(asked: Array) -> Array:
        """Returns the posterior means [n, D] of images with factor values [n, F]."""
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
def encode_all_images(subject: Subject) -> tuple[Array, Array | None]:
    """Returns means and scales [N, D] of q of all images; scales None if q is no normal product."""
    means, scales = [], []
    for x, y in subject.iterate_all_images("codes of all images"):
        q = subject.model.latent_posterior(x, y)
        means.append(q.mean.cpu())
        if is_factorised_normal(q):
            scales.append(q.stddev.cpu())
    return torch.cat(means).numpy(), torch.cat(scales).numpy() if scales else None
