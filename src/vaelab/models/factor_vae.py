"""`FactorVAE`, a penalty on total correlation, and its `Discriminator`."""

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import leaky_relu, softplus

from vaelab.distributed import gather_batch, own_share
from vaelab.distributions.precision import full_precision
from vaelab.models.vae import VAE
from vaelab.networks.layers import Widths, build_dense_layers
from vaelab.parts import OptionsOf
from vaelab.terms import Terms


class FactorVAE(VAE):
    """FactorVAE: a VAE with a total correlation penalty by a discriminator (Kim & Mnih, 2018).

    "Disentangling by factorising", arXiv:1802.05983, eq. 2 and algorithm 2.

    loss = distortion + beta * rate + gamma * E_q(z)[log D(z) - log (1 - D(z))]

    The last term is the total correlation by the density-ratio trick, eq. 3: the discriminator D
    tells codes z ~ q(z) from codes whose latents were each shuffled over a batch. In training, the
    loss above is of the images 0, 2, ... of a batch; the codes of the images 1, 3, ... are
    shuffled, over all processes. The discriminator learns in the same step from its own loss, which
    is not in the logged loss. Neither loss has gradients to the weights of the other, and the
    discriminator has its own parameter group in the optimizer.

    Args:
        gamma: Weight of the total correlation.
        discriminator: (D) -> module from codes [B, D] to the log-odds [B] that they are of q(z).
        discriminator_optimizer: Options of the discriminator's parameter group, such as its `lr`.
    """

    gamma: Tensor
    min_images = 4

    def __init__(
        self,
        *,
        gamma: NonNegativeFloat,
        discriminator: Callable[..., nn.Module],
        discriminator_optimizer: Annotated[dict[str, Any], OptionsOf("optimizer")],
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.add_weight("gamma", gamma)
        self.discriminator = discriminator(self.latent_dim)
        self.discriminator_optimizer = discriminator_optimizer

    def objective(self, terms: Terms) -> Tensor:
        """The loss of `VAE` plus gamma * total correlation, [], not the discriminator's loss."""
        return super().objective(terms) + self.gamma * self.total_correlation(terms).mean()

    def min_batch_size(self, processes: int) -> int:
        """The fewest images of a training batch, all processes': 2 per process, and at least 4."""
        return max(self.min_images, 2 * processes)  # one for the VAE, one for the discriminator

    def total_correlation(self, terms: Terms) -> Tensor:
        """The discriminator's log-odds [B] of the first sample, with no gradients to its weights.

        Their mean estimates the total correlation.
        """
        frozen = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        return full_precision(functional_call(self.discriminator, frozen, (terms.z[0],)))

    def extra_metrics(self, terms: Terms) -> dict[str, Tensor]:
        """The log-odds of the discriminator [B], as `discriminated_total_correlation`."""
        return {"discriminated_total_correlation": self.total_correlation(terms)}

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The objective [] of images 0, 2, ..., plus only the gradient of the discriminator's loss.

        Also returns the distortion and rate of these images, [B / 2] each, detached. The codes of
        the images 1, 3, ... are shuffled for the discriminator.
        """
        self.check_batch(x, y)
        terms = self.terms(x[::2], y[::2])
        with torch.no_grad():
            others = self.draw(self.latent_posterior(x[1::2], y[1::2]), 1)[0]
        discriminator = self.discriminator_loss(terms.z[0].detach(), self.shuffle_latents(others))
        loss = self.objective(terms) + (discriminator - discriminator.detach())  # gradient only
        return loss, terms.distortion.detach(), terms.rate.detach()

    def discriminator_loss(self, codes: Tensor, shuffled: Tensor) -> Tensor:
        """The discriminator's cross-entropy [], of codes [B, D] against shuffled codes [B', D]."""
        is_code = full_precision(self.discriminator(codes))
        is_not = -full_precision(self.discriminator(shuffled))
        return 0.5 * (softplus(-is_code).mean() + softplus(-is_not).mean())

    def shuffle_latents(self, codes: Tensor) -> Tensor:
        """Returns codes [B, D], each latent permuted at random over all processes' batch; detached.

        Only this process's share of the result is returned; `codes` stay as they are.
        """
        every = gather_batch(codes)
        order = torch.rand_like(every).argsort(0)
        return own_share(every.gather(0, order)).detach()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameter groups: one of the VAE, one of the discriminator with its options."""
        theirs = list(self.discriminator.parameters())
        ours = [p for n, p in self.named_parameters() if not n.startswith("discriminator.")]
        return [{"params": ours}, {"params": theirs, **self.discriminator_optimizer}]


class Discriminator(nn.Module):
    """The discriminator of `FactorVAE`: dense layers with leaky ReLU of slope 0.2, appendix A.

    Args:
        latent_dim: D.
        hidden: Widths of the layers.
    """

    def __init__(self, latent_dim: int, *, hidden: Widths) -> None:
        super().__init__()
        self.layers = build_dense_layers(latent_dim, hidden, 0, lambda h: leaky_relu(h, 0.2))
        self.out = nn.Linear(hidden[-1], 1)

    def forward(self, z: Tensor) -> Tensor:
        """The log-odds [B] that codes [B, D] are of q(z), and not shuffled."""
        return self.out(self.layers(z, z[:, :0])).squeeze(-1)
