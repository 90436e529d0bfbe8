"""The rate in three parts, estimated on a batch of images.

Shapes: K samples, B images of N, D latents. Units: nats.
"""

import math
from typing import Literal, NamedTuple

from torch import Tensor
from torch.distributions import Distribution, Independent

from vaelab.densities import is_factorised
from vaelab.errors import UserError

Estimator = Literal["weighted", "stratified"]


class Parts(NamedTuple):
    """What the rate is the sum of, for each sample, each [K, B]."""

    mutual_information: Tensor  # of image and code
    total_correlation: Tensor  # of the latents
    dimension_wise_kl: Tensor  # to the prior


def decomposed(q: Distribution, prior: Distribution, z: Tensor, log_weights: Tensor) -> Parts:
    """Chen et al. (2018), arXiv:1802.04942, eq. 2, before the expectation over z.

    log q(z | x) - log q(z), log q(z) - sum_d log q(z_d) and sum_d [log q(z_d) - log p(z_d)], whose
    sum is log q(z | x) - log p(z) whatever the weights.

    Args:
        q: q(z | x_j), factorised, batch [B].
        prior: p(z), factorised, batch [].
        z: Samples [K, B, D] of q.
        log_weights: Of q(z | x_j) in the estimate of q(z) at z from x_i, logarithms [B, B], see
            `log_weights`.

    Raises:
        UserError: As `check` does.
    """
    check(q, prior)
    assert isinstance(q, Independent)
    log_densities = q.base_dist.log_prob(z.unsqueeze(-2))  # log q(z_i,d | x_j), [K, B, B, D]
    joint = (log_weights + log_densities.sum(-1)).logsumexp(-1)
    marginals = (log_weights.unsqueeze(-1) + log_densities).logsumexp(-2).sum(-1)
    return Parts(q.log_prob(z) - joint, joint - marginals, marginals - prior.log_prob(z))


def check(q: Distribution, prior: Distribution) -> None:
    """Raises UserError if one of the two does not factorise, or p(z) is of a label."""
    if not is_factorised(q):
        raise UserError("the total correlation needs q(z_d|x), which posterior=gaussian has")
    if not isinstance(prior, Independent) or prior.batch_shape:
        raise UserError("the total correlation needs p(z_d), which prior=standard_normal has")


def log_weights(estimator: Estimator, batch: int, images: int, like: Tensor) -> Tensor:
    """Logarithms [B, B] of the weights with which q(z | x_j) adds up to q(z) at z from x_i.

    Chen et al. (2018), arXiv:1802.04942, appendix C.

    Args:
        estimator: `weighted`: 1 / (N B) for all (section C.1), too little by a factor of about N,
            so that the total correlation comes out too large by about (D - 1) log N.
            `stratified`: q(z) itself is estimated without bias, by 1 / N for x_i, which z is from,
            and (N - 1) / (N (B - 1)) for the others, which stand for all other images; the paper
            (section C.2) has (N - B + 1) / (N (B - 1)) for one of these and 1 / (B - 1) for the
            rest, and this is the mean over which one it is: of lower variance, and exact if the
            batch is all images. Its logarithm is biased, less the larger B.
        batch: B.
        images: N.
        like: Gives the type and the device.
    """
    if estimator == "weighted":
        return like.new_full((batch, batch), -math.log(images * batch))
    others = math.log(max(images - 1, 1)) - math.log(images * max(batch - 1, 1))
    weights = like.new_full((batch, batch), others)
    return weights.fill_diagonal_(-math.log(images))
