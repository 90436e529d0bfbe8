"""What the networks are made of: labels that modulate, layers in sequence, and image sizes."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

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
    """Layers in sequence, each modulated by y and followed by an activation.

    Args:
        layers: The layers.
        widths: What each gives: features or channels, before the activation.
        context_dim: Y.
        activation: Of all of them.
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
        for layer, modulate in zip(self.layers, self.modulations, strict=True):
            h = self.activation(modulate(layer(h), y))
        return h


def dense(
    in_features: int,
    hidden: Sequence[int],
    context_dim: int,
    activation: Callable[[Tensor], Tensor] = nn.functional.silu,
) -> Layers:
    """Dense layers of the widths in `hidden`, over the label too."""
    sizes = [in_features + context_dim, *hidden]
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return Layers(layers, hidden, context_dim, activation)


def concatenate(h: Tensor, y: Tensor) -> Tensor:
    """[B, F] and [B, Y] side by side; without a copy where there is no label."""
    return torch.cat([h, y], dim=-1) if y.shape[-1] else h


def halves(shape: Shape, times: int) -> list[tuple[int, int]]:
    """(H, W) before and after each halving, `times` + 1 of them, rounded up: any size will do."""
    _, height, width = shape
    return [(-(-height >> i), -(-width >> i)) for i in range(times + 1)]
