"""q(z | x, y): modules from encoder features [B, F] to a distribution over latents [D]."""

from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vaelab.precision import full_precision


class Gaussian(nn.Module):
    """A diagonal Gaussian whose mean and log-scale are linear in the features."""

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.params = nn.Linear(features, 2 * latent_dim)

    def forward(self, h: Tensor) -> Distribution:
        mean, log_scale = full_precision(self.params(h)).chunk(2, dim=-1)
        return Independent(Normal(mean, log_scale.exp()), 1)
