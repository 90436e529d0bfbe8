"""Encoders (x, y) -> features [B, F] and decoders (z, y) -> likelihood parameters [B, P, H, W].

Dense networks also take signals [B, C, L] and vectors [B, C], and `conv` signals.

y has width zero in an unconditional model. Otherwise it modulates every hidden layer, so that a
label can change what a layer does and not only where its inputs lie. No layer looks at the other
images of a batch.
"""

from vaelab.networks.burgess import BurgessDecoder, BurgessEncoder
from vaelab.networks.conv import ConvDecoder, ConvEncoder
from vaelab.networks.gated_mlp import GatedMLPDecoder, GatedMLPEncoder
from vaelab.networks.layers import ModulatedLayers, Modulation
from vaelab.networks.linear import LinearDecoder, LinearEncoder
from vaelab.networks.mlp import MLPDecoder, MLPEncoder
from vaelab.networks.resnet import ResNetDecoder, ResNetEncoder
from vaelab.networks.rnn import RNNDecoder, RNNEncoder

__all__ = [
    "BurgessDecoder",
    "BurgessEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "GatedMLPDecoder",
    "GatedMLPEncoder",
    "LinearDecoder",
    "LinearEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "ModulatedLayers",
    "Modulation",
    "RNNDecoder",
    "RNNEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
]
