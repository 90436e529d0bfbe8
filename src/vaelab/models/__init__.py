"""The variants: one file each, and in it only what differs from `vaelab.elbo`."""

from vaelab.models.beta_vae import BetaVAE
from vaelab.models.factor_vae import FactorVAE
from vaelab.models.vae import VAE

__all__ = ["VAE", "BetaVAE", "FactorVAE"]
