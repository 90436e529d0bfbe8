"""The gradient of the bound of a network with one hidden layer on each side, written out."""

import torch
from torch import Tensor, nn

Layers = tuple[nn.Linear, nn.Linear, nn.Linear, nn.Linear]  # two of the encoder, two of the decoder


def write_gradient(layers: Layers, x: Tensor, noise: Tensor) -> None:
    """Puts that of distortion + rate into the `grad` of the weights and biases, which exist.

    Args:
        layers: SiLU is between the first two, and between the last two.
        x: Binary images [B, pixels].
        noise: Standard normal [B, D], of which z = mean + scale * noise.
    """
    first, second, third, fourth = layers
    count = len(x)
    before = linear(first, x)
    h = nn.functional.silu(before)
    mean, log_scale = linear(second, h).chunk(2, dim=-1)
    scale = log_scale.exp()
    z = torch.addcmul(mean, scale, noise)
    before_out = linear(third, z)
    h_out = nn.functional.silu(before_out)
    logits = linear(fourth, h_out)

    of_logits = logits.sigmoid_().sub_(x).div_(count)
    of_h_out = backward(fourth, h_out, of_logits)
    of_z = backward(third, z, torch.ops.aten.silu_backward(of_h_out, before_out))
    of_mean = torch.add(of_z, mean, alpha=1 / count)
    of_rate = scale.square().sub_(1).div_(count)
    of_log_scale = of_rate.addcmul_(of_z, scale.mul_(noise))
    of_h = backward(second, h, torch.cat([of_mean, of_log_scale], dim=-1))
    write(first, x, torch.ops.aten.silu_backward(of_h, before))


def linear(layer: nn.Linear, h: Tensor) -> Tensor:
    return torch.addmm(layer.bias, h, layer.weight.t())


def backward(layer: nn.Linear, h: Tensor, of_out: Tensor) -> Tensor:
    """The gradient of a layer's input h, given that of its output; its own is written."""
    write(layer, h, of_out)
    return of_out @ layer.weight


def write(layer: nn.Linear, h: Tensor, of_out: Tensor) -> None:
    assert layer.weight.grad is not None
    assert layer.bias.grad is not None
    torch.mm(of_out.t(), h, out=layer.weight.grad)
    torch.sum(of_out, 0, out=layer.bias.grad)
