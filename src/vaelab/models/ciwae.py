from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from vaelab.models.iwae import IWAE


class CIWAE(IWAE):
    """Combination importance weighted auto-encoder (Rainforth et al., 2018), arXiv:1802.04537.

    loss = -(beta * (1/K) sum_k log w_k + (1 - beta) * log (1/K) sum_k w_k): the ELBO by samples at
    beta = 1, and IWAE at beta = 0.

    Args:
        beta: Share of the ELBO.
        options: See `IWAE`.
    """

    beta: Tensor

    def __init__(self, *, beta: Annotated[float, Field(ge=0, le=1)], **options: Any) -> None:
        super().__init__(**options)
        self.add_weight("beta", beta)

    def bound(self, log_weights: Tensor) -> Tensor:
        return self.beta * log_weights.mean(0) + (1 - self.beta) * super().bound(log_weights)

    def squared(self, log_weights: Tensor) -> Tensor:
        return self.beta / len(log_weights) + (1 - self.beta) * super().squared(log_weights)
