"""What samples from the prior are worth."""

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from vaelab.chunking import portion
from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import NotApplicable
from vaelab.evaluation import classifier
from vaelab.evaluation.subject import Subject, attempt, needs
from vaelab.metrics.frechet import frechet
from vaelab.metrics.neighbours import copied, density_coverage, nearest, precision_recall
from vaelab.samplers import Own


def no_classes(model: ELBO, data: Images) -> str | None:
    if data.splits.num_classes > 1:
        return None
    labels = "are of one class" if data.splits.num_classes else "have no labels"
    return f"it takes a classifier, and these images {labels}"


@needs(no_classes)
def samples(
    subject: Subject, *, count: PositiveInt, looked_up: PositiveInt, sampler: Any
) -> dict[str, Any]:
    """Samples and test images compared, in the features of a classifier and in pixels.

    Samples are mean images of z from the prior, with the labels of the test images where the
    model sees labels; the test images are grey, k / 255.

    Args:
        subject: The model, its training and its test images.
        count: Samples, and the most test images.
        looked_up: Samples to look for among the training images.
        sampler: What z is drawn from instead, see `vaelab.samplers`; its name is before those of
            the numbers.
    """
    judge = classifier.of(subject.data, subject.cache, subject.data.device, subject.track)
    fake = torch.cat(list(generated(subject, count, sampler)))
    features = (
        judge.features(torch.cat(list(subject.data.grey("test", count)))),
        judge.features(fake),
    )
    sought = fake[:looked_up]
    among = {part: nearest(sought, subject.data.grey(part)) for part in ("train", "test")}
    found = attempt(
        {
            "frechet_classifier": lambda: frechet(*features),
            "precision,recall": lambda: precision_recall(*features),
            "density,coverage": lambda: density_coverage(*features),
            "copied": lambda: copied(among["train"], among["test"]),
        }
    )
    return {
        "classifier": judge.name,
        "classifier_accuracy": judge.accuracy,
        **{named(name, sampler): value for name, value in found.items()},
    }


def inception(subject: Subject, *, count: PositiveInt, sampler: Any) -> dict[str, Any]:
    """The Frechet inception distance of samples and test images, by torchmetrics; no error.

    The one to compare with other people's, where Inception's weights are at hand. `count` is part
    of the figure.

    Args:
        subject: The model and its test images.
        count: Samples, and the most test images; 50,000 in the literature.
        sampler: See `samples`.
    """
    from torchmetrics.image import fid  # slow to import

    try:
        distance = fid.FrechetInceptionDistance(normalize=True).to(subject.data.device)
    except (ModuleNotFoundError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise NotApplicable(f"it takes torch-fidelity and its weights ({reason})") from error
    real = subject.data.grey("test", count)
    for images, is_real in ((real, True), (generated(subject, count, sampler), False)):
        for some in subject.track(list(images), "Inception"):
            distance.update(some.expand(-1, 3, -1, -1), real=is_real)
    return {named("fid", sampler): {"value": float(distance.compute()), "se": None}}


def named(name: str, sampler: Any) -> str:
    """The name of a number of samples: `gmm_fid`."""
    return name if isinstance(sampler, Own) else f"{sampler.name}_{name}"


def generated(subject: Subject, count: int, sampler: Any) -> Iterator[Tensor]:
    """Mean images of z from the prior, a portion at a time, with the labels of the test images."""
    model, y = sampler(subject.model, subject.data), subject.images[1]
    labels = y[torch.arange(count, device=y.device) % len(y)]
    for some in labels.split(portion(model.x_shape, model.device)):
        yield model.sample(some).clamp(0, 1)
