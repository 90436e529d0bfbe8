"""The networks: shapes, gradients, effect of labels, and the formulas and sizes of their papers."""

import math
from itertools import pairwise

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.testing import assert_close

from vaelab import networks
from vaelab.errors import UserError
from vaelab.export import onnx_files
from vaelab.networks import BurgessDecoder, ConvDecoder, ConvEncoder, Modulation
from vaelab.networks.burgess import Doubling, Halving
from vaelab.networks.conv import halved_sizes_down
from vaelab.networks.layers import halved_sizes_up
from vaelab.networks.rnn import GRULayer
from vaelab.runs import validation

SIZES = [(8, 8), (28, 28), (29, 31), (32, 32), (45, 45), (64, 64), (28, 45)]  # (H, W)
BURGESS = {"channels": [8, 7, 6, 5], "kernels": [4, 4, 2, 2], "hidden": [16, 5]}
SETTINGS = {  # of small networks: prefix of the class names, and arguments
    "mlp": ("MLP", {"hidden": [6, 5]}),
    "gated_mlp": ("GatedMLP", {"hidden": [6, 5]}),
    "conv": ("Conv", {"channels": [2, 3, 4], "features": 5}),
    "burgess": ("Burgess", BURGESS),
    "resnet": ("ResNet", {"channels": [4, 16, 6], "blocks": 2, "features": 5}),
    "rnn": ("RNN", {"hidden": [6, 5]}),
}
MODULATIONS = {  # number of hidden layers, each modulated, in the encoder and in the decoder
    "mlp": (2, 2),
    "gated_mlp": (2, 2),
    "conv": (3 + 1, 2 + 2),
    "burgess": (4 + 2, 3 + 3),
    "resnet": (3 * 2 * 2 + 2 + 1 + 1, 3 * 2 * 2 + 2 + 1 + 1),
    "rnn": (2, 1 + 2),
}
CLASSES, LATENTS = 3, 7


def build_network(network, part, shape, context=0, **changes):
    """Builds a small network, and shifts every parameter by a random positive number.

    So no parameter is at a special initial value, such as zero, and no ReLU is dead.

    Args:
        network: A key of SETTINGS.
        part: "Encoder" or "Decoder".
        shape: Of images (C, H, W).
        context: Width of the label; 0 for an unconditional network.
        changes: Arguments that replace those in SETTINGS.
    """
    name, settings = SETTINGS[network]
    arguments = (shape, context) if part == "Encoder" else (LATENTS, context, shape)
    module = getattr(networks, name + part)(*arguments, **settings | changes)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.rand_like(parameter)
    return module


def random_inputs(part, shape, context=0, count=2):
    """Returns random images [B, *shape] or latents [B, LATENTS], and labels [B, context]."""
    h = torch.rand(count, *shape) if part == "Encoder" else torch.randn(count, LATENTS)
    return h, torch.eye(CLASSES)[torch.arange(count) % CLASSES, :context]


every_network = pytest.mark.parametrize("network", SETTINGS)
both_parts = pytest.mark.parametrize("part", ["Encoder", "Decoder"])


@pytest.mark.parametrize("context", [0, CLASSES])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("size", SIZES)
@every_network
def test_encoder_and_decoder_output_shapes(network, size, channels, context):
    shape = (channels, *size)
    encode = build_network(network, "Encoder", shape, context)
    assert encode.features == 5
    assert encode(*random_inputs("Encoder", shape, context)).shape == (2, 5)
    decode = build_network(network, "Decoder", shape, context)
    assert decode(*random_inputs("Decoder", shape, context)).shape == (2, *shape)


@pytest.mark.parametrize("params", [2, 6, 100])
@every_network
def test_decoder_outputs_distinct_channels_for_each_likelihood_parameter(network, params):
    shape = (params, 9, 8)
    out = build_network(network, "Decoder", shape)(*random_inputs("Decoder", shape, count=4))
    assert out.shape == (4, *shape)
    assert out.flatten(2).unique(dim=1).shape[1] == params


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (7, 100)])
@pytest.mark.parametrize("network", sorted(SETTINGS.keys() - {"conv"}))
def test_networks_except_conv_accept_tiny_images(network, size):
    shape = (2, *size)
    assert build_network(network, "Encoder", shape)(*random_inputs("Encoder", shape)).shape == (
        2,
        5,
    )
    assert build_network(network, "Decoder", shape)(*random_inputs("Decoder", shape)).shape == (
        2,
        *shape,
    )


