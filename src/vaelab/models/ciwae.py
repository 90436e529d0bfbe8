"""`CIWAE`, a weighted mean of the ELBO and the bound of IWAE."""

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from vaelab.models.iwae import IWAE


class CIWAE(IWAE):
    """CIWAE: a convex combination of ELBO and IWAE bound (Rainforth et al., 2018).

    arXiv:1802.04537. loss = -(beta * (1/K) sum_k log w_k + (1 - beta) * log (1/K) sum_k w_k). The
    ELBO, beta = 1, is estimated from the samples, not in closed form; beta = 0 is IWAE.

    Args:
        beta: Weight of the ELBO, in [0, 1].
        options: The arguments of `IWAE`.
    """

    beta: Tensor

    def __init__(self, *, beta: Annotated[float, Field(ge=0, le=1)], **options: Any) -> None:
        super().__init__(**options)
        self.add_weight("beta", beta)

    def bound(self, log_weights: Tensor) -> Tensor:
        """The bound [B]: beta * mean of log-weights [K, B] + (1 - beta) * bound of IWAE."""
        return self.beta * log_weights.mean(0) + (1 - self.beta) * super().bound(log_weights)

    def dreg_weights(self, log_weights: Tensor) -> Tensor:
        """The factors beta / K + (1 - beta) v_k^2 [K, B] in the doubly reparameterised gradient."""
        return self.beta / len(log_weights) + (1 - self.beta) * super().dreg_weights(log_weights)
