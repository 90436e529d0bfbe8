"""Encoding of images: latents, bounds and anomaly scores, a row for each image.

Shapes: N images, D latents, Y width of y. Units: nats per image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.data import Images
from vaelab.data.array_images import Span
from vaelab.data.given_labels import class_indices, class_labels, plain_labels
from vaelab.data.pixels import draw
from vaelab.elbo import ELBO
from vaelab.errors import NotApplicable, UserError
from vaelab.evaluation.given_images import convert_given
from vaelab.evaluation.given_labels import labels_to_y
from vaelab.evaluation.subject import Batch
from vaelab.inference import is_whole, posterior_arrays
from vaelab.metrics.evidence import evidence_estimates
from vaelab.randomness import seeded_generator, stream_seed

Encoded = dict[str, np.ndarray]
"""Arrays by name, each with a row for each image."""
Track = Callable[[Iterable[Any], str], Iterable[Any]]
TOGETHER = 100
"""Images in a batch, as in `Subject`: with the same seed the draws are those of `evaluate`."""
SCORES = ("nll", "elbo", "distortion", "rate")
"""What can be an anomaly score; the first that was measured is the default."""


def encode_images(
    model: ELBO,
    images: np.ndarray | Tensor,
    labels: Any = None,
    *,
    num_samples: int,
    span: Span | None = None,
    seed: int = 0,
    track: Track = lambda work, _: work,
) -> Encoded:
    """Encodes images of one's own, or numbers: latents, distortion, rate, ELBO and NLL, by row.

    See `encode_batches` for the arrays; `index`, the place of the image, is before them, and the
    `label` if it is given. The noise of binary and dequantised pixels depends on the seed and the
    place of the image alone. Torch's global random state is as before.

    Args:
        model: In evaluation mode, as `vaelab.load` returns it.
        images: [N, H, W], [N, C, H, W] or [N, H, W, C] of the model's size; booleans or numbers. Or
            vectors [N, D] or signals [N, C, L] as in the file of the training.
        labels: Classes [N] as names, whole numbers or one-hot, or one for all; or columns by name,
            where the model is conditional on several. Ignored by a model without labels.
        num_samples: K of the NLL; with 0 it is not measured, and K is 1 for the distortion.
        span: The pixel values that mean black and white; default: those of the model's data, see
            `vaelab.observations.PixelScale`.
        seed: Seed of all that is drawn.
        track: Shows the progress of an iterable; takes a description.

    Raises:
        UserError: If images or labels do not fit the model.
    """
    if not is_whole(num_samples, 0):
        raise UserError(f"num_samples={num_samples!r}: should be a whole number, or 0 for no NLL")
    pixels = convert_given(images, model, span)
    columns = labels if isinstance(labels, Mapping) else {"label": labels}
    columns = {name: np.asarray(v) for name, v in columns.items() if v is not None}
    columns = {name: v if v.ndim else np.full(len(pixels), v) for name, v in columns.items()}
    y = labels_to_y(model, columns, len(pixels))
    rows = torch.arange(len(pixels))
    batches = own_batches(model, pixels, y, rows, seed, track)
    found = {"index": rows.numpy()}
    if "label" in columns:
        found["label"] = shown_labels(model, columns["label"], len(pixels))
    return found | encode_batches(model, batches, num_samples, stream_of_evaluation(seed))


def encode_part(
    model: ELBO,
    data: Images,
    part: str,
    *,
    num_samples: int,
    label: int | None = None,
    seed: int = 0,
    track: Track = lambda work, _: work,
) -> Encoded:
    """Encodes a part of a run's data; the means over the test images are those of `evaluate`.

    They are, if num_samples and seed are the same. See `encode_images`; `index` is the place of an
    image in the array that holds it: that of the training images, if the part was split off.

    Args:
        model: In evaluation mode.
        data: Its batches are on the model's device.
        part: `train`, `val` or `test`.
        num_samples: See `encode_images`.
        label: A class of the first column, that the model is told in place of the images' own.
        seed: Seed of all that is drawn but the pixels, whose seed is the data's `split_seed`.
        track: See `encode_images`.
    """
    images, labels, rows = data.stored(part)
    found = {"index": rows.numpy()}
    if data.splits.num_classes:
        classes = labels[rows]
        if label is not None and next(iter(model.classes)) == "label":
            classes = torch.full_like(classes, label)
        found["label"] = class_labels(classes.numpy(), data.splits.column("label").class_names)
    batches: Iterable[Batch]
    if part == "train":  # its own batches are shuffled, with new noise in each epoch
        y = data.labels(part)
        batches = own_batches(model, images, y, rows, data.split_seed, track)
    else:
        batches = track(fixed_batches(data, part), f"{part} images")
    if label is not None:
        batches = ((x, with_class(y, label, model.num_classes)) for x, y in batches)
    return found | encode_batches(model, batches, num_samples, stream_of_evaluation(seed))


@torch.no_grad()
def encode_batches(
    model: ELBO, batches: Iterable[Batch], num_samples: int, torch_seed: int
) -> Encoded:
    """Encodes batches, seeding torch meanwhile: latents, distortion, rate, elbo, nll, [N] each.

    `mean` and `scale` [N, D] are those of q(z | x, y), see `posterior_arrays`. The others are those
    of `evidence_estimates`, `nll` only if K > 0. Of points, which have no bound, there is only
    `distortion`. The draws of an image depend on its place, and in the last batch also on how many
    there are; on no other image's pixels.

    Args:
        model: In evaluation mode.
        batches: x and y on the model's device.
        num_samples: K; with 0 the others are of one sample.
        torch_seed: Seed of torch while this runs.
    """
    parts = []
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(torch_seed)
        for x, y in batches:
            found = posterior_arrays(model.latent_posterior(x, y))
            found |= bounds(model, x, y, num_samples)
            parts.append({name: values.cpu() for name, values in found.items()})
    return {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}


def bounds(model: ELBO, x: Tensor, y: Tensor, num_samples: int) -> dict[str, Tensor]:
    """Returns distortion, rate, elbo and, if K > 0, nll, [B] each; of points the distortion."""
    try:
        found = evidence_estimates(model, x, y, max(1, num_samples))
    except NotApplicable:
        return {"distortion": model.terms(x, y, 1).distortion}
    names = ("distortion", "rate", "elbo", "nll") if num_samples else ("distortion", "rate", "elbo")
    return {name: found[name] for name in names}


def missing_arrays(found: Encoded) -> str | None:
    """Returns which arrays images of this model do not have, and why; None if they have all.

    Without an `nll` that was not asked for.
    """
    if "code" in found:
        return "scale left out: its latents are codes"
    if "rate" not in found:
        return "scale, rate, elbo and nll left out: its latents are points, without a density"
    return None


def shown_labels(model: ELBO, values: np.ndarray, count: int) -> np.ndarray:
    """Returns labels [N] as class names; as they are if the model is not told them."""
    if not (model.context_dim and "label" in model.classes):
        return plain_labels(values, count)
    names = model.class_names["label"]
    return class_labels(class_indices(values, "label", names, count).numpy(), names)


# Anomaly scores.


def choose_score(found: Encoded, asked: str) -> str:
    """Returns the name of the anomaly score; `auto` is the first of `SCORES` that was measured.

    Raises:
        UserError: If the score that is asked for was not measured.
    """
    measured = [name for name in SCORES if name in found]
    if asked == "auto":
        return measured[0]
    if asked not in measured:
        why = "takes num_samples of 1 or more" if "rate" in found else "takes a density of latents"
        raise UserError(f"score={asked}: {why}; possible here are {', '.join(measured)}")
    return asked


def anomaly_scores(found: Encoded, score: str) -> np.ndarray:
    """Returns the anomaly score [N] by its name in `SCORES`, higher for stranger images.

    It is the ELBO's negative, and the others as they are. No likelihood alone finds all anomalies:
    images that are simpler than those of training can be likelier than they (Nalisnick et al.,
    2019, arXiv:1810.09136). So a very low score is strange, too (arXiv:1906.02994).
    """
    return -found["elbo"] if score == "elbo" else found[score]


def quantiles(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Returns for each score [N] the share of the reference [M] that is at most as high."""
    return np.searchsorted(np.sort(reference), scores, side="right") / len(reference)


