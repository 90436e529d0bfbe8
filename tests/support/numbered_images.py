"""Images whose first pixel is their number, and data sets and data modules of them."""

import torch

from vaelab.data import Images
from vaelab.data.splits import Splits


def numbered_images(count, shape=(1, 8, 8)):
    """Returns random uint8 images [count, *shape], first pixel 0, 1, ...; uses global randomness.

    Other pixels are 1 to 254.
    """
    images = torch.randint(1, 255, (count, *shape), dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(count)
    return images


def image_numbers(loader):
    """Returns a list of the image numbers of each batch; the pixels are grey."""
    return [(x[:, 0, 0, 0] * 255).round().int().tolist() for x, _ in loader]


def flatten(lists):
    """Returns the items of all lists as one list."""
    return [n for part in lists for n in part]


def numbered_splits(count=50, test=0, num_classes=5):
    """Returns a data set of numbered images, the last `test` of them as test part.

    Labels are number % num_classes; zeros without classes.
    """
    images, labels = numbered_images(count + test), torch.arange(count + test) % max(num_classes, 1)
    parts = (images[:count], labels[:count], images[count:], labels[count:])
    return Splits(*parts, num_classes=num_classes)


def build_data_module(source=numbered_splits, **changes):
    """Returns a data module that is set up for training and test; `changes` are its settings."""
    settings = {"batch_size": 8, "val_size": 10, "pixels": "grey"} | changes
    data = Images(source=source, **settings)
    data.setup("fit")
    data.setup("test")
    return data
