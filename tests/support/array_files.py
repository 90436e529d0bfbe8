"""Small data sets as numpy arrays, and files of them in the formats that `read_splits` takes."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from vaelab.data.store import read_splits
from vaelab.errors import UserError

FILE_FORMATS = pytest.mark.parametrize("suffix", [".npz", ".safetensors"])


def valid_arrays(count=20, test=6, shape=(1, 8, 9)):
    """Returns arrays of a valid data set: random images, always the same, and labels 0 to 3."""
    random = np.random.default_rng(0)
    return {
        "train_images": random.integers(0, 256, (count, *shape), dtype=np.uint8),
        "train_labels": np.arange(count) % 4,
        "test_images": random.integers(0, 256, (test, *shape), dtype=np.uint8),
        "test_labels": np.arange(test) % 4,
    }


def changed_arrays(**changes):
    """Returns `valid_arrays()` with arrays added or replaced, or left out where they are None."""
    arrays = valid_arrays() | changes
    return {name: array for name, array in arrays.items() if array is not None}


def black_images(*shape, kind=np.uint8):
    """Returns zeros of a shape and dtype."""
    return np.zeros(shape, kind)


def two_level_images(low, high, kind=np.uint8, count=20, shape=(1, 8, 9)):
    """Returns images [count, *shape]: pixels of the first half are `low`, of the second `high`."""
    images = np.full((count, *shape), low, kind)
    images[count // 2 :] = high
    return images


def save_arrays(path, arrays):
    """Writes an `.npz` or `.safetensors` file, by the suffix; returns the path."""
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        save_file(arrays, path)
    return path


def assert_splits_equal(found, arrays):
    """Asserts that `Splits` hold the values of these arrays, in any shape and dtype."""
    for name, array in arrays.items():
        tensor = getattr(found, name)
        assert torch.equal(tensor, torch.from_numpy(array).reshape(tensor.shape)), name


def read_error_message(path, num_classes=None):
    """Returns the UserError message of `read_splits`; asserts one line that begins with the path.

    Fails if there is no error.
    """
    with pytest.raises(UserError) as error:
        read_splits(path, num_classes)
    message = str(error.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def files_except_locks(folder):
    """Returns the names of the files and folders in a folder, without lock files."""
    return [p.name for p in folder.iterdir() if p.suffix != ".lock"]
