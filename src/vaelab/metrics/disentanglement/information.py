"""Metrics that count the mutual information of codes and factors, in nats.

N images, D latents, F factors.
"""

import numpy as np
from pydantic import PositiveInt

from vaelab.metrics.disentanglement.pairs import Array, checked


def mig(codes: Array, factors: Array, bins: PositiveInt = 20) -> float:
    """The mutual information gap of Locatello et al. (2019), arXiv:1811.12359.

    The mean over factors of (I(z_a; v) - I(z_b; v)) / H(v), where z_a and z_b are the latents
    that tell most of factor v, by counting posterior means in bins. Perfect codes reach 1 only
    with a bin for each value of a factor: 0.90 for the five factors of dSprites.

    Args:
        codes: Posterior means [N, D], 10,000 in the paper.
        factors: Integers [N, F].
        bins: Of equal width, between the extremes of each latent.
    """
    codes, factors = checked(codes, factors)
    return mean_gap(binned_information(codes, factors, bins), factors)


def modularity(codes: Array, factors: Array, bins: PositiveInt = 20) -> float:
    """Whether a latent tells of one factor only (Ridgeway & Mozer, 2018, arXiv:1802.05312, 3).

    The mean over latents of 1 - sum_{f != a} I(z; v_f)^2 / (I(z; v_a)^2 (F - 1)), where v_a is the
    factor that the latent tells most of. As in disentanglement_lib a latent that tells nothing
    counts as 0; one of noise seems to tell a little, and does not.

    Args:
        codes: Posterior means [N, D].
        factors: Integers [N, F].
        bins: Of equal width, between the extremes of each latent.
    """
    codes, factors = checked(codes, factors)
    squares = binned_information(codes, factors, bins) ** 2
    telling = squares[squares.max(1) > 0]
    most, others = telling.max(1), max(factors.shape[1] - 1, 1)
    return float(np.sum(1 - (telling.sum(1) - most) / (most * others)) / len(squares))


def binned_information(codes: Array, factors: Array, bins: int) -> Array:
    """I(z_d; v_f) [D, F] by counting, with bins of equal width between a latent's extremes."""
    edges = np.linspace(codes.min(0), codes.max(0), bins + 1)[:-1]  # [bins, D]
    binned = [np.digitize(code, edge) for code, edge in zip(codes.T, edges.T, strict=True)]
    from sklearn.metrics import mutual_info_score  # slow to import

    return np.array([[mutual_info_score(f, code) for f in factors.T] for code in binned])


def mean_gap(information: Array, factors: Array) -> float:
    """The gap between the two latents that tell most of a factor, over its entropy H(v).

    The mean over factors of information [D, F]. A single latent is compared with a dead one.
    """
    from scipy.stats import entropy  # slow to import

    second, first = np.sort(np.pad(information, ((1, 0), (0, 0))), 0)[-2:]
    return float(np.mean((first - second) / [entropy(np.bincount(f)) for f in factors.T]))
