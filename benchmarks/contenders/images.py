"""Writes the images that contenders train on: python images.py FILE.npz '{"name": "MNIST"}'."""

import json
import os
import sys

import numpy as np

SHAPES = {"MNIST": (1, 28, 28), "CIFAR10": (3, 32, 32)}


def training_images(name: str, random: int | None = None) -> np.ndarray:
    """Uint8 [N, C, H, W].

    Args:
        name: MNIST or CIFAR10.
        random: So many images of noise in their place, which need no data set.
    """
    return noise(name, random) if random is not None else stored(name)


def noise(name: str, count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPES[name]), dtype=np.uint8)


def stored(name: str) -> np.ndarray:
    """Those of vaelab's own file, which is made or downloaded where it is absent."""
    from vaelab.data import TorchvisionDataset

    folder = os.environ.get("VAELAB_DATA", "data")
    source = TorchvisionDataset(name, folder, f"{name.lower()}.safetensors", "its files")
    return source().train_images.numpy()


if __name__ == "__main__":
    np.savez(sys.argv[1], train_images=training_images(**json.loads(sys.argv[2])))
