"""`ContinuousBernoulli`, a density on [0, 1] whose exponent is Bernoulli's cross-entropy."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.types import _size

from vaelab.likelihoods.pixelwise import Pixelwise

SERIES_BELOW = 0.1
"""Absolute logit below which power series are used: there they are exact to 1e-13, while closed
forms are not."""


class ContinuousBernoulli(Pixelwise):
    """The normalised continuous Bernoulli likelihood of pixels in [0, 1], a density.

    Loaiza-Ganem & Cunningham (2019), arXiv:1907.06845, eq. 4.
    """

    pixels: ClassVar[dict[str, float | None]] = {"dequantized": 8.0, "grey": None}

    def forward(self, logits: Tensor) -> Distribution:
        """p(x | z, y), batch [...], event [C, H, W], of logits [..., C, H, W]."""
        return Independent(ContinuousBernoulliDistribution(logits), 3)


class ContinuousBernoulliDistribution(Distribution):
    """The continuous Bernoulli distribution, whose density on [0, 1] is proportional to e^(l x).

    `torch.distributions.ContinuousBernoulli` agrees for |l| < 15.9; beyond, its float32 normaliser
    and mean are those of 15.9. With a = |l| and d the distance from the mode, which is 0 or 1, the
    density is a e^(-a d) / (1 - e^(-a)), without cancellation.

    Args:
        logits: l [...], of any magnitude.
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    @property
    def abs_logits(self) -> Tensor:
        """The absolute logits a = |l|, with gradient 1 and not 0 at l = 0."""
        return torch.where(self.logits < 0, -self.logits, self.logits)

    def mirror(self, value: Tensor) -> Tensor:
        """Values in [0, 1] as distances from the mode, or such distances as values.

        The mode is 0 where l < 0, and 1 elsewhere; the map is its own inverse.
        """
        return torch.where(self.logits < 0, value, 1 - value)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density of values in [0, 1], of any shape that broadcasts with the logits."""
        return log_density_at_mode(self.abs_logits) - self.abs_logits * self.mirror(value)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Samples [*sample_shape, ...] by the inverse distribution function, with gradients."""
        shape = (*sample_shape, *self.logits.shape)
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))

    def icdf(self, value: Tensor) -> Tensor:
        """The quantiles x [...] of probabilities in [0, 1]."""
        a = self.abs_logits.clamp(min=torch.finfo(self.logits.dtype).tiny ** 0.5)
        return self.mirror((-torch.log1p(self.mirror(value) * torch.expm1(-a)) / a).clamp(max=1))

    @property
    def mean(self) -> Tensor:
        """The mean [...]."""
        return self.mirror(mean_distance_from_mode(self.abs_logits))

    @property
    def variance(self) -> Tensor:
        """The variance [...]."""
        small, a = small_and_safe(self.abs_logits)
        series = 1 / 12 - self.abs_logits.square() / 240 + self.abs_logits**4 / 6048
        return torch.where(small, series, a**-2 - (2 * torch.sinh(a.clamp(max=80) / 2)) ** -2)

    def expand(
        self, batch_shape: Any, _instance: object = None
    ) -> "ContinuousBernoulliDistribution":
        """The distribution with its batch shape expanded, as `torch.distributions` defines it."""
        return ContinuousBernoulliDistribution(self.logits.expand(batch_shape))


def log_density_at_mode(a: Tensor) -> Tensor:
    """The logarithm of a / (1 - e^(-a)), the density at the mode, for a = |l| >= 0.

    One logarithm of the quotient: the difference of two loses a digit to their size where a < 1.
    """
    small, safe = small_and_safe(a)
    series = a / 2 - a**2 / 24 + a**4 / 2880 - a**6 / 181440
    return torch.where(small, series, -torch.log(-torch.expm1(-safe) / safe))


def mean_distance_from_mode(a: Tensor) -> Tensor:
    """The mean distance from the mode, 1/a - 1/(e^a - 1), for a = |l| >= 0."""
    small, safe = small_and_safe(a)
    series = 0.5 - a / 12 + a**3 / 720 - a**5 / 30240
    return torch.where(small, series, 1 / safe + torch.exp(-safe) / torch.expm1(-safe))


def small_and_safe(a: Tensor) -> tuple[Tensor, Tensor]:
    """The mask a < SERIES_BELOW, and a copy of `a` with 1 there, for finite gradients."""
    small = a < SERIES_BELOW
    return small, torch.where(small, 1.0, a)
