"""The metric of the latents: active units, and the parts of the rate."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import PositiveInt
from torch import Tensor

from vaelab.errors import NotApplicable
from vaelab.evaluation.subject import Batch, Subject, attempt, regroup
from vaelab.metrics.aggregate import IMAGES, elbo_surgery_of_batches
from vaelab.metrics.estimates import Estimate, mean_estimate
from vaelab.training.totals import ACTIVE


def latents(
    subject: Subject, *, num_samples: PositiveInt, images: Literal["test", "all"]
) -> dict[str, Any]:
    """Measures active units of the test images, and the rate's mutual information and marginal KL.

    If the posterior factorises, also the total correlation, a part of the marginal KL. For one
    image active units are not applicable, and for a deterministic encoder all else is not.

    Args:
        subject: The model and its data.
        num_samples: Samples of z for each image, for all but the active units.
        images: The images over which q(z) is the mean posterior: `test`, or `all` to add those of
            training and validation. For a finite set, such as sprites, q(z) is that of `all`; a
            part of it has a larger total correlation. The time grows with their square.
    """
    batches: Iterable[Batch]
    if images == "all":
        every = subject.iterate_all_images("all images")
        batches = regroup(every, IMAGES, sum(map(len, subject.data.splits.parts.values())))
    else:
        batches = subject.test_batches("codes of test images", IMAGES)

    def rate_parts() -> dict[str, Estimate]:
        """Returns the estimates of the rate's parts; raises NotApplicable without densities."""
        found = elbo_surgery_of_batches(subject.model, batches, num_samples)
        return {name: mean_estimate(values) for name, values in found.items()}

    return attempt(
        {
            "active_units": lambda: active_units(subject.test_codes),
            "mutual_information,marginal_kl,total_correlation": rate_parts,
        }
    )


def active_units(codes: Tensor) -> Estimate:
    """Counts latents with variance of means [N, D] above `ACTIVE`; NotApplicable for one image.

    Burda et al. (2016), section 5.2. The error counts the latents whose variance is within one
    standard error of the threshold.
    """
    codes = codes.cpu().double()
    if len(codes) < 2:
        raise NotApplicable("of one image no latent varies")
    squares = (codes - codes.mean(0)).square()
    variance, error = squares.mean(0), squares.std(0) / len(codes) ** 0.5
    doubtful = (variance - ACTIVE).abs() < error
    return {"value": float((variance > ACTIVE).sum()), "se": float(doubtful.sum())}
