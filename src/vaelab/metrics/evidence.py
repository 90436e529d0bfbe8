"""Log evidence by importance sampling, in chunks so that any number of samples fits in memory."""

import math

import torch
from torch import Tensor

from vaelab.autoencoder import AutoEncoder
from vaelab.metrics.chunking import images_per_chunk
from vaelab.terms import Terms


@torch.no_grad()
def evidence_estimates(
    model: AutoEncoder, x: Tensor, y: Tensor, num_samples: int
) -> dict[str, Tensor]:
    """Returns nll, elbo, distortion, rate, each [B], and rate_per_latent; raises for a `Point`.

    From K samples of q(z | x, y) for each image, in nats, without gradients. `nll` is
    -log (1/K) sum_k p(x, z_k | y) / q(z_k | x, y), which bounds -log p(x | y) from above in
    expectation, the closer the larger K (Burda et al., 2016, arXiv:1509.00519, eq. 8 and theorem
    1). `distortion`, `rate` and `elbo` are those of `Terms`, averaged over the same samples;
    `rate_per_latent` is `rate` before the sum over latents, [B, 1] where it does not split.

    Args:
        model: In evaluation mode.
        x: Images [B, C, H, W] in the form the model was trained on.
        y: One-hot labels [B, Y].
        num_samples: K. One sample is drawn of codes without a density, which are always the same.

    Raises:
        NotApplicable: If q is a `Point`, which has no density.
    """
    q, prior = model.latent_posterior(x, y), model.latent_prior(y)
    num_samples = num_samples if model.has_continuous_latents else 1
    log_sum = x.new_full((len(x),), -torch.inf)
    distortion, rate_per_latent = torch.zeros_like(log_sum), x.new_zeros(())
    most = max(1, images_per_chunk(model.x_shape, model.device) // len(x))
    for start in range(0, num_samples, most):
        count = min(most, num_samples - start)
        z = q.sample((count,))
        terms = Terms(x, q, prior, z, model.image_likelihood(z, y))
        log_sum = torch.logaddexp(log_sum, terms.log_weights.logsumexp(0))
        distortion += terms.distortion * (count / num_samples)
        rate_per_latent = rate_per_latent + terms.rate_per_latent * (count / num_samples)
    rate = rate_per_latent.sum(1)
    return {
        "nll": math.log(num_samples) - log_sum,
        "elbo": -(distortion + rate),
        "distortion": distortion,
        "rate": rate,
        "rate_per_latent": rate_per_latent,
    }
