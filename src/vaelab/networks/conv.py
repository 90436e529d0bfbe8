"""Convolutions that halve the image each time."""

import math
from itertools import pairwise

from pydantic import PositiveInt
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.networks.layers import Layers, Shape, Widths, concatenate, dense


class ConvEncoder(nn.Module):
    """Convolutions that halve the image, rounding down, and a dense layer.

    Args:
        channels: Channels after each halving.
        features: F, the width of the dense layer.
    """

    def __init__(
        self,
        x_shape: Shape,
        context_dim: int,
        *,
        channels: Widths,
        features: PositiveInt,
    ) -> None:
        super().__init__()
        widths = [x_shape[0], *channels]
        sizes = halvings(x_shape, len(channels))
        self.convolutions = Layers(
            [nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths)], channels, context_dim
        )
        self.dense = dense(channels[-1] * math.prod(sizes[-1]), [features], context_dim)
        self.features = features

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.convolutions(x, y)
        return self.dense(concatenate(h.flatten(1), y), y)


class ConvDecoder(nn.Module):
    """The mirror image of `ConvEncoder`, with the same arguments."""

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        out_shape: Shape,
        *,
        channels: Widths,
        features: PositiveInt,
    ) -> None:
        super().__init__()
        widths = [*reversed(channels), out_shape[0]]
        sizes = halvings(out_shape, len(channels))[::-1]
        self.small = (widths[0], *sizes[0])
        self.dense = dense(latent_dim, [features, math.prod(self.small)], context_dim)
        # A halved side of 2n or 2n + 1 pixels is n; the difference is put back on the way up.
        *hidden, out = (
            nn.ConvTranspose2d(a, b, 4, 2, 1, output_padding=(big[0] % 2, big[1] % 2))
            for (a, b), big in zip(pairwise(widths), sizes[1:], strict=True)
        )
        self.convolutions = Layers(hidden, widths[1:-1], context_dim)
        self.out = out

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = self.dense(concatenate(z, y), y).unflatten(-1, self.small)
        return self.out(self.convolutions(h, y))


def halvings(shape: Shape, times: int) -> list[tuple[int, int]]:
    """(H, W) before and after each halving, `times` + 1 of them."""
    _, height, width = shape
    if min(height, width) >> times == 0:
        raise UserError(
            f"images of {height} x {width} pixels are too small for {times} halvings; "
            "use fewer model.encoder.channels and model.decoder.channels, or network=mlp"
        )
    return [(height >> i, width >> i) for i in range(times + 1)]
