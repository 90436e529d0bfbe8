"""The numbers of a finished run, with their standard errors."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from vaelab.elbo import ELBO
from vaelab.metrics import ACTIVE, bits_per_dim
from vaelab.metrics.evidence import evidence
from vaelab.randomness import stream

Estimate = dict[str, float]  # value and se


@torch.no_grad()
def evaluate(
    model: ELBO, batches: Iterable[tuple[Tensor, Tensor]], num_samples: int, seed: int
) -> dict[str, Estimate]:
    """Estimates over all images of the batches, which are on the model's device.

    The standard error is that of a mean over images, each with its own noise.
    """
    torch.manual_seed(stream("evaluate", seed))
    found: list[dict[str, Tensor]] = []
    for x, y in batches:
        values = evidence(model, x, y, num_samples)
        found.append(values | {"means": model.encode(x, y).mean})
    images = {name: torch.cat([part[name] for part in found]).double() for name in found[0]}
    means = images.pop("means")
    results = {name: estimate(values) for name, values in images.items()}
    if model.bits_offset is not None:
        bits = bits_per_dim(-1.0, model.x_shape)  # of one nat
        value = bits * results["nll"]["value"] + model.bits_offset
        results["bits_per_dim"] = {"value": value, "se": bits * results["nll"]["se"]}
    results["active_units"] = active_units(means)
    return results


def estimate(values: Tensor) -> Estimate:
    """The mean of independent values [N] and its standard error."""
    return {"value": float(values.mean()), "se": float(values.std() / len(values) ** 0.5)}


def active_units(means: Tensor) -> Estimate:
    """How many latents of posterior means [N, D] vary with x (Burda et al., 2016, section 5.2).

    The error counts those whose variance is within one standard error of the threshold.
    """
    squares = (means - means.mean(0)).square()
    variance, error = squares.mean(0), squares.std(0) / len(means) ** 0.5
    doubtful = (variance - ACTIVE).abs() < error
    return {"value": float((variance > ACTIVE).sum()), "se": float(doubtful.sum())}


def rows(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, value and error of each estimate, for a table."""
    return [
        (name, f"{entry['value']:.3f}", f"{entry['se']:.3f}")
        for name, entry in results.items()
        if isinstance(entry, dict) and "se" in entry
    ]
