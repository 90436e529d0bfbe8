"""An encoder and decoder of dense layers over all pixels."""

import math

from torch import Tensor, nn

from vaelab.networks.layers import (
    ACTIVATIONS,
    Activation,
    Shape,
    Widths,
    build_dense_layers,
    concatenate,
)


class MLPEncoder(nn.Module):
    """An encoder of dense layers over all pixels and the label.

    Args:
        hidden: Widths of the layers; the last is F.
        activation: What follows each of them.
    """

    def __init__(
        self,
        x_shape: Shape,
        context_dim: int,
        *,
        hidden: Widths,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        pixels, follows = math.prod(x_shape), ACTIVATIONS[activation]
        self.layers = build_dense_layers(pixels, hidden, context_dim, follows)
        self.features = hidden[-1]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns features [B, F] of images x [B, C, H, W] and a context y [B, Y]."""
        return self.layers(concatenate(x.flatten(1), y), y)


class MLPDecoder(nn.Module):
    """A decoder of dense layers from the latents and the label to all pixels.

    Args:
        hidden: Widths of the hidden layers.
        activation: What follows each of them.
    """

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        out_shape: Shape,
        *,
        hidden: Widths,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.layers = build_dense_layers(latent_dim, hidden, context_dim, ACTIVATIONS[activation])
        self.out = nn.Linear(hidden[-1], math.prod(out_shape))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns likelihood parameters [B, P, H, W] of latents z [B, D] and y [B, Y]."""
        return self.out(self.layers(concatenate(z, y), y)).unflatten(-1, self.out_shape)
