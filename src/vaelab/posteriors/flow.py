"""Posteriors z = m + s f(e; c), e ~ N(0, I), with m, log s and c linear in the features.

Shapes: B images, F features, D latents, C width of the context.
"""

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.distributions.flows import Pushforward, autoregressive, followed, standard_normal
from vaelab.distributions.precision import full_precision, undiminished


class FlowPosterior(nn.Module):
    """With f the identity it is `Gaussian`, and close to that it starts.

    Args:
        features: F.
        latent_dim: D.
        context: C.
        flow: From context [B, C] to f.
    """

    def __init__(self, features: int, latent_dim: int, context: int, flow: nn.Module) -> None:
        super().__init__()
        self.sizes = [latent_dim, latent_dim, context]
        self.params = nn.Linear(features, sum(self.sizes))
        self.flow = flow

    def forward(self, h: Tensor) -> Distribution:
        mean, log_scale, context = full_precision(self.params(h)).split(self.sizes, dim=-1)
        with undiminished(mean):
            f = self.flow(context)
        return Pushforward(followed(f, mean, log_scale.exp()), standard_normal(mean))


class InverseAutoregressiveFlow(FlowPosterior):
    """Inverse autoregressive flow (Kingma et al., 2016), arXiv:1606.04934, eq. 10 and 11.

    Sampling with the density takes one pass. That of another z, as in `evaluate=latents` or
    `prior=vamp`, takes D. The encoder's own mean and scale come last here, and first in
    the paper's algorithm 1.

    Args:
        transforms: Steps.
        hidden: Widths of each step's network.
        context: Width of what the networks hear of the features.
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
        flow = autoregressive(latent_dim, context, transforms=transforms, hidden=hidden)
        super().__init__(features, latent_dim, context, flow)


class SplineFlow(FlowPosterior):
    """Neural spline flow of couplings (Durkan et al., 2019), arXiv:1906.04032, fast both ways.

    Args:
        transforms: Steps.
        hidden: Widths of each step's network.
        context: Width of what the networks hear of the features.
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
        flow = autoregressive(
            latent_dim, context, transforms=transforms, hidden=hidden, passes=2, bins=bins
        )
        super().__init__(features, latent_dim, context, flow)
