"""How well the model explains the test images."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vaelab.elbo import ELBO
from vaelab.evaluation.subject import NotApplicable, Subject
from vaelab.metrics.annealed import annealed
from vaelab.metrics.bits import bits_per_dim
from vaelab.metrics.estimates import mean, means
from vaelab.metrics.evidence import evidence

SMALL = 5_000_000
"""Operations to decode an image, up to which a model is small: dense networks on small images."""


def likelihood(subject: Subject, *, num_samples: PositiveInt | Literal["auto"]) -> dict[str, Any]:
    """Negative log evidence, bound, rate and distortion; bits per dimension where defined.

    `nll_bits_per_dim` are those of the evidence; `bits_per_dim`, which training reports, are those
    of the bound.

    Args:
        subject: The model and its test images.
        num_samples: K of `vaelab.metrics.evidence`; by itself 5,000 for a small model, else 100.
    """
    model = subject.model
    count = affordable(model) if num_samples == "auto" else num_samples
    batches = subject.test(f"log evidence, {count:,} samples an image")
    found = [evidence(model, x, y, count) for x, y in batches]
    images = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    results: dict[str, Any] = {"num_samples": count}
    results |= {name: mean(values) for name, values in images.items() if values.dim() == 1}
    if model.bits_offset is not None:
        bits = bits_per_dim(-1.0, model.x_shape)  # of one nat
        results["nll_bits_per_dim"] = mean(bits * images["nll"].double() + model.bits_offset)
    return results | {"rate_per_latent": means(images["rate_per_latent"])}


def reconstruction(subject: Subject) -> dict[str, Any]:
    """Mean squared error, PSNR and SSIM, see `vaelab.metrics.reconstruction`."""
    from vaelab.metrics.reconstruction import reconstruction as of_batch  # slow to import

    found = [of_batch(subject.model, x, y) for x, y in subject.test("reconstructions")]
    return {name: mean(torch.cat([part[name] for part in found])) for name in found[0]}


def affordable(model: ELBO) -> int:
    """The number of samples an image by default."""
    y = torch.zeros(1, model.y_dim, device=model.device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.decode(torch.zeros(1, model.latent_dim, device=model.device), y)
    return 5_000 if counter.get_total_flops() <= SMALL else 100


def ais(
    subject: Subject,
    *,
    images: PositiveInt,
    chains: PositiveInt,
    steps: Annotated[int, Field(ge=2)],
    leapfrog_steps: PositiveInt,
    num_samples: PositiveInt,
) -> dict[str, Any]:
    """A second opinion on the log evidence, by annealed importance sampling.

    `nll_ais` is its estimate, and `nll_minus_ais` by how much importance sampling from q is above
    it on the same images: more than its error where the posterior misses what it should cover.

    Args:
        subject: The model and its test images.
        images: How many of them, the first.
        chains: For each image.
        steps: Temperatures.
        leapfrog_steps: Of each move.
        num_samples: K of importance sampling, the other opinion.
    """
    if not subject.model.continuous:
        raise NotApplicable("it takes gradients of the latents, and those of this model are codes")
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for x, y in subject.test("annealed importance sampling", size=10, count=images):
        annealing = annealed(subject.model, x, y, chains, steps, leapfrog_steps)
        nll = evidence(subject.model, x, y, num_samples)["nll"]
        found.append((annealing["nll"], nll - annealing["nll"], annealing["acceptance"]))
    nll, difference, acceptance = (torch.cat(part) for part in zip(*found, strict=True))
    return {
        "nll_ais": mean(nll),
        "nll_minus_ais": mean(difference),
        "ais_acceptance": mean(acceptance),
    }
