"""The metrics of likelihood and reconstruction of the test images."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from vaelab.elbo import ELBO
from vaelab.errors import NotApplicable
from vaelab.evaluation.subject import Subject
from vaelab.metrics.annealed import ais_estimates
from vaelab.metrics.bits import bits_per_dim
from vaelab.metrics.estimates import (
    column_mean_estimates,
    mean_estimate,
    not_applicable_estimate,
)
from vaelab.metrics.evidence import evidence_estimates
from vaelab.observations import kind_text

SMALL = 5_000_000
"""Operations to decode an image below which a model is small: dense networks on small images."""


def likelihood(subject: Subject, *, num_samples: PositiveInt | Literal["auto"]) -> dict[str, Any]:
    """Measures negative log evidence, ELBO, rate and distortion of the test images, in nats.

    Adds `nll_bits_per_dim` for models with bits per dimension; unlike the `bits_per_dim` that
    training reports, it is that of the evidence and not of the ELBO.

    Args:
        subject: The model and its test images.
        num_samples: K of `vaelab.metrics.evidence`; `auto` is 5,000 for a small model, else 100.
            Of codes without a density, as those of `VQVAE`, it is 1.
    """
    model = subject.model
    count = default_num_samples(model) if num_samples == "auto" else num_samples
    count = count if model.has_continuous_latents else 1
    batches = subject.test_batches(f"log evidence, {count:,} samples an image")
    found = [evidence_estimates(model, x, y, count) for x, y in batches]
    images = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    results: dict[str, Any] = {"num_samples": count}
    results |= {name: mean_estimate(values) for name, values in images.items() if values.dim() == 1}
    if model.bits_offset is not None:
        bits = bits_per_dim(-1.0, model.x_shape)  # of one nat
        results["nll_bits_per_dim"] = mean_estimate(
            bits * images["nll"].double() + model.bits_offset
        )
    return results | {"rate_per_latent": column_mean_estimates(images["rate_per_latent"])}


def reconstruction(subject: Subject) -> dict[str, Any]:
    """Measures MSE, PSNR and SSIM of the test images; see `vaelab.metrics.reconstruction`.

    Of signals and vectors the MSE alone, in the units of the model; no SSIM of tiny images.
    """
    from vaelab.metrics.reconstruction import SMALLEST, reconstruction_quality  # slow to import

    found = [
        reconstruction_quality(subject.model, x, y)
        for x, y in subject.test_batches("reconstructions")
    ]
    results = {name: mean_estimate(torch.cat([part[name] for part in found])) for name in found[0]}
    shape = subject.model.x_shape
    if len(shape) == 3 and "ssim" not in results:
        reason = f"its windows take {SMALLEST} pixels a side, and these have {min(shape[1:])}"
        results["ssim"] = not_applicable_estimate(reason)
    if len(shape) != 3:
        reason = f"they are of images, and these are {kind_text(shape)}"
        results |= {name: not_applicable_estimate(reason) for name in ("psnr", "ssim")}
    return results


def default_num_samples(model: ELBO) -> int:
    """Returns K for `num_samples=auto`: 5,000 if decoding takes few operations, else 100."""
    x, z, y = (
        torch.zeros(1, *shape, device=model.device)
        for shape in (model.x_shape, (model.latent_dim,), (model.y_dim,))
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.image_likelihood(z, y).log_prob(x)  # which may have layers of its own
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
    """Measures NLL of the first test images by annealed importance sampling, to check `likelihood`.

    Raises NotApplicable for discrete latents. `nll_ais` is the estimate. `nll_minus_ais` is by how
    much importance sampling from q is above it on the same images: more than its error if the
    posterior misses mass that it should cover. It is not applicable to a deterministic encoder.

    Args:
        subject: The model and its test images.
        images: The number of test images, from the first.
        chains: Chains for each image.
        steps: Temperatures.
        leapfrog_steps: Leapfrog steps of each move.
        num_samples: K of the importance sampling that is compared.
    """
    if not subject.model.has_continuous_latents:
        raise NotApplicable("it takes gradients of the latents, and those of this model are codes")
    annealed: list[dict[str, Tensor]] = []
    by_importance: list[Tensor] = []
    reason = ""
    for x, y in subject.test_batches("annealed importance sampling", size=10, count=images):
        annealed.append(ais_estimates(subject.model, x, y, chains, steps, leapfrog_steps))
        try:
            by_importance.append(evidence_estimates(subject.model, x, y, num_samples)["nll"])
        except NotApplicable as error:
            reason = str(error)
    nll, acceptance = (torch.cat([part[n] for part in annealed]) for n in ("nll", "acceptance"))
    return {
        "nll_ais": mean_estimate(nll),
        "nll_minus_ais": not_applicable_estimate(reason)
        if reason
        else mean_estimate(torch.cat(by_importance) - nll),
        "ais_acceptance": mean_estimate(acceptance),
    }
