import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.terms import Terms


class IWAE(ELBO):
    """Importance weighted auto-encoder (Burda et al., 2016), arXiv:1509.00519, eq. 8.

    loss = -log (1/K) sum_k w_k, w_k = p(x, z_k) / q(z_k | x), so -loss is a bound on log p(x), the
    tighter the larger K, and at K = 1 the ELBO by a sample. `elbo` is still that of one sample; the
    bound of all K is `importance_weighted_elbo` in an evaluation.

    Args:
        gradient: Of the bound for the encoder. `standard`: its own. `dreg`: doubly reparameterised
            (Tucker et al., 2019), arXiv:1810.04152, sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi)
            with v the normalised weights: of the same expectation, and of a variance that
            does not drown it as K grows. The loss shown is the bound either way.

    Raises:
        UserError: In training, if `dreg` is asked for of a posterior that is not Gaussian.
    """

    def __init__(self, *, gradient: Literal["standard", "dreg"], **parts: Any) -> None:
        super().__init__(**parts)
        self.gradient = gradient

    def bound(self, log_weights: Tensor) -> Tensor:
        """The bound [B] by log-weights [K, B]."""
        return log_mean_exp(log_weights)

    def squared(self, log_weights: Tensor) -> Tensor:
        """What d log w_k / d z_k counts in the doubly reparameterised gradient, [K, B]."""
        return log_weights.softmax(0).square()

    def objective(self, terms: Terms) -> Tensor:
        if self.gradient == "standard":
            return -self.bound(terms.log_weights).mean()
        log_weights = terms.log_joint - held(terms.q).log_prob(terms.z)
        encoder_loss = -(self.squared(log_weights.detach()) * log_weights).sum(0).mean()
        return rerouted(-self.bound(log_weights).mean(), encoder_loss, terms.z)

    @property
    def can_compile(self) -> bool:
        return self.gradient == "standard"

    def details(self, terms: Terms) -> dict[str, Tensor]:
        return {"importance_weighted_elbo": log_mean_exp(terms.log_weights)}


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Logarithm of the mean of K weights, [B] from [K, B]."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def held(q: Distribution) -> Distribution:
    """A Gaussian through whose parameters no gradient flows.

    Raises:
        UserError: If it is none.
    """
    inner = q.base_dist if isinstance(q, Independent) else q
    if not isinstance(inner, (Normal, MultivariateNormal)):
        raise UserError("model.gradient=dreg needs posterior=gaussian or full_gaussian")
    still = copy.copy(inner)
    for name, value in vars(inner).items():
        if isinstance(value, Tensor):
            vars(still)[name] = value.detach()
    return Independent(still, 1) if isinstance(q, Independent) else still


def rerouted(loss: Tensor, encoder_loss: Tensor, z: Tensor) -> Tensor:
    """The value of a loss, and its gradient but for z, which gets that of another loss.

    It takes one more pass back through the decoder.

    Args:
        loss: Of z and of parameters.
        encoder_loss: Of z.
        z: What the encoder made.
    """
    if not (torch.is_grad_enabled() and z.requires_grad):
        return loss
    (change,) = torch.autograd.grad(encoder_loss - loss, z, retain_graph=True)
    return loss + without_value((change * z).sum())


def without_value(scalar: Tensor) -> Tensor:
    """Zero, with the gradient of a scalar."""
    return scalar - scalar.detach()
