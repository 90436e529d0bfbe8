"""Log evidence by annealed importance sampling, which does without the encoder.

Shapes: C chains and their pilot, B images, D latents.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise

import torch
from torch import Tensor

from vaelab.autoencoder import AutoEncoder
from vaelab.chunking import portion

TARGET = 0.65
"""The acceptance that step sizes are adapted towards (Neal, 2011, arXiv:1206.1901, 4.4)."""
GAIN = 0.2
"""Change of the logarithm of a step size for an acceptance that is off by one."""
FIRST = 0.5
"""Step size at the start, where the target is the prior."""

Densities = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From z [C, B, D] to log p(z | y) and log p(x | z, y), [C, B] each."""


@dataclass(frozen=True)
class Points:
    """Where the chains are, and the log-densities and their gradients there."""

    z: Tensor  # [C, B, D]
    log_prior: Tensor  # [C, B]
    log_likelihood: Tensor  # [C, B]
    prior_slope: Tensor  # [C, B, D]
    likelihood_slope: Tensor  # [C, B, D]

    @classmethod
    def at(cls, z: Tensor, densities: Densities) -> "Points":
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            logs = densities(z)
            slopes = [torch.autograd.grad(log.sum(), z)[0] for log in logs]
        return cls(z.detach(), *(log.detach() for log in logs), *slopes)

    def log_target(self, t: float) -> Tensor:
        """The log-density log p(z | y) + t log p(x | z, y), [C, B]."""
        return self.log_prior + t * self.log_likelihood

    def slope(self, t: float) -> Tensor:
        """The gradient of `log_target`, [C, B, D]."""
        return self.prior_slope + t * self.likelihood_slope


@torch.no_grad()
def annealed(
    model: AutoEncoder, x: Tensor, y: Tensor, num_chains: int, num_steps: int, leapfrog_steps: int
) -> dict[str, Tensor]:
    """Estimates from C chains for each image, each of shape [B].

    A chain goes from a sample of p(z | y) through the densities p(z | y) p(x | z, y)^t to t = 1 by
    Hamiltonian Monte Carlo, and its weight has the expectation p(x | y) (Neal, 2001,
    arXiv:physics/9803008; for decoders, Wu et al., 2017, arXiv:1611.04273). `nll`, in nats, is
    minus the log of the mean weight: above -log p(x | y) in expectation, and with one step it is
    importance sampling from the prior. `acceptance` is the share of accepted moves, NaN with one
    step, which needs none.

    Args:
        model: In evaluation mode, with continuous latents.
        x: Images [B, C, H, W] as the model was trained on them.
        y: One-hot labels [B, Y].
        num_chains: C.
        num_steps: Temperatures t above zero. The cost is one gradient of the decoder for each
            image, chain (and one more), step and leapfrog step.
        leapfrog_steps: Leapfrog steps of a move.
    """
    most = max(1, portion(model.x_shape, model.device) // (num_chains + 1))
    found = [
        chains(model, *part, num_chains, num_steps, leapfrog_steps)
        for part in zip(x.split(most), y.split(most), strict=True)
    ]
    return {name: torch.cat([part[name] for part in found]) for name in found[0]}


def chains(
    model: AutoEncoder, x: Tensor, y: Tensor, num_chains: int, num_steps: int, leapfrog_steps: int
) -> dict[str, Tensor]:
    """`annealed` for as many images as fit.

    The last chain of each image is its pilot, which sets the step size of the others and is not
    counted. Were it their own past, as in Wu et al., the moves would not keep their densities,
    nor the mean weight its expectation.
    """
    prior = model.latent_prior(y).expand(y.shape[:1])

    def densities(z: Tensor) -> tuple[Tensor, Tensor]:
        return prior.log_prob(z), model.decode(z, y).log_prob(x)

    points = Points.at(prior.sample((num_chains + 1,)), densities)
    step_size = x.new_full((len(x),), FIRST)
    temperatures = schedule(num_steps)
    log_weights = temperatures[0] * points.log_likelihood
    accepted = torch.zeros_like(log_weights)
    for t, following in pairwise(temperatures):
        points, probability, moved = move(points, densities, t, step_size, leapfrog_steps)
        log_weights += (following - t) * points.log_likelihood
        accepted += moved
        step_size = step_size * (GAIN * (probability[-1] - TARGET)).exp()
    nll = math.log(num_chains) - log_weights[:-1].logsumexp(0)
    return {"nll": nll, "acceptance": accepted[:-1].mean(0) / (num_steps - 1)}


def schedule(num_steps: int) -> list[float]:
    """Temperatures up to 1, the first after 0: a sigmoid over [-4, 4], as Wu et al. use it."""
    t = (4 * torch.linspace(-1, 1, num_steps + 1).double()).sigmoid()
    return ((t - t[0]) / (t[-1] - t[0]))[1:].tolist()


def move(
    points: Points, densities: Densities, t: float, step_size: Tensor, leapfrog_steps: int
) -> tuple[Points, Tensor, Tensor]:
    """One move that keeps p(z | y) p(x | z, y)^t: Hamiltonian Monte Carlo with unit masses.

    Neal (2011), arXiv:1206.1901, section 3.2. Also the probability to accept it and whether it was
    accepted, [C, B]. Where the trajectory diverges, nothing moves.
    """
    momentum = torch.randn_like(points.z)
    ends, last = leapfrog(points, momentum, densities, t, step_size, leapfrog_steps)
    energy = 0.5 * (momentum.square() - last.square()).sum(-1)
    probability = (ends.log_target(t) - points.log_target(t) + energy).exp().clamp(max=1)
    probability = probability.nan_to_num(nan=0)
    accepted = torch.rand_like(probability) < probability
    chosen = {}
    for field in fields(Points):
        new, old = getattr(ends, field.name), getattr(points, field.name)
        chosen[field.name] = new.where(accepted if new.dim() == 2 else accepted[..., None], old)
    return Points(**chosen), probability, accepted


def leapfrog(
    points: Points,
    momentum: Tensor,
    densities: Densities,
    t: float,
    step_size: Tensor,
    leapfrog_steps: int,
) -> tuple[Points, Tensor]:
    """Points and momentum [C, B, D] after some steps, whose size is that of the image [B]."""
    size = step_size[:, None]
    for _ in range(leapfrog_steps):
        momentum = momentum + 0.5 * size * points.slope(t)
        points = Points.at(points.z + size * momentum, densities)
        momentum = momentum + 0.5 * size * points.slope(t)
    return points, momentum
