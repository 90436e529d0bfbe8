"""`beta_vae_score` and `factor_vae_score`: predicting the factor that a set of images shares.

A point is one such prediction, from I images with a factor in common. Shapes: P points, D latents,
F factors.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from vaelab.errors import UserError
from vaelab.metrics.disentanglement.pairs import Array, as_finite_codes

Represent = Callable[[Array], Array]
"""From factors [n, F] of images to their codes [n, D]."""

ROWS = 2**16
"""The most images to represent at a time."""

DEAD = 0.05
"""Least standard deviation of a latent that is voted for."""


def beta_vae_score(
    represent: Represent,
    sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    fitted: PositiveInt = 10_000,
    scored: PositiveInt = 5_000,
    batch_size: PositiveInt = 64,
) -> float:
    """Returns the beta-VAE score, accuracy of a linear classifier of shared factors; may raise.

    Higgins et al. (2017), openreview.net/forum?id=Sy2fzU9gl, section 3. Both images of a pair share
    a factor, and a point is the mean absolute difference of their codes over pairs. The classifier
    tells which factor, by multinomial logistic regression. The figures of Locatello et al. (2019)
    are from one-versus-rest, scikit-learn's default before 0.22, which gives other scores; sizes
    are theirs.

    Args:
        represent: From factors to codes; called with up to `ROWS` images at a time.
        sizes: How many values each factor has, [F]. A factor with a single value is never shared.
        rng: Draws the factors, uniformly.
        fitted: Points to fit.
        scored: Points to score.
        batch_size: Pairs for a point.

    Raises:
        UserError: If fewer than two factors vary, or are shared by the points to fit, or a code
            is not finite.
    """

    def points(count: int) -> tuple[Array, Array]:
        """Draws `count` points; returns their mean differences [P, D] and shared factors [P]."""
        differences, shared = [], []
        for factor, factors in fixed_factor_batches(sizes, rng, count, 2 * batch_size):
            first, second = np.split(factors, 2, axis=1)
            point = np.arange(len(factor))
            second[point, :, factor] = first[point, :, factor]
            first, second = np.split(encode_factors(represent, factors), 2, axis=1)
            differences.append(np.abs(first - second).mean(1))
            shared.append(factor)
        return np.concatenate(differences), np.concatenate(shared)

    from sklearn.linear_model import LogisticRegression  # slow to import

    differences, shared = points(fitted)
    if len(np.unique(shared)) < 2:
        raise UserError(f"{fitted} points are too few, as they all share one factor")
    classifier = LogisticRegression(max_iter=1000).fit(differences, shared)
    return float(classifier.score(*points(scored)))


def factor_vae_score(
    represent: Represent,
    sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    fitted: PositiveInt = 10_000,
    scored: PositiveInt = 5_000,
    batch_size: Annotated[int, Field(ge=2)] = 64,
) -> float:
    """Returns the FactorVAE score, accuracy of votes on factors; 0 if all latents dead; may raise.

    Kim & Mnih (2018), arXiv:1802.05983, section 4. All images of a point share a factor, and the
    point votes for the latent whose variance is the smallest part of that among all images. The
    majority of the fitted votes maps each latent to a factor. As in disentanglement_lib dead
    latents get no votes, and the score is 0 if all latents are dead.

    Arguments and errors are those of `beta_vae_score`, but `batch_size` counts images.
    """
    anywhere = encode_factors(represent, rng.integers(sizes, size=(10_000, len(sizes)))).var(
        0, ddof=1
    )
    alive = np.sqrt(anywhere) >= DEAD
    if not alive.any():
        return 0.0

    def votes(count: int) -> Array:
        """Draws `count` points; returns their votes counted by live latent and factor [L, F]."""
        table = np.zeros((np.count_nonzero(alive), len(sizes)))
        for factor, factors in fixed_factor_batches(sizes, rng, count, batch_size):
            point = np.arange(len(factor))
            factors[point, :, factor] = factors[point, 0, factor][:, None]
            inside = encode_factors(represent, factors)[..., alive].var(1, ddof=1)
            np.add.at(table, ((inside / anywhere[alive]).argmin(1), factor), 1)
        return table

    majority = votes(fitted).argmax(1)
    return float(votes(scored)[np.arange(len(majority)), majority].sum() / scored)


def fixed_factor_batches(
    sizes: Sequence[int], rng: np.random.Generator, points: int, images: int
) -> Iterator[tuple[Array, Array]]:
    """Yields batches of points: the factor to share [P], and factors [P, I, F] not yet shared.

    A batch has at most `ROWS` images, or one point. The shared factor is drawn for each point, and
    never one of a single value; the caller makes it equal in the point's images.

    Raises:
        UserError: If fewer than two factors vary.
    """
    several = np.flatnonzero(np.asarray(sizes) > 1)
    if len(several) < 2:
        raise UserError("which factor is shared can be told only if two or more vary")
    most = max(1, ROWS // images)
    for start in range(0, points, most):
        count = min(most, points - start)
        yield rng.choice(several, count), rng.integers(sizes, size=(count, images, len(sizes)))


def encode_factors(represent: Represent, factors: Array) -> Array:
    """Returns the float64 codes [..., D] of factors [..., F]; raises UserError if not finite."""
    codes = as_finite_codes(represent(factors.reshape(-1, factors.shape[-1])))
    return codes.reshape(*factors.shape[:-1], -1)
