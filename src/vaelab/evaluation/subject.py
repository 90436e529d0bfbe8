"""What the numbers are of."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vaelab.chunking import portion
from vaelab.data import Images
from vaelab.data.pixels import draw
from vaelab.elbo import ELBO
from vaelab.errors import NotApplicable
from vaelab.metrics.estimates import not_applicable
from vaelab.randomness import generator
from vaelab.training.progress_bar import track

Batch = tuple[Tensor, Tensor]  # x [B, C, H, W] and y [B, Y]
Metric = Callable[..., dict[str, Any]]


def needs(lack: Callable[[ELBO, Images], str | None]) -> Callable[[Metric], Metric]:
    """Makes a metric one that does not exist for every model and all data.

    Args:
        lack: What a model and data lack for it, which can be asked before there is a training.
    """

    def decorate(metric: Metric) -> Metric:
        @wraps(metric)
        def checked(subject: Subject, **settings: Any) -> dict[str, Any]:
            if reason := lack(subject.model, subject.data):
                raise NotApplicable(reason)
            return metric(subject, **settings)

        checked.lack = lack  # type: ignore[attr-defined]
        return checked

    return decorate


def attempt(measures: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """Numbers by name, each measured on its own; where one does not exist, the reason.

    Args:
        measures: An estimate by its name, or several by their names with commas between them.
    """
    found: dict[str, Any] = {}
    for names, measure in measures.items():
        try:
            made = measure()
        except NotApplicable as error:
            made = {name: not_applicable(str(error)) for name in names.split(",")}
            found |= made
            continue
        found |= made if "," in names else {names: made}
    return found


@dataclass(frozen=True)
class Subject:
    """A trained model, its data, and what measuring them needs.

    Attributes:
        model: In evaluation mode.
        data: Its batches are on the model's device.
        cache: Folder for what is made once for a data set.
        seed: Of all that is drawn.
        track: Shows the progress through an iterable; takes a description.
    """

    model: ELBO
    data: Images
    cache: Path
    seed: int = 0
    track: Callable[..., Iterable[Any]] = track

    @cached_property
    def images(self) -> Batch:
        """All test images, as the model sees them, and their labels."""
        batches = self.data.batches("test")
        batches.batch_size = 100  # on which the noise of dequantised pixels depends
        x, y = zip(*batches, strict=True)
        return torch.cat(x), torch.cat(y)

    def every_image(self, description: str) -> Iterator[Batch]:
        """The images of all parts, as the model sees them, and their labels; portion by portion."""
        device = self.data.device
        noise = generator("pixels", self.seed, device=device)
        for part, images in self.data.splits.parts.items():
            images, labels = images.to(device), self.data.labels(part).to(device)
            rows = torch.arange(len(images), device=device)
            for some in self.track(rows.split(portion(images.shape[1:], device)), description):
                yield draw(images[some], self.data.pixels, noise), labels[some]

    @cached_property
    def codes(self) -> Tensor:
        """The posterior means of all test images, [N, D]."""
        at_a_time = portion(self.model.x_shape, self.model.device)
        batches = self.test("codes of test images", at_a_time)
        with torch.no_grad():
            found = [self.model.encode(x, y).mean for x, y in batches]
        return torch.cat(found)

    def test(self, description: str, size: int = 100, count: int | None = None) -> Iterable[Batch]:
        """The test images, or the first `count` of them, in batches of `size`."""
        x, y = (part[:count] for part in self.images)
        batches = list(zip(x.split(size), y.split(size), strict=True))
        return self.track(batches, description)
