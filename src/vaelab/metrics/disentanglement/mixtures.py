"""`mig_chen`, the mutual information gap of posterior distributions instead of their means.

Shapes: N images, D latents, F factors, S samples.
"""

import numpy as np
from pydantic import PositiveInt

from vaelab.errors import UserError
from vaelab.metrics.disentanglement.information import mean_information_gap
from vaelab.metrics.disentanglement.pairs import Array, prepare_pairs

CHUNK = 2**18
"""Densities computed at a time: few enough to stay in a CPU's cache."""


def mig_chen(
    means: Array,
    scales: Array,
    factors: Array,
    rng: np.random.Generator,
    samples: PositiveInt = 10_000,
) -> float:
    """Returns the information gap by samples of posteriors; skips constant factors; may raise.

    Chen et al. (2018), arXiv:1802.04942, eqs. 5 and 6. The gap of `mig`, of I(z_d; v) = E[log q(z_d
    | v) - log q(z_d)] over samples of q(z_d | x), where q(z_d) and q(z_d | v) are the mixtures of
    the posteriors of all images and of those with the value v. Give all images of a grid: among
    few, the sample's own posterior weighs too much, and the information is overestimated. The paper
    leaves out the shape of dSprites: give the other four columns. On one model `mig` can be 2 to 3
    times as large or as small.

    Args:
        means: Means of the Gaussians q(z | x), [N, D].
        scales: Their standard deviations [N, D].
        factors: Integers [N, F].
        rng: Draws the samples.
        samples: S, each from another image while there are enough.

    Raises:
        UserError: If a scale is not a positive number.
    """
    means, factors = prepare_pairs(means, factors)
    scales = np.asarray(scales, np.float64)
    if scales.shape != means.shape or not (np.isfinite(scales) & (scales > 0)).all():
        raise UserError("the scales should be a positive number for each mean")
    rows = rng.choice(len(means), samples, replace=samples > len(means))
    z = rng.normal(means[rows], scales[rows])
    marginal = log_latent_mixtures(z, means, scales)
    conditional = np.empty((*z.shape, factors.shape[1]))
    for f, factor in enumerate(factors.T):
        for value in np.unique(factor[rows]):
            drawn, given = factor[rows] == value, factor == value
            conditional[drawn, :, f] = log_latent_mixtures(z[drawn], means[given], scales[given])
    information = (conditional - marginal[..., None]).mean(0)
    return mean_information_gap(np.maximum(information, 0), factors)


def log_latent_mixtures(z: Array, means: Array, scales: Array) -> Array:
    """Returns log (1/N) sum_n q(z_d | x_n), up to a constant, at z for each latent: [S, D].

    Each z [S, D] was drawn from one of the N Gaussians, so no sum underflows. Single precision
    costs about 1e-5 nats and makes it three times as fast.
    """
    centre, sums = means.mean(0), np.empty_like(z)
    most = max(1, CHUNK // len(means))
    columns = (np.asarray(a.T, np.float32, "C") for a in (z - centre, means - centre, 1 / scales))
    for d, (at, mean, precision) in enumerate(zip(*columns, strict=True)):
        for start in range(0, len(z), most):
            part = slice(start, start + most)
            distance = (at[part, None] - mean) * precision
            sums[part, d] = np.exp(-0.5 * distance * distance) @ precision
    return np.log(sums / len(means))
