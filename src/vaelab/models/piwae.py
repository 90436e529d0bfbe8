from torch import Tensor

from vaelab.models.iwae import IWAE, rerouted, without_value
from vaelab.models.miwae import MIWAE
from vaelab.terms import Terms


class PIWAE(MIWAE):
    """Partially importance weighted auto-encoder (Rainforth et al., 2018), arXiv:1802.04537.

    The decoder (with prior and likelihood) gets the gradient of IWAE's bound by all K samples, and
    the encoder, with the posterior, that of MIWAE's by M groups of them, in one step. The loss
    shown is the decoder's, which is IWAE's.

    Args:
        options: See `MIWAE`.
    """

    can_compile = False

    def bound(self, log_weights: Tensor) -> Tensor:
        return IWAE.bound(self, log_weights)

    def objective(self, terms: Terms) -> Tensor:
        if self.gradient == "dreg":
            return super().objective(terms)
        log_q = terms.q.log_prob(terms.z)

        def losses(log_weights: Tensor) -> tuple[Tensor, Tensor]:
            bounds = IWAE.bound(self, log_weights), MIWAE.bound(self, log_weights)
            return -bounds[0].mean(), -bounds[1].mean()

        # The encoder comes in by z and by log q: by z in the first, and by log q in the second.
        loss = rerouted(*losses(terms.log_joint - log_q.detach()), terms.z)
        return loss + without_value(losses(terms.log_joint.detach() - log_q)[1])
