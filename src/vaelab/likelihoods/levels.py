"""Likelihoods of stored pixels x = k / 255: masses on 256 levels, not densities."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints
from torch.nn.functional import logsigmoid, softplus
from torch.types import _size

from vaelab.distributions.projection import project
from vaelab.likelihoods.densities import LocationScale
from vaelab.likelihoods.pixelwise import Pixelwise

LEVELS = 256
HALF_BIN = 0.5 / (LEVELS - 1)
"""Half the width of a level's bin; the bins of the levels 0 and 1 are unbounded outwards."""
MIN_LOG_SCALE = -7.0
"""Least log-scale of a logistic distribution: its scale is then a quarter of a level."""
MAX_LOG_SCALE = 80.0
"""Greatest log-scale: the share of a bin in the scale is then about the least in float32."""


class DiscretizedLogistic(LocationScale):
    """The discretized logistic likelihood of pixels k / 255 (Kingma et al., 2016).

    arXiv:1606.04934, eq. 17. The mass of a level is that of a logistic distribution in the level's
    bin; the mass below 0 and above 1 goes to the first and the last bin.
    """

    pixels: ClassVar[dict[str, float | None]] = {"grey": 0.0}

    def forward(self, params: Tensor) -> Distribution:
        """p(x | z, y) of params [..., P, H, W]: means - 1/2, then if per_pixel log(scale / 0.25).

        P is C, or 2 C for scale=per_pixel. Batch [...] and event [C, H, W].
        """
        location, *by_pixel = params.chunk(self.params, dim=-3)
        log_scale = self.log_scale + by_pixel[0] if by_pixel else self.log_scale
        return Independent(LogisticLevels(location + 0.5, log_scale), 3)


class LogisticLevels(Distribution):
    """The distribution over levels k / 255 with a logistic distribution's masses in their bins.

    Args:
        loc: Location of the logistic distribution.
        log_scale: The logarithm of its scale, clamped from `MIN_LOG_SCALE` to `MAX_LOG_SCALE`.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, loc: Tensor, log_scale: Tensor, validate_args: bool | None = None) -> None:
        log_scale = project(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE)
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-mass of levels k / 255 that broadcast with `loc`; values are not rounded."""
        return logistic_log_mass(value, self.loc, self.log_scale)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Samples [*sample_shape, ...] of levels k / 255, without gradients."""
        with torch.no_grad():
            shape = (*sample_shape, *self.loc.shape)
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
            drawn = self.loc + self.log_scale.exp() * u.clamp(1e-7, 1 - 1e-7).logit()
            return nearest_level(drawn)

    @property
    def mean(self) -> Tensor:
        """The mean [...], approximately, see `clamped_logistic_mean`."""
        return clamped_logistic_mean(self.loc, self.log_scale)

    def expand(self, batch_shape: _size, _instance: object = None) -> "LogisticLevels":
        """The distribution with its batch shape expanded, without clamping scales again."""
        new = LogisticLevels.__new__(LogisticLevels)
        new.loc, new.log_scale = self.loc.expand(batch_shape), self.log_scale.expand(batch_shape)
        super(LogisticLevels, new).__init__(new.loc.shape, validate_args=False)
        return new


def logistic_log_mass(x: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    """The log-mass of a logistic distribution in the bin of level x, for broadcastable shapes.

    For bin edges a > b in units of the scale, F(a) - F(b) = F(a) (1 - F(b)) (1 - e^(b - a)), which
    has no difference of nearly equal numbers, however distant or narrow the bin. A log-scale above
    `MAX_LOG_SCALE` would make a - b zero, and the gradients NaN.
    """
    precision = (-log_scale).exp()
    above, below = (x - loc + HALF_BIN) * precision, (x - loc - HALF_BIN) * precision
    log_cdf = torch.where(x > 1 - HALF_BIN, 0.0, logsigmoid(above))
    log_survival = torch.where(x < HALF_BIN, 0.0, logsigmoid(-below))
    inner = (x > HALF_BIN) & (x < 1 - HALF_BIN)
    log_rest = torch.where(inner, torch.log(-torch.expm1(-2 * HALF_BIN * precision)), 0.0)
    return log_cdf + log_survival + log_rest


def clamped_logistic_mean(loc: Tensor, log_scale: Tensor) -> Tensor:
    """The mean of a logistic variable clamped to [0, 1]: the integral of 1 - F from 0 to 1.

    An approximation of the mean over levels, which is the midpoint rule for the same integral. That
    is s (log(1 + e^a) - log(1 + e^(a - 1/s))) with scale s and a = loc / s. If s is large the two
    are nearly equal, and it is taken as -s log(1 + F(a) (e^(-1/s) - 1)).
    """
    narrow, precision = log_scale.clamp(max=0).exp(), (-log_scale.clamp(min=0)).exp()
    difference = narrow * (softplus(loc / narrow) - softplus((loc - 1) / narrow))
    ratio = torch.log1p((loc * precision).sigmoid() * torch.expm1(-precision)) / precision
    return torch.where(log_scale < 0, difference, -ratio)


def nearest_level(x: Tensor) -> Tensor:
    """The level k / 255 nearest to x, clamped to [0, 1]."""
    return (x * (LEVELS - 1)).round().clamp(0, LEVELS - 1) / (LEVELS - 1)


class Categorical(Pixelwise):
    """The categorical likelihood of pixels k / 255, by 256 logits per pixel and channel.

    van den Oord et al. (2016), arXiv:1601.06759, section 3.3.
    """

    params = LEVELS
    pixels: ClassVar[dict[str, float | None]] = {"grey": 0.0}

    def forward(self, params: Tensor) -> Distribution:
        """p(x | z, y), batch [...], event [C, H, W], of logits [..., 256 C, H, W]."""
        logits = params.unflatten(-3, (-1, LEVELS)).movedim(-3, -1)
        return Independent(CategoricalLevels(logits), 3)


class CategoricalLevels(Distribution):
    """The categorical distribution over the 256 levels k / 255.

    Args:
        logits: The logits of the levels, [..., 256].
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, logits: Tensor) -> None:
        self.log_masses = logits.log_softmax(-1)
        super().__init__(logits.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-mass of the levels nearest to `value`, of any shape that broadcasts."""
        rows = (value * (LEVELS - 1)).round().long().unsqueeze(-1)
        shape = torch.broadcast_shapes(rows.shape[:-1], self.log_masses.shape[:-1])
        masses = self.log_masses.expand(*shape, LEVELS)
        return masses.gather(-1, rows.expand(*shape, 1)).squeeze(-1)

    @torch.no_grad()
    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Samples [*sample_shape, ...] of levels k / 255, without gradients."""
        count = math.prod(sample_shape)
        drawn = self.log_masses.exp().flatten(0, -2).multinomial(count, replacement=True)
        drawn = drawn.mT.reshape(*sample_shape, *self.log_masses.shape[:-1])
        return drawn.to(self.log_masses) / (LEVELS - 1)

    @property
    def mean(self) -> Tensor:
        """The mean [...] over the 256 levels, exact."""
        return self.log_masses.exp() @ torch.linspace(0, 1, LEVELS).to(self.log_masses)

    def expand(self, batch_shape: Any, _instance: object = None) -> "CategoricalLevels":
        """The distribution with its batch shape expanded, as `torch.distributions` defines it."""
        return CategoricalLevels(self.log_masses.expand(*batch_shape, LEVELS))
