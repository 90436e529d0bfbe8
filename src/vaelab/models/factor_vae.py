from collections.abc import Callable
from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import leaky_relu, softplus

from vaelab.distributed import own_share, whole
from vaelab.models.vae import VAE
from vaelab.networks.layers import Widths, dense
from vaelab.terms import Terms


class FactorVAE(VAE):
    """Disentangling by factorising (Kim & Mnih, 2018), arXiv:1802.05983, eq. 2 and algorithm 2.

    loss = distortion + beta * rate + gamma * E_q(z)[log D(z) - log (1 - D(z))]

    The last is the total correlation by the density-ratio trick, eq. 3: D tells codes z ~ q(z) from
    codes each of whose latents was shuffled over a batch. Every other image of a batch is the
    VAE's, and the codes of the rest are shuffled, over all processes. The loss shown is the
    VAE's. In the same step D learns from its own; neither loss reaches the weights of the other,
    and a group of the optimizer is D's.

    Args:
        gamma: Weight of the total correlation.
        discriminator: (D) -> module from codes [B, D] to the log-odds [B] that they are of q(z).
        discriminator_optimizer: Settings of the optimizer for the discriminator, such as its `lr`.
    """

    gamma: Tensor
    compared = 4

    def __init__(
        self,
        *,
        gamma: NonNegativeFloat,
        discriminator: Callable[..., nn.Module],
        discriminator_optimizer: dict[str, Any],
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.add_weight("gamma", gamma)
        self.discriminator = discriminator(self.latent_dim)
        self.discriminator_optimizer = discriminator_optimizer

    def objective(self, terms: Terms) -> Tensor:
        return super().objective(terms) + self.gamma * self.total_correlation(terms).mean()

    def least_batch(self, processes: int) -> int:
        return max(self.compared, 2 * processes)  # for each its VAE, and its discriminator

    def total_correlation(self, terms: Terms) -> Tensor:
        """The log-odds of codes, [B], with gradients to these alone."""
        held = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        return functional_call(self.discriminator, held, (terms.z[0],))

    def details(self, terms: Terms) -> dict[str, Tensor]:
        return {"discriminated_total_correlation": self.total_correlation(terms)}

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        terms = self.terms(x[::2], y[::2])
        with torch.no_grad():
            others = self.draw(self.encode(x[1::2], y[1::2]), 1)[0]
        told_apart = self.discriminator_loss(terms.z[0].detach(), self.shuffled(others))
        loss = self.objective(terms) + (told_apart - told_apart.detach())  # its gradient alone
        return loss, terms.distortion.detach(), terms.rate.detach()

    def discriminator_loss(self, codes: Tensor, shuffled: Tensor) -> Tensor:
        """The cross-entropy of telling codes [B, D] from shuffled ones [B', D]."""
        is_code, is_not = self.discriminator(codes), -self.discriminator(shuffled)
        return 0.5 * (softplus(-is_code).mean() + softplus(-is_not).mean())

    def shuffled(self, codes: Tensor) -> Tensor:
        """Codes [B, D], each latent in an order of its own over the batch of all processes."""
        every = whole(codes)
        order = torch.rand_like(every).argsort(0)
        return own_share(every.gather(0, order)).detach()

    def parameter_groups(self) -> list[dict[str, Any]]:
        theirs = list(self.discriminator.parameters())
        ours = [p for n, p in self.named_parameters() if not n.startswith("discriminator.")]
        return [{"params": ours}, {"params": theirs, **self.discriminator_optimizer}]


class Discriminator(nn.Module):
    """Dense layers with leaky ReLU of slope 0.2, the paper's appendix A.

    Args:
        latent_dim: D.
        hidden: Widths of the layers.
    """

    def __init__(self, latent_dim: int, *, hidden: Widths) -> None:
        super().__init__()
        self.layers = dense(latent_dim, hidden, 0, lambda h: leaky_relu(h, 0.2))
        self.out = nn.Linear(hidden[-1], 1)

    def forward(self, z: Tensor) -> Tensor:
        """Log-odds [B] of codes [B, D]."""
        return self.out(self.layers(z, z[:, :0])).squeeze(-1)
