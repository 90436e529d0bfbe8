"""The metric of linear models: the NLL of probabilistic PCA, which a linear VAE tends to."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vaelab.data import Images
from vaelab.data.pixels import draw
from vaelab.elbo import ELBO
from vaelab.evaluation.subject import Subject, applicable_unless
from vaelab.likelihoods import Gaussian
from vaelab.metrics.chunking import images_per_chunk
from vaelab.metrics.estimates import mean_estimate
from vaelab.metrics.principal_components import PrincipalComponents
from vaelab.randomness import seeded_generator

MOST = 5_000  # numbers of one x: the covariance has so many rows and columns


def pca_obstacle(model: ELBO, data: Images) -> str | None:
    """Returns why `pca` is not applicable: another density than PCA's, labels, or sizes; or None.

    PCA is Gaussian, with the same variance for all numbers of x.
    """
    likelihood, size = model.likelihood, math.prod(model.x_shape)
    if not isinstance(likelihood, Gaussian) or likelihood.params > 1 or likelihood.per_column:
        return "it takes likelihood=gaussian with one scale, as model.likelihood.scale=learned"
    if model.context_dim:
        return "PCA sees no labels, and the model does"
    if not model.latent_dim < size <= MOST:
        return f"it takes more numbers in x than latents, {MOST:,} at most, and x has {size:,}"
    return None


@applicable_unless(pca_obstacle)
def pca(subject: Subject) -> dict[str, Any]:
    """Measures the NLL of test images by probabilistic PCA, fitted exactly to the training images.

    It has as many latents as the model. A linear VAE (`network=linear`) is the same model, so its
    NLL tends to this one (Lucas et al., 2019, arXiv:1911.02469). Raises NotApplicable for other
    likelihoods than a Gaussian of one scale, conditional models, and large x.
    """
    fitted = PrincipalComponents.fit(training_images(subject), subject.model.latent_dim)
    found = torch.cat([fitted.nll(x) for x, _ in subject.test_batches("PCA of test images")])
    return {"pca_nll": mean_estimate(found)}


def training_images(subject: Subject) -> Iterator[Tensor]:
    """Yields chunks of the training images, with a progress bar; their pixels as for the model."""
    images, _, rows = subject.data.stored("train")
    device = subject.data.device
    noise = seeded_generator("pixels", subject.seed, device=device)
    images = images.to(device)
    chunks = rows.to(device).split(images_per_chunk(images.shape[1:], device))
    for some in subject.track(chunks, "PCA of training images"):
        yield draw(images[some], subject.data.pixels, noise)
