"""Encoding, decoding and sampling of the prior for pictures, in chunks.

Shapes: N images, D latents, Y width of the labels.
"""

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.elbo import ELBO
from vaelab.metrics.chunking import images_per_chunk
from vaelab.parts import HasTemperature


def encode_means(model: ELBO, x: Tensor, y: Tensor) -> Tensor:
    """Returns posterior means [N, D] of images [N, C, H, W] with labels [N, Y], in chunks."""
    count = images_per_chunk(model.x_shape, model.device)
    parts = zip(x.split(count), y.split(count), strict=True)
    return torch.cat([model.latent_posterior(*part).mean for part in parts])


def decode_means(model: ELBO, z: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Returns decoder means `images` [..., C, H, W] of z [..., D] and y [..., Y], with `z` and `y`.

    Decodes in chunks. For an unconditional model the returned `y` has width zero.
    """
    count = images_per_chunk(model.x_shape, model.device)
    parts = zip(z.flatten(0, -2).split(count), y.flatten(0, -2).split(count), strict=True)
    images = torch.cat([model.image_likelihood(*part).mean for part in parts])
    return {
        "images": images.unflatten(0, z.shape[:-1]),
        "z": z,
        "y": y if model.context_dim else y[..., :0],
    }


def batched_prior(model: ELBO, y: Tensor) -> Distribution:
    """Returns p(z | y) of labels [N, Y] with batch shape [N], even if the prior ignores y."""
    return model.latent_prior(y).expand(y.shape[:1])


def sample_prior(model: ELBO, y: Tensor, temperature: float) -> Tensor:
    """Draws z [N, D] from the prior at a temperature, one for each y [N, Y], by global randomness.

    `temperature` scales z about the prior's mean, unless the prior has its own temperature, as one
    over codes. The random numbers are from torch's global state.
    """
    prior = batched_prior(model, y)
    if isinstance(prior, HasTemperature):
        return prior.with_temperature(temperature).sample()
    return torch.lerp(prior.mean, prior.sample(), temperature)
