"""A recurrent pair that reads and writes an image row by row, for data that are like sequences.

The gated recurrent unit of Cho et al. (2014), arXiv:1406.1078. The decoder starts at a state made
from z and y and reads them at every row, but never the rows before: given z, the pixels are
independent, as the likelihood takes them to be. (Feeding it the true rows, as language models are
trained, would make another model.)
"""

import torch
from torch import Tensor, nn

from vaelab.distributions.precision import full_precision
from vaelab.networks.layers import Modulation, Shape, Widths, concatenate, dense


class Recurrence(nn.Module):
    """A gated recurrent unit over T rows; y modulates what it reads.

    With a, b, c what it makes of the row and A, B, C linear in the state h, as `nn.GRU` has it:
    r = sigmoid(a + A h), u = sigmoid(b + B h), n = tanh(c + r * C h), h' = n + u * (h - n).
    Written out so that its gradient exists in evaluation too, where cuDNN has none.
    """

    def __init__(self, in_features: int, features: int, context_dim: int) -> None:
        super().__init__()
        self.row = nn.Linear(in_features, 3 * features)
        self.state = nn.Linear(features, 3 * features)
        self.modulate = Modulation(context_dim, 3 * features)

    def forward(self, rows: Tensor, y: Tensor, times: int, start: Tensor | None = None) -> Tensor:
        """States [B, T, F] from rows [B, T, I], or [B, 1, I] where each is the same.

        The state before the first row is `start` [B, F], by itself zero.
        """
        read = self.modulate(self.row(rows).transpose(1, 2), y)
        h = read.new_zeros(len(rows), self.state.in_features) if start is None else start
        h = full_precision(h)  # it adds up over all rows
        states = []
        for row in read.expand(-1, -1, times).unbind(-1):
            a, b, c = row.chunk(3, -1)
            from_a, from_b, from_c = self.state(h).chunk(3, -1)
            reset, keep = torch.sigmoid(a + from_a), torch.sigmoid(b + from_b)
            new = torch.tanh(c + reset * from_c)
            h = new + keep * (h - new)
            states.append(h)
        return torch.stack(states, 1)


def recurrences(in_features: int, hidden: Widths, context_dim: int) -> nn.ModuleList:
    """Recurrent layers of the widths in `hidden`, each over the states of the one before."""
    sizes = zip([in_features + context_dim, *hidden], hidden, strict=False)
    return nn.ModuleList(Recurrence(a, b, context_dim) for a, b in sizes)


class RNNEncoder(nn.Module):
    """Recurrent layers from the top row to the bottom one; the last state is what they give.

    Args:
        hidden: Widths of the layers; the last is F.
    """

    def __init__(self, x_shape: Shape, context_dim: int, *, hidden: Widths) -> None:
        super().__init__()
        channels, self.height, width = x_shape
        self.layers = recurrences(channels * width, hidden, context_dim)
        self.features = hidden[-1]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)
        h = concatenate(rows, y[:, None].expand(-1, self.height, -1))
        for layer in self.layers:
            h = layer(h, y, self.height)
        return h[:, -1]


class RNNDecoder(nn.Module):
    """Recurrent layers from the latents and the label, each state a row from top to bottom.

    Args:
        hidden: Widths of the layers.
    """

    def __init__(
        self, latent_dim: int, context_dim: int, out_shape: Shape, *, hidden: Widths
    ) -> None:
        super().__init__()
        channels, self.height, width = out_shape
        self.row_shape = (channels, width)
        self.start = dense(latent_dim, hidden[:1], context_dim, torch.tanh)
        self.layers = recurrences(latent_dim, hidden, context_dim)
        self.out = nn.Linear(hidden[-1], channels * width)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        given = concatenate(z, y)
        first, *others = self.layers
        h = first(given[:, None], y, self.height, self.start(given, y))
        for layer in others:
            h = layer(h, y, self.height)
        return self.out(h).unflatten(-1, self.row_shape).transpose(1, 2)
