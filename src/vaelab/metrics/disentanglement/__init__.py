"""Metrics of disentanglement: how well latents align with the factors that made the images.

From codes [N, D] and factors [N, F]: `mig`, `mig_chen`, `dci`, `sap`, `modularity`, `explicitness`
and `irs`. From a function that returns the codes of any factors: `beta_vae_score` and
`factor_vae_score`. The maximum is 1, and higher is better.
"""

from vaelab.metrics.disentanglement.fixed_factor import beta_vae_score, factor_vae_score
from vaelab.metrics.disentanglement.importance import dci
from vaelab.metrics.disentanglement.information import mig, modularity
from vaelab.metrics.disentanglement.mixtures import mig_chen
from vaelab.metrics.disentanglement.prediction import explicitness, sap
from vaelab.metrics.disentanglement.robustness import irs

__all__ = [
    "beta_vae_score",
    "dci",
    "explicitness",
    "factor_vae_score",
    "irs",
    "mig",
    "mig_chen",
    "modularity",
    "sap",
]
