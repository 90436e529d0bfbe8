"""`IWAE`, the importance weighted bound, and its gradient estimators."""

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
    """IWAE: the importance weighted auto-encoder (Burda et al., 2016), arXiv:1509.00519, eq. 8.

    loss = -log (1/K) sum_k w_k with w_k = p(x, z_k) / q(z_k | x). So -loss is a lower bound on
    log p(x), tighter for larger K, and at K = 1 the ELBO estimated from a sample. The metric `elbo`
    is still the ELBO; an evaluation reports the bound of all K as `importance_weighted_elbo`.

    Args:
        gradient: The estimator of the encoder's gradient. `standard`: backpropagation. `dreg`:
            doubly reparameterised (Tucker et al., 2019), arXiv:1810.04152,
            sum_k v_k^2 (d log w_k / d z_k) (d z_k / d phi) with v the normalised weights: the same
            expectation, with a variance that does not drown it as K grows. The value of the loss is
            the same.

    Raises:
        UserError: In `objective`, for gradient=dreg with a posterior that is not Gaussian.
    """

    def __init__(self, *, gradient: Literal["standard", "dreg"], **parts: Any) -> None:
        super().__init__(**parts)
        self.gradient = gradient

    def bound(self, log_weights: Tensor) -> Tensor:
        """The importance weighted bound [B] of log-weights [K, B]; a subclass may override it."""
        return log_mean_exp(log_weights)

    def dreg_weights(self, log_weights: Tensor) -> Tensor:
        """The factors v_k^2 of d log w_k / d z_k in the doubly reparameterised gradient, [K, B]."""
        return log_weights.softmax(0).square()

    def objective(self, terms: Terms) -> Tensor:
        """The negative mean bound [], with `self.gradient` for the encoder; may raise UserError."""
        if self.gradient == "standard":
            return -self.bound(terms.log_weights).mean()
        log_weights = terms.log_joint - detached_gaussian(terms.q).log_prob(terms.z)
        encoder_loss = -(self.dreg_weights(log_weights.detach()) * log_weights).sum(0).mean()
        return loss_with_encoder_gradient(-self.bound(log_weights).mean(), encoder_loss, terms.z)

    @property
    def can_compile(self) -> bool:
        """True unless gradient=dreg, which calls autograd."""
        return self.gradient == "standard"

    def extra_metrics(self, terms: Terms) -> dict[str, Tensor]:
        """The bound of IWAE [B] by all K samples, as `importance_weighted_elbo`."""
        return {"importance_weighted_elbo": log_mean_exp(terms.log_weights)}


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """The logarithm of the mean of weights over dimension 0, [B] from log-weights [K, B]."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def detached_gaussian(q: Distribution) -> Distribution:
    """A copy of a Gaussian q with all its tensors detached; raises UserError for any other q.

    Raises:
        UserError: If q is no Normal or MultivariateNormal.
    """
    inner = q.base_dist if isinstance(q, Independent) else q
    if not isinstance(inner, (Normal, MultivariateNormal)):
        raise UserError("model.gradient=dreg needs posterior=gaussian or full_gaussian")
    detached = copy.copy(inner)
    for name, value in vars(inner).items():
        if isinstance(value, Tensor):
            vars(detached)[name] = value.detach()
    return Independent(detached, 1) if isinstance(q, Independent) else detached


def loss_with_encoder_gradient(loss: Tensor, encoder_loss: Tensor, z: Tensor) -> Tensor:
    """The value and gradient of `loss` [], but through z the gradient of `encoder_loss`.

    Parameters that are not reached through z, as those of the decoder, get the gradient of `loss`.
    Costs one more backward pass through the decoder. Without gradients it is `loss` itself.

    Args:
        loss: A scalar function of z and of parameters.
        encoder_loss: A scalar function of z, for the gradient through z.
        z: The samples from the encoder.
    """
    if not (torch.is_grad_enabled() and z.requires_grad):
        return loss
    (change,) = torch.autograd.grad(encoder_loss - loss, z, retain_graph=True)
    return loss + zero_with_gradient((change * z).sum())


def zero_with_gradient(scalar: Tensor) -> Tensor:
    """A zero [] that has the gradient of a scalar."""
    return scalar - scalar.detach()
