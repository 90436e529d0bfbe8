"""p(z | y): modules from the context [B, Y] to a distribution over latents [D].

The batch of that distribution is [B], or [] where every label has the same prior. A prior that
has `connect` is told of the images and the model's encoder, and one that has `initialise` sees the
data before a training that starts afresh.
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
