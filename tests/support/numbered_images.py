"""Images that say their own number, and a data module of them."""

import torch

from vaelab.data import Images
from vaelab.data.store import Splits


def numbered(count, shape=(1, 8, 8)):
    images = torch.randint(1, 255, (count, *shape), dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count)
    return images


def numbers(loader):
    """The numbers of the images in each batch."""
    return [(x[:, 0, 0, 0] * 255).round().int().tolist() for x, _ in loader]


def flat(lists):
    return [n for part in lists for n in part]


def splits(count=50, test=0, num_classes=5):
    images, labels = numbered(count + test), torch.arange(count + test) % max(num_classes, 1)
    parts = (images[:count], labels[:count], images[count:], labels[count:])
    return Splits(*parts, num_classes=num_classes)


def module(source=splits, **changes):
    settings = {"batch_size": 8, "val_size": 10, "pixels": "grey"} | changes
    data = Images(source=source, **settings)
    data.setup("fit")
    data.setup("test")
    return data
