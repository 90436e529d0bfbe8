"""Gated dense layers over all pixels, of the VampPrior's papers.

Tomczak & Welling (2018), arXiv:1705.07120: h = A(x) * sigmoid(B(x)), in place of
an activation. Weights start as N(0, 2 / fan_in), those of the last layer too, as in the authors'
code. A label modulates both A and B, and so what a gate lets through.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vaelab.networks.layers import Layers, Shape, Widths, concatenate


def gated(in_features: int, hidden: Sequence[int], context_dim: int) -> Layers:
    """Gated dense layers of the widths in `hidden`; A and B are the halves of one layer."""
    sizes = [in_features + context_dim, *hidden]
    layers = [he(nn.Linear(a, 2 * b)) for a, b in pairwise(sizes)]
    return Layers(layers, [2 * width for width in hidden], context_dim, nn.functional.glu)


def he(layer: nn.Linear) -> nn.Linear:
    """The layer, with weights from N(0, 2 / fan_in)."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


class GatedMLPEncoder(nn.Module):
    """Gated dense layers over all pixels and the label.

    Args:
        hidden: Widths of the layers; the last is F.
    """

    def __init__(self, x_shape: Shape, context_dim: int, *, hidden: Widths) -> None:
        super().__init__()
        self.layers = gated(math.prod(x_shape), hidden, context_dim)
        self.features = hidden[-1]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.layers(concatenate(x.flatten(1), y), y)


class GatedMLPDecoder(nn.Module):
    """Gated dense layers from the latents and the label, and a plain one to all pixels.

    Args:
        hidden: Widths of the layers between.
    """

    def __init__(
        self, latent_dim: int, context_dim: int, out_shape: Shape, *, hidden: Widths
    ) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.layers = gated(latent_dim, hidden, context_dim)
        self.out = he(nn.Linear(hidden[-1], math.prod(out_shape)))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.out(self.layers(concatenate(z, y), y)).unflatten(-1, self.out_shape)
