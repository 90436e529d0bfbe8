"""`MIWAE`, the mean of several importance weighted bounds."""

from typing import Any

from pydantic import PositiveInt
from torch import Tensor

from vaelab.errors import UserError
from vaelab.models.iwae import IWAE, log_mean_exp


class MIWAE(IWAE):
    """MIWAE: the mean of M IWAE bounds of K / M samples each (Rainforth et al., 2018).

    arXiv:1802.04537. loss = -(1/M) sum_m log (M/K) sum_k w_mk. Its gradient for the encoder has
    a higher signal-to-noise ratio than that of one bound of K samples. One group is IWAE; K groups
    are the ELBO estimated from samples.

    Args:
        groups: M, a divisor of `num_samples`, K.
        options: The arguments of `IWAE`.

    Raises:
        UserError: If M does not divide K.
    """

    def __init__(self, *, groups: PositiveInt, **options: Any) -> None:
        super().__init__(**options)
        if self.num_samples % groups:
            raise UserError(
                f"model.groups={groups} does not divide model.num_samples={self.num_samples}"
            )
        self.groups = groups

    def bound(self, log_weights: Tensor) -> Tensor:
        """The mean over groups of their IWAE bounds, [B], of log-weights [K, B]."""
        return log_mean_exp(self.grouped_weights(log_weights)).mean(0)

    def dreg_weights(self, log_weights: Tensor) -> Tensor:
        """The factors v_k^2 / M, with v normalised within each group, [K, B]."""
        return super().dreg_weights(self.grouped_weights(log_weights)).flatten(0, 1) / self.groups

    def grouped_weights(self, log_weights: Tensor) -> Tensor:
        """Log-weights [K, B] split into M groups, [K / M, M, B]."""
        return log_weights.unflatten(0, (-1, self.groups))
