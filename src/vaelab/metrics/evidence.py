"""Log evidence by importance sampling, streamed over samples so that any number of them fits."""

import math

import torch
from torch import Tensor

from vaelab.elbo import ELBO
from vaelab.terms import Terms

ROWS = 8192
"""Decoded images at a time: enough to fill a processor, little enough for its memory."""


@torch.no_grad()
def evidence(model: ELBO, x: Tensor, y: Tensor, num_samples: int) -> dict[str, Tensor]:
    """Estimates from K samples of q(z | x, y) for each image, nats, each of shape [B].

    `nll` is -log (1/K) sum_k p(x, z_k | y) / q(z_k | x, y), which bounds -log p(x | y) from
    above, in expectation, the closer the larger K (Burda et al., 2016, arXiv:1509.00519, eq. 8
    and theorem 1). `distortion`, `rate` and `elbo` are those of `Terms`, averaged over the same
    samples.

    Args:
        model: In evaluation mode.
        x: Images [B, C, H, W] as the model was trained on them.
        y: One-hot labels [B, Y].
        num_samples: K.
    """
    q, prior = model.encode(x, y), model.latent_prior(y)
    log_sum = x.new_full((len(x),), -torch.inf)
    distortion, rate = torch.zeros_like(log_sum), torch.zeros_like(log_sum)
    most = max(1, ROWS // len(x))
    for start in range(0, num_samples, most):
        count = min(most, num_samples - start)
        z = q.sample((count,))
        terms = Terms(x, q, prior, z, model.decode(z, y))
        log_sum = torch.logaddexp(log_sum, terms.log_weights.logsumexp(0))
        distortion += terms.distortion * (count / num_samples)
        rate += terms.rate * (count / num_samples)
    nll = math.log(num_samples) - log_sum
    return {"nll": nll, "elbo": -(distortion + rate), "distortion": distortion, "rate": rate}
