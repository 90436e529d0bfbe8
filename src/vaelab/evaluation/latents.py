"""What the latents hold of the images."""

from typing import Any, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from vaelab.errors import NotApplicable
from vaelab.evaluation.subject import Subject, attempt
from vaelab.metrics.aggregate import surgery
from vaelab.metrics.estimates import Estimate, mean
from vaelab.training.totals import ACTIVE


def latents(
    subject: Subject, *, num_samples: PositiveInt, images: Literal["test", "all"]
) -> dict[str, Any]:
    """Active units, and the rate's split into mutual information and marginal KL.

    The total correlation is a part of the latter, where the posterior factorises.

    Args:
        subject: The model and its test images.
        num_samples: Of z for each image, in the split.
        images: Of which q(z) is the mean posterior. `all`, with those of training: what q(z) is
            of a finite set, such as sprites; a sample of it has a larger total correlation. The
            time goes with their square.
    """
    x, y = subject.images
    if images == "all":
        x, y = map(torch.cat, zip(*subject.every_image("all images"), strict=True))
    found = surgery(subject.model, x, y, num_samples)
    return attempt({"active_units": lambda: active_units(subject.codes)}) | {
        name: mean(values) for name, values in found.items()
    }


def active_units(codes: Tensor) -> Estimate:
    """How many latents of posterior means [N, D] vary with x (Burda et al., 2016, section 5.2).

    The error counts those whose variance is within one standard error of the threshold.
    """
    codes = codes.cpu().double()
    if len(codes) < 2:
        raise NotApplicable("of one image no latent varies")
    squares = (codes - codes.mean(0)).square()
    variance, error = squares.mean(0), squares.std(0) / len(codes) ** 0.5
    doubtful = (variance - ACTIVE).abs() < error
    return {"value": float((variance > ACTIVE).sum()), "se": float(doubtful.sum())}
