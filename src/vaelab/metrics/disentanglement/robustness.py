"""The interventional robustness score. N images, D latents, F factors."""

from typing import Annotated

import numpy as np
from pydantic import Field

from vaelab.metrics.disentanglement.pairs import Array, checked, varies

Fraction = Annotated[float, Field(gt=0, le=1)]


def irs(codes: Array, factors: Array, quantile: Fraction = 0.99) -> float:
    """The score of Suter et al. (2019), arXiv:1811.00007, by the estimator of disentanglement_lib.

    How far a latent strays from its mean while one factor is held and the others vary: the
    quantile over images with that value, averaged over values, as a part of the farthest it
    strays at all. One minus that, for the factor where it is least, averaged over latents that
    vary, weighted by the farthest. Independent codes score above 0, as a quantile is below the
    farthest. Unlike disentanglement_lib this does not bin the values of factors, which are
    discrete already.

    Args:
        codes: Posterior means [N, D].
        factors: Integers [N, F].
        quantile: 1 in the paper.
    """
    codes, factors = checked(codes, factors)
    codes = codes[:, varies(codes)]
    if not codes.size:
        return 0.0
    farthest = np.abs(codes - codes.mean(0)).max(0)
    held = np.stack([deviation(codes, factor, quantile) for factor in factors.T])  # [F, D]
    return float(np.average(1 - held.min(0) / farthest, weights=farthest))


def deviation(codes: Array, factor: Array, quantile: float) -> Array:
    """How far the codes are from their mean given the factor, the mean over its values, [D]."""
    groups = [codes[factor == value] for value in np.unique(factor)]
    return np.mean([np.quantile(np.abs(g - g.mean(0)), quantile, 0) for g in groups], 0)
