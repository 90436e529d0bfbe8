"""`Subject`, the model and data that are measured, and helpers of metrics that may not apply."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from vaelab.data import Images
from vaelab.data.batches import Batches
from vaelab.data.pixels import draw
from vaelab.elbo import ELBO
from vaelab.errors import NotApplicable
from vaelab.evaluation.classifier import Classifier, load_or_train
from vaelab.metrics.chunking import images_per_chunk
from vaelab.metrics.estimates import not_applicable_estimate
from vaelab.randomness import seeded_generator
from vaelab.runs.shared_data import SharedData
from vaelab.training.progress_bar import track

Batch = tuple[Tensor, Tensor]  # x [B, C, H, W] and y [B, Y]
Metric = Callable[..., dict[str, Any]]


@runtime_checkable
class HasObstacle(Protocol):
    """A metric with `obstacle`, which can be asked before a training whether it is applicable."""

    def obstacle(self, model: ELBO, data: Images) -> str | None:
        """Returns why the metric is not applicable to a model and data, or None."""
        ...


def applicable_unless(obstacle: Callable[[ELBO, Images], str | None]) -> Callable[[Metric], Metric]:
    """Returns a decorator: a metric gets `.obstacle`, and raises NotApplicable if that gives text.

    `Plan` calls the attribute before the training.

    Args:
        obstacle: Returns why the metric is not applicable to a model and data, or None.
    """

    def decorate(metric: Metric) -> Metric:
        """Returns the metric with the check before it."""

        @wraps(metric)
        def guarded(subject: Subject, **settings: Any) -> dict[str, Any]:
            if reason := obstacle(subject.model, subject.data):
                raise NotApplicable(reason)
            return metric(subject, **settings)

        guarded.obstacle = obstacle  # type: ignore[attr-defined]
        return guarded

    return decorate


def attempt(measures: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Calls each measure and returns estimates by name, or the reason if NotApplicable is raised.

    Args:
        measures: Functions by the name of their estimate. A name with commas has several, and its
            function returns them by name.
    """
    found: dict[str, Any] = {}
    for names, measure in measures.items():
        try:
            made = measure()
        except NotApplicable as error:
            made = {name: not_applicable_estimate(str(error)) for name in names.split(",")}
            found |= made
            continue
        found |= made if "," in names else {names: made}
    return found


@dataclass(frozen=True)
class Subject:
    """A trained model with its data and seed, the argument of every metric.

    Attributes:
        model: In evaluation mode.
        data: Its batches are on the model's device.
        cache: Folder of the classifiers of data sets.
        seed: Seed of what the metrics draw; the plan also sets torch's seed from it.
        track: Shows a progress bar of an iterable; takes a description.
        shared: Keeps what is made of the data alone, for the next model on the same data.
    """

    model: ELBO
    data: Images
    cache: Path
    seed: int = 0
    track: Callable[..., Iterable[Any]] = track
    shared: SharedData = field(default_factory=SharedData)

    @property
    def test_loader(self) -> Batches:
        """The batches of test images; shared. Their pixels are the same at each iteration."""

        def make() -> Batches:
            """Returns the batches, with a batch size that does not depend on the training's."""
            batches = self.data.batches("test")
            batches.batch_size = 100  # the noise of dequantised pixels depends on it
            return batches

        return self.shared.once("test batches", make)

    @property
    def test_labels(self) -> Tensor:
        """The y [N, Y] of all test images; shared."""
        batches = self.test_loader
        return self.shared.once("test labels", lambda: batches.y(batches.rows))

    @property
    def classifier(self) -> Classifier:
        """The classifier of the data set, trained if the cache folder has none; shared."""
        data, device = self.data, self.data.device
        return self.shared.once(
            "classifier", lambda: load_or_train(data, self.cache, device, self.track)
        )

    def test_features(self, count: int) -> Tensor:
        """Returns the classifier's features [N, F] of the first `count` test images; shared."""

        def make() -> Tensor:
            """Returns the features."""
            return self.classifier.features(torch.cat([*self.data.grey_images("test", count)]))

        return self.shared.once(f"features of {count} test images", make)

    def iterate_all_images(self, description: str) -> Iterator[Batch]:
        """Yields chunks of x and y of all images of all parts, with a progress bar.

        The pixels are drawn as for the model, by the seed.

        Args:
            description: Text of the progress bar.
        """
        device = self.data.device
        noise = seeded_generator("pixels", self.seed, device=device)
        for part, images in self.data.splits.parts.items():
            images, labels = images.to(device), self.data.labels(part).to(device)
            rows = torch.arange(len(images), device=device)
            for some in self.track(
                rows.split(images_per_chunk(images.shape[1:], device)), description
            ):
                yield draw(images[some], self.data.pixels, noise), labels[some]

    @cached_property
    def test_codes(self) -> Tensor:
        """Posterior means [N, D] of all test images; cached."""
        at_a_time = images_per_chunk(self.model.x_shape, self.model.device)
        batches = self.test_batches("codes of test images", at_a_time)
        with torch.no_grad():
            found = [self.model.latent_posterior(x, y).mean for x, y in batches]
        return torch.cat(found)

    def test_batches(
        self, description: str, size: int = 100, count: int | None = None
    ) -> Iterable[Batch]:
        """Yields batches of the first `count` test images (default all) and y; shows progress.

        The pixels are drawn as for the model. Not all images are held at once.
        """
        total = len(self.test_loader.rows)
        count = total if count is None else min(count, total)
        turns = self.track(range(-(-count // size)), description)
        return (
            batch for _, batch in zip(turns, regroup(self.test_loader, size, count), strict=False)
        )


def regroup(batches: Iterable[Batch], size: int, count: int) -> Iterator[Batch]:
    """Yields the first `count` images of batches, and y, in batches of `size`, but for the last."""
    held: list[Batch] = []
    for x, y in batches:
        held.append((x[:count], y[:count]))
        count -= len(held[-1][0])
        ready = sum(len(part) for part, _ in held)
        if count and ready < size:
            continue
        x, y = map(torch.cat, zip(*held, strict=True))
        full = ready - ready % size if count else ready
        yield from zip(x[:full].split(size), y[:full].split(size), strict=True)
        if not count:
            return
        held = [(x[full:], y[full:])]
