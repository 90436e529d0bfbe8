from typing import Any

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from vaelab.distributed import gathered
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.posteriors import Codebook, PointMass
from vaelab.priors import Codes
from vaelab.terms import Terms
from vaelab.training.totals import Totals


class VQVAE(ELBO):
    """VQ-VAE (van den Oord et al., 2017), arXiv:1711.00937, eq. 3, with its prior p(codes | y).

    loss = distortion + rate + the mean over positions of |sg[e] - v|^2 + commitment |e - sg[v]|^2,
    with e what the encoder gives at a position, v the vector of the code nearest to it, and sg[.]
    a value without its gradient. The decoder's gradient passes straight from v to e.

    q(z | x, y) is certain of its codes, so the rate is -log p(codes | y), of one sample or
    many, and `elbo` a true bound. With a uniform prior it is N log M, for N positions and M codes
    (section 3.1). The prior learns at the same time as the rest, where the paper fits it
    afterwards; the rate has gradients for the prior alone, and the rest is trained as without it.

    Args:
        commitment: Weight, the paper's beta.
    """

    continuous = False
    commitment: Tensor
    posterior: Codebook

    def __init__(self, *, commitment: NonNegativeFloat, **parts: Any) -> None:
        super().__init__(**parts)
        if not isinstance(self.prior, Codes):
            raise UserError("model=vq_vae takes prior=codes")
        self.add_weight("commitment", commitment)

    def objective(self, terms: Terms) -> Tensor:
        assert isinstance(terms.q, PointMass)
        encoded, vectors = terms.q.encoded, terms.q.quantized
        codebook = (encoded.detach() - vectors).square().sum(1)
        commitment = (encoded - vectors.detach()).square().sum(1)
        errors = (codebook + self.commitment * commitment) / self.posterior.positions
        return (terms.distortion + terms.rate + errors).mean()

    def on_validation_epoch_start(self) -> None:
        self.totals = CodeTotals(self.posterior.codes)

    on_test_epoch_start = on_validation_epoch_start


class CodeTotals(Totals):
    """Counts the codes too: `codes_used`, and `perplexity`, exp of the entropy of all positions."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.counts = torch.zeros(codes, dtype=torch.int64)

    def add(self, terms: Terms, loss: Tensor, **details: Tensor) -> None:
        super().add(terms, loss, **details)
        assert isinstance(terms.q, PointMass)
        counts = torch.bincount(terms.q.codes.flatten(), minlength=len(self.counts))
        self.counts = self.counts.to(counts.device) + counts

    def read(self) -> tuple[dict[str, float], Tensor]:
        values, rates = super().read()
        counts = torch.stack(gathered(self.counts.cpu())).sum(0)
        shares = counts[counts > 0] / counts.sum()
        values["codes_used"] = float(len(shares))
        values["perplexity"] = float((-shares * shares.log()).sum().exp())
        return values, rates
