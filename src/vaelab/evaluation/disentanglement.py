"""How well the latents are aligned with known factors."""

from typing import Any

import numpy as np
import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.distributions import Independent, Normal
from torch.nn.functional import one_hot

from vaelab.data.pixels import draw
from vaelab.evaluation.subject import NotApplicable, Subject
from vaelab.metrics import disentanglement as scores
from vaelab.metrics.estimates import mean
from vaelab.randomness import generator, stream

CHUNK = 500  # images at a time


def disentanglement(
    subject: Subject,
    *,
    images: PositiveInt,
    points: PositiveInt,
    repeats: PositiveInt,
    exact_trees: bool,
) -> dict[str, Any]:
    """The scores of `vaelab.metrics.disentanglement`, each a mean over repeats.

    Args:
        subject: A model and data whose factors are known.
        images: For the scores of codes beside factors, drawn anew for each repeat.
        points: Of the BetaVAE and FactorVAE scores, to fit; half as many are scored.
        repeats: Whose spread gives the standard error.
        exact_trees: As in the literature; much slower, see `dci`.
    """
    factors = subject.data.splits.factors
    if factors is None:
        raise NotApplicable("the factors of these images are not known; data=sprites has them")
    found = [
        scored(subject, repeat, images, points, exact_trees)
        for repeat in subject.track(range(repeats), "disentanglement")
    ]
    return {name: mean(torch.tensor([part[name] for part in found])) for name in found[0]}


def scored(
    subject: Subject, repeat: int, images: int, points: int, exact_trees: bool
) -> dict[str, float]:
    """Every score once."""
    factors = subject.data.splits.factors
    assert factors is not None
    rng = np.random.default_rng(stream("disentanglement", subject.seed, repeat))
    some = factors.sample(images, generator("factors", subject.seed, repeat))
    means, scales = encoded(subject, factors.rows(some))
    codes, known = means.numpy(), some.numpy()
    sizes = {"fitted": points, "scored": max(1, points // 2)}

    def represent(asked: np.ndarray) -> np.ndarray:
        return encoded(subject, factors.rows(torch.from_numpy(asked)))[0].numpy()

    found = {
        "mig": scores.mig(codes, known),
        "sap": scores.sap(codes, known, rng),
        "modularity": scores.modularity(codes, known),
        "explicitness": scores.explicitness(codes, known, rng),
        "irs": scores.irs(codes, known),
        "beta_vae_score": scores.beta_vae_score(represent, factors.sizes, rng, **sizes),
        "factor_vae_score": scores.factor_vae_score(represent, factors.sizes, rng, **sizes),
    }
    for name, value in scores.dci(codes, known, rng, exact_trees).items():
        found[f"dci_{name}"] = value
    if scales is not None:
        found["mig_chen"] = scores.mig_chen(codes, scales.numpy(), known, rng, images)
    return found


@torch.no_grad()
def encoded(subject: Subject, rows: Tensor) -> tuple[Tensor, Tensor | None]:
    """Means [n, D] and scales [n, D] of q for images of the grid; no scales if q is no Normal."""
    data, device = subject.data, subject.data.device
    stored, labels, _ = data.stored("train")
    images, noise = stored.to(device), generator("pixels", subject.seed, device=device)
    means, scales = [], []
    for some in rows.split(CHUNK):
        x = draw(images[some.to(device)], data.pixels, noise)
        y = one_hot(labels[some], data.splits.num_classes).to(x)
        q = subject.model.encode(x, y)
        means.append(q.mean.cpu())
        if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
            scales.append(q.stddev.cpu())
    return torch.cat(means), torch.cat(scales) if scales else None
