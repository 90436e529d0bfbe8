"""How far apart two sets of images are, as Gaussians in the features of a network."""

import torch
from torch import Tensor

from vaelab.errors import NotApplicable
from vaelab.metrics.estimates import Estimate
from vaelab.randomness import generator

REPLICATES = 50
"""Of the bootstrap, which gives the standard error to a tenth of itself."""


def frechet(a: Tensor, b: Tensor) -> Estimate:
    """The squared Frechet distance of two sets of features, [N, F] and [M, F], in either order.

    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) with their means m and covariances S (Heusel
    et al., 2017, arXiv:1706.08500, eq. 6; only in the features of Inception is it an FID). It is
    above that of the distributions, by an amount that falls as 1 / N, so N belongs to the figure.
    The standard error is that of drawing both sets anew, by the bootstrap.
    """
    if min(len(a), len(b)) < 2:
        raise NotApplicable("of one image there is no covariance")
    a, b = (features.cpu().double() for features in (a, b))
    draws = generator("frechet")
    again = torch.tensor(
        [distance(redrawn(a, draws), redrawn(b, draws)) for _ in range(REPLICATES)]
    )
    return {"value": distance(a, b), "se": float(again.std())}


def redrawn(features: Tensor, generator: torch.Generator) -> Tensor:
    """As many rows, drawn with replacement."""
    return features[torch.randint(len(features), (len(features),), generator=generator)]


def distance(a: Tensor, b: Tensor) -> float:
    """The distance itself, of features in float64.

    With S = R^T R, the eigenvalues of S_a S_b are the squared singular values of R_a R_b^T. So no
    root of a matrix is taken, and nothing depends on the covariances having an inverse.
    """
    (mean_a, root_a), (mean_b, root_b) = gaussian(a), gaussian(b)
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    spread = root_a.square().sum() + root_b.square().sum()
    return float((mean_a - mean_b).square().sum() + spread - 2 * overlap)


def gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean [F] of features [N, F], and R with R^T R their covariance [F, F]."""
    mean = features.mean(0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    return mean, torch.linalg.qr(centred, mode="r").R
