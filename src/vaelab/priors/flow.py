import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.distributions.flows import Pushforward, autoregressive, standard_normal
from vaelab.distributions.precision import undiminished


class CouplingFlow(nn.Module):
    """A normalizing flow of affine couplings, fast both ways, close to N(0, I) at the start.

    Real NVP (Dinh et al., 2017), arXiv:1605.08803, eq. 7 and 8, with the couplings of
    `vaelab.distributions.flows.autoregressive`.

    For p(z | y) the label is an input of every step's network.

    Args:
        transforms: Steps.
        hidden: Widths of each step's network.
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
        self.flow = autoregressive(
            latent_dim, context_dim, transforms=transforms, hidden=hidden, passes=2
        )
        self.conditional = context_dim > 0

    def forward(self, y: Tensor) -> Distribution:
        like = self.zeros.expand(len(y), -1) if self.conditional else self.zeros
        # Its one pass is from z to the noise: the way of densities, which training takes.
        with undiminished(y):
            to_noise = self.flow(y if self.conditional else None)
        return Pushforward(to_noise.inv, standard_normal(like))
