"""p(x | z, y): modules from decoder outputs [..., P, H, W] to a distribution over images [C, H, W].

Each has `channels(C)`, the P that the decoder must provide, and `pixels`: the kinds of pixel (see
`vaelab.data.pixels`) that it models, with what must be added to its bits per dimension, or None
where bits per dimension are not defined.
"""

from vaelab.likelihoods.bernoulli import Bernoulli
from vaelab.likelihoods.continuous_bernoulli import ContinuousBernoulli
from vaelab.likelihoods.densities import Gaussian, Laplace
from vaelab.likelihoods.levels import Categorical, DiscretizedLogistic
from vaelab.likelihoods.logistic_mixture import DiscretizedLogisticMixture

__all__ = [
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "Laplace",
]
