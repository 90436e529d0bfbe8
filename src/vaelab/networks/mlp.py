"""Dense layers over all pixels."""

import math

from torch import Tensor, nn

from vaelab.networks.layers import Shape, Widths, concatenate, dense


class MLPEncoder(nn.Module):
    """Dense layers over all pixels and the label.

    Args:
        hidden: Widths of the layers; the last is F.
    """

    def __init__(self, x_shape: Shape, context_dim: int, *, hidden: Widths) -> None:
        super().__init__()
        self.layers = dense(math.prod(x_shape), hidden, context_dim)
        self.features = hidden[-1]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.layers(concatenate(x.flatten(1), y), y)


class MLPDecoder(nn.Module):
    """Dense layers from the latents and the label to all pixels.

    Args:
        hidden: Widths of the layers between.
    """

    def __init__(
        self, latent_dim: int, context_dim: int, out_shape: Shape, *, hidden: Widths
    ) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.layers = dense(latent_dim, hidden, context_dim)
        self.out = nn.Linear(hidden[-1], math.prod(out_shape))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.out(self.layers(concatenate(z, y), y)).unflatten(-1, self.out_shape)
