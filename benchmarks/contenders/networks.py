"""The network that all contenders train, as layers of PyTorch, and its bound.

Shapes: B images of C x H x W pixels, D latents.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

CHANNELS, FEATURES = (32, 64, 128), 256  # what network=conv and network=resnet have


def stored_images(settings: dict[str, Any]) -> np.ndarray:
    """The training images, uint8 [N, C, H, W]."""
    with np.load(settings["images"]) as file:
        return file["train_images"]


def network(settings: dict[str, Any], shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """Encoder, x [B, C, H, W] to means and log scales [B, 2 D], and decoder, z [B, D] to logits.

    Args:
        settings: Of the race: `network`, `latents`, and for an mlp `hidden`.
        shape: (C, H, W).
    """
    latents = settings["latents"]
    if settings["network"] == "conv":
        return convolutions(shape, latents)
    if settings["network"] == "resnet":
        return residual_layers(shape, latents)
    pixels, hidden = math.prod(shape), settings["hidden"]
    encoder = [nn.Flatten(), nn.Linear(pixels, hidden), nn.SiLU(), nn.Linear(hidden, 2 * latents)]
    decoder = [nn.Linear(latents, hidden), nn.SiLU(), nn.Linear(hidden, pixels)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder, nn.Unflatten(1, shape))


def convolutions(shape: tuple[int, ...], latents: int) -> tuple[nn.Module, nn.Module]:
    """Sides are multiples of 8 pixels."""
    one, two, three = CHANNELS
    small = (three, shape[1] // 8, shape[2] // 8)
    encoder = nn.Sequential(
        *(nn.Conv2d(shape[0], one, 4, 2, 1), nn.SiLU()),
        *(nn.Conv2d(one, two, 4, 2, 1), nn.SiLU()),
        *(nn.Conv2d(two, three, 4, 2, 1), nn.SiLU(), nn.Flatten()),
        *(nn.Linear(math.prod(small), FEATURES), nn.SiLU()),
        nn.Linear(FEATURES, 2 * latents),
    )
    decoder = nn.Sequential(
        *(nn.Linear(latents, FEATURES), nn.SiLU()),
        *(nn.Linear(FEATURES, math.prod(small)), nn.SiLU(), nn.Unflatten(1, small)),
        *(nn.ConvTranspose2d(three, two, 4, 2, 1), nn.SiLU()),
        *(nn.ConvTranspose2d(two, one, 4, 2, 1), nn.SiLU()),
        nn.ConvTranspose2d(one, shape[0], 4, 2, 1),
    )
    return encoder, decoder


class Residual(nn.Sequential):
    """The layers f as h + f(h)."""

    def forward(self, h: Tensor) -> Tensor:
        return h + super().forward(h)


def activated(channels: int, layer: nn.Module) -> tuple[nn.Module, ...]:
    """A layer behind the normalisation and activation of its input, in groups of 16 channels."""
    return nn.GroupNorm(channels // 16, channels), nn.SiLU(), layer


def residual(channels: int) -> nn.Module:
    convolutions = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return Residual(*(part for layer in convolutions for part in activated(channels, layer)))


def residual_layers(shape: tuple[int, ...], latents: int) -> tuple[nn.Module, nn.Module]:
    """Sides are multiples of 4 pixels."""
    one, two, three = CHANNELS
    small = (three, shape[1] // 4, shape[2] // 4)
    encoder = nn.Sequential(
        *(nn.Conv2d(shape[0], one, 3, padding=1), residual(one)),
        *(*activated(one, nn.Conv2d(one, two, 3, 2, 1)), residual(two)),
        *(*activated(two, nn.Conv2d(two, three, 3, 2, 1)), residual(three)),
        *(*activated(three, nn.Flatten()), nn.Linear(math.prod(small), FEATURES), nn.SiLU()),
        nn.Linear(FEATURES, 2 * latents),
    )
    decoder = nn.Sequential(
        *(nn.Linear(latents, FEATURES), nn.SiLU()),
        *(nn.Linear(FEATURES, math.prod(small)), nn.Unflatten(1, small), residual(three)),
        *(*activated(three, nn.Conv2d(three, two, 1)), nn.Upsample(scale_factor=2), residual(two)),
        *(*activated(two, nn.Conv2d(two, one, 1)), nn.Upsample(scale_factor=2), residual(one)),
        *activated(one, nn.Conv2d(one, shape[0], 3, padding=1)),
    )
    return encoder, decoder


def bound(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Distortion and rate of binary images x, in nats per image."""
    mean, log_scale = encoder(x).chunk(2, dim=-1)
    scale = log_scale.exp()
    logits = decoder(mean + scale * torch.randn_like(mean))
    distortion = binary_cross_entropy_with_logits(logits, x, reduction="sum")
    rate = 0.5 * (mean.square() + scale.square() - 1 - 2 * log_scale).sum()
    return distortion / len(x), rate / len(x)
