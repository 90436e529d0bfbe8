"""`CouplingFlow`, the prior by a normalizing flow."""

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.distributions.flows import Pushforward, build_autoregressive_flow, standard_normal
from vaelab.distributions.precision import without_autocast


class CouplingFlow(nn.Module):
    """The prior by a normalizing flow of affine couplings: fast both ways, near N(0, I) at first.

    Real NVP (Dinh et al., 2017), arXiv:1605.08803, eq. 7 and 8, with the couplings of
    `vaelab.distributions.flows.build_autoregressive_flow`.

    For p(z | y) the label is an input of every step's network.

    Args:
        transforms: The number of steps.
        hidden: Widths of the hidden layers of each step's network.
    """

    zeros: Tensor

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        *,
        transforms: PositiveInt,
        hidden: list[PositiveInt],
    ) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)
        self.flow = build_autoregressive_flow(
            latent_dim, context_dim, transforms=transforms, hidden=hidden, passes=2
        )
        self.conditional = context_dim > 0

    def forward(self, y: Tensor) -> Distribution:
        """Returns p(z | y) of a context y [B, C]: batch [B], or [] where C = 0."""
        like = self.zeros.expand(len(y), -1) if self.conditional else self.zeros
        # The flow's one-pass direction is from z to noise, which densities, so training, need.
        with without_autocast(y):
            to_noise = self.flow(y if self.conditional else None)
        return Pushforward(to_noise.inv, standard_normal(like))
