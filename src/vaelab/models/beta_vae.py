"""`BetaVAE`, the VAE with a constant weight of the rate."""

from typing import Any

from pydantic import NonNegativeFloat

from vaelab.models.vae import VAE


class BetaVAE(VAE):
    """beta-VAE: loss = distortion + beta * rate (Higgins et al., 2017), eq. 4.

    openreview.net/forum?id=Sy2fzU9gl

    Args:
        beta: Weight of the rate; distortion and rate are in nats per image. Zero gives the
            stochastic auto-encoder, and with posterior=deterministic `AE`. In a paper that averages
            over pixels and latents this weight is beta * D / (C * H * W).
    """

    def __init__(self, *, beta: NonNegativeFloat, **parts: Any) -> None:
        super().__init__(**parts)
        self.add_weight("beta", beta)
