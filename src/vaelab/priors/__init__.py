"""Priors p(z | y): modules from the context [B, Y] to a distribution of latents [D].

The batch of that distribution is [B], or [] where every label has the same prior. A prior may have
the methods of `vaelab.parts`: `connect`, which gets the model, and `initialise`, which gets the
training images before a new training.
"""

from vaelab.priors.codes import Codes, CodeSequence
from vaelab.priors.flow import CouplingFlow
from vaelab.priors.mixture import GaussianMixture
from vaelab.priors.normal import ConditionalNormal, StandardNormal, UnitNormal
from vaelab.priors.vamp import Vamp

__all__ = [
    "CodeSequence",
    "Codes",
    "ConditionalNormal",
    "CouplingFlow",
    "GaussianMixture",
    "StandardNormal",
    "UnitNormal",
    "Vamp",
]
