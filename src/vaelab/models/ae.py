from typing import Any

from torch import Tensor

from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms


class AE(ELBO):
    """The auto-encoder (Hinton & Salakhutdinov, 2006), loss = distortion, for comparison.

    Its code is a point, by posterior=deterministic, and then it has no bound: the rate,
    KL(q(z | x) || p(z)), is infinite, the ELBO -infinity, and both are reported so.
    Nothing draws the codes towards the prior, whose samples it can decode but was not made to.
    With posterior=gaussian it is beta-VAE at beta = 0, which has an ELBO.

    Raises:
        UserError: If the prior is one that is learned, which this does not do.
    """

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        if any(parameter.requires_grad for parameter in self.prior.parameters()):
            raise UserError(
                f"{type(self).__name__} does not train a prior; use prior=standard_normal"
            )

    def objective(self, terms: Terms) -> Tensor:
        return terms.distortion.mean()
