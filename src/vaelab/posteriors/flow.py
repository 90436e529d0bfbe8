"""Posteriors by flows: z = m + s f(e; c), e ~ N(0, I), with m, log s and c linear in the features.

Shapes: B images, F features, D latents, C width of the context.
"""

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.distributions.flows import (
    Pushforward,
    build_autoregressive_flow,
    followed_by_affine,
    standard_normal,
)
from vaelab.distributions.precision import full_precision, without_autocast


class FlowPosterior(nn.Module):
    """A posterior z = m + s f(e; c) by a flow f; it starts close to `Gaussian`.

    If f is the identity, it is `Gaussian`.

    Args:
        features: F.
        latent_dim: D.
        context: C, the width of the context c.
        flow: The module from context [B, C] to f.
    """

    def __init__(self, features: int, latent_dim: int, context: int, flow: nn.Module) -> None:
        super().__init__()
        self.sizes = [latent_dim, latent_dim, context]
        self.params = nn.Linear(features, sum(self.sizes))
        self.flow = flow

    def forward(self, h: Tensor) -> Distribution:
        """Returns q(z | x, y), batch [B] and event [D], of features h [B, F]."""
        mean, log_scale, context = full_precision(self.params(h)).split(self.sizes, dim=-1)
        with without_autocast(mean):
            f = self.flow(context)
        return Pushforward(followed_by_affine(f, mean, log_scale.exp()), standard_normal(mean))


class InverseAutoregressiveFlow(FlowPosterior):
    """The posterior by inverse autoregressive flow (Kingma et al., 2016): fast to draw from.

    arXiv:1606.04934, eq. 10 and 11. A draw with its density takes one pass. The density of any
    other z, as in `evaluate=latents` or `prior=vamp`, takes D. The encoder's own mean and scale are
    applied last here, and first in the paper's algorithm 1.

    Args:
        transforms: The number of steps.
        hidden: Widths of the hidden layers of each step's network.
        context: C, the width of each network's input from the features.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        transforms: PositiveInt,
        hidden: list[PositiveInt],
        context: PositiveInt,
    ) -> None:
        flow = build_autoregressive_flow(latent_dim, context, transforms=transforms, hidden=hidden)
        super().__init__(features, latent_dim, context, flow)


class SplineFlow(FlowPosterior):
    """The posterior by neural spline flow with couplings (Durkan et al., 2019), fast both ways.

    arXiv:1906.04032. Drawing, and the density of any z, take two passes a step at most.

    Args:
        transforms: The number of steps.
        hidden: Widths of the hidden layers of each step's network.
        context: C, the width of each network's input from the features.
        bins: Pieces of each spline, which is on [-5, 5] standard deviations.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        *,
        transforms: PositiveInt,
        hidden: list[PositiveInt],
        context: PositiveInt,
        bins: Annotated[int, Field(ge=2)],
    ) -> None:
        flow = build_autoregressive_flow(
            latent_dim, context, transforms=transforms, hidden=hidden, passes=2, bins=bins
        )
        super().__init__(features, latent_dim, context, flow)
