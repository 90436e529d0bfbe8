from typing import Any

from pydantic import NonNegativeFloat

from vaelab.models.vae import VAE


class BetaVAE(VAE):
    """beta-VAE (Higgins et al., 2017), openreview.net/forum?id=Sy2fzU9gl, eq. 4.

    Args:
        beta: Weight of the rate against the distortion, both in nats per image; zero is the
            stochastic auto-encoder. A paper that averages over pixels and latents has
            beta * D / (C * H * W) instead.
    """

    def __init__(self, *, beta: NonNegativeFloat, **parts: Any) -> None:
        super().__init__(**parts)
        self.add_weight("beta", beta)
