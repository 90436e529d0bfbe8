"""Metrics by the mutual information of binned codes and factors: `mig` and `modularity`.

Units: nats. Shapes: N images, D latents, F factors.
"""

import numpy as np
from pydantic import PositiveInt

from vaelab.metrics.disentanglement.pairs import Array, prepare_pairs


def mig(codes: Array, factors: Array, bins: PositiveInt = 20) -> float:
    """Returns the mutual information gap of binned codes; skips constant factors; may raise.

    Locatello et al. (2019), arXiv:1811.12359. The mean over factors of (I(z_a; v) - I(z_b; v)) /
    H(v), where z_a and z_b are the two latents with the most information on factor v. Perfect codes
    reach 1 only with a bin for each value of a factor: 0.90 for the five factors of dSprites.

    Args:
        codes: Posterior means [N, D], 10,000 in the paper.
        factors: Integers [N, F].
        bins: The number of bins of equal width, between the extremes of each latent.

    Raises:
        UserError: As `prepare_pairs` does.
    """
    codes, factors = prepare_pairs(codes, factors)
    return mean_information_gap(binned_information(codes, factors, bins), factors)


def modularity(codes: Array, factors: Array, bins: PositiveInt = 20) -> float:
    """Returns how exclusively latents inform on one factor; skips constant factors; may raise.

    Ridgeway & Mozer (2018), arXiv:1802.05312, section 3. The mean over latents of 1 - sum_{f != a}
    I(z; v_f)^2 / (I(z; v_a)^2 (F - 1)), where v_a is the factor that the latent is most informative
    on. As in disentanglement_lib a latent without information counts as 0; a latent of noise does
    not, as by chance its information is above zero.

    Args:
        codes: Posterior means [N, D].
        factors: Integers [N, F].
        bins: The number of bins of equal width, between the extremes of each latent.

    Raises:
        UserError: As `prepare_pairs` does.
    """
    codes, factors = prepare_pairs(codes, factors)
    squares = binned_information(codes, factors, bins) ** 2
    telling = squares[squares.max(1) > 0]
    most, others = telling.max(1), max(factors.shape[1] - 1, 1)
    return float(np.sum(1 - (telling.sum(1) - most) / (most * others)) / len(squares))


def binned_information(codes: Array, factors: Array, bins: int) -> Array:
    """Returns I(z_d; v_f) [D, F], in nats, from counts in `bins` bins of equal width per latent."""
    edges = np.linspace(codes.min(0), codes.max(0), bins + 1)[:-1]  # [bins, D]
    binned = [np.digitize(code, edge) for code, edge in zip(codes.T, edges.T, strict=True)]
    from sklearn.metrics import mutual_info_score  # slow to import

    return np.array([[mutual_info_score(f, code) for f in factors.T] for code in binned])


def mean_information_gap(information: Array, factors: Array) -> float:
    """Returns (first - second largest I(z; v)) / H(v) over latents, averaged over factors v.

    From information [D, F]. A single latent is compared with a dead one.
    """
    from scipy.stats import entropy  # slow to import

    second, first = np.sort(np.pad(information, ((1, 0), (0, 0))), 0)[-2:]
    return float(np.mean((first - second) / [entropy(np.bincount(f)) for f in factors.T]))
