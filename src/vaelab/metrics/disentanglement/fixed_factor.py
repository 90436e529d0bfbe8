"""How well the factor that some images share can be told from their codes.

A point is one such guess, P of them, each from I images. D latents, F factors.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from vaelab.errors import UserError
from vaelab.metrics.disentanglement.pairs import Array, finite

Represent = Callable[[Array], Array]
"""From factors [n, F] of images to their codes [n, D]."""

ROWS = 2**16
"""Images to represent at a time."""

DEAD = 0.05
"""A latent whose standard deviation is smaller has no vote."""


def beta_vae_score(
    represent: Represent,
    sizes: Sequence[int],
    rng: np.random.Generator,
    *,
    fitted: PositiveInt = 10_000,
    scored: PositiveInt = 5_000,
    batch_size: PositiveInt = 64,
) -> float:
    """The score of Higgins et al. (2017), openreview.net/forum?id=Sy2fzU9gl, section 3.

    Both images of a pair share a factor, and a point is the mean absolute difference of their
    codes over pairs. The score is the accuracy in telling which factor by a linear classifier:
    multinomial logistic regression. The figures of Locatello et al. (2019) are from
    one-versus-rest, scikit-learn's default before 0.22, which gives other scores; sizes are theirs.

    Args:
        represent: Called with up to `ROWS` images at a time.
        sizes: How many values each factor has [F]. One with a single value is never shared.
        rng: Draws the factors, uniformly.
        fitted: Points to fit.
        scored: Points to score.
        batch_size: Pairs for a point.

    Raises:
        UserError: If fewer than two factors vary, or a code is not finite.
    """

    def points(count: int) -> tuple[Array, Array]:
        differences, shared = [], []
        for factor, factors in portions(sizes, rng, count, 2 * batch_size):
            first, second = np.split(factors, 2, axis=1)
            point = np.arange(len(factor))
            second[point, :, factor] = first[point, :, factor]
            first, second = np.split(encoded(represent, factors), 2, axis=1)
            differences.append(np.abs(first - second).mean(1))
            shared.append(factor)
        return np.concatenate(differences), np.concatenate(shared)

    from sklearn.linear_model import LogisticRegression  # slow to import

    classifier = LogisticRegression(max_iter=1000).fit(*points(fitted))
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
    """The score of Kim & Mnih (2018), arXiv:1802.05983, section 4.

    All images of a point share a factor, and the point votes for the latent whose variance is the
    smallest part of that among all images. The score is the accuracy in telling the factor from
    the latent, by the majority of the fitted votes. As in disentanglement_lib dead latents get no
    votes, and a code without any other scores 0.

    Arguments and errors are those of `beta_vae_score`, but `batch_size` counts images.
    """
    anywhere = encoded(represent, rng.integers(sizes, size=(10_000, len(sizes)))).var(0, ddof=1)
    alive = np.sqrt(anywhere) >= DEAD
    if not alive.any():
        return 0.0

    def votes(count: int) -> Array:
        table = np.zeros((np.count_nonzero(alive), len(sizes)))
        for factor, factors in portions(sizes, rng, count, batch_size):
            point = np.arange(len(factor))
            factors[point, :, factor] = factors[point, 0, factor][:, None]
            inside = encoded(represent, factors)[..., alive].var(1, ddof=1)
            np.add.at(table, ((inside / anywhere[alive]).argmin(1), factor), 1)
        return table

    majority = votes(fitted).argmax(1)
    return float(votes(scored)[np.arange(len(majority)), majority].sum() / scored)


def portions(
    sizes: Sequence[int], rng: np.random.Generator, points: int, images: int
) -> Iterator[tuple[Array, Array]]:
    """For a portion of the points at a time, the factor to share [P] and all factors [P, I, F]."""
    several = np.flatnonzero(np.asarray(sizes) > 1)
    if len(several) < 2:
        raise UserError("which factor is shared can be told only if two or more vary")
    most = max(1, ROWS // images)
    for start in range(0, points, most):
        count = min(most, points - start)
        yield rng.choice(several, count), rng.integers(sizes, size=(count, images, len(sizes)))


def encoded(represent: Represent, factors: Array) -> Array:
    """The codes [..., D] of images with factors [..., F], in double precision."""
    codes = finite(represent(factors.reshape(-1, factors.shape[-1])))
    return codes.reshape(*factors.shape[:-1], -1)