@every_network
def test_encoder_reads_and_decoder_writes_every_pixel(network):
    """One side is odd. `conv`, which rounds sides down, need not read the last column."""
    changes = {"channels": [2, 3]} if network == "conv" else {}
    shape = (1, 28, 45)
    x, y = random_inputs("Encoder", shape, count=8)
    build_network(network, "Encoder", shape, **changes)(
        x.requires_grad_(), y
    ).square().sum().backward()
    seen = x.grad.ne(0).any(0)
    assert seen[:, :, :44].all()
    assert seen.all() or network == "conv"
    first, second = build_network(network, "Decoder", shape, **changes)(
        *random_inputs("Decoder", shape)
    )
    assert first.ne(second).float().mean() > 0.99


@pytest.mark.parametrize("context", [0, CLASSES])
@both_parts
@every_network
def test_every_network_parameter_has_a_nonzero_gradient(network, part, context):
    shape = (2, 9, 13)
    module = build_network(network, part, shape, context)
    module(*random_inputs(part, shape, context, count=6)).square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad.ne(0).any(), name


@both_parts
@every_network
def test_network_outputs_do_not_depend_on_other_batch_images(network, part):
    """In training and in evaluation mode: there are no batch statistics or running averages."""
    shape = (2, 9, 13)
    module = build_network(network, part, shape, CLASSES)
    h, y = random_inputs(part, shape, CLASSES, count=6)
    others = torch.cat([h[:1], 3 * torch.rand_like(h[1:])])
    before = module(h, y)
    assert_close(module(others, y.roll(1, 0) * 0 + y[:1])[0], before[0])
    assert_close(module(h[:1], y[:1])[0], before[0])
    assert torch.equal(module.eval()(h, y), before)
    assert not list(module.buffers())


@both_parts
@every_network
def test_label_modulates_every_network_layer(network, part):
    """Concatenation alone passes on the label, and so does each modulation alone.

    With zero tables and zero weights of the concatenated label the output does not depend on it.
    """
    shape = (1, 9, 13)
    module = build_network(network, part, shape, CLASSES)
    h, y = random_inputs(part, shape, CLASSES, count=6)
    modulations = [m for m in module.modules() if isinstance(m, Modulation)]
    assert len(modulations) == MODULATIONS[network][part == "Decoder"]

    def depends_on_label():
        """Returns for each image whether its output changes with its label, [B]."""
        return (module(h, y) - module(h, y.roll(1, 0))).flatten(1).ne(0).any(1)

    with torch.no_grad():
        for modulation in modulations:
            modulation.table.zero_()
        assert depends_on_label().all()  # by concatenation
        for stack in module.modules():
            if isinstance(stack, networks.ModulatedLayers) and isinstance(
                stack.layers[0], nn.Linear
            ):
                stack.layers[0].weight[:, -CLASSES:] = 0
        if network == "rnn":
            module.layers[0].row.weight[:, -CLASSES:] = 0
        assert not depends_on_label().any()
        for modulation in modulations:
            modulation.table.normal_()
            assert depends_on_label().all()
            modulation.table.zero_()


