"""`Hierarchy`, a distribution over latents in levels, each level conditional on those above it.

Shapes: K samples, B images, D latents in all levels.
"""

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from vaelab.distributions.divergence import kl_per_group

Step = Callable[[Tensor], tuple[Distribution, Callable[[Tensor], Tensor]]]
"""One level: from the state above it to (its distribution, a function from its latents to the state
below it).
"""


class Hierarchy(Distribution):
    """A distribution over the concatenated latents of all levels, top first.

    p(z_L) p(z_(L-1) | z_L) ... p(z_1 | z_2, ..., z_L), each level conditional on those above it.

    `mean` is the path of means: of each level where those above are at theirs, as a deterministic
    pass through the levels gives. It is not E[z] below the top. `variance` is that of each level
    given this path.

    Args:
        top: p(z_L). Its latents are the state above the next level.
        steps: One for each level below, from the top down.
        widths: Latents of each level, from the top down; they sum to D.
    """

    arg_constraints: ClassVar = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, top: Distribution, steps: Sequence[Step], widths: Sequence[int]) -> None:
        self.top, self.steps, self.widths = top, steps, [*widths]
        super().__init__(top.batch_shape, torch.Size([sum(widths)]))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "Hierarchy":
        """Returns the hierarchy with the top level expanded to `batch_shape`; steps are shared."""
        return Hierarchy(self.top.expand(torch.Size(batch_shape)), self.steps, self.widths)

    def descend(
        self, take: Callable[[Distribution], Tensor]
    ) -> tuple[list[Distribution], list[Tensor]]:
        """Returns each level's distribution and its latents `take(distribution)`, from the top.

        Each distribution is conditional on the latents taken above it.
        """
        levels, latents = [self.top], [take(self.top)]
        state = latents[0]
        for step in self.steps:
            level, follow = step(state)
            levels.append(level)
            latents.append(take(level))
            state = follow(latents[-1])
        return levels, latents

    def split(self, z: Tensor) -> list[Tensor]:
        """Returns z [..., D] split into the latents of each level, top first."""
        return [*z.split(self.widths, -1)]

    def levels_given(self, z: Tensor) -> list[Distribution]:
        """Returns each level's distribution, top first, given the latents above it in z [K, B, D].

        The batch of the top is [B] or []; that of the levels below is [K, B].
        """
        latents = iter(self.split(z))
        return self.descend(lambda _: next(latents))[0]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws z [*sample_shape, ..., D] with gradients, level by level from the top."""
        shapes = chain([torch.Size(sample_shape)], repeat(torch.Size()))
        return torch.cat(self.descend(lambda level: level.rsample(next(shapes)))[1], -1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draws z [*sample_shape, ..., D] without gradients, level by level from the top."""
        shapes = chain([torch.Size(sample_shape)], repeat(torch.Size()))
        return torch.cat(self.descend(lambda level: level.sample(next(shapes)))[1], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns the log-density of z [..., D], summed over levels given those above in z."""
        levels = zip(self.levels_given(value), self.split(value), strict=True)
        first, *others = (level.log_prob(latents) for level, latents in levels)
        return sum(others, first)

    def conditional_kl(self, prior: Distribution, z: Tensor) -> Tensor:
        """Returns KL [K, B, G] to a `Hierarchy` prior, by group, given the latents above in z.

        Raises:
            NotImplementedError: If the prior is no `Hierarchy`.
        """
        if not isinstance(prior, Hierarchy):
            raise NotImplementedError
        levels = zip(self.levels_given(z), prior.levels_given(z), self.split(z), strict=True)
        rates = [kl_per_group(*level) for level in levels]
        return torch.cat([rate.expand(*z.shape[:-1], -1) for rate in rates], -1)

    @property
    def mean(self) -> Tensor:
        """The path of means [..., D], each level given the means above it; not E[z]."""
        return torch.cat(self.descend(lambda level: level.mean)[1], -1)

    @property
    def variance(self) -> Tensor:
        """The variance [..., D] of each level given the means above it; not Var[z]."""
        levels, _ = self.descend(lambda level: level.mean)
        return torch.cat([level.variance for level in levels], -1)
