"""Probabilistic principal component analysis (PCA), fitted exactly.

Tipping & Bishop (1999), Probabilistic Principal Component Analysis, equations 7 and 8.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from vaelab.errors import NotApplicable


@dataclass(frozen=True)
class PrincipalComponents:
    """The density N(mean, W W' + s^2 I) that is most likely for the x it was fitted to, float64.

    Attributes:
        mean: [N].
        directions: The D eigenvectors of the covariance with the largest eigenvalues, [N, D].
        eigenvalues: Of these, [D].
        variance: s^2, the mean of the other eigenvalues, [].
    """

    mean: Tensor
    directions: Tensor
    eigenvalues: Tensor
    variance: Tensor

    @classmethod
    def fit(cls, batches: Iterable[Tensor], latents: int) -> Self:
        """Fits D = `latents` components to batches of x [B, ...], read once.

        Raises:
            NotApplicable: If x does not vary in more than D directions.
        """
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        for x in batches:
            flat = x.flatten(1).double().cpu()
            count += len(flat)
            total, products = total + flat.sum(0), products + flat.T @ flat
        mean = total / count
        eigenvalues, directions = torch.linalg.eigh(products / count - mean.outer(mean))
        kept = slice(len(mean) - latents, None)  # in ascending order
        variance = eigenvalues[: len(mean) - latents].mean()
        if not variance > 1e-10 * eigenvalues[-1]:
            raise NotApplicable(f"x varies in no more than {latents} directions")
        return cls(mean, directions[:, kept], eigenvalues[kept], variance)

    def nll(self, x: Tensor) -> Tensor:
        """The negative log-density [B] of x [B, ...], in nats, float64."""
        centred = x.flatten(1).double().cpu() - self.mean
        along = (centred @ self.directions).square()
        across = centred.square().sum(1) - along.sum(1)
        squares = (along / self.eigenvalues).sum(1) + across / self.variance
        others = len(self.mean) - len(self.eigenvalues)
        log_det = self.eigenvalues.log().sum() + others * self.variance.log()
        return 0.5 * (len(self.mean) * math.log(2 * math.pi) + log_det + squares)
