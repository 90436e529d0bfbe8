"""A small classifier of a data set: who judges samples, and the features to compare them in."""

import math
from collections.abc import Callable, Iterable
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vaelab.chunking import portion
from vaelab.data import Images, store
from vaelab.data.splits import OnDemand
from vaelab.errors import UserError
from vaelab.metrics.estimates import Estimate, mean
from vaelab.randomness import stream
from vaelab.training.progress_bar import track as default_track

RECIPE = 1  # counts up when the network or its training changes, so that none is taken for another
STEPS, BATCH = 1000, 128  # of training, whatever the number of images
RATE = 1e-2  # the highest of the learning rate
FEATURES = 128

Part = tuple[Tensor | OnDemand, Tensor, Tensor]  # see `Images.stored`
Track = Callable[[Iterable[int], str], Iterable[int]]


class Classifier(nn.Module):
    """Labels for grey images k / 255 of at least 8 x 8 pixels.

    Args:
        x_shape: (C, H, W).
        num_classes: Y.
        name: What it and all that is measured with it are known by.
    """

    measured: Tensor

    def __init__(self, x_shape: tuple[int, int, int], num_classes: int, name: str) -> None:
        super().__init__()
        self.name = name
        channels, height, width = x_shape
        halvings = max(0, math.ceil(math.log2(max(height, width) / 8)))
        widths = [channels, 16, 32, *[64] * max(1, halvings - 1)]
        blocks = [block(a, b, i < halvings) for i, (a, b) in enumerate(pairwise(widths))]
        small = math.ceil(height / 2**halvings) * math.ceil(width / 2**halvings)
        self.widest = (widths[1], height, width)  # what the layers make of an image
        self.body = nn.Sequential(
            *(*blocks, nn.Flatten(), nn.Dropout(0.3)),
            *(nn.Linear(widths[-1] * small, FEATURES), nn.ReLU()),
        )
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(FEATURES, num_classes))
        self.register_buffer("measured", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, Y]."""
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """The activations [B, F] before the logits, for any number of images [B, C, H, W]."""
        return torch.cat([self.body(part) for part in x.split(portion(self.widest, x.device))])

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Logits [B, Y], for any number of images [B, C, H, W]."""
        return self.head(self.features(x))

    @property
    def accuracy(self) -> Estimate:
        """The share of the data set's test images that it labels rightly."""
        value, se = self.measured.tolist()
        return {"value": value, "se": None if math.isnan(se) else se}


def block(channels: int, width: int, halve: bool) -> nn.Module:
    pool = nn.MaxPool2d(2, ceil_mode=True) if halve else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), pool, nn.BatchNorm2d(width), nn.ReLU()
    )


def of(
    data: Images, folder: Path, device: torch.device | str = "cpu", track: Track = default_track
) -> Classifier:
    """The classifier of a data set, in evaluation mode: trained once, and kept in a file.

    It learns from the training images of `data`, and its accuracy is that on the test images. The
    random state is left as it was. A file that cannot be used is made anew.

    Args:
        data: Images with labels.
        folder: Where the file is, or will be.
        device: Where to train, and where the classifier will be.
        track: Shows the progress through an iterable; takes a description.

    Raises:
        UserError: If there are no labels, or the folder cannot be written to.
    """
    if not data.splits.num_classes:
        raise UserError("a classifier to judge samples needs labels, and these images have none")
    device = torch.device(device)
    path = folder / f"classifier_{digest(data)}.safetensors"
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            model = restored(data, path)
            if model is None:
                with FileLock(path.with_suffix(".lock")):  # which makes the folder
                    model = restored(data, path) or trained(data, path, device, track)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return model.to(device).eval().requires_grad_(False)


def digest(data: Images) -> str:
    """Twelve letters for what a classifier is trained and tested on, and how."""
    found = blake2b(repr((RECIPE, data.splits.num_classes)).encode(), digest_size=6)
    for part in ("train", "test"):
        images, labels, rows = data.stored(part)
        for content in (some(images), labels, rows):
            found.update(repr(tuple(content.shape)).encode())
            found.update(content.numpy().tobytes())
    return found.hexdigest()


def some(images: Tensor | OnDemand) -> Tensor:
    """About 64 of the images, always the same."""
    return images[torch.arange(0, len(images), max(1, len(images) // 64))]


def fresh(data: Images, name: str) -> Classifier:
    return Classifier(data.shapes["x_shape"], data.splits.num_classes, name)


def restored(data: Images, path: Path) -> Classifier | None:
    """The classifier in a file; none if there is no such file, or it is damaged."""
    model = fresh(data, path.stem)
    try:
        model.load_state_dict(load_file(path))
    except (FileNotFoundError, SafetensorError, RuntimeError):  # missing, damaged, of other shapes
        return None
    return model


def trained(data: Images, path: Path, device: torch.device, track: Track) -> Classifier:
    """A new one, measured and written."""
    torch.manual_seed(stream("classifier"))
    model = fresh(data, path.stem).to(device)
    fit(model, *moved(data.stored("train"), device), track)
    model.eval()
    part = "test" if len(data.stored("test")[2]) else "val"
    images, labels, rows = moved(data.stored(part), device)
    some = rows.split(portion(images.shape[1:], device))
    right = [model.logits(grey(images[r])).argmax(1) == labels[r] for r in some]
    value, se = mean(torch.cat(right).cpu()).values()
    model.measured = torch.tensor([value, math.nan if se is None else se])
    store.write(path, {name: value.cpu().numpy() for name, value in model.state_dict().items()})
    return model


def moved(part: Part, device: torch.device) -> Part:
    images, labels, rows = part
    return images.to(device), labels.to(device), rows.to(device)


@torch.enable_grad()
def fit(
    model: Classifier, images: Tensor | OnDemand, labels: Tensor, rows: Tensor, track: Track
) -> None:
    """Trains on these rows of uint8 images [N, C, H, W], all on one device."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    passes = math.ceil(STEPS * BATCH / len(rows))
    order = torch.cat([rows[torch.randperm(len(rows)).to(rows)] for _ in range(passes)])
    for step in track(range(STEPS), "training a classifier"):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        loss = cross_entropy(model(grey(images[chosen])), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def grey(images: Tensor) -> Tensor:
    return images.float() / 255
