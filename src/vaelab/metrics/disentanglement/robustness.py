"""`irs`, the interventional robustness score. Shapes: N images, D latents, F factors."""

from typing import Annotated

import numpy as np
from pydantic import Field

from vaelab.metrics.disentanglement.pairs import Array, prepare_pairs, varying_columns

Fraction = Annotated[float, Field(gt=0, le=1)]


def irs(codes: Array, factors: Array, quantile: Fraction = 0.99) -> float:
    """Returns interventional robustness, 0 if no latent varies; skips constant factors; may raise.

    Suter et al. (2019), arXiv:1811.00007, much as in disentanglement_lib. With one factor held and
    the others varying, the deviation of a latent is the quantile, over images with that value, of
    its distance to its mean, averaged over values. The score is one minus the ratio of that
    deviation to the latent's largest at all, for the factor where it is least, averaged over
    latents that vary, weighted by the largest deviation; 0 if no latent varies. Independent codes
    score above 0, as a quantile is below the largest. Unlike disentanglement_lib this does not bin
    the values of factors, which are discrete already.

    Args:
        codes: Posterior means [N, D].
        factors: Integers [N, F].
        quantile: 1 in the paper.

    Raises:
        UserError: As `prepare_pairs` does.
    """
    codes, factors = prepare_pairs(codes, factors)
    codes = codes[:, varying_columns(codes)]
    if not codes.size:
        return 0.0
    farthest = np.abs(codes - codes.mean(0)).max(0)
    held = np.stack(
        [interventional_deviation(codes, factor, quantile) for factor in factors.T]
    )  # [F, D]
    return float(np.average(1 - held.min(0) / farthest, weights=farthest))


def interventional_deviation(codes: Array, factor: Array, quantile: float) -> Array:
    """Returns each latent's quantile of |z - mean| at a factor value, averaged over values: [D]."""
    groups = [codes[factor == value] for value in np.unique(factor)]
    return np.mean([np.quantile(np.abs(g - g.mean(0)), quantile, 0) for g in groups], 0)
