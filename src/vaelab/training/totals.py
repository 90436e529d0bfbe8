"""Means of the loss terms over all evaluated images, however these are batched."""

import math
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaelab.distributed import gather_values
from vaelab.errors import NotFiniteError
from vaelab.training.window import SCALARS, UNBOUNDED

if TYPE_CHECKING:
    from vaelab.terms import Terms

ACTIVE = 0.01
"""A latent is active if Var_x(E_q[z]) is above this (Burda et al., 2016, arXiv:1509.00519, 5.2)."""


class Totals:
    """Sums of terms over the images of an evaluation; each process adds its own batches."""

    def __init__(self) -> None:
        self.rows: list[Tensor] = []  # sums over each batch, on the device
        self.widths: tuple[int, int] = 0, 0  # columns of the rate, D or fewer; and D
        self.names: tuple[str, ...] = SCALARS

    def add(self, terms: "Terms", loss: Tensor, **details: Tensor) -> None:
        """Adds the sums over one batch; waits for no device.

        Args:
            terms: Terms of B images.
            loss: The objective, [] or [B].
            details: Other numbers by name, [] or [B].
        """
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

    def compute_means(self) -> tuple[dict[str, float], Tensor]:
        """Returns means and rates per latent; raises if not finite, but of deterministic codes.

        The rates are [D], or fewer if latents share one. The last of the means is active_units, the
        number of active latents; it is left out if there is a single image. A collective call:
        every process must make it. The result has the same bits in every process, and for any
        number of processes if they take the batches in turn.

        Raises:
            NotFiniteError: If a mean is not finite. Accepts an infinite rate and elbo if the loss
                is finite, as for a deterministic code.
        """
        rows = list(torch.stack(self.rows).cpu()) if self.rows else []
        own = self.names, self.widths, rows
        every = [found for found in gather_values(own) if found[2]]
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
        if parts[-1] > 1:  # of one image no latent varies
            values["active_units"] = float(((squares - means.square()) > ACTIVE).sum())
        return values, rates
