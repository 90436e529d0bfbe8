"""`PIWAE`, different bounds for encoder and decoder."""

from torch import Tensor

from vaelab.models.iwae import IWAE, loss_with_encoder_gradient, zero_with_gradient
from vaelab.models.miwae import MIWAE
from vaelab.terms import Terms


class PIWAE(MIWAE):
    """PIWAE: IWAE's gradient for the decoder, MIWAE's for the encoder (Rainforth et al., 2018).

    arXiv:1802.04537. In one step, decoder, prior and likelihood get the gradient of the IWAE bound
    of all K samples, and encoder and posterior get that of the MIWAE bound of M groups. In value
    loss = -log (1/K) sum_k w_k, the negative bound of IWAE.

    Args:
        options: The arguments of `MIWAE`.
    """

    can_compile = False

    def bound(self, log_weights: Tensor) -> Tensor:
        """The bound of IWAE [B], for the value of the loss and the decoder's gradient."""
        return IWAE.bound(self, log_weights)

    def objective(self, terms: Terms) -> Tensor:
        """Negative mean IWAE bound [], MIWAE's gradient for the encoder; may raise UserError."""
        if self.gradient == "dreg":
            return super().objective(terms)
        log_q = terms.q.log_prob(terms.z)

        def losses(log_weights: Tensor) -> tuple[Tensor, Tensor]:
            """The losses [] of IWAE and MIWAE, negative mean bounds, of log-weights [K, B]."""
            bounds = IWAE.bound(self, log_weights), MIWAE.bound(self, log_weights)
            return -bounds[0].mean(), -bounds[1].mean()

        # Encoder gradients flow through z and through log q: the first line has those through z,
        # the second those through log q.
        loss = loss_with_encoder_gradient(*losses(terms.log_joint - log_q.detach()), terms.z)
        return loss + zero_with_gradient(losses(terms.log_joint.detach() - log_q)[1])