@both_parts
@every_network
def test_networks_in_bfloat16_and_float64_agree_with_float32(network, part):
    shape = (2, 9, 13)
    module = build_network(network, part, shape, CLASSES)
    given = random_inputs(part, shape, CLASSES)
    expected = module(*given)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(*given)
    assert (found - expected).norm() < 0.03 * expected.norm()
    found.float().sum().backward()
    double = module.double()(*(t.double() for t in given))
    assert_close(double.float(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", ["vae", "cvae"])
@every_network
def test_configured_networks_backpropagate_and_start_near_one_bit_per_pixel(build, network, model):
    model = build(f"model={model}", f"network={network}", x_shape=(1, 28, 28))
    loss, distortion, _ = model.loss(torch.rand(4, 1, 28, 28).round(), torch.eye(10)[:4])
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert 0.8 < distortion.mean() / (784 * math.log(2)) < 2  # about one bit per pixel


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "settings"),
    [
        ("burgess", ["channels=[3]", "kernels=[4]", "hidden=[4]"]),
        ("resnet", ["channels=[4,3]", "features=4"]),
        ("rnn", ["hidden=[4]"]),
    ],
)
def test_networks_export_to_onnx(build, tmp_path, network, settings):
    changes = [f"model.{part}.{change}" for part in ("encoder", "decoder") for change in settings]
    model = build("model=cvae", f"network={network}", *changes, x_shape=(1, 3, 5)).eval()
    made = [file.path.name for file in onnx_files.write_onnx_files(model, tmp_path)]
    assert made == ["encoder.onnx", "decoder.onnx"]


@pytest.mark.parametrize("part", [ConvEncoder, ConvDecoder])
@pytest.mark.parametrize(("size", "channels"), [((7, 28), 3), ((28, 7), 3), ((8, 8), 4)])
def test_conv_networks_reject_too_small_images(part, size, channels):
    shape = (1, *size)
    arguments = (shape, 0) if part is ConvEncoder else (7, 0, shape)
    with pytest.raises(UserError, match=f"{size[0]} x {size[1]} pixels are too small"):
        part(*arguments, channels=[2] * channels, features=5)


def test_halved_sizes_down_rounds_odd_sides_down():
    assert halved_sizes_down((3, 45, 28), 3) == [(45, 28), (22, 14), (11, 7), (5, 3)]
    assert halved_sizes_down((1, 8, 8), 0) == [(8, 8)]
    assert halved_sizes_down((1, 8, 8), 3)[-1] == (1, 1)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 2)])
def test_modulation_is_identity_at_initialization(shape):
    h = torch.randn(shape)
    assert torch.equal(Modulation(3, 6)(h, torch.eye(3)[[0, 1, 2, 0]]), h)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 2)])
def test_modulation_without_labels_is_identity_without_parameters(shape):
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


def test_gated_mlp_layers_match_formula_of_paper():
    """H = A(x) * sigmoid(B(x)), arXiv:1705.07120; labels, if any, modulate both A and B."""
    for context in (0, CLASSES):
        module = build_network("gated_mlp", "Encoder", (2, 3, 4), context)
        x, y = random_inputs("Encoder", (2, 3, 4), context)
        h = torch.cat([x.flatten(1), y], 1)
        for layer, modulation in zip(module.layers.layers, module.layers.modulations, strict=True):
            value, gate = (
                h @ weight.T + bias
                for weight, bias in zip(layer.weight.chunk(2), layer.bias.chunk(2), strict=True)
            )
            if context:
                scales, shifts = modulation.table[y.argmax(1)].chunk(2, 1)
                value, gate = (
                    part * (1 + scale) + shift
                    for part, scale, shift in zip(
                        (value, gate), scales.chunk(2, 1), shifts.chunk(2, 1), strict=True
                    )
                )
            h = value / (1 + (-gate).exp())
        assert_close(module(x, y), h)


def test_gated_mlp_initial_weights_and_parameter_counts_match_paper(build):
    model = build("network=gated_mlp", "model.latent_dim=40")
    layers = [*model.encoder.layers.layers, *model.decoder.layers.layers, model.decoder.out]
    assert [layer.in_features for layer in layers] == [784, 300, 40, 300, 300]
    for layer in layers:
        spread = math.sqrt(2 / layer.in_features)
        assert_close(layer.weight.std().item(), spread, rtol=0.03, atol=0)
        assert abs(layer.weight.mean().item()) < 0.03 * spread
    assert (
        count_parameters(model.encoder) == 2 * (784 * 300 + 300) + 2 * (300 * 300 + 300) == 651_600
    )
    assert count_parameters(model.decoder) == 24_600 + 180_600 + 235_984


def count_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


