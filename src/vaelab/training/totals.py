"""Sums over the images of a data set, so that a ragged last batch weighs what it holds."""

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaelab.distributed import gathered
from vaelab.errors import NotFiniteError
from vaelab.training.window import SCALARS, UNBOUNDED

if TYPE_CHECKING:
    from vaelab.terms import Terms

ACTIVE = 0.01
"""A latent is active if Var_x(E_q[z]) is above this (Burda et al., 2016, arXiv:1509.00519, 5.2)."""


class Totals:
    """Accumulates an evaluation, of which each process may have some of the batches."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []  # sums over the images of each batch, on the device
        self.widths: tuple[int, int] = 0, 0  # columns of the rate, D or fewer; and D
        self.names: tuple[str, ...] = SCALARS

    def add(self, terms: "Terms", loss: Tensor, **details: Tensor) -> None:
        """Takes the terms of one batch, its objective, and other numbers, [B] or of the batch."""
        means = terms.q.mean.detach()
        count, latents = means.shape
        self.widths = terms.rate_per_latent.shape[1], latents
        # Double precision, or the variance of the means suffers; Apple's GPUs have none.
        means = means if means.device.type == "mps" else means.double()
        self.names = (*SCALARS, *details)
        values = [terms.distortion, terms.rate, loss, terms.elbo, *details.values()]
        scalars = torch.stack([value.expand(count) for value in values], 1)
        columns = [scalars, terms.rate_per_latent, means, means.square(), means.new_ones(count, 1)]
        self.rows.append(torch.cat([column.detach().to(means) for column in columns], 1).sum(0))

    def read(self) -> tuple[dict[str, float], Tensor]:
        """The means, of SCALARS first, and the number of active units; the rate of each latent [D].

        They are the same bits in every process, and for any number of these, if the batches go
        round.

        Raises:
            NotFiniteError: If one of them is not finite. A rate may be infinite where the loss is
                finite: that of a deterministic code is.
        """
        rows = list(torch.stack(self.rows).cpu()) if self.rows else []
        own = self.names, self.widths, rows
        every = [found for found in gathered(own) if found[2]]
        assert every, "no batch was added"
        self.names, (groups, latents), _ = every[0]
        rounds = zip_longest(*(found[2] for found in every))
        sums = torch.stack([row for each in rounds for row in each if row is not None]).sum(0)
        parts = sums.split([len(self.names), groups, latents, latents, 1])
        scalars, rates, means, squares = (part / parts[-1] for part in parts[:-1])
        values = dict(zip(self.names, scalars.tolist(), strict=True))
        for name, value in values.items():
            deterministic = values["rate"] == math.inf and math.isfinite(values["loss"])
            if not (math.isfinite(value) or (deterministic and name in UNBOUNDED)):
                raise NotFiniteError(f"the {name} of the evaluated images is {value}")
        values["active_units"] = float(((squares - means.square()) > ACTIVE).sum())
        return values, rates
