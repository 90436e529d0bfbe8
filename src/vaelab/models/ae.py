"""`AE`, the auto-encoder without a rate in its loss."""

from typing import Any

from torch import Tensor

from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms


class AE(ELBO):
    """The auto-encoder (Hinton & Salakhutdinov, 2006): loss = distortion, without the rate.

    With posterior=deterministic, its default, a code is a point and there is no bound: the rate
    KL(q(z | x) || p(z)) is infinite and the ELBO -infinity, and both are reported so. With
    posterior=gaussian it is beta-VAE at beta = 0, which has an ELBO. Nothing pulls the codes
    towards the prior, so images decoded from samples of the prior may be poor.

    Raises:
        UserError: If the prior has parameters to learn, since the loss would not train them.
    """

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        if any(parameter.requires_grad for parameter in self.prior.parameters()):
            raise UserError(
                f"{type(self).__name__} does not train a prior; use prior=standard_normal"
            )

    def objective(self, terms: Terms) -> Tensor:
        """The mean distortion [] over the batch."""
        return terms.distortion.mean()
