"""The metric of models that are told numbers: the NLL by the nearest training images."""

from typing import Any

import torch
from pydantic import PositiveInt
from torch import Tensor

from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.evaluation.subject import Subject, applicable_unless
from vaelab.metrics.estimates import mean_estimate
from vaelab.metrics.neighbour_prediction import NeighbourPrediction


def neighbours_obstacle(model: ELBO, data: Images) -> str | None:
    """Returns why `neighbours` is not applicable to a model and data, or None."""
    if data.pixels != "binary":
        return "it takes binary pixels, as likelihood=bernoulli does"
    if not (model.context_dim and data.y_columns[1]):
        return "the model is told no numbers, as condition=continuous tells it"
    return None


@applicable_unless(neighbours_obstacle)
def neighbours(subject: Subject, *, count: PositiveInt) -> dict[str, Any]:
    """Measures the NLL of test images by the training images whose conditions are nearest.

    It is what a conditional model must be better than, as in the completion of digits from some of
    their quadrants. Each column of numbers is divided by its deviation in training, so the units do
    not matter. Raises NotApplicable for other pixels than binary ones, and without numbers that the
    model is told.

    Args:
        subject: The model and its data.
        count: The neighbours whose mean predicts an image.
    """
    _, _, rows = subject.data.stored("train")
    pixels = torch.cat([*subject.data.grey_images("train")])
    known = subject.data.labels("train").to(pixels.device)[rows.to(pixels.device)]
    fitted = NeighbourPrediction.fit(known, pixels, count, column_scales(subject.data, known))
    batches = subject.test_batches("nearest neighbours")
    return {"neighbours_nll": mean_estimate(torch.cat([fitted.nll(x, y) for x, y in batches]))}


def column_scales(data: Images, known: Tensor) -> Tensor:
    """Returns the scale [Y] of each number of y [N, Y]: its column's deviation; 1 of classes.

    A column of several numbers, as the pixels of quadrants, is in one unit and has one scale: the
    root of the mean variance. It is 1 for a constant column.
    """
    classes, numbers = data.y_columns
    widths = [column.classes for column in classes.values()]
    first = sum(widths)
    variances = known[:, first:].var(0, correction=0)
    scales = [known.new_ones(first)]
    for part in variances.split([column.width for column in numbers.values()]):
        scale = part.mean().sqrt()
        scales.append(torch.where(scale > 0, scale, 1).expand(len(part)))
    return torch.cat(scales)
