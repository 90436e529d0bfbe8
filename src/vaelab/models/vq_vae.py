"""`VQVAE`, with discrete codes, and the sums over images that count its codes."""

from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from vaelab.distributed import gather_values
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.posteriors import Codebook, PointMass
from vaelab.priors import Codes
from vaelab.terms import Terms
from vaelab.training.totals import Totals


class VQVAE(ELBO):
    """VQ-VAE (van den Oord et al., 2017), arXiv:1711.00937, eq. 3, trained with its prior.

    loss = distortion + rate + the mean over positions of |sg[e] - v|^2 + commitment |e - sg[v]|^2,
    with e the encoder's output at a position, v the vector of the code nearest to it, and sg[.]
    the stop-gradient. The gradient of the decoder is copied from v to e (straight-through).

    q(z | x, y) has all its mass on one code per position, so the rate is exactly -log p(codes | y),
    and `elbo` is a true bound. With a uniform prior the rate is N log M, for N positions and M
    codes (section 3.1). The prior learns at the same time as the rest, where the paper fits it
    afterwards; the rate has gradients to the prior only.

    Args:
        commitment: Weight of the commitment loss, the paper's beta.

    Raises:
        UserError: If the prior is not prior=codes.
    """

    has_continuous_latents = False
    commitment: Tensor
    posterior: Codebook

    def __init__(self, *, commitment: NonNegativeFloat, **parts: Any) -> None:
        super().__init__(**parts)
        if not isinstance(self.prior, Codes):
            raise UserError("model=vq_vae takes prior=codes")
        self.add_weight("commitment", commitment)

    def objective(self, terms: Terms) -> Tensor:
        """The mean distortion + rate + codebook loss + commitment * commitment loss, []."""
        assert isinstance(terms.q, PointMass)
        encoded, vectors = terms.q.encoded, terms.q.quantized
        codebook = (encoded.detach() - vectors).square().sum(1)
        commitment = (encoded - vectors.detach()).square().sum(1)
        errors = (codebook + self.commitment * commitment) / self.posterior.positions
        return (terms.distortion + terms.rate + errors).mean()

    def on_validation_epoch_start(self) -> None:
        """Called by Lightning before each validation and test: resets sums and code counts."""
        self.totals = CodeTotals(self.posterior.codes)

    on_test_epoch_start = on_validation_epoch_start


class CodeTotals(Totals):
    """Sums over images that also count codes: adds `codes_used` and `perplexity`.

    The perplexity is the exponential of the entropy of the codes' frequencies over all positions.

    Args:
        codes: M, the number of codes.
    """

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.counts = torch.zeros(codes, dtype=torch.int64)

    def add(self, terms: Terms, loss: Tensor, **details: Tensor) -> None:
        """Adds the terms of one batch, as `Totals.add`, and counts its codes."""
        super().add(terms, loss, **details)
        assert isinstance(terms.q, PointMass)
        counts = torch.bincount(terms.q.codes.flatten(), minlength=len(self.counts))
        self.counts = self.counts.to(counts.device) + counts

    def compute_means(self) -> tuple[dict[str, float], Tensor]:
        """Collective call: returns means of `Totals` and of codes, and rates; raises if not finite.

        Raises:
            NotFiniteError: As `Totals.compute_means` does.
        """
        values, rates = super().compute_means()
        counts = torch.stack(gather_values(self.counts.cpu())).sum(0)
        shares = counts[counts > 0] / counts.sum()
        values["codes_used"] = float(len(shares))
        values["perplexity"] = float((-shares * shares.log()).sum().exp())
        return values, rates
