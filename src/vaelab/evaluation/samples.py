"""The metrics of sample quality: Frechet distances, precision, recall and copied images."""

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import NotApplicable
from vaelab.evaluation.samplers import Own, Sampler
from vaelab.evaluation.subject import Subject, applicable_unless, attempt
from vaelab.metrics.chunking import images_per_chunk
from vaelab.metrics.frechet import frechet_distance
from vaelab.metrics.neighbours import (
    NEIGHBOURS,
    copied_share,
    density_coverage,
    nearest_images,
    precision_recall,
)


def samples_obstacle(model: ELBO, data: Images) -> str | None:
    """Returns why `samples` is not applicable: one class or none, or too few test images."""
    if data.splits.num_classes <= 1:
        labels = "are of one class" if data.splits.num_classes else "have no labels"
        return f"it takes a classifier, and these {data.noun} {labels}"
    if (count := data.sizes["test"]) <= NEIGHBOURS:
        return f"it compares {NEIGHBOURS} neighbours of each test image, and {count} are too few"
    return None


@applicable_unless(samples_obstacle)
def samples(
    subject: Subject, *, count: PositiveInt, looked_up: PositiveInt, sampler: Sampler
) -> dict[str, Any]:
    """Scores samples by Frechet, PRDC and copying; trains and caches a classifier if there is none.

    Compares samples with test images in the features of a classifier, which is trained if the
    cache folder has none; `copied` compares pixels. Raises NotApplicable without two classes.
    Samples are mean images, with the labels of the test images if the model is conditional; test
    images are grey, k / 255.

    Args:
        subject: The model and its data.
        count: Samples, and the most test images.
        looked_up: Samples to look for among the training images.
        sampler: Prior to draw z from, see `vaelab.evaluation.samplers`. Unless it is the model's
            own, its name is put before those of the metrics.
    """
    judge = subject.classifier
    fake = torch.cat(list(generate_images(subject, count, sampler)))
    features = subject.test_features(count), judge.features(fake)
    sought = fake[:looked_up]
    among = {
        part: nearest_images(sought, subject.data.grey_images(part)) for part in ("train", "test")
    }
    found = attempt(
        {
            "frechet_classifier": lambda: frechet_distance(*features),
            "precision,recall": lambda: precision_recall(*features),
            "density,coverage": lambda: density_coverage(*features),
            "copied": lambda: copied_share(among["train"], among["test"]),
        }
    )
    return {
        "classifier": judge.name,
        "classifier_accuracy": judge.accuracy,
        **{sampler_metric_name(name, sampler): value for name, value in found.items()},
    }


def inception_obstacle(model: ELBO, data: Images) -> str | None:
    """Returns why `inception` is not applicable: no images, their channels or number; or None."""
    if len(model.x_shape) != 3:
        return f"it takes images, and these are {data.noun}"
    if model.x_shape[0] not in (1, 3):
        return f"it takes images of one channel or three, and these have {model.x_shape[0]}"
    if data.sizes["test"] < 2:
        return "of one image there is no covariance"
    return None


@applicable_unless(inception_obstacle)
def inception(subject: Subject, *, count: PositiveInt, sampler: Sampler) -> dict[str, Any]:
    """Measures FID; downloads Inception's weights if absent; NotApplicable without torch-fidelity.

    The FID is between samples and test images, computed by torchmetrics, without standard error.
    Raises NotApplicable, too, if the weights cannot be had. The value depends on `count`, and can
    be compared with that of other papers at the same count.

    Args:
        subject: The model and its test images, of one or three channels.
        count: Samples, and the most test images; 50,000 in the literature, and at least 2.
        sampler: See `samples`.
    """
    from torchmetrics.image import fid  # slow to import

    if count < 2:
        raise NotApplicable("of one image there is no covariance")

    try:
        distance = fid.FrechetInceptionDistance(normalize=True).to(subject.data.device)
    except (ModuleNotFoundError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise NotApplicable(f"it takes torch-fidelity and its weights ({reason})") from error
    real = subject.data.grey_images("test", count)
    for images, is_real in ((real, True), (generate_images(subject, count, sampler), False)):
        for some in subject.track(list(images), "Inception"):
            distance.update(some.expand(-1, 3, -1, -1), real=is_real)
    return {sampler_metric_name("fid", sampler): {"value": float(distance.compute()), "se": None}}


def sampler_metric_name(name: str, sampler: Sampler) -> str:
    """Returns a metric's name after that of its sampler, `gmm_fid`; unchanged for the own prior."""
    return name if isinstance(sampler, Own) else f"{getattr(sampler, 'name', 'other')}_{name}"


def generate_images(subject: Subject, count: int, sampler: Sampler) -> Iterator[Tensor]:
    """Yields chunks [n, C, H, W] of mean images of samples; fits the sampler.

    In all `count` images, with the labels of the test images in turn. They are clamped to [0, 1],
    unless x are real numbers. Raises NotApplicable if one is not finite, as of a sampler whose fit
    has diverged.
    """
    model, y = sampler(subject.model, subject.data), subject.test_labels
    labels = y[torch.arange(count, device=y.device) % len(y)]
    for some in labels.split(images_per_chunk(model.x_shape, model.device)):
        drawn = model.sample_means(some)
        if not drawn.isfinite().all():
            raise NotApplicable("its samples are not finite")
        yield drawn if model.pixels == "real" else drawn.clamp(0, 1)
