"""Metrics of samples by nearest neighbours: precision, recall, density, coverage and copies.

Precision, recall, density and coverage are in the features of a network: how good samples are, and
how much of the real images they cover. Copies are found in pixels: the training image nearest to a
sample, and whether it was copied.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from vaelab.errors import NotApplicable
from vaelab.metrics.estimates import Estimate, mean_estimate

NEIGHBOURS = 5
"""The neighbour that the balls of density and coverage reach to."""
FEWEST_NEAREST = 10
"""Distinct nearest images of many samples, below which nothing is said of copies."""
CHUNK = 1000  # rows of a table of distances at a time


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> dict[str, Estimate]:
    """Returns `precision`, share of fakes in balls of reals, and `recall`, the reverse; may raise.

    `recall` is the share of real images in balls around fake ones. A ball reaches from an image of
    a set to its k-th neighbour in the set (Kynkaanniemi et al., 2019, arXiv:1904.06991, eq. 1 and
    2, with k = 3). The errors are those of the shares, given the balls.

    Args:
        real: Features [N, F].
        fake: Features [M, F].
        k: The neighbour that a ball reaches to.

    Raises:
        NotApplicable: As `ball_counts` does.
    """
    _, around_fake = ball_counts(real, fake, k)
    _, around_real = ball_counts(fake, real, k)
    return {"precision": mean_estimate(around_fake > 0), "recall": mean_estimate(around_real > 0)}


def density_coverage(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> dict[str, Estimate]:
    """Returns `density`, real balls per fake image / k; `coverage`, share of balls hit; may raise.

    A ball reaches from a real image to its k-th real neighbour. Coverage is the share of balls with
    a fake image in them. Naeem et al. (2020), arXiv:2002.09797, with k = 5. For samples that are as
    real images, and many, one expects a density of 1 and, of as many, a coverage of 1 - 2^-k. The
    errors are given the balls.

    Args:
        real: Features [N, F].
        fake: Features [M, F].
        k: The neighbour that a ball reaches to.

    Raises:
        NotApplicable: As `ball_counts` does.
    """
    within, around = ball_counts(real, fake, k)
    return {"density": mean_estimate(around / k), "coverage": mean_estimate(within > 0)}


def ball_counts(centres: Tensor, points: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Returns the number of points in each ball [N], and of balls around each point [M]; may raise.

    Args:
        centres: Centres [N, F] of the balls, which reach to the k-th neighbour among the centres.
        points: [M, F].
        k: Less than N.

    Raises:
        NotApplicable: If k is not less than N, or all centres are the same.
    """
    if len(centres) <= k:
        raise NotApplicable(f"{len(centres)} images are too few to have {k} neighbours each")
    if not centres.var(0).any():
        raise NotApplicable("the features are the same for all images")
    middle = centres.mean(0)  # near the origin the distances are exact to more digits
    centres, points = centres - middle, points - middle
    within, around = [], torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for some in centres.split(CHUNK):
        nearest = torch.cdist(some, centres).topk(k + 1, largest=False).values  # itself first
        found = torch.cdist(some, points) <= nearest[:, -1:]
        within.append(found.sum(1))
        around += found.sum(0)
    return torch.cat(within), around


class NearestImages(NamedTuple):
    """The nearest image of a pool to each of N images, and the pool's size."""

    indices: Tensor
    distances: Tensor
    images: Tensor  # [N, C, H, W]
    pool_size: int


def nearest_images(images: Tensor, pool: Iterable[Tensor]) -> NearestImages:
    """Returns the pool's image nearest to each, with index and Euclidean distance, and pool size.

    Args:
        images: [N, C, H, W].
        pool: Batches [n, C, H, W] of the pool, in the same units and on the same device.
    """
    shape, images = images.shape, images.flatten(1)
    centre = images.mean(0)  # near the origin the distances are exact to more digits
    centred = images - centre
    found, size = torch.zeros_like(images), 0
    least = images.new_full((len(images),), torch.inf)
    indices = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    for batch in pool:
        batch = batch.flatten(1)
        # The squared distances, less the squares of the images, which change no order.
        near = batch - centre
        distances = torch.addmm(near.square().sum(1), centred, near.T, alpha=-2)
        values, rows = distances.min(1)
        closer = values < least
        least = torch.where(closer, values, least)
        indices = torch.where(closer, rows + size, indices)
        found[closer] = batch[rows[closer]]
        size += len(batch)
    return NearestImages(indices, (images - found).norm(dim=1), found.view(shape), size)


def copied_share(train: NearestImages, held_out: NearestImages) -> Estimate:
    """Returns the estimated share of samples that copy training images; may be below 0, may raise.

    The image nearest to a new sample is one of the N training images, and not of the M held out,
    with probability N / (N + M); that nearest to a copy always is. So the estimate is the excess of
    that share over N / (N + M), divided by M / (N + M). It can be negative by chance. It uses the
    share of Platzer & Reutterer (2021, doi:10.3389/fdata.2021.679939), for N and M that differ. A
    blurred sample, close to everything, is close to both; but both must be drawn alike. The
    standard error counts samples with the same nearest image as one group.

    Args:
        train: The nearest training images of the samples.
        held_out: The nearest images, to the same samples, that the model was not trained on.

    Raises:
        NotApplicable: If the samples are nearest to very few images, as those of a model that
            has learned nothing, or to a single one.
    """
    expected = train.pool_size / (train.pool_size + held_out.pool_size)
    from_train = train.distances < held_out.distances
    share = from_train.double()
    share[train.distances == held_out.distances] = expected
    which = torch.where(from_train, train.indices, train.pool_size + held_out.indices)
    groups = len(which.unique())
    if groups < max(2, min(FEWEST_NEAREST, len(share) / 4)):  # of one group there is no error
        raise NotApplicable(f"{len(share)} samples are nearest to {groups} real images only")
    deviations = torch.zeros(train.pool_size + held_out.pool_size, dtype=share.dtype)
    deviations.index_add_(0, which.cpu(), (share - share.mean()).cpu())
    error = deviations.norm() / len(share) * (groups / (groups - 1)) ** 0.5
    scale = 1 / (1 - expected)
    certain = share.mean() == 1 or not share.any()  # deviations of 0 say nothing of the error
    se = None if certain else float(error) * scale
    return {"value": float(share.mean() - expected) * scale, "se": se}
