"""Prediction of binary pixels by the nearest neighbours of what is known of an image."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy

from vaelab.metrics.chunking import entries_per_chunk


@dataclass(frozen=True)
class NeighbourPrediction:
    """Images in whose neighbourhood pixels are predicted: a baseline that learns nothing.

    Attributes:
        known: What is known of each image, by which it is found, standardised, [N, W].
        centre: The mean of what is known, [W].
        scale: What it is divided by, [W] or [].
        pixels: The probabilities of its pixels, k / 255, [N, P].
        average: Of all images, each pixel between 1 / 2(N + 1) and one minus that, [P].
        count: How many neighbours predict.
    """

    known: Tensor
    centre: Tensor
    scale: Tensor
    pixels: Tensor
    average: Tensor
    count: int

    @classmethod
    def fit(cls, known: Tensor, pixels: Tensor, count: int, scale: Tensor | float = 1.0) -> Self:
        """Keeps images [N, ...] and what is known of them [N, W]; half a white one is added.

        The mean of what is known is subtracted: far from 0 the distances would have no digits left.

        Args:
            known: What is known of each image.
            pixels: The probabilities of its pixels.
            count: How many neighbours predict.
            scale: What `known` is divided by, [W] or one number, for columns of different units.
        """
        pixels = pixels.flatten(1)
        average = (pixels.sum(0) + 0.5) / (len(pixels) + 1)
        centre, scale = known.mean(0), torch.as_tensor(scale).to(known)
        return cls(
            (known - centre) / scale, centre, scale, pixels, average, min(count, len(pixels))
        )

    def probabilities(self, known: Tensor) -> Tensor:
        """Returns the probabilities [B, P] of the pixels of images of which [B, W] is known.

        They are the mean over the images whose known numbers are nearest, in Euclidean distance
        after division by `scale`, and the average image as one more, so that none is 0 or 1.
        """
        known = (known - self.centre) / self.scale
        parts = known.split(max(1, entries_per_chunk(known.device) // len(self.known)))
        found = [
            self.pixels[torch.cdist(some, self.known).topk(self.count, largest=False).indices]
            for some in parts
        ]
        return (torch.cat(found).sum(1) + self.average) / (self.count + 1)

    def nll(self, x: Tensor, known: Tensor) -> Tensor:
        """The negative log-mass [B] of binary images x [B, ...], in nats."""
        loss = binary_cross_entropy(self.probabilities(known), x.flatten(1), reduction="none")
        return loss.cpu().double().sum(1)
