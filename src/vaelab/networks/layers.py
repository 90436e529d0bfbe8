"""Building blocks of the networks: modulation by labels, dense layers and image sizes."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.observations import x_text

Shape = Sequence[int]  # (C, H, W), of signals (C, L), of vectors (C,)
Widths = Annotated[list[PositiveInt], Field(min_length=1)]
Activation = Literal["silu", "relu", "tanh"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "relu": torch.relu,
    "tanh": torch.tanh,
}


class Modulation(nn.Module):
    """The modulation h * (1 + scale(y)) + shift(y) of each feature or channel by y (FiLM).

    Perez et al. (2018), arXiv:1709.07871, eq. 2. It is the identity at the start, and always when y
    has no width.
    """

    def __init__(self, context_dim: int, features: int) -> None:
        super().__init__()
        table = torch.zeros(context_dim, 2 * features)
        self.table = nn.Parameter(table) if context_dim else None

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """Returns h [B, F, ...] modulated by y [B, Y]; h itself, not a copy, where Y = 0."""
        if self.table is None:
            return h
        scale, shift = (y @ self.table).chunk(2, dim=-1)
        trailing = (...,) + (None,) * (h.dim() - 2)
        return torch.addcmul(h + shift[trailing], h, scale[trailing])


class ModulatedLayers(nn.Module):
    """Layers in sequence, each modulated by y and followed by an activation.

    Args:
        layers: The layers.
        widths: The features or channels that each layer returns, before the activation.
        context_dim: Y.
        activation: Follows every layer.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        widths: Sequence[int],
        context_dim: int,
        activation: Callable[[Tensor], Tensor] = nn.functional.silu,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.modulations = nn.ModuleList(Modulation(context_dim, width) for width in widths)
        self.activation = activation

    def forward(self, h: Tensor, y: Tensor) -> Tensor:
        """Returns the last layer's activations of h [B, ...]; y [B, Y] modulates, not concatenated.

        `build_dense_layers` makes layers whose input h the caller concatenates with y.
        """
        for layer, modulate in zip(self.layers, self.modulations, strict=True):
            h = self.activation(modulate(layer(h), y))
        return h


def build_dense_layers(
    in_features: int,
    hidden: Sequence[int],
    context_dim: int,
    activation: Callable[[Tensor], Tensor] = nn.functional.silu,
) -> ModulatedLayers:
    """Returns new dense layers of widths `hidden`, modulated by y, for inputs already joined to y.

    The caller concatenates h [B, in_features] with y [B, Y], see `concatenate`.
    """
    sizes = [in_features + context_dim, *hidden]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return ModulatedLayers(layers, hidden, context_dim, activation)


def concatenate(h: Tensor, y: Tensor) -> Tensor:
    """Returns h [B, F] and y [B, Y] concatenated; h itself, not a copy, where Y = 0."""
    return torch.cat([h, y], dim=-1) if y.shape[-1] else h


def check_image_shape(network: str, shape: Shape) -> None:
    """Raises UserError unless a shape is that of images, (C, H, W); `network` is named in it."""
    if len(shape) != 3:
        other = "network=mlp or network=conv" if len(shape) == 2 else "network=mlp"
        raise UserError(f"network={network} takes images, and not {x_text(shape)}; use {other}")


def halved_sizes_up(shape: Shape, times: int) -> list[tuple[int, int]]:
    """Returns `times` + 1 sizes (H, W) from full size, each half of the one before, rounding up."""
    _, height, width = shape
    return [(-(-height >> i), -(-width >> i)) for i in range(times + 1)]