def encode_reference(
    model: ELBO, data: Images, count: int | None, num_samples: int, seed: int, track: Track
) -> Encoded:
    """Encodes `count` validation images (default all), evenly spread, for `quantiles`.

    The arguments are those of `encode_part`. The draws are others than those for an image there.
    """
    size = data.sizes["val"]
    wanted = torch.arange(size)
    if count is not None and count < size:
        wanted = torch.linspace(0, size - 1, count).round().long()
    kept: list[Batch] = []
    for start, (x, y) in zip(range(0, size, TOGETHER), fixed_batches(data, "val"), strict=True):
        here = wanted[(wanted >= start) & (wanted < start + TOGETHER)].to(x.device) - start
        kept.append((x[here], y[here]))
    x, y = map(torch.cat, zip(*kept, strict=True))
    batches = [*zip(x.split(TOGETHER), y.split(TOGETHER), strict=True)]
    torch_seed = stream_seed("reference of encode", seed)
    return encode_batches(
        model, track(batches, "validation images, for the quantile"), num_samples, torch_seed
    )


# Batches.


def stream_of_evaluation(seed: int) -> int:
    """Returns torch's seed in `evaluate what=likelihood seed=SEED`, see `Plan.evaluate_run`."""
    return stream_seed("evaluate likelihood", seed)


def fixed_batches(data: Images, part: str) -> Any:
    """Returns the batches of validation or test images, with the pixels that `evaluate` sees."""
    batches = data.batches(part)
    batches.batch_size = TOGETHER  # the noise of dequantised pixels depends on it
    return batches


def own_batches(
    model: ELBO, images: Any, labels: Any, rows: Tensor, seed: int, track: Track
) -> Iterator[Batch]:
    """Yields batches x and y, on the model's device, of the rows of uint8 images, in their order.

    The pixels are the model's kind, with noise by the seed and an image's row alone.

    Args:
        model: Says the kind of pixels.
        images: uint8 [N, C, H, W], or on demand.
        labels: y [N, Y], or composed on indexing.
        rows: Indices [n] of images and labels.
        seed: Seed of the noise.
        track: Shows progress.
    """
    kind: Any = model.pixels
    for some in track(rows.split(TOGETHER), "images"):
        pairs = zip(images[some], some.tolist(), strict=True)
        x = [draw(pixels, kind, seeded_generator("own pixels", seed, row)) for pixels, row in pairs]
        yield torch.stack(x).to(model.device), labels[some].to(model.device)


def with_class(y: Tensor, label: int, num_classes: int) -> Tensor:
    """Returns a copy of y [B, Y] whose first column is the class `label` of `num_classes`."""
    y = y.clone()
    y[:, :num_classes] = 0
    y[:, label] = 1
    return y
