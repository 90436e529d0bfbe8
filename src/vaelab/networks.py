"""Encoders (x, y) -> features [B, F] and decoders (z, y) -> likelihood parameters [B, P, H, W].

y has width zero when the model is unconditional. Where it has a width it modulates every hidden
layer, so that a label can change what a layer does and not only where its inputs lie.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vaelab.errors import UserError

Shape = Sequence[int]  # (C, H, W)
Widths = Annotated[list[PositiveInt], Field(min_length=1)]


class Modulation(nn.Module):
    """h * (1 + scale(y)) + shift(y) for each feature or channel (FiLM, Perez et al., 2018).

    arXiv:1709.07871, eq. 2. It is the identity at the start, and always when y has no width.
    """

    def __init__(self, context_dim: int, features: int) -> None:
        super().__init__()
        table = torch.zeros(context_dim, 2 * features)
        self.table = nn.Parameter(table) if context_dim else None

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        if self.table is None:
            return h
        scale, shift = (y @ self.table).chunk(2, dim=-1)
        trailing = (...,) + (None,) * (h.dim() - 2)
        return torch.addcmul(h + shift[trailing], h, scale[trailing])


class Layers(nn.Module):
    """Layers in sequence, each modulated by y and followed by a SiLU."""

    def __init__(
        self, layers: Sequence[nn.Module], widths: Sequence[int], context_dim: int
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.modulations = nn.ModuleList(Modulation(context_dim, width) for width in widths)

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        for layer, modulate in zip(self.layers, self.modulations, strict=True):
            h = nn.functional.silu(modulate(layer(h), y))
        return h


def mlp(in_features: int, hidden: Sequence[int], context_dim: int) -> Layers:
    """Dense layers of the widths in `hidden`."""
    sizes = [in_features + context_dim, *hidden]
    return Layers([nn.Linear(a, b) for a, b in pairwise(sizes)], hidden, context_dim)


class MLPEncoder(nn.Module):
    """Dense layers over all pixels and the label.

    Args:
        hidden: Widths of the layers; the last is F.
    """

    def __init__(self, x_shape: Shape, context_dim: int, *, hidden: Widths) -> None:
        super().__init__()
        self.layers = mlp(math.prod(x_shape), hidden, context_dim)
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
        self.layers = mlp(latent_dim, hidden, context_dim)
        self.out = nn.Linear(hidden[-1], math.prod(out_shape))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.out(self.layers(concatenate(z, y), y)).unflatten(-1, self.out_shape)


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
        self.dense = mlp(channels[-1] * math.prod(sizes[-1]), [features], context_dim)
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
        self.dense = mlp(latent_dim, [features, math.prod(self.small)], context_dim)
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


def concatenate(h: Tensor, y: Tensor) -> Tensor:
    """[B, F] and [B, Y] side by side; without a copy where there is no label."""
    return torch.cat([h, y], dim=-1) if y.shape[-1] else h
