"""Samples and real images as each other's neighbours.

In the features of a network: how good samples are, and how much of the real images they cover.
In pixels: which training image a sample comes closest to, and whether it was copied.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from vaelab.errors import NotApplicable
from vaelab.metrics.estimates import Estimate, mean

CHUNK = 1000  # rows of a table of distances at a time


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> dict[str, Estimate]:
    """How many samples are among the real images, and how many real images among the samples.

    To be among a set is to be in the ball around one of it that reaches to that one's k-th
    neighbour in the set (Kynkaanniemi et al., 2019, arXiv:1904.06991, eq. 1 and 2, with k = 3).
    The errors are those of the shares, given the balls.

    Args:
        real: Features [N, F].
        fake: Features [M, F].
        k: Of the neighbour.
    """
    _, around_fake = inside(real, fake, k)
    _, around_real = inside(fake, real, k)
    return {"precision": mean(around_fake > 0), "recall": mean(around_real > 0)}


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, Estimate]:
    """How many balls of real images a sample is in, over k, and the share of balls with a sample.

    Naeem et al. (2020), arXiv:2002.09797, with k = 5. For samples that are as real
    images, and many, one expects a density of 1 and, of as many, a coverage of 1 - 2^-k. The
    errors are given the balls.

    Args:
        real: Features [N, F].
        fake: Features [M, F].
        k: Of the neighbour that a ball reaches to.
    """
    within, around = inside(real, fake, k)
    return {"density": mean(around / k), "coverage": mean(within > 0)}


def inside(centres: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The number of points in each ball [N], and the number of balls around each point [M].

    Args:
        centres: Of the balls, [N, F], which reach to the k-th neighbour among the centres.
        points: [M, F].
        k: Less than N.
    """
    if len(centres) <= k:
        raise NotApplicable(f"{len(centres)} images are too few to have {k} neighbours each")
    middle = centres.mean(0)  # near the origin the distances are exact to more digits
    centres, points = centres - middle, points - middle
    within, around = [], torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for some in centres.split(CHUNK):
        nearest = torch.cdist(some, centres).topk(k + 1, largest=False).values  # itself first
        found = torch.cdist(some, points) <= nearest[:, -1:]
        within.append(found.sum(1))
        around += found.sum(0)
    return torch.cat(within), around


class Nearest(NamedTuple):
    """The nearest image of a pool for each one: its index [N], distance [N] and pixels."""

    indices: Tensor
    distances: Tensor
    images: Tensor  # [N, C, H, W]
    pool_size: int


def nearest(images: Tensor, pool: Iterable[Tensor]) -> Nearest:
    """The nearest image of a pool to each image, by the Euclidean distance of their pixels.

    Args:
        images: [N, C, H, W].
        pool: Portions [n, C, H, W] of the pool, in the same units and on the same device.
    """
    shape, images = images.shape, images.flatten(1)
    found, size = torch.zeros_like(images), 0
    least = images.new_full((len(images),), torch.inf)
    indices = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    for portion in pool:
        portion = portion.flatten(1)
        # The squared distances, less the squares of the images, which change no order.
        distances = torch.addmm(portion.square().sum(1), images, portion.T, alpha=-2)
        values, rows = distances.min(1)
        closer = values < least
        least = torch.where(closer, values, least)
        indices = torch.where(closer, rows + size, indices)
        found[closer] = portion[rows[closer]]
        size += len(portion)
    return Nearest(indices, (images - found).norm(dim=1), found.view(shape), size)


def copied(train: Nearest, held_out: Nearest) -> Estimate:
    """The share of samples that are copies of training images: 0 for none, 1 for all.

    Of a new sample the nearest of all real images is one of the N training images, and not of M
    held out, with probability N / (N + M); of a copy it always is. So the excess of that share
    over N / (N + M), as a part of M / (N + M). It uses the share of Platzer & Reutterer (2021,
    doi:10.3389/fdata.2021.679939), for N and M that differ. A blurred sample, close
    to everything, is close to both; but both must be drawn alike. The error takes samples with
    the same nearest image for one.

    Args:
        train: Of the samples among the training images.
        held_out: Of the same samples among images that the model was not trained on.
    """
    expected = train.pool_size / (train.pool_size + held_out.pool_size)
    from_train = train.distances < held_out.distances
    share = from_train.double()
    share[train.distances == held_out.distances] = expected
    which = torch.where(from_train, train.indices, train.pool_size + held_out.indices)
    deviations = torch.zeros(train.pool_size + held_out.pool_size, dtype=share.dtype)
    deviations.index_add_(0, which.cpu(), (share - share.mean()).cpu())
    error = deviations.norm() / len(share)
    scale = 1 / (1 - expected)
    return {"value": float(share.mean() - expected) * scale, "se": float(error) * scale}
