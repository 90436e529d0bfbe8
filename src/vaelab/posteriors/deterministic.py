from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints, register_kl

from vaelab.distributions.precision import full_precision
from vaelab.errors import NotApplicable


class Point(Distribution):
    """All mass on one point [..., D].

    It has no density, and its KL to a distribution that has one is infinite: as a posterior it
    has an infinite rate, and the ELBO, a true bound of any log evidence, is -infinity.

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
        return Point(self.point.expand(*batch_shape, -1))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.point.expand(*sample_shape, *self.point.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise NotApplicable("posterior=deterministic has no density q(z|x), which this needs")

    @property
    def mean(self) -> Tensor:
        return self.point

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.point)


@register_kl(Point, Distribution)
def kl_point(q: Point, prior: Distribution) -> Tensor:
    return q.point.new_full(q.batch_shape, torch.inf)


class Deterministic(nn.Module):
    """A code that is linear in the features, without noise."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.params = nn.Linear(features, latent_dim)

    def forward(self, h: Tensor) -> Distribution:
        return Point(full_precision(self.params(h)))
