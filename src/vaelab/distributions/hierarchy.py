"""Distributions over latents in levels, each level told of those above it.

Shapes: K samples, B images, D latents in all levels.
"""

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

Step = Callable[[Tensor], tuple[Distribution, Callable[[Tensor], Tensor]]]
"""From what is known above a level to its distribution, and from its latents to what is then."""


class Hierarchy(Distribution):
    """p(z_L) p(z_(L-1) | z_L) ... p(z_1 | z_2, ..., z_L), side by side with the top level first.

    `mean` is the path of means: of each level where those above are at theirs, which is what a
    deterministic pass through the levels gives, and not E[z] below the top. `variance` is that of
    each level given this path.

    Args:
        top: p(z_L), which is what is known above the next level.
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
        return Hierarchy(self.top.expand(torch.Size(batch_shape)), self.steps, self.widths)

    def descend(
        self, take: Callable[[Distribution], Tensor]
    ) -> tuple[list[Distribution], list[Tensor]]:
        """The distribution of each level given the latents that `take` made of those above."""
        levels, latents = [self.top], [take(self.top)]
        known = latents[0]
        for step in self.steps:
            level, follow = step(known)
            levels.append(level)
            latents.append(take(level))
            known = follow(latents[-1])
        return levels, latents

    def split(self, z: Tensor) -> list[Tensor]:
        """The latents [..., D] of each level."""
        return [*z.split(self.widths, -1)]

    def given(self, z: Tensor) -> list[Distribution]:
        """The distribution of each level given those above it in z [K, B, D].

        That of the top has its batch [B], or []; those below have [K, B].
        """
        latents = iter(self.split(z))
        return self.descend(lambda _: next(latents))[0]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shapes = chain([torch.Size(sample_shape)], repeat(torch.Size()))
        return torch.cat(self.descend(lambda level: level.rsample(next(shapes)))[1], -1)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shapes = chain([torch.Size(sample_shape)], repeat(torch.Size()))
        return torch.cat(self.descend(lambda level: level.sample(next(shapes)))[1], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        levels = zip(self.given(value), self.split(value), strict=True)
        first, *others = (level.log_prob(latents) for level, latents in levels)
        return sum(others, first)

    @property
    def mean(self) -> Tensor:
        return torch.cat(self.descend(lambda level: level.mean)[1], -1)

    @property
    def variance(self) -> Tensor:
        levels, _ = self.descend(lambda level: level.mean)
        return torch.cat([level.variance for level in levels], -1)
