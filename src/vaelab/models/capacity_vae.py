"""`CapacityVAE`, which holds the rate near a given capacity."""

from typing import Any

from pydantic import NonNegativeFloat
from torch import Tensor

from vaelab.distributed import gather_batch
from vaelab.elbo import ELBO
from vaelab.terms import Terms, weighted


class CapacityVAE(ELBO):
    """A VAE whose mean rate is pulled to a capacity C (Burgess et al., 2018), eq. 8.

    "Understanding disentangling in beta-VAE", arXiv:1804.03599.

    loss = distortion + gamma * |rate - C|, with the rate averaged over the batch first: C limits
    the mean, and a single image may have a higher rate. The paper raises C from zero:
    annealing=linear annealing.duration=0.8.

    Args:
        capacity: C, nats per image.
        gamma: Weight of the distance of the mean rate from C.
    """

    capacity: Tensor
    gamma: Tensor

    def __init__(
        self, *, capacity: NonNegativeFloat, gamma: NonNegativeFloat, **parts: Any
    ) -> None:
        super().__init__(**parts)
        self.add_weight("capacity", capacity)
        self.add_weight("gamma", gamma)

    def objective(self, terms: Terms) -> Tensor:
        """The mean distortion + gamma * |mean rate - C|, []; in training, rate of all processes."""
        excess = gather_batch(terms.rate).mean() - self.capacity
        return terms.distortion.mean() + weighted(self.gamma, excess.abs())
