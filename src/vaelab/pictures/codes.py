"""From images to latents and back, a portion at a time."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.chunking import portion
from vaelab.elbo import ELBO
from vaelab.priors import CodeSequence


def encoded(model: ELBO, x: Tensor, y: Tensor) -> Tensor:
    """Posterior means [N, D] of images [N, C, H, W] with labels [N, Y]."""
    count = portion(model.x_shape, model.device)
    parts = zip(x.split(count), y.split(count), strict=True)
    return torch.cat([model.encode(*part).mean for part in parts])


def decoded(model: ELBO, z: Tensor, y: Tensor) -> dict[str, Tensor]:
    """The mean images [..., C, H, W] of latents z [..., D] with labels y [..., Y], and those.

    `y` comes back with width zero for an unconditional model.
    """
    count = portion(model.x_shape, model.device)
    parts = zip(z.flatten(0, -2).split(count), y.flatten(0, -2).split(count), strict=True)
    images = torch.cat([model.decode(*part).mean for part in parts])
    return {
        "images": images.unflatten(0, z.shape[:-1]),
        "z": z,
        "y": y if model.context_dim else y[..., :0],
    }


def prior_of(model: ELBO, y: Tensor) -> Distribution:
    """p(z | y) for labels [N, Y], batch [N]."""
    return model.latent_prior(y).expand(y.shape[:1])


def sampled(model: ELBO, y: Tensor, temperature: float) -> Tensor:
    """One z [N, D] of the prior for each label, its distance from the mean times `temperature`.

    Of codes, whose mean is none, it is the temperature of their probabilities.
    """
    prior = prior_of(model, y)
    if isinstance(prior, CodeSequence):
        return prior.tempered(temperature).sample()
    return torch.lerp(prior.mean, prior.sample(), temperature)
