"""The convolutional networks of papers on disentanglement, with ReLU, meant for 64 x 64 pixels.

Burgess et al. (2018), arXiv:1804.03599: four convolutions of 32 channels, 4 x 4 with
stride 2, and two dense layers of 256; the decoder is the transpose. Locatello et al. (2019),
arXiv:1811.12359, have 32, 32, 64, 64 channels, kernels 4, 4, 2, 2 in the encoder and
4, 4, 4, 4 in the decoder, and one dense layer of 256. Initial weights are those of their
code (disentanglement_lib): Glorot's uniform ones, and biases of zero.

A side is halved rounding up (padding `same`), so images of any size will do.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from vaelab.errors import UserError
from vaelab.networks.layers import (
    ModulatedLayers,
    Shape,
    Widths,
    build_dense_layers,
    check_image_shape,
    concatenate,
    halved_sizes_up,
)

Kernels = Annotated[list[Annotated[int, Field(ge=2, multiple_of=2)]], Field(min_length=1)]


class Halving(nn.Conv2d):
    """A convolution with stride 2 that halves each side, rounding up: from 2n or 2n - 1 to n."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, 2, kernel // 2 - 1)

    def forward(self, h: Tensor) -> Tensor:
        """Returns h halved, [B, C', H', W']; pads odd sides with one zero first."""
        *_, height, width = h.shape
        if height % 2 or width % 2:
            h = pad(h, (0, width % 2, 0, height % 2))
        return super().forward(h)


class Doubling(nn.ConvTranspose2d):
    """The transpose of `Halving`: from a side of n pixels to the 2n or 2n - 1 of `size`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, size: tuple[int, int]
    ) -> None:
        super().__init__(in_channels, out_channels, kernel, 2, kernel // 2 - 1)
        self.size = size

    def forward(self, h: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Returns h doubled and cropped to `size`, [B, C', H', W']."""
        height, width = self.size
        return super().forward(h, output_size)[..., :height, :width]


class BurgessEncoder(nn.Module):
    """An encoder of convolutions that halve the image, rounding up, and dense layers.

    Args:
        channels: Channels after each halving.
        kernels: Even kernel side of each convolution.
        hidden: Widths of the dense layers; the last is F.

    Raises:
        UserError: If there are not as many kernels as channels.
    """

    def __init__(
        self,
        x_shape: Shape,
        context_dim: int,
        *,
        channels: Widths,
        kernels: Kernels,
        hidden: Widths,
    ) -> None:
        super().__init__()
        check_image_shape("burgess", x_shape)
        check_kernels("encoder", channels, kernels)
        widths = pairwise([x_shape[0], *channels])
        small = (channels[-1], *halved_sizes_up(x_shape, len(channels))[-1])
        layers = [Halving(a, b, kernel) for (a, b), kernel in zip(widths, kernels, strict=True)]
        self.convolutions = ModulatedLayers(layers, channels, context_dim, relu)
        self.dense = build_dense_layers(math.prod(small), hidden, context_dim, relu)
        self.features = hidden[-1]
        self.apply(init_glorot_uniform)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns features [B, F] of images x [B, C, H, W] and a context y [B, Y]."""
        h = self.convolutions(x, y)
        return self.dense(concatenate(h.flatten(1), y), y)


class BurgessDecoder(nn.Module):
    """The decoder that mirrors `BurgessEncoder`, with the same arguments.

    Args:
        channels: Channels before each doubling, from the last to the first.
        kernels: Even kernel side of each convolution, from the last to the first.
        hidden: Widths of the dense layers, from the last to the first.

    Raises:
        UserError: If there are not as many kernels as channels.
    """

    def __init__(
        self,
        latent_dim: int,
        context_dim: int,
        out_shape: Shape,
        *,
        channels: Widths,
        kernels: Kernels,
        hidden: Widths,
    ) -> None:
        super().__init__()
        check_image_shape("burgess", out_shape)
        check_kernels("decoder", channels, kernels)
        widths = [*reversed(channels), out_shape[0]]
        sizes = halved_sizes_up(out_shape, len(channels))[::-1]
        self.small = (widths[0], *sizes[0])
        decoder_widths = [*reversed(hidden), math.prod(self.small)]
        self.dense = build_dense_layers(latent_dim, decoder_widths, context_dim, relu)
        *layers, self.out = (
            Doubling(a, b, kernel, size)
            for (a, b), kernel, size in zip(
                pairwise(widths), reversed(kernels), sizes[1:], strict=True
            )
        )
        self.convolutions = ModulatedLayers(layers, widths[1:-1], context_dim, relu)
        self.apply(init_glorot_uniform)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns likelihood parameters [B, P, H, W] of latents z [B, D] and y [B, Y]."""
        h = self.dense(concatenate(z, y), y).unflatten(-1, self.small)
        return self.out(self.convolutions(h, y))


def init_glorot_uniform(layer: nn.Module) -> None:
    """Sets Glorot uniform weights and zero biases, in place; skips all but dense and conv layers.

    Called by `nn.Module.apply` for each submodule. The variance is 2 / (fan_in + fan_out).
    """
    if isinstance(layer, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.xavier_uniform_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)


def check_kernels(part: str, channels: Sequence[int], kernels: Sequence[int]) -> None:
    """Raises UserError unless there are as many kernels as channels."""
    if len(kernels) != len(channels):
        raise UserError(
            f"model.{part}.kernels has {len(kernels)} sides and model.{part}.channels "
            f"{len(channels)} halvings; give one for each"
        )
