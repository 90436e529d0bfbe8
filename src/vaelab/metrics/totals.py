"""Sums over the images of a data set, so that a ragged last batch weighs what it holds."""

import math
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from vaelab.errors import NotFiniteError
from vaelab.metrics.window import SCALARS, UNBOUNDED

if TYPE_CHECKING:
    from vaelab.terms import Terms

ACTIVE = 0.01
"""A latent is active if Var_x(E_q[z]) is above this (Burda et al., 2016, arXiv:1509.00519, 5.2)."""


class Totals:
    """Accumulates an evaluation on the device; `strategy` adds up the processes at the end."""

    def __init__(self) -> None:
        self.sums: Tensor | None = None
        self.latents = 0  # D
        self.groups = 0  # columns of the rate: D, or fewer where it does not split
        self.names: tuple[str, ...] = SCALARS

    def add(self, terms: "Terms", loss: Tensor, **details: Tensor) -> None:
        """Takes the terms of one batch, its objective, and other numbers, [B] or of the batch."""
        means = terms.q.mean.detach()
        count, self.latents = means.shape
        self.groups = terms.rate_per_latent.shape[1]
        # Double precision, or the variance of the means suffers; Apple's GPUs have none.
        means = means if means.device.type == "mps" else means.double()
        self.names = (*SCALARS, *details)
        values = [terms.distortion, terms.rate, loss, terms.elbo, *details.values()]
        scalars = torch.stack([value.expand(count) for value in values], 1)
        columns = [scalars, terms.rate_per_latent, means, means.square(), means.new_ones(count, 1)]
        sums = torch.cat([column.detach().to(means) for column in columns], 1).sum(0)
        self.sums = sums if self.sums is None else self.sums + sums

    def read(self, strategy: Strategy) -> tuple[dict[str, float], Tensor]:
        """The means, of SCALARS first, and the number of active units; the rate of each latent [D].

        Raises:
            NotFiniteError: If one of them is not finite. A rate may be infinite where the loss is
                finite: that of a deterministic code is.
        """
        assert self.sums is not None, "no batch was added"
        sums = strategy.reduce(self.sums, reduce_op="sum").cpu()
        parts = sums.split([len(self.names), self.groups, self.latents, self.latents, 1])
        scalars, rates, means, squares = (part / parts[-1] for part in parts[:-1])
        values = dict(zip(self.names, scalars.tolist(), strict=True))
        for name, value in values.items():
            deterministic = values["rate"] == math.inf and math.isfinite(values["loss"])
            if not (math.isfinite(value) or (deterministic and name in UNBOUNDED)):
                raise NotFiniteError(
                    f"the {name} of the evaluated images is {value}; "
                    "the last good checkpoint is kept"
                )
        values["active_units"] = float(((squares - means.square()) > ACTIVE).sum())
        return values, rates
