"""Gaussian priors: `StandardNormal`, N(0, I), and `ConditionalNormal`, one for each label."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, register_kl

from vaelab.distributions.precision import full_precision
from vaelab.errors import UserError


class UnitNormal(Normal):
    """A Normal taken to have mean 0 and scale 1, unchecked: the KL to it takes half the work."""


@register_kl(Normal, UnitNormal)
def kl_normal_unit(q: Normal, prior: UnitNormal) -> Tensor:
    """Returns KL(q || N(0, 1)) of each latent, shape kept; called by `kl_divergence`.

    Kingma & Welling (2014), appendix B. The prior's mean and scale are taken for 0 and 1.
    """
    return 0.5 * (q.loc.square() + q.scale.square() - 1) - q.scale.log()


class StandardNormal(nn.Module):
    """The prior N(0, I), the same for every label."""

    zeros: Tensor
    ones: Tensor

    def __init__(self, latent_dim: int, context_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("ones", torch.ones(latent_dim), persistent=False)

    def forward(self, y: Tensor) -> Distribution:
        """Returns N(0, I), batch [] and event [D]; ignores y."""
        return Independent(UnitNormal(self.zeros, self.ones), 1)


class ConditionalNormal(nn.Module):
    """The prior N(mu_y, diag(sigma_y^2)), learned for each label and N(0, I) at the start.

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
        """Returns p(z | y), batch [B] and event [D], of a context y [B, C]."""
        mean, log_scale = full_precision(self.params(y)).chunk(2, dim=-1)
        return Independent(Normal(mean, log_scale.exp()), 1)
