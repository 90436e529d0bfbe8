"""An encoder and decoder without hidden layers, of a linear VAE."""

import math

from torch import Tensor, nn

from vaelab.networks.layers import Shape, concatenate


class LinearEncoder(nn.Module):
    """An encoder without layers: its features are all pixels and the label.

    The posterior's mean is then linear in x. Lucas et al. (2019), arXiv:1911.02469, section 4: a
    VAE of it and `LinearDecoder`, with a Gaussian likelihood, is probabilistic PCA at its optimum.
    """

    def __init__(self, x_shape: Shape, context_dim: int) -> None:
        super().__init__()
        self.features = math.prod(x_shape) + context_dim

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns features [B, F] of images x [B, C, H, W] and a context y [B, Y]: x and y."""
        return concatenate(x.flatten(1), y)


class LinearDecoder(nn.Module):
    """A decoder of one linear layer from the latents and the label to all pixels."""

    def __init__(self, latent_dim: int, context_dim: int, out_shape: Shape) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.out = nn.Linear(latent_dim + context_dim, math.prod(out_shape))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Returns likelihood parameters [B, P, H, W] of latents z [B, D] and y [B, Y]."""
        return self.out(concatenate(z, y)).unflatten(-1, self.out_shape)
