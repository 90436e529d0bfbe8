from typing import Any

from torch import Tensor

from vaelab.elbo import ELBO
from vaelab.terms import Terms


class VAE(ELBO):
    """Auto-encoding variational Bayes (Kingma & Welling, 2014), arXiv:1312.6114, eq. 10.

    loss = distortion + beta * rate, with beta one but for annealing. With `conditional`, it is
    the conditional VAE of Sohn et al. (2015), eq. 4: the same bound with y on every side.
    """

    beta: Tensor

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self.add_weight("beta", 1.0)

    def objective(self, terms: Terms) -> Tensor:
        return (terms.distortion + self.beta * terms.rate).mean()
