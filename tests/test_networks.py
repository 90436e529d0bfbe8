import math

import pytest
import torch
from torch.testing import assert_close

from vaelab.errors import UserError
from vaelab.networks import ConvDecoder, ConvEncoder, MLPDecoder, MLPEncoder, Modulation, halvings

SIZES = [(8, 8), (28, 28), (32, 32), (45, 45), (64, 64), (28, 45)]
SETTINGS = {
    "mlp": (MLPEncoder, MLPDecoder, {"hidden": [6, 5]}),
    "conv": (ConvEncoder, ConvDecoder, {"channels": [2, 3, 4], "features": 5}),
}


@pytest.mark.parametrize("context", [0, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("network", SETTINGS)
def test_shapes(network, size, channels, context):
    encoder, decoder, settings = SETTINGS[network]
    shape, y = (channels, *size), torch.eye(3)[:2, :context]
    encode = encoder(shape, context, **settings)
    assert encode.features == 5
    assert encode(torch.rand(2, *shape), y).shape == (2, 5)
    params = decoder(7, context, shape, **settings)(torch.randn(2, 7), y)
    assert params.shape == (2, *shape)


@pytest.mark.parametrize("network", SETTINGS)
def test_every_pixel_is_seen_and_drawn(network):
    """With odd sides too, where halving leaves a row and a column over."""
    encoder, decoder, settings = SETTINGS[network]
    if network == "conv":
        settings = settings | {"channels": [2, 3]}
    shape, y = (1, 28, 45), torch.zeros(1, 0)
    x = torch.rand(1, *shape, requires_grad=True)
    encoder(shape, 0, **settings)(x, y).sum().backward()
    assert x.grad[:, :, :28, :44].ne(0).all()
    z = torch.randn(2, 7)
    first, second = decoder(7, 0, shape, **settings)(z, y.expand(2, 0))
    assert first.ne(second).float().mean() > 0.99


@pytest.mark.parametrize("part", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize(("size", "channels"), [((7, 28), 3), ((28, 7), 3), ((8, 8), 4)])
def test_too_small_images_are_refused(part, size, channels):
    shape = (1, *size)
    arguments = (shape, 0) if part is ConvEncoder else (7, 0, shape)
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels are too small"):
        part(*arguments, channels=[2] * channels, features=5)


def test_halvings():
    assert halvings((3, 45, 28), 3) == [(45, 28), (22, 14), (11, 7), (5, 3)]
    assert halvings((1, 8, 8), 0) == [(8, 8)]
    assert halvings((1, 8, 8), 3)[-1] == (1, 1)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 2)])
def test_modulation_is_the_identity_at_the_start(shape):
    h = torch.randn(shape)
    assert torch.equal(Modulation(3, 6)(h, torch.eye(3)[[0, 1, 2, 0]]), h)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 2)])
def test_modulation_without_labels_is_the_identity(shape):
    h, modulation = torch.randn(shape), Modulation(0, 6)
    assert torch.equal(modulation(h, torch.zeros(4, 0)), h)
    assert not any(p.numel() for p in modulation.parameters())


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 2)])
def test_modulation_scales_and_shifts_each_feature(shape):
    h, modulation, classes = torch.randn(shape), Modulation(3, 6), [0, 1, 2, 0]
    with torch.no_grad():
        modulation.table.normal_()
        out = modulation(h, torch.eye(3)[classes])
    for i, label in enumerate(classes):
        for feature in range(6):
            scale, shift = modulation.table[label, feature], modulation.table[label, 6 + feature]
            assert_close(out[i, feature], h[i, feature] * (1 + scale) + shift)


@pytest.mark.parametrize("network", SETTINGS)
def test_an_unconditional_network_has_no_parameter_for_labels(network):
    encoder, decoder, settings = SETTINGS[network]
    shape = (1, 16, 16)
    for make in (
        lambda context: encoder(shape, context, **settings),
        lambda context: decoder(7, context, shape, **settings),
    ):
        without, one = ({n: p.numel() for n, p in make(c).named_parameters()} for c in (0, 1))
        assert not any(size for name, size in without.items() if name.endswith("table"))
        assert any(size for name, size in one.items() if name.endswith("table"))
        assert sum(without.values()) < sum(one.values())


def test_the_decoder_has_room_for_more_parameters_than_channels():
    for _, decoder, settings in SETTINGS.values():
        params = decoder(2, 0, (6, 9, 8), **settings)(torch.randn(4, 2), torch.zeros(4, 0))
        assert params.shape == (4, 6, 9, 8)
        assert params.numel() == 4 * math.prod((6, 9, 8))
