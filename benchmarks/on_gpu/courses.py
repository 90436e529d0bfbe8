"""Images that need no download: a data set where VAELAB_DATA has it, else as much noise."""

import os
from dataclasses import replace
from pathlib import Path

from race import DATA_SETS, Course, prepare
from rows import DEVICE, FOLDER, IS_DRY

NETWORKS = ("mlp", "resnet")
DOWNLOADS = {"MNIST": "MNIST/raw", "CIFAR10": "cifar-10-batches-py"}
COUNTS = {"MNIST": 60_000, "CIFAR10": 50_000}
DRY_COUNTS = {"MNIST": 600, "CIFAR10": 100}


def is_stored(network: str) -> bool:
    """Returns whether the data set of a network is there, prepared or as torchvision has it."""
    name, _ = DATA_SETS[network]
    folder = Path(os.environ["VAELAB_DATA"])
    return any(
        (folder / file).exists() for file in (f"{name.lower()}.safetensors", DOWNLOADS[name])
    )


def prepare_images(network: str) -> Course:
    """Writes the images of a network into the section's folder; returns their course."""
    name, _ = DATA_SETS[network]
    noise = DRY_COUNTS[name] if IS_DRY else None if is_stored(network) else COUNTS[name]
    return replace(prepare(network, FOLDER, noise), device=DEVICE)
