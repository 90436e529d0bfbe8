"""A small classifier of each data set, which judges samples and gives features of images.

Shapes: B images of N in all, Y classes, F features.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vaelab.data import Images, store
from vaelab.data.splits import OnDemand
from vaelab.errors import DamagedFileError, UserError
from vaelab.files.atomic import delete_partial_files, explain_write_errors
from vaelab.metrics.chunking import images_per_chunk
from vaelab.metrics.estimates import Estimate, mean_estimate
from vaelab.randomness import stream_seed
from vaelab.training.progress_bar import track as default_track

RECIPE = 1  # version of network and training; part of the file name, so an old file is not loaded
STEPS, BATCH = 1000, 128  # training steps, at most, and batch size
EPOCHS = 100  # most passes over the training images; fewer than STEPS below 1,280 of them
RATE = 1e-2  # the highest learning rate of the one-cycle schedule
FEATURES = 128  # F
HIDDEN = 256  # width of a dense classifier

Part = tuple[Tensor | OnDemand, Tensor, Tensor]  # see `Images.stored`
Track = Callable[[Iterable[int], str], Iterable[int]]


class Classifier(nn.Module):
    """A convolutional classifier of grey images k / 255 of at least 8 x 8 pixels.

    That of signals and vectors has dense layers.

    Args:
        x_shape: (C, H, W), (C, L) or (C,).
        num_classes: Y.
        name: Name of its file; stored beside every metric that it was used for.

    Attributes:
        measured: The accuracy and its standard error (NaN: none), [2]; stored with the weights.
    """

    measured: Tensor

    def __init__(self, x_shape: tuple[int, ...], num_classes: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.widest: tuple[int, ...] = (max(HIDDEN, math.prod(x_shape)),)
        self.body = self.convolutional_body(*x_shape) if len(x_shape) == 3 else dense_body(x_shape)
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Linear(FEATURES, num_classes))
        self.register_buffer("measured", torch.zeros(2))

    def convolutional_body(self, channels: int, height: int, width: int) -> nn.Sequential:
        """Returns new layers from images to features; sets `widest`, the largest activation."""
        halvings = max(0, math.ceil(math.log2(max(height, width) / 8)))
        widths = [channels, 16, 32, *[64] * max(1, halvings - 1)]
        blocks = [
            convolution_block(a, b, i < halvings) for i, (a, b) in enumerate(pairwise(widths))
        ]
        small = math.ceil(height / 2**halvings) * math.ceil(width / 2**halvings)
        self.widest = (widths[1], height, width)
        return nn.Sequential(
            *(*blocks, nn.Flatten(), nn.Dropout(0.3)),
            *(nn.Linear(widths[-1] * small, FEATURES), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits [B, Y] of images [B, C, H, W]; see `logits` for large batches."""
        return self.head(self.body(x))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """Returns the activations [B, F] before the logits, in chunks and without gradients."""
        return torch.cat(
            [self.body(part) for part in x.split(images_per_chunk(self.widest, x.device))]
        )

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Returns logits [B, Y] of images [B, C, H, W], in chunks and without gradients."""
        return self.head(self.features(x))

    @property
    def accuracy(self) -> Estimate:
        """Stored accuracy, with standard error, on test images, else on validation images."""
        value, se = self.measured.tolist()
        return {"value": value, "se": None if math.isnan(se) else se}


def dense_body(x_shape: Sequence[int]) -> nn.Sequential:
    """Returns new dense layers from signals or vectors to features."""
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(math.prod(x_shape), HIDDEN), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Linear(HIDDEN, FEATURES), nn.ReLU()),
    )


def convolution_block(channels: int, width: int, halve: bool) -> nn.Module:
    """Returns convolution, max pooling if `halve`, batch norm and ReLU, as one module."""
    pool = nn.MaxPool2d(2, ceil_mode=True) if halve else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), pool, nn.BatchNorm2d(width), nn.ReLU()
    )


def load_or_train(
    data: Images, folder: Path, device: torch.device | str = "cpu", track: Track = default_track
) -> Classifier:
    """Loads a data set's classifier from `folder`, or else trains it there under a file lock.

    Returns it frozen and in evaluation mode. Its accuracy is that on the test images, or on the
    validation images if there are no test images. A damaged file is replaced. The global random
    state is restored.

    Args:
        data: Images with labels.
        folder: The folder of the file; created if it is missing.
        device: The device to train on and to move the classifier to.
        track: Shows a progress bar of an iterable; takes a description.

    Raises:
        UserError: If there are no labels, or the folder cannot be written to.
    """
    if not data.splits.num_classes:
        raise UserError(
            f"a classifier to judge samples needs labels, and these {data.noun} have none"
        )
    device = torch.device(device)
    path = folder / f"classifier_{digest(data)}.safetensors"
    randomness = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with randomness, explain_write_errors(path):
        model = load_classifier(data, path)
        if model is None:
            with FileLock(path.with_suffix(".lock")):  # the lock creates the folder
                delete_partial_files(path.parent, path.name)
                model = load_classifier(data, path) or train_classifier(data, path, device, track)
    return model.to(device).eval().requires_grad_(False)


def digest(data: Images) -> str:
    """Returns 12 hex digits: a hash of labels, splits, some train and test images, and training.

    The training is `RECIPE`, and the steps of a small data set.
    """
    steps = num_steps(len(data.rows["train"]))
    recipe = (RECIPE, data.splits.num_classes, *([steps] if steps < STEPS else []))
    found = blake2b(repr(recipe).encode(), digest_size=6)
    for part in ("train", "test"):
        images, labels, rows = data.stored(part)
        for content in (spaced_images(images), labels, rows):
            found.update(repr(tuple(content.shape)).encode())
            found.update(content.numpy().tobytes())
    return found.hexdigest()


def spaced_images(images: Tensor | OnDemand) -> Tensor:
    """Returns 64 to 127 images at equal distances, always the same; all if there are fewer."""
    return images[torch.arange(0, len(images), max(1, len(images) // 64))]


def untrained_classifier(data: Images, name: str) -> Classifier:
    """Returns a classifier of the data set's shape and classes, with random weights.

    They are drawn from torch's global random state.
    """
    return Classifier(data.shapes["x_shape"], data.splits.num_classes, name)


def load_classifier(data: Images, path: Path) -> Classifier | None:
    """Loads a classifier on the CPU; None if the file is missing, damaged or has other shapes.

    Draws from torch's global random state.
    """
    model = untrained_classifier(data, path.stem)
    try:
        store.check_arrays(path)
        model.load_state_dict(load_file(path))
    except (FileNotFoundError, SafetensorError, RuntimeError, DamagedFileError):
        return None  # missing, of other shapes, or damaged
    return model


def train_classifier(data: Images, path: Path, device: torch.device, track: Track) -> Classifier:
    """Trains a new classifier, measures its accuracy and writes it to `path`; reseeds torch."""
    torch.manual_seed(stream_seed("classifier"))
    model = untrained_classifier(data, path.stem).to(device)
    fit(model, *to_device(data.stored("train"), device), track)
    model.eval()
    part = "test" if len(data.stored("test")[2]) else "val"
    images, labels, rows = to_device(data.stored(part), device)
    chunks = rows.split(images_per_chunk(images.shape[1:], device))
    right = [model.logits(grey(images[r])).argmax(1) == labels[r] for r in chunks]
    value, se = mean_estimate(torch.cat(right).cpu()).values()
    model.measured = torch.tensor([value, math.nan if se is None else se])
    arrays = {name: value.cpu().numpy() for name, value in model.state_dict().items()}
    store.write_safetensors(path, arrays)
    return model


def to_device(part: Part, device: torch.device) -> Part:
    """Returns images, labels and row indices on a device."""
    images, labels, rows = part
    return images.to(device), labels.to(device), rows.to(device)


@torch.enable_grad()
def fit(
    model: Classifier, images: Tensor | OnDemand, labels: Tensor, rows: Tensor, track: Track
) -> None:
    """Trains a classifier in place on some rows of uint8 images; leaves train/eval mode as is.

    It draws the order of the rows from torch's global random state. See `num_steps`.

    Args:
        model: The classifier, in training mode.
        images: All images, uint8 [N, C, H, W], on the device of the classifier.
        labels: Class indices [N].
        rows: Indices of the images to train on.
        track: Shows a progress bar of an iterable; takes a description.
    """
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    steps = num_steps(len(rows))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    passes = math.ceil(steps * BATCH / len(rows))
    order = torch.cat([rows[torch.randperm(len(rows)).to(rows)] for _ in range(passes)])
    for step in track(range(steps), "training a classifier"):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        loss = cross_entropy(model(grey(images[chosen])), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def num_steps(count: int) -> int:
    """Returns the training steps for `count` images: those of `EPOCHS` passes, at most `STEPS`."""
    return min(STEPS, math.ceil(EPOCHS * count / BATCH))


def grey(images: Tensor) -> Tensor:
    """Returns uint8 images as float32 in [0, 1], k / 255, and real numbers as they are."""
    return images if images.is_floating_point() else images.float() / 255
