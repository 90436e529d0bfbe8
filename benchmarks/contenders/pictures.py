"""Images as torchvision hands them out: a picture at a time, made a tensor by ToTensor."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import ToTensor


def loader(images: np.ndarray, batch_size: int) -> DataLoader:
    """Shuffled batches of x [B, C, H, W] in [0, 1] and labels, from uint8 [N, C, H, W]."""
    dataset = like_torchvision(images)
    return DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)


def like_torchvision(images: np.ndarray) -> datasets.VisionDataset:
    """Torchvision's MNIST, or with three channels its CIFAR10, with these images in it."""
    three = images.shape[1] == 3
    kind: Any = datasets.CIFAR10 if three else datasets.MNIST
    dataset = kind.__new__(kind)  # without the files that its constructor would ask for
    datasets.VisionDataset.__init__(dataset, root="", transform=ToTensor())
    dataset.data = images.transpose(0, 2, 3, 1) if three else torch.from_numpy(images[:, 0])
    dataset.targets = [0] * len(images)
    return dataset
