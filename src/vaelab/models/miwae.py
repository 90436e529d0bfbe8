from typing import Any

from pydantic import PositiveInt
from torch import Tensor

from vaelab.errors import UserError
from vaelab.models.iwae import IWAE, log_mean_exp


class MIWAE(IWAE):
    """Multiply importance weighted auto-encoder (Rainforth et al., 2018), arXiv:1802.04537.

    loss = -(1/M) sum_m log (M/K) sum_k w_mk: the mean of M bounds of K / M samples each, whose
    gradient for the encoder has more signal than that of one bound of them all. One group is
    IWAE, and K groups are the ELBO by samples.

    Args:
        groups: M; divides `num_samples`, K, their total.
        options: See `IWAE`.
    """

    def __init__(self, *, groups: PositiveInt, **options: Any) -> None:
        super().__init__(**options)
        if self.num_samples % groups:
            raise UserError(
                f"model.groups={groups} does not divide model.num_samples={self.num_samples}"
            )
        self.groups = groups

    def bound(self, log_weights: Tensor) -> Tensor:
        return log_mean_exp(self.grouped(log_weights)).mean(0)

    def squared(self, log_weights: Tensor) -> Tensor:
        return super().squared(self.grouped(log_weights)).flatten(0, 1) / self.groups

    def grouped(self, log_weights: Tensor) -> Tensor:
        """[K / M, M, B] from [K, B]."""
        return log_weights.unflatten(0, (-1, self.groups))
