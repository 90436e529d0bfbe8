"""The Frechet distance of two sets of images, as Gaussians in the features of a network."""

import torch
from torch import Tensor

from vaelab.errors import NotApplicable
from vaelab.metrics.estimates import Estimate
from vaelab.randomness import seeded_generator

REPLICATES = 50
"""Bootstrap replicates; 50 give the standard error to about a tenth of itself."""


def frechet_distance(a: Tensor, b: Tensor) -> Estimate:
    """Returns squared Frechet distance of features [N, F], [M, F] with bootstrap error; may raise.

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) with means m and covariances S (Heusel et al.,
    2017, arXiv:1706.08500, eq. 6; only in the features of Inception is it an FID). It is symmetric.
    It is above the distance of the distributions, by an amount that falls as 1 / N, so a value is
    to be quoted with N. The standard error is that of drawing both sets anew, by the bootstrap,
    with a fixed seed.

    Raises:
        NotApplicable: If a set has fewer than two images, or its images all have the same features.
    """
    if min(len(a), len(b)) < 2:
        raise NotApplicable("of one image there is no covariance")
    if not (a.var(0).any() and b.var(0).any()):
        raise NotApplicable("the features are the same for all images")
    a, b = (features.cpu().double() for features in (a, b))
    draws = seeded_generator("frechet")
    again = torch.tensor(
        [
            squared_frechet_distance(bootstrap_resample(a, draws), bootstrap_resample(b, draws))
            for _ in range(REPLICATES)
        ]
    )
    return {"value": squared_frechet_distance(a, b), "se": float(again.std())}


def bootstrap_resample(features: Tensor, generator: torch.Generator) -> Tensor:
    """Returns N rows of features [N, F], drawn with replacement."""
    return features[torch.randint(len(features), (len(features),), generator=generator)]


def squared_frechet_distance(a: Tensor, b: Tensor) -> float:
    """Returns the squared Frechet distance of features [N, F] and [M, F], without standard error.

    With S = R^T R, the eigenvalues of S_a S_b are the squared singular values of R_a R_b^T. So no
    root of a matrix is taken, and the covariances need no inverse.
    """
    (mean_a, root_a), (mean_b, root_b) = mean_and_covariance_root(a), mean_and_covariance_root(b)
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = root_a.square().sum() + root_b.square().sum()
    return float((mean_a - mean_b).square().sum() + spread - 2 * overlap)


def mean_and_covariance_root(features: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean [F] of features [N, F], and R with R^T R their covariance [F, F]."""
    mean = features.mean(0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    return mean, torch.linalg.qr(centred, mode="r").R
