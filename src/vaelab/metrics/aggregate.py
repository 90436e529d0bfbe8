"""Parts of the rate by the posterior aggregated over a set of images ("ELBO surgery").

Shapes: N images, M of them, R points in latent space, S samples, D latents.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaelab.autoencoder import AutoEncoder
from vaelab.distributions.pairwise import is_factorised_normal, log_densities
from vaelab.metrics.chunking import entries_per_chunk

IMAGES = 250
"""Images to encode at a time."""


def elbo_surgery(
    model: AutoEncoder, x: Tensor, y: Tensor, num_samples: int = 1
) -> dict[str, Tensor]:
    """Returns two or three estimated parts of each image's rate, nats, [N] each; no gradients.

    `mutual_information` and `marginal_kl` always, `total_correlation` only where every q
    factorises.

    With q(z) = (1/N) sum_n q(z | x_n, y_n), the mean over images of `mutual_information` estimates
    the information that z has of the image, I(n; z) = E_n KL(q(z | x_n, y_n) || q(z)), and that of
    `marginal_kl` KL(q(z) || p(z)) (Hoffman & Johnson, 2016, "ELBO surgery"). p(z) is the mean of
    p(z | y_n) over the images; where the prior is the same for all, the two sum to the rate.

    Where every q(z | x_n, y_n) factorises into normals, the mean of `total_correlation` estimates
    KL(q(z) || prod_d q(z_d)), one part of the marginal KL (Chen et al., 2018, arXiv:1802.04942,
    eq. 2), with all N components in q(z) and in every q(z_d).

    All depend on N: the information is at most log N, however much more z would tell of a larger
    set, and the marginal KL is higher by as much. Their standard error over images includes that of
    drawing z.

    Args:
        model: In evaluation mode.
        x: Images [N, C, H, W] in the form the model was trained on.
        y: One-hot labels [N, Y].
        num_samples: S, draws of z for each image.
    """
    batches = zip(x.split(IMAGES), y.split(IMAGES), strict=True)
    return elbo_surgery_of_batches(model, batches, num_samples)


@torch.no_grad()
def elbo_surgery_of_batches(
    model: AutoEncoder, batches: Iterable[tuple[Tensor, Tensor]], num_samples: int
) -> dict[str, Tensor]:
    """Returns what `elbo_surgery` does of images and labels in batches, each encoded once."""
    posteriors, priors = [], []
    for x, y in batches:
        posteriors.append(model.latent_posterior(x, y))
        priors.append(model.latent_prior(y))
    samples = [q.sample((num_samples,)) for q in posteriors]
    z = torch.cat(samples, 1)
    own = torch.cat([q.log_prob(s) for q, s in zip(posteriors, samples, strict=True)], 1)
    points = z.flatten(0, 1)
    marginal = log_mean_density(posteriors, points).view_as(own)
    found = {"mutual_information": (own - marginal).mean(0)}
    if all(is_factorised_normal(q) for q in posteriors):
        marginals = [
            log_mean_density(each, points[:, d : d + 1]) for d, each in latent_marginals(posteriors)
        ]
        found["total_correlation"] = (marginal - torch.stack(marginals).sum(0).view_as(own)).mean(0)
    prior = (
        log_mean_density(priors, points) if priors[0].batch_shape else priors[0].log_prob(points)
    )
    return found | {"marginal_kl": (marginal - prior.view_as(own)).mean(0)}


def latent_marginals(
    posteriors: Sequence[Distribution],
) -> Iterator[tuple[int, list[Distribution]]]:
    """Yields each latent d and its marginals q(z_d | x), event [1]; posteriors must factorise."""
    for d in range(posteriors[0].event_shape[0]):
        chosen = slice(d, d + 1)
        yield (
            d,
            [Independent(Normal(q.mean[:, chosen], q.stddev[:, chosen]), 1) for q in posteriors],
        )


def log_mean_density(components: Sequence[Distribution], z: Tensor) -> Tensor:
    """Returns the log of the mean of N densities, given in batches of M, at z [R, D]: [R].

    Computed in chunks of points that fit in memory.
    """
    total = torch.full_like(z[:, 0], -torch.inf)
    count = 0
    for q in components:
        (size,) = q.batch_shape
        rows = max(1, entries_per_chunk(z.device) // (size * z.shape[1]))
        sums = [log_densities(q, part).logsumexp(1) for part in z.split(rows)]
        total = torch.logaddexp(total, torch.cat(sums).to(total))
        count += size
    return total - math.log(count)
