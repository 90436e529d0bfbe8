"""`AutoEncoder`: encoder, posterior, prior, decoder and likelihood as one nn.Module.

Shapes: K samples, B images, D latents, Y width of the labels, C x H x W pixels. Instead of images
x may be signals [B, C, L] or vectors [B, C]; the first axis of one x is that of its channels.
"""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.distributions import Distribution

from vaelab.distributions.precision import full_precision
from vaelab.errors import UserError
from vaelab.observations import PixelScale, Units
from vaelab.parts import Connected
from vaelab.terms import Terms

XShape = Annotated[tuple[PositiveInt, ...], Field(min_length=1, max_length=3)]


class AutoEncoder(nn.Module):
    """A latent-variable model p(x | z, y) p(z | y) with an approximate posterior q(z | x, y).

    The parts are factories, chosen in the YAML and called by this constructor with their shapes.
    There is no training here, see `vaelab.elbo.ELBO`.

    Args:
        x_shape: (C, H, W) of one image, (C, L) of a signal or (C,) of a vector; comes from the data
            module.
        classes: The number of classes of each categorical column of y, by the column's name.
        numbers: The width of each numeric column of y, by name; these come after the classes.
        pixels: The kind of pixel that the data module makes, see `vaelab.data.pixels`.
        class_names: The names of the classes of a column, by its name (default 0, 1, ...).
        latent_dim: D.
        condition: (classes, numbers) -> module from y [..., Y] to the context
            [..., context_dim], see `vaelab.conditions`. The parts below get the context as y.
        encoder: (x_shape, context_dim) -> module from (x, context) to features [B, F].
        posterior: (F, D) -> module from features to q(z | x, y).
        prior: (D, context_dim) -> module from context to p(z | y), see `vaelab.priors`.
        decoder: (D, context_dim, shape) -> module from (z, context) to likelihood parameters.
        likelihood: Module from parameters to p(x | z, y).
        num_samples: K, the samples of z for each image (default 1).
        units: Names and units of the numbers of vectors and signals, see `Units`, as plain lists
            (default: 0, 1, ... and as they are).
        pixel_scale: Black and white of the images of the data, see `PixelScale`, as plain lists
            (default: 0 and 255, of floats 0 and 1).

    Raises:
        UserError: If the parts contradict each other or the data.
    """

    has_continuous_latents = True  # False of VQ-VAE, whose z are code vectors without a density

    def __init__(
        self,
        *,
        x_shape: XShape,
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
        units: dict[str, list[str] | list[float]] | None = None,
        pixel_scale: dict[str, list[float]] | None = None,
    ) -> None:
        super().__init__()
        check_pixels(pixels, likelihood, x_shape)
        self.x_shape = tuple(x_shape)
        self.latent_dim = latent_dim
        self.classes, self.numbers = dict(classes), dict(numbers)
        self.class_names = {name: [*map(str, range(count))] for name, count in classes.items()}
        self.class_names |= {name: [*names] for name, names in (class_names or {}).items()}
        self.num_samples = num_samples
        self.pixels = pixels
        self.has_seen_x = False  # whether a training batch has been checked, see `check_batch`
        self.bits_offset: float | None = likelihood.pixels[pixels]

        self.units: Units | None = None
        if units or len(x_shape) < 3:
            self.units = Units.from_plain(units) if units else Units.default(x_shape[0])
        self.pixel_scale = PixelScale.from_plain(pixel_scale) if pixel_scale else PixelScale()
        if isinstance(likelihood, Connected):
            likelihood.connect(self)
        self.condition = condition(self.classes, self.numbers)
        self.context_dim: int = self.condition.features
        self.encoder = encoder(x_shape, self.context_dim)
        self.posterior = posterior(self.encoder.features, latent_dim)
        self.prior = prior(latent_dim, self.context_dim)
        if isinstance(self.prior, Connected):
            self.prior.connect(self)
        out_shape = (likelihood.channels(x_shape[0]), *x_shape[1:])
        self.decoder = decoder(latent_dim, self.context_dim, out_shape)
        self.likelihood = likelihood

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def num_classes(self) -> int:
        """The number of classes of the first categorical column of y, or 0 without one."""
        return next(iter(self.classes.values()), 0)

    @property
    def y_dim(self) -> int:
        """Y, the width of y: number of classes, one-hot, and width of each numeric column."""
        return sum(self.classes.values()) + sum(self.numbers.values())

    @property
    def shapes(self) -> dict[str, Any]:
        """Constructor arguments that the data give, as plain values.

        No `units` of images, and no `pixel_scale` that is the default.
        """
        units: dict[str, Any] = {"units": self.units.plain} if self.units else {}
        if not self.pixel_scale.is_default:
            units["pixel_scale"] = self.pixel_scale.plain
        return {
            "x_shape": self.x_shape,
            "classes": self.classes,
            "numbers": self.numbers,
            "class_names": self.class_names,
            "pixels": self.pixels,
            **units,
        }

    def in_units(self, x: Tensor) -> Tensor:
        """Returns x [..., *x_shape] as in the file: numbers restored, images on its `pixel_scale`.

        Numbers are float64 and on the CPU, in which no digit of large numbers is lost. Images in
        [0, 1] are those of most files, and stay as they are.
        """
        if self.units:
            return self.units.restore(x, len(self.x_shape))
        return self.pixel_scale.restore(x)

    @property
    def label_names(self) -> list[str]:
        """The names of the classes of the first categorical column of y, or [] without one."""
        return next(iter(self.class_names.values()), [])

    def class_index(self, name: int | str, column: str) -> int:
        """The index of class `name`, such as 3 or cat, in a column of y; UserError if it has none.

        Raises:
            UserError: If the column has no such class; lists up to 20 that it has.
        """
        names = self.class_names[column]
        if str(name) in names:
            return names.index(str(name))
        close = get_close_matches(str(name), names, n=1)
        if close and any(map(str.isalpha, str(name))):
            raise UserError(f"{name}: is no class of {column}; did you mean {close[0]}?")
        known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise UserError(f"{name}: the classes of {column} are {known}")

    def context(self, y: Tensor) -> Tensor:
        """The context [B, context_dim] of labels [B, Y], of width 0 if unconditional.

        Encoder, prior and decoder get it in place of y.
        """
        return self.condition(y)

    def latent_prior(self, y: Tensor) -> Distribution:
        """The prior p(z | y), batch [B], or batch [] if it is the same for every label."""
        return self.prior(self.context(y))

    def latent_posterior(self, x: Tensor, y: Tensor) -> Distribution:
        """The approximate posterior q(z | x, y) of images [B, C, H, W], batch [B], event [D]."""
        return self.posterior(self.encoder(x, self.context(y)))

    def encode_for_prior(self, x: Tensor, y: Tensor) -> Distribution:
        """The posterior of the latents under `self.prior`: all; in `LadderVAE` the top level only.

        Called by a prior that is made of posteriors, as VampPrior.
        """
        return self.latent_posterior(x, y)

    def image_likelihood(self, z: Tensor, y: Tensor) -> Distribution:
        """The likelihood p(x | z, y) of z [..., B, D] and y [B, Y], batch [..., B].

        Its parameters are float32 or better, also under autocast.
        """
        context = self.context(y)
        if z.dim() > 2:
            context = context.expand(*z.shape[:-1], -1).flatten(0, -2)
        params = full_precision(self.decoder(z.flatten(0, -2), context))
        return self.likelihood(params.unflatten(0, z.shape[:-1]))

    def mean_reconstruction(self, x: Tensor, y: Tensor) -> Tensor:
        """Reconstructions of x: mean images decoded from the posterior mean, [B, C, H, W]."""
        return self.image_likelihood(self.latent_posterior(x, y).mean, y).mean

    @torch.no_grad()
    def sample_means(self, y: Tensor) -> Tensor:
        """Mean images [B, C, H, W] of one z drawn from the prior for each label, without gradients.

        No pixel noise is drawn from the likelihood.
        """
        z = self.latent_prior(y).expand(y.shape[:1]).sample()
        return self.image_likelihood(z, y).mean

    def check_batch(self, x: Tensor, y: Tensor) -> None:
        """Raises UserError unless x and y are as `Inference.inputs` and the data module make them.

        Of the first batch in training mode the values of x are checked, too: later ones are not
        read, for which a GPU would have to wait. Nothing is checked in a compiled loss, nor are
        values that a density of real numbers is given without noise.
        """
        if torch.compiler.is_compiling():
            return
        how = "x, y = model.inputs(images, labels) makes them"
        dtype = next(self.parameters()).dtype
        if not isinstance(x, Tensor) or x.shape[1:] != self.x_shape or x.dtype != dtype:
            wanted = f"{type_text(dtype)} [B, {', '.join(map(str, self.x_shape))}]"
            raise UserError(f"x should be {wanted}, not {tensor_text(x)}; {how}")
        width = self.y_dim if self.context_dim else "Y"
        right = isinstance(y, Tensor) and y.shape[:-1] == x.shape[:1]
        if not right or (self.context_dim and (y.shape[1:] != (width,) or y.dtype != dtype)):
            wanted = f"{type_text(dtype)} [{len(x)}, {width}]"
            raise UserError(f"y should be {wanted}, not {tensor_text(y)}; {how}")
        if self.training and not self.has_seen_x:
            low, high = map(float, x.detach().aminmax()) if x.numel() else (0, 0)
            any_real = self.pixels in ("real", "grey") and "real" in self.likelihood.pixels
            if not (any_real or (low >= 0 and high <= 1)):  # also NaN
                raise UserError(f"x are pixels in [0, 1], and these are {low:g} to {high:g}; {how}")

    def terms(self, x: Tensor, y: Tensor, num_samples: int | None = None) -> Terms:
        """Draws K samples z per image (default `self.num_samples`); returns `Terms` of the ELBO.

        Raises:
            UserError: If x and y are no batch, see `check_batch`.
        """
        self.check_batch(x, y)
        if self.training and not self.has_seen_x:
            self.has_seen_x = True
        q = self.latent_posterior(x, y)
        z = self.draw(q, num_samples or self.num_samples)
        return Terms(x, q, self.latent_prior(y), z, self.image_likelihood(z, y))

    def draw(self, q: Distribution, num_samples: int) -> Tensor:
        """Reparameterised samples [K, B, D] of q, with gradients to its parameters."""
        return q.rsample((num_samples,))


def type_text(dtype: torch.dtype) -> str:
    """A type of numbers as text, such as float32."""
    return str(dtype).removeprefix("torch.")


def tensor_text(value: Any) -> str:
    """Type and shape of a tensor as text, `float32 [8, 2]`; of another object its class."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{type_text(value.dtype)} {list(value.shape)}"


def check_pixels(pixels: str, likelihood: Any, x_shape: Sequence[int]) -> None:
    """Raises UserError unless a likelihood models this kind of pixels, or of numbers."""
    if pixels in likelihood.pixels:
        return
    images = len(x_shape) == 3
    kinds = [kind for kind in likelihood.pixels if images == (kind != "real") or kind == "binary"]
    accepted = " or ".join(f"data.pixels={kind}" for kind in kinds)
    if not kinds:
        accepted = (
            "pixels of images; numbers take likelihood=gaussian or laplace, 0 and 1 bernoulli"
        )
    raise UserError(
        f"data.pixels={pixels} cannot be modelled by the {type(likelihood).__name__} likelihood, "
        f"which takes {accepted}"
    )
