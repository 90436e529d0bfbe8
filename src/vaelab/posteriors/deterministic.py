"""`Deterministic`, the posterior of an auto-encoder without noise, and its distribution `Point`."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints, register_kl

from vaelab.distributions.precision import full_precision
from vaelab.errors import NotApplicable


class Point(Distribution):
    """All probability mass on one point [..., D], without a density.

    Its KL to a distribution that has a density is infinite: as a posterior it has an infinite rate,
    and the ELBO, a true bound of any log evidence, is -infinity.

    Args:
        point: [..., D].
    """

    arg_constraints: ClassVar = {"point": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, point: Tensor) -> None:
        self.point = point
        super().__init__(point.shape[:-1], point.shape[-1:])

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Point":
        """Returns the point expanded to `batch_shape`."""
        return Point(self.point.expand(*batch_shape, -1))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Returns the point expanded to [*sample_shape, ..., D], with gradients; draws nothing."""
        return self.point.expand(*sample_shape, *self.point.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Always raises NotApplicable: a point has no density."""
        raise NotApplicable("posterior=deterministic has no density q(z|x), which this needs")

    @property
    def mean(self) -> Tensor:
        """The point itself, [..., D]."""
        return self.point

    @property
    def variance(self) -> Tensor:
        """Zeros [..., D]."""
        return torch.zeros_like(self.point)


@register_kl(Point, Distribution)
def kl_point(q: Point, prior: Distribution) -> Tensor:
    """Returns infinity, shape [B], the KL of a point to any prior; called by `kl_divergence`."""
    return q.point.new_full(q.batch_shape, torch.inf)


class Deterministic(nn.Module):
    """The posterior of an auto-encoder: a code linear in the features, without noise."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.params = nn.Linear(features, latent_dim)

    def forward(self, h: Tensor) -> Distribution:
        """Returns the `Point`, batch [B] and event [D], of features h [B, F]."""
        return Point(full_precision(self.params(h)))