LOCATELLO = [  # settings of Locatello et al. (2019), arXiv:1811.12359
    *(f"model.{part}.channels=[32,32,64,64]" for part in ("encoder", "decoder")),
    *(f"model.{part}.hidden=[256]" for part in ("encoder", "decoder")),
    "model.encoder.kernels=[4,4,2,2]",
]


@pytest.mark.parametrize(
    ("changes", "encoder", "decoder"),
    [
        (
            [],
            544 + 3 * 16_416 + (512 * 256 + 256) + (256 * 256 + 256),
            (10 * 256 + 256) + (256 * 256 + 256) + (256 * 512 + 512) + 3 * 16_416 + 513,
        ),
        (
            LOCATELLO,
            544 + 16_416 + 8_256 + 16_448 + (1_024 * 256 + 256),
            2_816 + (256 * 1_024 + 1_024) + 65_600 + 32_800 + 16_416 + 513,
        ),
    ],
)
def test_burgess_parameter_counts_match_papers(build, changes, encoder, decoder):
    """For 64 x 64 pixels and ten latents; computed by hand from the tables of the papers."""
    model = build("network=burgess", "model.latent_dim=10", *changes, x_shape=(1, 64, 64))
    assert (count_parameters(model.encoder), count_parameters(model.decoder)) == (encoder, decoder)
    assert model.decoder.small == (model.decoder.small[0], 4, 4)


def test_burgess_initial_weights_have_glorot_variance_and_zero_bias():
    module = BurgessDecoder(50, 0, (1, 32, 32), channels=[64, 64], kernels=[4, 4], hidden=[200])
    expected = {"dense.layers.0": 250, "convolutions.layers.0": 2 * 64 * 16, "out": 65 * 16}
    for name, fans in expected.items():
        layer = module.get_submodule(name)
        assert_close(layer.weight.var().item(), 2 / fans, rtol=0.1, atol=0)
        assert not layer.bias.any()


