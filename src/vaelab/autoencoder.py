"""Two networks with distributions at either end: what encodes, draws and decodes.

Shapes: K samples, B images, D latents, Y width of the labels, C x H x W pixels.
"""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.distributions.precision import full_precision
from vaelab.errors import UserError
from vaelab.parts import Connected
from vaelab.terms import Terms


class AutoEncoder(nn.Module):
    """p(x | z, y) p(z | y) and an approximate posterior q(z | x, y).

    The parts are factories: the YAML chooses them, this constructor tells them the shapes.

    Args:
        x_shape: (C, H, W) of one image; the data module knows it.
        classes: How many there are, for each column of y that is a class, by name.
        numbers: How wide it is, for each column of y that is numbers; these come after the classes.
        pixels: What the data module makes of a pixel, see `vaelab.data.pixels`.
        class_names: What the classes of a column are called, by its name; by default 0, 1, ...
        latent_dim: D.
        condition: (classes, numbers) -> module from y to the context, of which all else that is
            called y or Y below is told; see `vaelab.conditions`.
        encoder: (x_shape, Y) -> module from (x, y) to features [B, F].
        posterior: (F, D) -> module from features to q(z | x, y).
        prior: (D, Y) -> module from y to p(z | y), see `vaelab.priors`.
        decoder: (D, Y, shape) -> module from (z, y) to likelihood parameters.
        likelihood: Module from parameters to p(x | z, y).
        num_samples: K, the samples of z for each image.

    Raises:
        UserError: If the parts contradict each other or the data.
    """

    continuous = True  # whether its latents are; codes are not

    def __init__(
        self,
        *,
        x_shape: tuple[PositiveInt, PositiveInt, PositiveInt],
        classes: dict[str, PositiveInt],
        numbers: dict[str, PositiveInt],
        pixels: str,
        latent_dim: PositiveInt,
        condition: Callable[..., Any],
        encoder: Callable[..., nn.Module],
        posterior: Callable[..., nn.Module],
        prior: Callable[..., Any],
        decoder: Callable[..., nn.Module],
        likelihood: Any,
        num_samples: PositiveInt = 1,
        class_names: dict[str, list[str]] | None = None,
    ) -> None:
        super().__init__()
        if pixels not in likelihood.pixels:
            accepted = " or ".join(f"data.pixels={kind}" for kind in likelihood.pixels)
            raise UserError(
                f"data.pixels={pixels} cannot be modelled by the "
                f"{type(likelihood).__name__} likelihood, which takes {accepted}"
            )
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
        self.classes, self.numbers = dict(classes), dict(numbers)
        self.class_names = {name: [*map(str, range(count))] for name, count in classes.items()}
        self.class_names |= {name: [*names] for name, names in (class_names or {}).items()}
        self.num_samples = num_samples
        self.pixels = pixels
        self.bits_offset: float | None = likelihood.pixels[pixels]

        channels, height, width = x_shape
        self.condition = condition(self.classes, self.numbers)
        self.context_dim: int = self.condition.features
        self.encoder = encoder(x_shape, self.context_dim)
        self.posterior = posterior(self.encoder.features, latent_dim)
        self.prior = prior(latent_dim, self.context_dim)
        if isinstance(self.prior, Connected):
            self.prior.connect(self)
        out_shape = (likelihood.channels(channels), height, width)
        self.decoder = decoder(latent_dim, self.context_dim, out_shape)
        self.likelihood = likelihood

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    @property
    def num_classes(self) -> int:
        """Classes of the first column of y, zero where it is none."""
        return next(iter(self.classes.values()), 0)

    @property
    def y_dim(self) -> int:
        """Y, the width of y."""
        return sum(self.classes.values()) + sum(self.numbers.values())

    @property
    def shapes(self) -> dict[str, Any]:
        """What it was told of the data, as plain values."""
        return {
            "x_shape": self.x_shape,
            "classes": self.classes,
            "numbers": self.numbers,
            "class_names": self.class_names,
            "pixels": self.pixels,
        }

    @property
    def label_names(self) -> list[str]:
        """What the classes of the first column of y are called."""
        return next(iter(self.class_names.values()), [])

    def class_index(self, name: int | str, column: str) -> int:
        """The place of a class of that name, such as 3 or cat, among those of a column.

        Raises:
            UserError: If there is none; says which there are.
        """
        names = self.class_names[column]
        if str(name) in names:
            return names.index(str(name))
        known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise UserError(f"{name}: the classes of {column} are {known}")

    def context(self, y: Tensor) -> Tensor:
        """What the model sees of labels [B, Y]: [B, C], or [B, 0] if it is unconditional."""
        return self.condition(y)

    def latent_prior(self, y: Tensor) -> Distribution:
        """p(z | y), batch [B] or, the same for every label, []."""
        return self.prior(self.context(y))

    def encode(self, x: Tensor, y: Tensor) -> Distribution:
        """q(z | x, y), batch [B]."""
        return self.posterior(self.encoder(x, self.context(y)))

    def decode(self, z: Tensor, y: Tensor) -> Distribution:
        """p(x | z, y) for z [..., B, D] and y [B, Y], batch [..., B]."""
        context = self.context(y)
        if z.dim() > 2:
            context = context.expand(*z.shape[:-1], -1).flatten(0, -2)
        params = full_precision(self.decoder(z.flatten(0, -2), context))
        return self.likelihood(params.unflatten(0, z.shape[:-1]))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The reconstruction of x through the posterior mean, [B, C, H, W]."""
        return self.decode(self.encode(x, y).mean, y).mean

    @torch.no_grad()
    def sample(self, y: Tensor) -> Tensor:
        """The mean image of one z from the prior for each label, [B, C, H, W]."""
        return self.decode(self.latent_prior(y).expand(y.shape[:1]).sample(), y).mean

    def terms(self, x: Tensor, y: Tensor, num_samples: int | None = None) -> Terms:
        """The bound's estimate from K samples of z for each image."""
        q = self.encode(x, y)
        z = self.draw(q, num_samples or self.num_samples)
        return Terms(x, q, self.latent_prior(y), z, self.decode(z, y))

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        """Samples [K, B, D] of q, with gradients."""
        return q.rsample((num_samples,))
