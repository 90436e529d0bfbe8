"""The variants of the VAE, one paper per file, each with only its difference from `ELBO`."""

from vaelab.models.ae import AE
from vaelab.models.beta_tcvae import BetaTCVAE
from vaelab.models.beta_vae import BetaVAE
from vaelab.models.capacity_vae import CapacityVAE
from vaelab.models.ciwae import CIWAE
from vaelab.models.dip_vae import DIPVAE
from vaelab.models.factor_vae import FactorVAE
from vaelab.models.info_vae import InfoVAE
from vaelab.models.iwae import IWAE
from vaelab.models.ladder_vae import LadderVAE
from vaelab.models.miwae import MIWAE
from vaelab.models.piwae import PIWAE
from vaelab.models.rae import RAE
from vaelab.models.vae import VAE
from vaelab.models.vq_vae import VQVAE
from vaelab.models.wae import WAE

__all__ = [
    "AE",
    "CIWAE",
    "DIPVAE",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "RAE",
    "VAE",
    "VQVAE",
    "WAE",
    "BetaTCVAE",
    "BetaVAE",
    "CapacityVAE",
    "FactorVAE",
    "InfoVAE",
    "LadderVAE",
]
