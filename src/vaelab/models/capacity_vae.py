from typing import Any

from pydantic import NonNegativeFloat
from torch import Tensor

from vaelab.distributed import whole
from vaelab.elbo import ELBO
from vaelab.terms import Terms


class CapacityVAE(ELBO):
    """Understanding disentangling in beta-VAE (Burgess et al., 2018), arXiv:1804.03599, eq. 8.

    loss = distortion + gamma * |rate - C|, with the rate averaged over the batch before the
    difference is taken: C is what the codes hold on average, and an image may take more. The paper
    lets C rise from zero: annealing=linear annealing.duration=0.8.

    Args:
        capacity: C, nats per image.
        gamma: Weight of the rate's distance from C.
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
        excess = whole(terms.rate).mean() - self.capacity
        return terms.distortion.mean() + self.gamma * excess.abs()
