"""A density on [0, 1] with the cross-entropy of a Bernoulli distribution as its exponent."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.types import _size

from vaelab.likelihoods.pixelwise import Pixelwise

SMALL = 0.1
"""Size of a logit up to which power series are exact to 1e-13 and closed forms are not."""


class ContinuousBernoulli(Pixelwise):
    """Pixels in [0, 1], a density with its normaliser (Loaiza-Ganem & Cunningham, 2019).

    arXiv:1907.06845, eq. 4.
    """

    pixels: ClassVar[dict[str, float | None]] = {"dequantized": 8.0, "grey": None}

    def forward(self, logits: Tensor) -> Distribution:
        return Independent(ContinuousBernoulliDistribution(logits), 3)


class ContinuousBernoulliDistribution(Distribution):
    """The continuous Bernoulli distribution, whose density on [0, 1] is proportional to e^(l x).

    `torch.distributions.ContinuousBernoulli` is the same for mild logits; beyond |l| = 15.9 its
    float32 normaliser and mean are those of 15.9. With a = |l| and d the distance from the likelier
    end of [0, 1], the density is a e^(-a d) / (1 - e^(-a)), in which nothing cancels.

    Args:
        logits: l, of any size.
    """

    arg_constraints: ClassVar = {"logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, logits: Tensor, validate_args: bool | None = None) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=validate_args)

    @property
    def sizes(self) -> Tensor:
        """The a = |l|, whose gradient at l = 0 is 1 and not 0."""
        return torch.where(self.logits < 0, -self.logits, self.logits)

    def mirrored(self, value: Tensor) -> Tensor:
        """Distances from the likelier end of [0, 1]; or from those, the values."""
        return torch.where(self.logits < 0, value, 1 - value)

    def log_prob(self, value: Tensor) -> Tensor:
        return log_height(self.sizes) - self.sizes * self.mirrored(value)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        shape = (*sample_shape, *self.logits.shape)
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))

    def icdf(self, value: Tensor) -> Tensor:
        """The x [...] whose distribution function is a `value` in [0, 1]."""
        a = self.sizes.clamp(min=torch.finfo(self.logits.dtype).tiny ** 0.5)
        return self.mirrored(
            (-torch.log1p(self.mirrored(value) * torch.expm1(-a)) / a).clamp(max=1)
        )

    @property
    def mean(self) -> Tensor:
        return self.mirrored(mean_distance(self.sizes))

    @property
    def variance(self) -> Tensor:
        small, a = parted(self.sizes)
        series = 1 / 12 - self.sizes.square() / 240 + self.sizes**4 / 6048
        return torch.where(small, series, a**-2 - (2 * torch.sinh(a.clamp(max=80) / 2)) ** -2)

    def expand(
        self, batch_shape: Any, _instance: object = None
    ) -> "ContinuousBernoulliDistribution":
        return ContinuousBernoulliDistribution(self.logits.expand(batch_shape))


def log_height(a: Tensor) -> Tensor:
    """Log of a / (1 - e^(-a)), the density at the likelier end, for a >= 0."""
    small, safe = parted(a)
    series = a / 2 - a**2 / 24 + a**4 / 2880 - a**6 / 181440
    return torch.where(small, series, safe.log() - torch.log(-torch.expm1(-safe)))


def mean_distance(a: Tensor) -> Tensor:
    """1/a - 1/(e^a - 1), the mean distance from the likelier end, for a >= 0."""
    small, safe = parted(a)
    series = 0.5 - a / 12 + a**3 / 720 - a**5 / 30240
    return torch.where(small, series, 1 / safe + torch.exp(-safe) / torch.expm1(-safe))


def parted(a: Tensor) -> tuple[Tensor, Tensor]:
    """Where a series is to be used, and `a` with a number there whose gradients are finite."""
    small = a < SMALL
    return small, torch.where(small, 1.0, a)
