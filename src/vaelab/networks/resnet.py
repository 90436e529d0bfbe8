"""Residual blocks at ever smaller sizes, for photographs.

Pre-activation blocks of He et al. (2016), arXiv:1603.05027, with group normalisation of Wu & He
(2018), arXiv:1803.08494, in groups of 16 channels. Not batch normalisation: it makes an image's
bound depend on the other images of its batch, and another in training than in evaluation.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from vaelab.networks.layers import Modulation, Shape, Widths, concatenate, dense, halves

GROUP = 16  # channels


class PreActivated(nn.Module):
    """A layer of what is normalised, modulated by y and passed through a SiLU before."""

    def __init__(self, layer: nn.Module, channels: int, context_dim: int) -> None:
        super().__init__()
        groups = 1 if channels % GROUP else channels // GROUP
        self.normalize = nn.GroupNorm(groups, channels)
        self.modulate = Modulation(context_dim, channels)
        self.layer = layer

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        return self.layer(silu(self.modulate(self.normalize(h), y)))


class Block(nn.Module):
    """h plus two convolutions of it."""

    def __init__(self, channels: int, context_dim: int) -> None:
        super().__init__()
        self.first, self.second = (
            PreActivated(nn.Conv2d(channels, channels, 3, padding=1), channels, context_dim)
            for _ in range(2)
        )

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        return h + self.second(self.first(h, y), y)


class Enlarging(nn.Conv2d):
    """Other channels for each pixel, and each pixel repeated up to `size`."""

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.size = size

    def forward(self, h: Tensor) -> Tensor:
        return interpolate(super().forward(h), self.size)


class ResNetEncoder(nn.Module):
    """Residual blocks, with a convolution that halves the image, rounding up, between sizes.

    Args:
        channels: Channels at each size, the whole image first.
        blocks: Residual blocks at each size.
        features: F, the width of a dense layer at the end.
    """

    def __init__(
        self,
        x_shape: Shape,
        context_dim: int,
        *,
        channels: Widths,
        blocks: PositiveInt,
        features: PositiveInt,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(x_shape[0], channels[0], 3, padding=1)
        between = [nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(channels)]
        self.layers = residual(channels, between, blocks, context_dim)
        self.last = PreActivated(nn.Flatten(), channels[-1], context_dim)
        small = (channels[-1], *halves(x_shape, len(channels) - 1)[-1])
        self.dense = dense(math.prod(small), [features], context_dim)
        self.features = features

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = self.first(x)
        for layer in self.layers:
            h = layer(h, y)
        return self.dense(concatenate(self.last(h, y), y), y)


class ResNetDecoder(nn.Module):
    """The mirror image of `ResNetEncoder`, with the same arguments."""

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        out_shape: Shape,
        *,
        channels: Widths,
        blocks: PositiveInt,
        features: PositiveInt,
    ) -> None:
        super().__init__()
        widths = channels[::-1]
        sizes = halves(out_shape, len(channels) - 1)[::-1]
        self.small = (widths[0], *sizes[0])
        self.dense = dense(latent_dim, [features], context_dim)
        self.first = nn.Linear(features, math.prod(self.small))
        steps = zip(pairwise(widths), sizes[1:], strict=True)
        between = [Enlarging(a, b, size) for (a, b), size in steps]
        self.layers = residual(widths, between, blocks, context_dim)
        out = nn.Conv2d(widths[-1], out_shape[0], 3, padding=1)
        self.last = PreActivated(out, widths[-1], context_dim)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = self.first(self.dense(concatenate(z, y), y)).unflatten(-1, self.small)
        for layer in self.layers:
            h = layer(h, y)
        return self.last(h, y)


def residual(
    widths: Sequence[int], between: Sequence[nn.Module], blocks: int, context_dim: int
) -> nn.ModuleList:
    """Blocks of each width, and what leads from one to the next."""
    layers: list[nn.Module] = []
    for i, width in enumerate(widths):
        if i:
            layers.append(PreActivated(between[i - 1], widths[i - 1], context_dim))
        layers += [Block(width, context_dim) for _ in range(blocks)]
    return nn.ModuleList(layers)
