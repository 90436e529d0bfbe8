"""Likelihoods p(x | z, y): modules from decoder outputs [..., P, H, W] to distributions of images.

Images are [C, H, W]. Each module has `channels(C)`, the P that the decoder must have, and `pixels`:
the kinds of pixel, or of numbers, that it models (see `vaelab.data.pixels`), each with the number
to add to its bits per dimension, or None where bits per dimension are not defined. Signals are
[C, L] and vectors [C]; `connect`, called with the model, tells a likelihood which x are.
"""

from vaelab.likelihoods.autoregressive import Autoregressive
from vaelab.likelihoods.bernoulli import Bernoulli
from vaelab.likelihoods.continuous_bernoulli import ContinuousBernoulli
from vaelab.likelihoods.densities import Gaussian, Laplace
from vaelab.likelihoods.levels import Categorical, DiscretizedLogistic
from vaelab.likelihoods.logistic_mixture import DiscretizedLogisticMixture

__all__ = [
    "Autoregressive",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "Laplace",
]
