"""Log evidence by annealed importance sampling (AIS), which does not use the encoder.

Shapes: C chains and one pilot chain, B images, D latents.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from vaelab.autoencoder import AutoEncoder
from vaelab.metrics.chunking import images_per_chunk

TARGET_ACCEPTANCE = 0.65
"""Acceptance rate that step sizes are adapted to (Neal, 2011, arXiv:1206.1901, 4.4)."""
GAIN = 0.2
"""Change of the log step size per unit of difference from that acceptance."""
INITIAL_STEP_SIZE = 0.5
"""Step size at the start, where the target is the prior."""

Densities = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From z [C, B, D] to log p(z | y) and log p(x | z, y), [C, B] each."""


@dataclass(frozen=True)
class ChainState:
    """The positions of the chains, with log-densities and gradients there."""

    z: Tensor  # [C, B, D]
    log_prior: Tensor  # [C, B]
    log_likelihood: Tensor  # [C, B]
    prior_slope: Tensor  # [C, B, D]
    likelihood_slope: Tensor  # [C, B, D]

    @classmethod
    def evaluate(cls, z: Tensor, densities: Densities) -> "ChainState":
        """Returns the state at z [C, B, D]: log-densities and their gradients, all detached."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            logs = densities(z)
            slopes = [torch.autograd.grad(log.sum(), z)[0] for log in logs]
        return cls(z.detach(), *(log.detach() for log in logs), *slopes)

    def log_target(self, t: float) -> Tensor:
        """Returns log p(z | y) + t log p(x | z, y) [C, B], the log-density at temperature t."""
        return self.log_prior + t * self.log_likelihood

    def slope(self, t: float) -> Tensor:
        """Returns the gradient of `log_target` with respect to z, [C, B, D]."""
        return self.prior_slope + t * self.likelihood_slope


@torch.no_grad()
def ais_estimates(
    model: AutoEncoder, x: Tensor, y: Tensor, num_chains: int, num_steps: int, leapfrog_steps: int
) -> dict[str, Tensor]:
    """Returns `nll`, nats, and `acceptance`, NaN for one step, of annealed sampling, [B] each.

    A chain goes from a sample of p(z | y) through the densities p(z | y) p(x | z, y)^t to t = 1 by
    Hamiltonian Monte Carlo, and its weight has the expectation p(x | y) (Neal, 2001,
    arXiv:physics/9803008; for decoders, Wu et al., 2017, arXiv:1611.04273). `nll` is minus the log
    of the mean weight of C chains: above -log p(x | y) in expectation. With one step it is
    importance sampling from the prior. `acceptance` is the share of accepted moves, NaN with one
    step, which needs none. Draws are from the global random state.

    Args:
        model: In evaluation mode, with continuous latents.
        x: Images [B, C, H, W] in the form the model was trained on.
        y: One-hot labels [B, Y].
        num_chains: C.
        num_steps: The number of temperatures t above zero. The cost is one gradient of the decoder
            for each image, chain (and its pilot), step and leapfrog step.
        leapfrog_steps: Leapfrog steps of a move.
    """
    most = max(1, images_per_chunk(model.x_shape, model.device) // (num_chains + 1))
    found = [
        run_chains(model, *part, num_chains, num_steps, leapfrog_steps)
        for part in zip(x.split(most), y.split(most), strict=True)
    ]
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def run_chains(
    model: AutoEncoder, x: Tensor, y: Tensor, num_chains: int, num_steps: int, leapfrog_steps: int
) -> dict[str, Tensor]:
    """Returns the estimates of `ais_estimates` for images that fit in memory at once.

    The last chain of each image is its pilot: it sets the step size of the others and is not
    counted. Were the step size set by a chain's own past, as in Wu et al., the moves would not keep
    their densities, nor the mean weight its expectation.
    """
    prior = model.latent_prior(y).expand(y.shape[:1])

    def densities(z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns log p(z | y) and log p(x | z, y), [C, B] each, of z [C, B, D]."""
        return prior.log_prob(z), model.image_likelihood(z, y).log_prob(x)

    points = ChainState.evaluate(prior.sample((num_chains + 1,)), densities)
    step_size = x.new_full((len(x),), INITIAL_STEP_SIZE)
    temperatures = temperature_schedule(num_steps)
    log_weights = temperatures[0] * points.log_likelihood
    accepted = torch.zeros_like(log_weights)
    for t, following in pairwise(temperatures):
        points, probability, moved = move_chains(points, densities, t, step_size, leapfrog_steps)
        log_weights += (following - t) * points.log_likelihood
        accepted += moved
        step_size = step_size * (GAIN * (probability[-1] - TARGET_ACCEPTANCE)).exp()
    nll = math.log(num_chains) - log_weights[:-1].logsumexp(0)
    return {"nll": nll, "acceptance": accepted[:-1].mean(0) / (num_steps - 1)}


def temperature_schedule(num_steps: int) -> list[float]:
    """Returns `num_steps` rising temperatures t, the last 1: a sigmoid over [-4, 4], without t = 0.

    As in Wu et al. (2017).
    """
    t = (4 * torch.linspace(-1, 1, num_steps + 1).double()).sigmoid()
    return ((t - t[0]) / (t[-1] - t[0]))[1:].tolist()


def move_chains(
    points: ChainState, densities: Densities, t: float, step_size: Tensor, leapfrog_steps: int
) -> tuple[ChainState, Tensor, Tensor]:
    """Returns the state after one move at temperature t, its acceptance probability and success.

    Hamiltonian Monte Carlo with unit masses, which keeps p(z | y) p(x | z, y)^t (Neal, 2011,
    arXiv:1206.1901, section 3.2). Probability and success (accepted or not) are [C, B]. Where the
    trajectory diverges the probability is 0. Changes nothing in place.
    """
    momentum = torch.randn_like(points.z)
    ends, last = integrate_leapfrog(points, momentum, densities, t, step_size, leapfrog_steps)
    energy = 0.5 * (momentum.square() - last.square()).sum(-1)
    probability = (ends.log_target(t) - points.log_target(t) + energy).exp().clamp(max=1)
    probability = probability.nan_to_num(nan=0)
    accepted = torch.rand_like(probability) < probability
    chosen = {}
    for field in fields(ChainState):
        new, old = getattr(ends, field.name), getattr(points, field.name)
        chosen[field.name] = new.where(accepted if new.dim() == 2 else accepted[..., None], old)
    return ChainState(**chosen), probability, accepted


def integrate_leapfrog(
    points: ChainState,
    momentum: Tensor,
    densities: Densities,
    t: float,
    step_size: Tensor,
    leapfrog_steps: int,
) -> tuple[ChainState, Tensor]:
    """Returns state and momentum [C, B, D] after `leapfrog_steps` of a step size [B] per image."""
    size = step_size[:, None]
    for _ in range(leapfrog_steps):
        momentum = momentum + 0.5 * size * points.slope(t)
        points = ChainState.evaluate(points.z + size * momentum, densities)
        momentum = momentum + 0.5 * size * points.slope(t)
    return points, momentum
