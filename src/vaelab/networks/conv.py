"""A convolutional encoder and decoder that halve an image, or a signal, rounding down."""

import math
from itertools import pairwise

from pydantic import PositiveInt
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.networks.layers import ModulatedLayers, Shape, Widths, build_dense_layers, concatenate
from vaelab.observations import kind_text, x_text


class ConvEncoder(nn.Module):
    """An encoder of convolutions that halve the image or signal, rounding down, and a dense layer.

    Args:
        channels: Channels after each halving.
        features: F, the width of the dense layer.

    Raises:
        UserError: If x are vectors, or too small for so many halvings.
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
        sizes = halved_sizes_down(x_shape, len(channels))
        layer: type[nn.Module] = nn.Conv2d if len(x_shape) == 3 else nn.Conv1d
        self.convolutions = ModulatedLayers(
            [layer(a, b, 4, 2, 1) for a, b in pairwise(widths)], channels, context_dim
        )
        self.dense = build_dense_layers(
            channels[-1] * math.prod(sizes[-1]), [features], context_dim
        )
        self.features = features

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns features [B, F] of images x [B, C, H, W] and a context y [B, Y]."""
        h = self.convolutions(x, y)
        return self.dense(concatenate(h.flatten(1), y), y)


class ConvDecoder(nn.Module):
    """The decoder that mirrors `ConvEncoder`, with the same arguments and errors."""

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
        sizes = halved_sizes_down(out_shape, len(channels))[::-1]
        self.small = (widths[0], *sizes[0])
        self.dense = build_dense_layers(latent_dim, [features, math.prod(self.small)], context_dim)
        layer: type[nn.Module] = nn.ConvTranspose2d if len(out_shape) == 3 else nn.ConvTranspose1d
        # A side of 2n or 2n + 1 pixels is halved to n; output_padding restores the odd pixel.
        *hidden, out = (
            layer(a, b, 4, 2, 1, output_padding=tuple(side % 2 for side in big))
            for (a, b), big in zip(pairwise(widths), sizes[1:], strict=True)
        )
        self.convolutions = ModulatedLayers(hidden, widths[1:-1], context_dim)
        self.out = out

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns likelihood parameters [B, P, H, W] of latents z [B, D] and y [B, Y]."""
        h = self.dense(concatenate(z, y), y).unflatten(-1, self.small)
        return self.out(self.convolutions(h, y))


def halved_sizes_down(shape: Shape, times: int) -> list[tuple[int, ...]]:
    """Returns `times` + 1 sizes, (H, W) or (L,), each half of the last, rounded down; may raise.

    Raises:
        UserError: If a side would be zero, or x are vectors.
    """
    _, *sides = shape
    if not sides:
        raise UserError(
            f"network=conv takes images and signals, and not {x_text(shape)}; use network=mlp"
        )
    if min(sides) >> times == 0:
        size = " x ".join(map(str, sides)) + (" pixels" if len(sides) == 2 else " steps")
        raise UserError(
            f"{kind_text(shape)} of {size} are too small for {times} halvings; "
            "use fewer model.encoder.channels and model.decoder.channels, or network=mlp"
        )
    return [tuple(side >> i for side in sides) for i in range(times + 1)]
