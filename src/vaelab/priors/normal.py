import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, register_kl

from vaelab.distributions.precision import full_precision
from vaelab.errors import UserError


class UnitNormal(Normal):
    """A Normal of mean 0 and scale 1, to which the KL takes half the work."""


@register_kl(Normal, UnitNormal)
def kl_normal_unit(q: Normal, prior: UnitNormal) -> Tensor:
    """Kingma & Welling (2014), appendix B, for each latent."""
    return 0.5 * (q.loc.square() + q.scale.square() - 1) - q.scale.log()


class StandardNormal(nn.Module):
    """N(0, I), whatever the label."""

    zeros: Tensor
    ones: Tensor

    def __init__(self, latent_dim: int, context_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("ones", torch.ones(latent_dim), persistent=False)

    def forward(self, y: Tensor) -> Distribution:
        return Independent(UnitNormal(self.zeros, self.ones), 1)


class ConditionalNormal(nn.Module):
    """N(mu_y, diag(sigma_y^2)), learned for each label and N(0, I) at the start.

    Sohn et al. (2015), section 3; for one-hot labels a linear map is a table.

    Raises:
        UserError: If the model is unconditional.
    """

    def __init__(self, latent_dim: int, context_dim: int) -> None:
        super().__init__()
        if not context_dim:
            raise UserError(
                "prior=conditional_normal is p(z|y), and this model sees no labels; "
                "use model=cvae or condition=one_hot"
            )
        self.params = nn.Linear(context_dim, 2 * latent_dim, bias=False)
        nn.init.zeros_(self.params.weight)

    def forward(self, y: Tensor) -> Distribution:
        mean, log_scale = full_precision(self.params(y)).chunk(2, dim=-1)
        return Independent(Normal(mean, log_scale.exp()), 1)
