"""`Inference`: what users ask of a model, with images and labels in any usual form.

Shapes: B images, D latents, Y width of y, C x H x W pixels. No method here has gradients but
`forward`; for gradients there are `latent_posterior` and `image_likelihood`, which take x and y as
the data module makes them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from vaelab.autoencoder import AutoEncoder
from vaelab.data.given_labels import class_indices
from vaelab.data.pixels import Pixels, from_numbers, from_user
from vaelab.errors import UserError
from vaelab.metrics.chunking import images_per_chunk
from vaelab.metrics.evidence import evidence_estimates
from vaelab.observations import check_picture, table_columns
from vaelab.posteriors import Point, PointMass
from vaelab.randomness import seeded_generator

SAYS = "this model is conditional on"


class Inference(AutoEncoder):
    """An auto-encoder that is asked with images and labels as users have them.

    Images are NumPy arrays, tensors or lists: a batch [B, C, H, W], [B, H, W, C] or, with one
    channel, [B, H, W], or a single image. They are booleans, whole numbers of 0..255 or floats in
    [0, 1], or on the scale of the data that the model was trained on, see `PixelScale`. They become
    pixels of the model's kind. Their random bits or noise are the same at each call in evaluation
    mode, and in training mode new ones from torch's random state.
    Vectors [B, D] and signals [B, C, L] are numbers as in the file that the model was trained on,
    and are standardised as they were. Of a pandas DataFrame the columns of the training are taken,
    by name, and those that the model is conditional on.

    Labels are names of classes or whole numbers, one for all images or [B]; one-hot [B, classes]; y
    itself [B, Y]; or, for several columns, a dictionary of these by column. A whole number is the
    class of that name, or, if no class is named by a number, that of that index. A model that is
    not conditional needs none, and ignores them.
    """

    @torch.no_grad()
    def encode(self, images: Any, labels: Any = None) -> Distribution:
        """The posterior q(z | x, y) of images, batch [B], event [D], with `.mean` and `.stddev`.

        Raises:
            UserError: If the images or labels do not fit the model.
        """
        return self.latent_posterior(*self.inputs(images, labels))

    @torch.no_grad()
    def decode(self, z: Any, labels: Any = None) -> Distribution:
        """The likelihood p(x | z, y) of latents [B, D] or [D]: its `.mean` are images [B, C, H, W].

        They are in [0, 1], or numbers of the model; see `in_units`.

        Raises:
            UserError: If the latents or labels do not fit the model.
        """
        latents = as_tensor(z, "latents")
        if latents.is_complex() or not latents.isfinite().all():
            raise UserError("latents should be finite real numbers")
        latents = latents.to(self.device, torch.float32)
        latents = latents[None] if latents.dim() == 1 else latents
        if latents.dim() < 2 or latents.shape[-1] != self.latent_dim:
            raise UserError(f"latents are [B, {self.latent_dim}], and these {shape_text(latents)}")
        return self.image_likelihood(latents, self.label_rows(labels, latents.shape[-2]))

    @torch.no_grad()
    def reconstruct(self, images: Any, labels: Any = None) -> Tensor:
        """Mean images [B, C, H, W] decoded from the posterior means of images.

        They are as in the file of the data, see `in_units`.

        Raises:
            UserError: If the images or labels do not fit the model.
        """
        return self.in_units(self.mean_reconstruction(*self.inputs(images, labels)))

    @torch.no_grad()
    def sample(self, count: Any = 1, label: Any = None, seed: int | None = None) -> Tensor:
        """Mean images [B, C, H, W] of latents drawn from the prior; no pixel noise is drawn.

        They are as in the file of the data, see `in_units`.

        Args:
            count: How many images; or their labels, one image for each.
            label: A class for all, or several in turn. By default a conditional model takes its
                classes in turn.
            seed: Seed of the latents; default: torch's random state goes on.

        Raises:
            UserError: If the labels do not fit the model.
        """
        if isinstance(count, (Tensor, np.ndarray)) and count.ndim == 0:
            count = count.item()
        if count is None or isinstance(count, (bool, float)):
            raise UserError(f"count={count}: should be a whole number, or the labels of images")
        if seed is not None and not is_whole(seed, -(2**63), 2**64 - 1):
            raise UserError(f"seed={seed!r}: should be a whole number of 64 bits")
        if is_whole(count):
            check_at_least_1("count", count)
            y = self.rows_in_turn(label, int(count))
        elif label is not None:
            raise UserError("label: give it with a count, as in sample(16, label=3)")
        else:
            y = self.rows_of_labels(count)
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices, enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return self.in_units(self.sample_means(y))

    @torch.no_grad()
    def log_evidence(self, images: Any, labels: Any = None, num_samples: int = 100) -> Tensor:
        """The log evidence log p(x | y) [B] of images, in nats, estimated from below.

        By importance sampling from q(z | x, y), see `vaelab.metrics.evidence`: in expectation a
        lower bound, the closer the more samples.

        Args:
            images: The images.
            labels: Their labels.
            num_samples: K, samples of z for each image.

        Raises:
            UserError: If the images or labels do not fit the model.
            NotApplicable: If the model encodes to points, which have no density.
        """
        check_at_least_1("num_samples", num_samples)
        x, y = self.inputs(images, labels)
        chunk = min(100, images_per_chunk(self.x_shape, self.device))
        parts = zip(x.split(chunk), y.split(chunk), strict=True)
        return torch.cat([-evidence_estimates(self, *part, num_samples)["nll"] for part in parts])

    def forward(self, images: Any, labels: Any = None) -> Tensor:
        """Mean images [B, C, H, W] decoded from the posterior means of images, with gradients."""
        return self.mean_reconstruction(*self.inputs(images, labels))

    def inputs(
        self, images: Any, labels: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images as x [B, C, H, W] and labels as y [B, Y], on the model's device.

        Args:
            images: The images.
            labels: Their labels.
            generator: Of the random bits or noise of pixels, on the CPU; default: in training mode
                torch's own, in evaluation mode one that gives the same noise at each call.

        Raises:
            UserError: If the images or labels do not fit the model.
        """
        if not isinstance(generator, (torch.Generator, type(None))):
            raise UserError(f"generator: a {type(generator).__name__} is no torch.Generator")
        if self.units:
            labels = self.told_columns(images) if labels is None else labels
            images = table_columns(images, self.units.names)
        found = self.arranged(as_tensor(images, "images").cpu())
        if self.units:
            x = self.units.standardize(from_numbers(found, self.pixels), len(self.x_shape))
        else:
            if generator is None:
                generator = torch.default_generator if self.training else seeded_generator("inputs")
            x = from_user(found, cast(Pixels, self.pixels), generator, self.pixel_scale)
        x = x.to(self.device)
        return x, self.label_rows(labels, len(x))

    def told_columns(self, images: Any) -> dict[str, Any] | None:
        """The columns of a DataFrame that the model is conditional on, if it has them all."""
        names = [*self.classes, *self.numbers] if self.context_dim else []
        has_all = names and {*names} <= {*getattr(images, "columns", ())}
        return {name: images[name].to_numpy() for name in names} if has_all else None

    def arranged(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] of a batch or single image in another layout; UserError if none fits.

        The channels may come last, or be left out if there is one.
        """
        shape = self.x_shape
        for batch in (images, images[None]):
            rest = tuple(batch.shape[1:])
            if rest == shape:
                return batch
            if shape[0] == 1 and rest == shape[1:]:
                return batch.unsqueeze(1)
            if rest == (*shape[1:], shape[0]):
                return batch.movedim(-1, 1)
        wanted = ", ".join(map(str, shape))
        raise UserError(f"images are [B, {wanted}], and these {shape_text(images)}")

    def label_rows(self, labels: Any, count: int) -> Tensor:
        """Labels as y [count, Y], on the model's device; zeros if the model is not conditional.

        Raises:
            UserError: If the model needs other labels, or another number of them.
        """
        if not self.context_dim:
            return torch.zeros(count, self.y_dim, device=self.device)
        if labels is None:
            raise UserError(f"{SAYS} {self.columns_text}: give labels")
        y = self.rows_of_labels(labels)
        y = y.expand(count, -1) if len(y) == 1 else y
        if len(y) != count:
            raise UserError(f"there are {len(y)} labels for {count} images")
        return y

    def rows_in_turn(self, labels: Any, count: int) -> Tensor:
        """Labels in turn, by default all classes, as y [count, Y]; see `label_rows`."""
        if not self.context_dim:
            if labels is not None:
                raise UserError("this model is not conditional, and has no labels to sample by")
            return torch.zeros(count, self.y_dim, device=self.device)
        if labels is None:
            if len(self.classes) != 1 or self.numbers:
                raise UserError(f"{SAYS} {self.columns_text}: give label")
            labels = next(iter(self.class_names.values()))
        y = self.rows_of_labels(labels)
        return y[torch.arange(count, device=y.device) % len(y)]

    def rows_of_labels(self, labels: Any) -> Tensor:
        """One label (n = 1) or several as y [n, Y], on the model's device; see `Inference`.

        Raises:
            UserError: If they are no labels of this model.
        """
        widths = self.classes | self.numbers
        if isinstance(labels, Mapping) and self.context_dim:
            if labels.keys() != widths.keys():
                missing, more = widths.keys() - labels.keys(), labels.keys() - widths.keys()
                said = [f"lacks {', '.join(sorted(missing))}"] if missing else []
                said += [f"has {', '.join(map(str, more))}, which is none of these"] if more else []
                raise UserError(f"{SAYS} {self.columns_text}, and labels {' and '.join(said)}")
            parts = [self.column_rows(name, labels[name]) for name in widths]
            most = max(map(len, parts))
            if any(len(part) not in (1, most) for part in parts):
                raise UserError(f"labels have {' and '.join(str(len(p)) for p in parts)} rows")
            return torch.cat([part.expand(most, -1) for part in parts], 1).to(self.device)
        is_table = isinstance(labels, (Tensor, np.ndarray)) and labels.ndim == 2
        if is_table and labels.shape[1] == self.y_dim and (self.y_dim > 1 or not self.classes):
            return as_tensor(labels, "labels").float().to(self.device)
        if not self.context_dim:
            raise UserError("this model is not conditional, and has no labels")
        if len(widths) > 1:
            example = ", ".join(f"{name!r}: ..." for name in widths)
            raise UserError(f"{SAYS} {self.columns_text}: give labels as {{{example}}}")
        return self.column_rows(next(iter(widths)), labels).to(self.device)

    def column_rows(self, name: str, values: Any) -> Tensor:
        """The part of y [n, width] for one column: one-hot classes, or numbers."""
        if name in self.numbers:
            width = self.numbers[name]
            numbers = as_tensor(values, name).float()
            numbers = numbers.reshape(-1, width) if numbers.numel() % width == 0 else numbers
            if numbers.dim() != 2 or not numbers.isfinite().all():
                raise UserError(f"{name}: should be {width} finite numbers for each image")
            return numbers
        array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
        array = array[None] if array.ndim == 0 else array
        if not array.size:
            raise UserError(f"{name}: there are no labels")
        indices = class_indices(array, name, self.class_names[name], len(array))
        return torch.eye(self.classes[name])[indices]

    @property
    def columns_text(self) -> str:
        """The columns of y as text: `label (10 classes) and x (2 numbers)`."""
        found = [f"{name} ({count} classes)" for name, count in self.classes.items()]
        found += [f"{n} ({w} number{'s' * (w > 1)})" for n, w in self.numbers.items()]
        return " and ".join(found)


def as_tensor(values: Any, what: str) -> Tensor:
    """A tensor of an array, list or tensor; UserError if it is none of numbers.

    Args:
        values: The values.
        what: Their name in the message.
    """
    if isinstance(values, Tensor):
        unsigned = (torch.uint16, torch.uint32, torch.uint64)  # torch cannot compare these
        return values.detach().long() if values.dtype in unsigned else values.detach()
    for value in values if isinstance(values, (list, tuple)) else [values]:
        check_picture(value, what)
    if isinstance(values, Sequence) and values and isinstance(values[0], Tensor):
        values = [value.detach().cpu().numpy() for value in values]
    try:
        array = np.asarray(values)
        if array.dtype.kind == "u" and array.dtype != np.uint8:  # as above
            array = array.astype(np.int64)
        if array.dtype.kind in "biuf":  # in this machine's byte order, of a type that torch has
            wide = array.dtype.itemsize > 8
            array = array.astype(np.float64 if wide else array.dtype.newbyteorder("="), copy=False)
        is_usual = array.flags.writeable and min(array.strides, default=1) >= 0
        return torch.as_tensor(array if is_usual else array.copy())
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(values).__name__
        raise UserError(f"{what}: a {kind} is no array of numbers") from error


def is_whole(value: Any, low: int | None = None, high: int | None = None) -> bool:
    """True for a whole number from low to high, of Python's or NumPy's; False for booleans."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        return False
    return (low is None or int(value) >= low) and (high is None or int(value) <= high)


def check_at_least_1(name: str, value: Any) -> None:
    """Raises UserError unless a number of images or samples is a whole one of at least 1."""
    if not is_whole(value, 1):
        raise UserError(f"{name}={value!r}: should be a whole number of at least 1")


def posterior_arrays(q: Distribution) -> dict[str, Tensor]:
    """Returns mean and scale, the standard deviation, of each latent, [B, D] each, of a posterior.

    Points have no `scale`. Codes have none either, but the indices `code` [B, positions]; their
    `mean` are the vectors of the codes. In a hierarchy the latents of all levels are concatenated,
    top first, and a level's mean and scale are those given the means above.
    """
    if isinstance(q, PointMass):
        return {"mean": q.mean, "code": q.codes}
    if isinstance(q, Point):
        return {"mean": q.mean}
    return {"mean": q.mean, "scale": q.stddev}


def shape_text(values: Tensor) -> str:
    """The shape of a tensor as text, `[8, 2]`."""
    return str(list(values.shape))
