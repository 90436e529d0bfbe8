"""A recurrent encoder and decoder that read and write an image row by row.

For data that are like sequences. The gated recurrent unit is that of Cho et al. (2014),
arXiv:1406.1078. The decoder starts at a state made from z and y and reads them at every row, but
never the rows before: given z, the pixels are independent, as the likelihood takes them to be.
(Feeding it the true rows, as language models are trained, would make another model.)
"""

import torch
from torch import Tensor, nn

from vaelab.distributions.precision import full_precision
from vaelab.networks.layers import (
    Modulation,
    Shape,
    Widths,
    build_dense_layers,
    check_image_shape,
    concatenate,
)


class GRULayer(nn.Module):
    """A gated recurrent unit over T rows, whose inputs y modulates.

    With a, b, c computed from the row and A, B, C linear in the state h, as in `nn.GRU`:
    r = sigmoid(a + A h), u = sigmoid(b + B h), n = tanh(c + r * C h), h' = n + u * (h - n).
    Written out because cuDNN's has no gradient in evaluation mode.
    """

    def __init__(self, in_features: int, features: int, context_dim: int) -> None:
        super().__init__()
        self.row = nn.Linear(in_features, 3 * features)
        self.state = nn.Linear(features, 3 * features)
        self.modulate = Modulation(context_dim, 3 * features)

    def forward(self, rows: Tensor, y: Tensor, times: int, start: Tensor | None = None) -> Tensor:
        """Returns the states [B, T, F] from rows [B, T, I], or from [B, 1, I] repeated T times.

        Args:
            rows: [B, T, I] or [B, 1, I].
            y: The context [B, Y].
            times: T.
            start: The state before the first row, [B, F] (default: zero).
        """
        read = self.modulate(self.row(rows).transpose(1, 2), y)
        h = read.new_zeros(len(rows), self.state.in_features) if start is None else start
        h = full_precision(h)  # rounding errors add up over all rows
        states = []
        for row in read.expand(-1, -1, times).unbind(-1):
            a, b, c = row.chunk(3, -1)
            from_a, from_b, from_c = self.state(h).chunk(3, -1)
            reset, keep = torch.sigmoid(a + from_a), torch.sigmoid(b + from_b)
            new = torch.tanh(c + reset * from_c)
            h = new + keep * (h - new)
            states.append(h)
        return torch.stack(states, 1)


def build_gru_layers(in_features: int, hidden: Widths, context_dim: int) -> nn.ModuleList:
    """Returns new GRU layers of widths `hidden`; the first takes rows already joined to y."""
    sizes = zip([in_features + context_dim, *hidden], hidden, strict=False)
    return nn.ModuleList(GRULayer(a, b, context_dim) for a, b in sizes)


class RNNEncoder(nn.Module):
    """An encoder of recurrent layers over rows from top to bottom; the last state is returned.

    Args:
        hidden: Widths of the layers; the last is F.
    """

    def __init__(self, x_shape: Shape, context_dim: int, *, hidden: Widths) -> None:
        super().__init__()
        check_image_shape("rnn", x_shape)
        channels, self.height, width = x_shape
        self.layers = build_gru_layers(channels * width, hidden, context_dim)
        self.features = hidden[-1]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns features [B, F] of images x [B, C, H, W] and a context y [B, Y]."""
        rows = x.transpose(1, 2).flatten(2)
        h = concatenate(rows, y[:, None].expand(-1, self.height, -1))
        for layer in self.layers:
            h = layer(h, y, self.height)
        return h[:, -1]


class RNNDecoder(nn.Module):
    """A decoder of recurrent layers from latents and label: each state gives a row of pixels.

    Args:
        hidden: Widths of the layers.
    """

    def __init__(
        self, latent_dim: int, context_dim: int, out_shape: Shape, *, hidden: Widths
    ) -> None:
        super().__init__()
        check_image_shape("rnn", out_shape)
        channels, self.height, width = out_shape
        self.row_shape = (channels, width)
        self.start = build_dense_layers(latent_dim, hidden[:1], context_dim, torch.tanh)
        self.layers = build_gru_layers(latent_dim, hidden, context_dim)
        self.out = nn.Linear(hidden[-1], channels * width)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns likelihood parameters [B, P, H, W] of latents z [B, D] and y [B, Y]."""
        given = concatenate(z, y)
        first, *others = self.layers
        h = first(given[:, None], y, self.height, self.start(given, y))
        for layer in others:
            h = layer(h, y, self.height)
        return self.out(h).unflatten(-1, self.row_shape).transpose(1, 2)
