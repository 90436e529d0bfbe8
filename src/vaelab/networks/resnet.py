"""A residual encoder and decoder, for photographs.

Pre-activation blocks of He et al. (2016), arXiv:1603.05027, with group normalisation of Wu & He
(2018), arXiv:1803.08494, in groups of 16 channels. Not batch normalisation: it makes an image's
bound depend on the other images of its batch, and differ between training and evaluation.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from vaelab.networks.layers import (
    Modulation,
    Shape,
    Widths,
    build_dense_layers,
    check_image_shape,
    concatenate,
    halved_sizes_up,
)

CHANNELS_PER_GROUP = 16


class PreActivation(nn.Module):
    """A layer after group normalisation, modulation by y and a SiLU of its input.

    One group of all channels if 16 does not divide their number.
    """

    def __init__(self, layer: nn.Module, channels: int, context_dim: int) -> None:
        super().__init__()
        groups = 1 if channels % CHANNELS_PER_GROUP else channels // CHANNELS_PER_GROUP
        self.normalize = nn.GroupNorm(groups, channels)
        self.modulate = Modulation(context_dim, channels)
        self.layer = layer

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """Returns layer(silu(modulated(normalised h))) of h [B, C, H, W] and y [B, Y]."""
        return self.layer(silu(self.modulate(self.normalize(h), y)))


class ResidualBlock(nn.Module):
    """The residual block h + f(h), with f two pre-activated convolutions of 3 x 3."""

    def __init__(self, channels: int, context_dim: int) -> None:
        super().__init__()
        self.first, self.second = (
            PreActivation(nn.Conv2d(channels, channels, 3, padding=1), channels, context_dim)
            for _ in range(2)
        )

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """Returns h + f(h) [B, C, H, W], both convolutions modulated by y [B, Y]."""
        return h + self.second(self.first(h, y), y)


class Upsampling(nn.Conv2d):
    """A 1 x 1 convolution to other channels, then nearest-pixel upsampling to `size`."""

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__(in_channels, out_channels, 1)
        self.size = size

    def forward(self, h: Tensor) -> Tensor:
        """Returns h [B, C, H, W] as [B, C', *size]."""
        return interpolate(super().forward(h), self.size)


class ResNetEncoder(nn.Module):
    """An encoder of residual blocks; between sizes, convolutions halve the image, rounding up.

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
        check_image_shape("resnet", x_shape)
        self.first = nn.Conv2d(x_shape[0], channels[0], 3, padding=1)
        between = [nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(channels)]
        self.layers = build_residual_layers(channels, between, blocks, context_dim)
        self.last = PreActivation(nn.Flatten(), channels[-1], context_dim)
        small = (channels[-1], *halved_sizes_up(x_shape, len(channels) - 1)[-1])
        self.dense = build_dense_layers(math.prod(small), [features], context_dim)
        self.features = features

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns features [B, F] of images x [B, C, H, W] and a context y [B, Y]."""
        h = self.first(x)
        for layer in self.layers:
            h = layer(h, y)
        return self.dense(concatenate(self.last(h, y), y), y)


class ResNetDecoder(nn.Module):
    """The decoder that mirrors `ResNetEncoder`, with the same arguments."""

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
        check_image_shape("resnet", out_shape)
        widths = channels[::-1]
        sizes = halved_sizes_up(out_shape, len(channels) - 1)[::-1]
        self.small = (widths[0], *sizes[0])
        self.dense = build_dense_layers(latent_dim, [features], context_dim)
        self.first = nn.Linear(features, math.prod(self.small))
        steps = zip(pairwise(widths), sizes[1:], strict=True)
        between = [Upsampling(a, b, size) for (a, b), size in steps]
        self.layers = build_residual_layers(widths, between, blocks, context_dim)
        out = nn.Conv2d(widths[-1], out_shape[0], 3, padding=1)
        self.last = PreActivation(out, widths[-1], context_dim)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns likelihood parameters [B, P, H, W] of latents z [B, D] and y [B, Y]."""
        h = self.first(self.dense(concatenate(z, y), y)).unflatten(-1, self.small)
        for layer in self.layers:
            h = layer(h, y)
        return self.last(h, y)


def build_residual_layers(
    widths: Sequence[int], between: Sequence[nn.Module], blocks: int, context_dim: int
) -> nn.ModuleList:
    """Returns new residual blocks, `blocks` per width, with a layer of `between` between widths.

    The layers between are wrapped in `PreActivation`.
    """
    layers: list[nn.Module] = []
    for i, width in enumerate(widths):
        if i:
            layers.append(PreActivation(between[i - 1], widths[i - 1], context_dim))
        layers += [ResidualBlock(width, context_dim) for _ in range(blocks)]
    return nn.ModuleList(layers)
