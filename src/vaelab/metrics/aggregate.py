"""What the rate is made of, by the posterior aggregated over a set of images.

Shapes: N images, M of them, R points in latent space, S samples, D latents.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaelab.autoencoder import AutoEncoder
from vaelab.chunking import entries
from vaelab.distributions.pairwise import is_factorised, log_densities

IMAGES = 250
"""Images to encode at a time."""


@torch.no_grad()
def surgery(model: AutoEncoder, x: Tensor, y: Tensor, num_samples: int = 1) -> dict[str, Tensor]:
    """The parts of the rate, nats for each of N images, each of shape [N].

    With q(z) = (1/N) sum_n q(z | x_n, y_n), their means over images estimate the information
    I(n; z) = E_n KL(q(z | x_n, y_n) || q(z)) that z has of the image, `mutual_information`, and
    KL(q(z) || p(z)), `marginal_kl` (Hoffman & Johnson, 2016, "ELBO surgery"). p(z) is the mean of
    p(z | y_n) over the images; where the prior is the same for all, the two sum to the rate.

    Where every q(z | x_n, y_n) factorises into normals, the mean of `total_correlation` estimates
    KL(q(z) || prod_d q(z_d)), one part of the marginal KL (Chen et al., 2018, arXiv:1802.04942,
    eq. 2), with all N components in q(z) and in every q(z_d).

    They are of these N images: the information is at most log N, however much more z would tell of
    a larger set, and the marginal KL is as much higher. Their standard error over images
    is at least that of drawing z.

    Args:
        model: In evaluation mode.
        x: Images [N, C, H, W] as the model was trained on them.
        y: One-hot labels [N, Y].
        num_samples: S, of z for each image.
    """
    labels = y.split(IMAGES)
    posteriors = [model.encode(*part) for part in zip(x.split(IMAGES), labels, strict=True)]
    priors = [model.latent_prior(part) for part in labels]
    samples = [q.sample((num_samples,)) for q in posteriors]
    z = torch.cat(samples, 1)
    own = torch.cat([q.log_prob(s) for q, s in zip(posteriors, samples, strict=True)], 1)
    points = z.flatten(0, 1)
    marginal = log_mixture(posteriors, points).view_as(own)
    found = {"mutual_information": (own - marginal).mean(0)}
    if all(is_factorised(q) for q in posteriors):
        apart = [log_mixture(each, points[:, d : d + 1]) for d, each in by_latent(posteriors)]
        found["total_correlation"] = (marginal - torch.stack(apart).sum(0).view_as(own)).mean(0)
    prior = log_mixture(priors, points) if priors[0].batch_shape else priors[0].log_prob(points)
    return found | {"marginal_kl": (marginal - prior.view_as(own)).mean(0)}


def by_latent(posteriors: Sequence[Distribution]) -> Iterator[tuple[int, list[Distribution]]]:
    """Each latent, and its distributions alone."""
    for d in range(posteriors[0].event_shape[0]):
        chosen = slice(d, d + 1)
        yield (
            d,
            [Independent(Normal(q.mean[:, chosen], q.stddev[:, chosen]), 1) for q in posteriors],
        )


def log_mixture(components: Sequence[Distribution], z: Tensor) -> Tensor:
    """Log of the mean of N densities, given in batches of M, at z [R, D]: [R]."""
    total = torch.full_like(z[:, 0], -torch.inf)
    count = 0
    for q in components:
        (size,) = q.batch_shape
        rows = max(1, entries(z.device) // (size * z.shape[1]))
        sums = [log_densities(q, part).logsumexp(1) for part in z.split(rows)]
        total = torch.logaddexp(total, torch.cat(sums).to(total))
        count += size
    return total - math.log(count)