@pytest.mark.parametrize("kernel", [2, 4, 6])
@pytest.mark.parametrize("size", [(8, 8), (5, 8), (7, 7), (1, 2), (1, 1)])
def test_doubling_is_the_transpose_of_halving(kernel, size):
    down = Halving(2, 3, kernel)
    up = Doubling(3, 2, kernel, size)
    up.weight, up.bias, down.bias = down.weight, None, None
    x = torch.randn(4, 2, *size)
    small = down(x)
    assert small.shape[2:] == (math.ceil(size[0] / 2), math.ceil(size[1] / 2))
    h = torch.randn_like(small)
    assert_close((small * h).sum(), (x * up(h)).sum(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("part", ["Encoder", "Decoder"])
def test_burgess_rejects_fewer_kernels_than_channels(part):
    with pytest.raises(UserError, match=rf"model\.{part.lower()}\.kernels has 2 .* 4 halvings"):
        build_network("burgess", part, (1, 64, 64), kernels=[4, 4])


def test_burgess_rejects_odd_kernels(compose):
    cfg = compose("network=burgess", "model.encoder.kernels=[4,4,3,3]")
    with pytest.raises(UserError, match=r"encoder.kernels=\[4, 4, 3, 3\]: .*multiple of 2"):
        validation.check_node(OmegaConf.to_container(cfg.model), "model")


def test_gru_layer_matches_torch_gru():
    ours, theirs = GRULayer(5, 4, 0), nn.GRU(5, 4, batch_first=True)
    own = {"weight_ih_l0": ours.row.weight, "weight_hh_l0": ours.state.weight}
    own |= {"bias_ih_l0": ours.row.bias, "bias_hh_l0": ours.state.bias}
    theirs.load_state_dict(own)
    rows, y = torch.randn(3, 6, 5), torch.zeros(3, 0)
    assert_close(ours(rows, y, 6), theirs(rows)[0])
    start = torch.randn(3, 4)
    assert_close(ours(rows, y, 6, start), theirs(rows, start[None])[0])
    assert_close(ours(rows[:, :1], y, 6), theirs(rows[:, :1].expand(-1, 6, -1))[0])


def test_rnn_encoder_reads_rows_from_top_to_bottom():
    shape = (2, 6, 4)
    encode = build_network("rnn", "Encoder", shape)
    x, y = random_inputs("Encoder", shape)
    for other in (x.flip(2), x.roll(1, 2)):
        assert (encode(other, y) - encode(x, y)).ne(0).any(1).all()
    by_hand = torch.stack([torch.cat([*image], -1) for image in x])  # rows [H, C * W] of each image
    for layer in encode.layers:
        by_hand = layer(by_hand, y, 6)
    assert_close(encode(x, y), by_hand[:, -1])


def test_rnn_decoder_writes_rows_from_top_to_bottom():
    """A taller image, decoded with the same weights, begins with the shorter image."""
    short, tall = (build_network("rnn", "Decoder", (2, height, 4)) for height in (6, 9))
    tall.load_state_dict(short.state_dict())
    z, y = random_inputs("Decoder", ())
    assert_close(tall(z, y)[:, :, :6], short(z, y))
    rows = short(z, y).transpose(1, 2).flatten(2).transpose(0, 1)
    assert all((a - b).ne(0).any() for a, b in pairwise(rows))


def test_halved_sizes_up_rounds_odd_sides_up():
    assert halved_sizes_up((3, 45, 28), 3) == [(45, 28), (23, 14), (12, 7), (6, 4)]
    assert halved_sizes_up((1, 8, 3), 4)[-1] == (1, 1)


@every_network
@both_parts
def test_unconditional_networks_have_no_label_parameters(network, part):
    without, one = (
        {
            name: p.numel()
            for name, p in build_network(network, part, (1, 16, 16), c).named_parameters()
        }
        for c in (0, 1)
    )
    assert not any(size for name, size in without.items() if name.endswith("table"))
    assert any(size for name, size in one.items() if name.endswith("table"))
    assert sum(without.values()) < sum(one.values())


SIGNALS = [(1, 8), (2, 9), (3, 45), (1, 100)]  # (C, L)


@pytest.mark.parametrize("context", [0, CLASSES])
@pytest.mark.parametrize("shape", [*SIGNALS, (5,), (1,)])
@pytest.mark.parametrize("network", ["mlp", "gated_mlp", "conv"])
def test_networks_of_signals_and_vectors_have_the_shapes_of_x(network, shape, context):
    if network == "conv" and len(shape) == 1:
        pytest.skip("is refused")
    encoder = build_network(network, "Encoder", shape, context)
    assert encoder(*random_inputs("Encoder", shape, context)).shape == (2, encoder.features)
    decoder = build_network(network, "Decoder", shape, context)
    z, y = random_inputs("Decoder", shape, context)
    found = decoder(z, y)
    assert found.shape == (2, *shape)
    for out in found[0].flatten():  # every number is written, of its own
        (gradient,) = torch.autograd.grad(out, decoder.out.bias, retain_graph=True)
        assert gradient.any()


@pytest.mark.parametrize("length", range(8, 24))
def test_conv_writes_signals_of_any_length_from_8(length):
    shape = (2, length)
    assert build_network("conv", "Decoder", shape)(torch.zeros(1, LATENTS), torch.zeros(1, 0)).shape
    encoder = build_network("conv", "Encoder", shape)
    x = torch.randn(1, *shape, requires_grad=True)
    encoder(x, torch.zeros(1, 0)).sum().backward()
    assert x.grad[..., : length - length % 8].any()


@both_parts
@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        ("conv", (5,), "network=conv takes images and signals, and not vectors of 5 numbers"),
        ("conv", (1, 7), "signals of 7 steps are too small for 3 halvings"),
        *((n, (5,), f"network={n} takes images, and not vectors of 5 numbers; use network=mlp$")
          for n in ("burgess", "resnet", "rnn")),
        *((n, (2, 30), f"{n} takes images, and not signals of 30 steps x 2; use .* or network=conv")
          for n in ("burgess", "resnet", "rnn")),
    ],
)  # fmt: skip
def test_networks_refuse_numbers_that_they_do_not_take(network, part, shape, message):
    with pytest.raises(UserError, match=message):
        build_network(network, part, shape)
