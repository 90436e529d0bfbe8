"""`Mixture`, of components that all labels share, and the prior `GaussianMixture`.

Shapes: M components, B labels, D latents.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal, constraints

from vaelab.distributions.pairwise import log_densities
from vaelab.distributions.precision import without_autocast
from vaelab.metrics.chunking import entries_per_chunk

SPREAD = 0.5
"""Standard deviation of the components' means at the start, in each latent."""


class Mixture(Distribution):
    """The mixture sum_m w_m p_m(z) of components that all labels share.

    Args:
        log_weights: log w_m, [M] or, of each label, [B, M]; normalised.
        components: p_m, batch [M] and event [D].
        select: From indices [n] of components to those components, batch [n].
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector

    def __init__(
        self,
        log_weights: Tensor,
        components: Distribution,
        select: Callable[[Tensor], Distribution],
    ) -> None:
        self.log_weights, self.components, self.select = log_weights, components, select
        super().__init__(log_weights.shape[:-1], components.event_shape)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Mixture":
        """Returns the mixture with its weights expanded to `batch_shape`; components are shared."""
        log_weights = self.log_weights.expand(*batch_shape, -1)
        return Mixture(log_weights, self.components, self.select)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-density [...] at z [..., D], in chunks of rows to bound memory."""
        inner = torch.broadcast_shapes(value.shape[1:-1], self.batch_shape)
        each = math.prod(inner) * self.log_weights.shape[-1]
        rows = max(1, entries_per_chunk(value.device) // each)
        if value.dim() > 1 + len(self.batch_shape) and len(value) > rows:
            return torch.cat([self.log_prob(some) for some in value.split(rows)])
        weighted = log_densities(self.components, value) + self.log_weights
        return weighted.logsumexp(-1).to(value)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws z [*sample_shape, ..., D], without gradients."""
        which = Categorical(logits=self.log_weights).sample(torch.Size(sample_shape))
        return self.select(which.flatten()).sample().view(*which.shape, -1)

    @property
    def mean(self) -> Tensor:
        """The mean [..., D] of the mixture."""
        return self.weighted_mean(self.components.mean)

    @property
    def variance(self) -> Tensor:
        """The variance [..., D] of the mixture: within components and between their means."""
        between = self.weighted_mean(self.components.mean.square()) - self.mean.square()
        return self.weighted_mean(self.components.variance) + between.clamp(min=0)

    def weighted_mean(self, values: Tensor) -> Tensor:
        """Returns the means [..., D] of values [M, D], weighted by the mixture's weights."""
        with without_autocast(values):
            return self.log_weights.exp() @ values


class GaussianMixture(nn.Module):
    """The prior by M diagonal Gaussians with learned weights, means and scales.

    p(z | y) = sum_m w_m(y) N(z; mu_m, diag(sigma_m^2)): each label has its own learned weights, and
    all share the components. At the start the weights are equal, the means are spread, and in each
    latent the mixture has the mean 0 and the variance 1; with one component it is N(0, I).

    Args:
        components: M.
    """

    def __init__(self, latent_dim: int, context_dim: int, *, components: PositiveInt) -> None:
        super().__init__()
        means = torch.randn(components, latent_dim)
        means = means - means.mean(0)
        spread = SPREAD if components > 1 else 0.0
        means = means * (spread / means.square().mean(0).sqrt().clamp(min=1e-6))
        self.means = nn.Parameter(means)
        self.log_scales = nn.Parameter(torch.full_like(means, 0.5 * math.log(1 - spread**2)))
        self.logits = nn.Parameter(torch.zeros(max(1, context_dim), components))
        self.conditional = context_dim > 0

    def forward(self, y: Tensor) -> Distribution:
        """Returns p(z | y) of a context y [B, C]: batch [B], or [] where C = 0."""
        with without_autocast(y):
            logits = y @ self.logits if self.conditional else self.logits[0]
        scales = self.log_scales.exp()

        def select(which: Tensor) -> Distribution:
            """Returns the components of given indices; `Mixture` calls it to draw from them."""
            return Independent(Normal(self.means[which], scales[which]), 1)

        components = Independent(Normal(self.means, scales), 1)
        return Mixture(logits.log_softmax(-1), components, select)
