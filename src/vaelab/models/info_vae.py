"""`InfoVAE`, a weighted rate and a weighted MMD to the prior."""

from typing import Any

from torch import Tensor

from vaelab.errors import UserError
from vaelab.models.wae import WAE
from vaelab.terms import Terms, weighted


class InfoVAE(WAE):
    """InfoVAE with MMD: a weighted rate and a weighted MMD (Zhao et al., 2019), eq. 6.

    arXiv:1706.02262.

    loss = distortion + (1 - alpha) * rate + (alpha + lambda - 1) * MMD^2(q(z), p(z))

    At alpha = 0 and lambda = 1 it is the VAE, and at alpha = 1 the MMD-VAE, which is a WAE and
    takes posterior=deterministic, too.

    Args:
        alpha: Weight of the mutual information of image and code, rewarded if positive. At most 1
            in a training: above it the rate would be rewarded without bound.
        options: The arguments of `WAE`; `divergence_weight` is lambda.
    """

    alpha: Tensor

    def __init__(self, *, alpha: float, **options: Any) -> None:
        super().__init__(**options)
        self.add_weight("alpha", alpha)

    def check_trainable(self) -> None:
        """Raises UserError if alpha is above 1."""
        if self.alpha > 1:
            raise UserError(
                f"model.alpha={float(self.alpha):g}: should be 1 at most, for above it the loss "
                "has no least value"
            )

    def objective(self, terms: Terms) -> Tensor:
        """The mean distortion + (1 - alpha) rate + (alpha + lambda - 1) MMD^2, []; may raise."""
        rate = weighted(1 - self.alpha, terms.rate)
        weight = self.alpha + self.divergence_weight - 1
        return (terms.distortion + rate).mean() + weight * self.mmd_squared(terms)
