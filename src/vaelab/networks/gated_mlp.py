"""An encoder and decoder of gated dense layers over all pixels, from the VampPrior paper.

Tomczak & Welling (2018), arXiv:1705.07120: h = A(x) * sigmoid(B(x)), in place of
an activation. Initial weights are from N(0, 2 / fan_in), also those of the last layer, as in the
authors' code. A label modulates both A and B, and so the gates.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vaelab.networks.layers import ModulatedLayers, Shape, Widths, concatenate


def build_gated_layers(
    in_features: int, hidden: Sequence[int], context_dim: int
) -> ModulatedLayers:
    """Returns new gated dense layers of widths `hidden`, modulated by y, for inputs joined to y.

    One dense layer gives both A and B, each half of its outputs.
    """
    sizes = [in_features + context_dim, *hidden]
    layers = [init_he_normal(nn.Linear(a, 2 * b)) for a, b in pairwise(sizes)]
    return ModulatedLayers(layers, [2 * width for width in hidden], context_dim, nn.functional.glu)


def init_he_normal(layer: nn.Linear) -> nn.Linear:
    """Sets a layer's weights, in place, to draws from N(0, 2 / fan_in); returns the layer.

    Biases keep their values.
    """
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer


class GatedMLPEncoder(nn.Module):
    """An encoder of gated dense layers over all pixels and the label.

    Args:
        hidden: Widths of the layers; the last is F.
    """

    def __init__(self, x_shape: Shape, context_dim: int, *, hidden: Widths) -> None:
        super().__init__()
        self.layers = build_gated_layers(math.prod(x_shape), hidden, context_dim)
        self.features = hidden[-1]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns features [B, F] of images x [B, C, H, W] and a context y [B, Y]."""
        return self.layers(concatenate(x.flatten(1), y), y)


class GatedMLPDecoder(nn.Module):
    """A decoder of gated dense layers from latents and label, and a plain one to all pixels.

    Args:
        hidden: Widths of the gated layers.
    """

    def __init__(
        self, latent_dim: int, context_dim: int, out_shape: Shape, *, hidden: Widths
    ) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.layers = build_gated_layers(latent_dim, hidden, context_dim)
        self.out = init_he_normal(nn.Linear(hidden[-1], math.prod(out_shape)))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns likelihood parameters [B, P, H, W] of latents z [B, D] and y [B, Y]."""
        return self.out(self.layers(concatenate(z, y), y)).unflatten(-1, self.out_shape)
