"""Masses on the 256 levels of a stored pixel, x = k / 255."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.nn.functional import logsigmoid, softplus
from torch.types import _size

from vaelab.likelihoods.densities import Located
from vaelab.likelihoods.pixelwise import Pixelwise

LEVELS = 256
HALF = 0.5 / (LEVELS - 1)
"""Half the width of the bin of a level; those of 0 and 1 are open to the outside."""
NARROWEST = -7.0
"""Least log-scale of a logistic: its scale is then a quarter of a level."""


class DiscretizedLogistic(Located):
    """A logistic distribution's mass in the bin of each level (Kingma et al., 2016).

    arXiv:1606.04934, eq. 17; x in k / 255. What is beyond 0 and 1 belongs to the edges' bins.
    """

    pixels: ClassVar[dict[str, float | None]] = {"grey": 0.0}

    def forward(self, params: Tensor) -> Distribution:
        located, *by_pixel = params.chunk(self.params, dim=-3)
        log_scale = self.log_scale + by_pixel[0] if by_pixel else self.log_scale
        return Independent(LogisticLevels(located + 0.5, log_scale), 3)


class LogisticLevels(Distribution):
    """Levels k / 255 with the masses of a logistic distribution.

    Args:
        loc: Of the logistic.
        log_scale: The log of its scale, at least `NARROWEST`.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, loc: Tensor, log_scale: Tensor, validate_args: bool | None = None) -> None:
        self.loc, log_scale = torch.broadcast_tensors(loc, log_scale)
        self.log_scale = log_scale.clamp(min=NARROWEST)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        return log_mass(value, self.loc, self.log_scale)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            shape = (*sample_shape, *self.loc.shape)
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            drawn = self.loc + self.log_scale.exp() * u.clamp(1e-7, 1 - 1e-7).logit()
            return level(drawn)

    @property
    def mean(self) -> Tensor:
        return mean_within(self.loc, self.log_scale)

    def expand(self, batch_shape: _size, _instance: object = None) -> "LogisticLevels":
        return LogisticLevels(self.loc.expand(batch_shape), self.log_scale.expand(batch_shape))


def log_mass(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """Log of a logistic distribution's mass in the bin of level x, in any shape.

    For bin edges a > b in units of the scale, F(a) - F(b) = F(a) (1 - F(b)) (1 - e^(b - a)): no
    difference of nearly equal numbers, however far out or narrow the bin.
    """
    precision = (-log_scale).exp()
    above, below = (x - loc + HALF) * precision, (x - loc - HALF) * precision
    log_cdf = torch.where(x > 1 - HALF, 0.0, logsigmoid(above))
    log_survival = torch.where(x < HALF, 0.0, logsigmoid(-below))
    inner = (x > HALF) & (x < 1 - HALF)
    log_rest = torch.where(inner, torch.log(-torch.expm1(-2 * HALF * precision)), 0.0)
    return log_cdf + log_survival + log_rest


def mean_within(loc: Tensor, log_scale: Tensor) -> Tensor:
    """The mean of a logistic distribution whose mass beyond 0 and 1 is at 0 and at 1.

    It is the integral of 1 - F from 0 to 1, of which the mean of the levels is the midpoint rule.
    """
    scale = log_scale.exp()
    return scale * (softplus(loc / scale) - softplus((loc - 1) / scale))


def level(x: Tensor) -> Tensor:
    """The level whose bin x is in."""
    return (x * (LEVELS - 1)).round().clamp(0, LEVELS - 1) / (LEVELS - 1)


class Categorical(Pixelwise):
    """A mass for each of the 256 levels, all free (van den Oord et al., 2016).

    arXiv:1601.06759, section 3.3; x in k / 255.
    """

    params = LEVELS
    pixels: ClassVar[dict[str, float | None]] = {"grey": 0.0}

    def forward(self, params: Tensor) -> Distribution:
        logits = params.unflatten(-3, (-1, LEVELS)).movedim(-3, -1)
        return Independent(CategoricalLevels(logits), 3)


class CategoricalLevels(Distribution):
    """Levels k / 255, each with a mass of its own.

    Args:
        logits: Of the levels, [..., 256].
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, logits: Tensor) -> None:
        self.log_masses = logits.log_softmax(-1)
        super().__init__(logits.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        rows = (value * (LEVELS - 1)).round().long().unsqueeze(-1)
        shape = torch.broadcast_shapes(rows.shape[:-1], self.log_masses.shape[:-1])
        masses = self.log_masses.expand(*shape, LEVELS)
        return masses.gather(-1, rows.expand(*shape, 1)).squeeze(-1)

    @torch.no_grad()
    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        count = math.prod(sample_shape)
        drawn = self.log_masses.exp().flatten(0, -2).multinomial(count, replacement=True)
        drawn = drawn.mT.reshape(*sample_shape, *self.log_masses.shape[:-1])
        return drawn.to(self.log_masses) / (LEVELS - 1)

    @property
    def mean(self) -> Tensor:
        return self.log_masses.exp() @ torch.linspace(0, 1, LEVELS).to(self.log_masses)

    def expand(self, batch_shape: Any, _instance: object = None) -> "CategoricalLevels":
        return CategoricalLevels(self.log_masses.expand(*batch_shape, LEVELS))
