"""The decomposition of the rate into three parts (Chen et al., 2018), estimated on a batch.

Shapes: K samples, B images of N, D latents. Units: nats.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaelab.distributions.pairwise import is_factorised_normal
from vaelab.errors import UserError

Estimator = Literal["weighted", "stratified"]


class RateParts(NamedTuple):
    """The three parts of the rate of each sample, [K, B] each, with sum log q(z | x) - log p(z)."""

    mutual_information: Tensor  # of image and code
    total_correlation: Tensor  # of the latents
    dimension_wise_kl: Tensor  # to the prior


def decompose_rate(
    q: Distribution, prior: Distribution, z: Tensor, estimator: Estimator, images: int
) -> RateParts:
    """Returns estimates of the rate's three parts for each sample, [K, B]; may raise UserError.

    Chen et al. (2018), arXiv:1802.04942, eq. 2, before the expectation over z:
    log q(z | x) - log q(z), log q(z) - sum_d log q(z_d) and sum_d [log q(z_d) - log p(z_d)], whose
    sum is log q(z | x) - log p(z) whatever the estimates of q(z) and q(z_d).

    Args:
        q: q(z | x_j), factorised, batch [B].
        prior: p(z), factorised, batch [].
        z: Samples [K, B, D] of q.
        estimator: Of q(z) and q(z_d), see `log_mixture_weights`. Logarithms of the stratified
            estimates go through `jackknife_logsumexp`, without which the total correlation is too
            large by 0.08 nats a latent where sigma^2 = 0.05 and B = 64.
        images: N, the number of images that the batch is from.

    Raises:
        UserError: As `check_factorised` does.
    """
    check_factorised(q, prior)
    centred = (z.unsqueeze(-2) - q.mean) / q.stddev
    constant = q.stddev.log() + 0.5 * math.log(2 * math.pi)
    densities = -centred.square() / 2 - constant  # log q(z_i,d | x_j), [K, B, B, D]
    weights = log_mixture_weights(estimator, z.shape[1], images, like=z).unsqueeze(-1)

    def aggregate(log_densities: Tensor) -> Tensor:
        """Returns log q(z) [K, B, ...] from log q(z_i | x_j) [K, B, B, ...], by the estimator."""
        terms = weights + log_densities
        return (
            jackknife_logsumexp(terms, images) if estimator == "stratified" else terms.logsumexp(2)
        )

    joint = aggregate(densities.sum(-1, keepdim=True)).squeeze(-1)
    marginals = aggregate(densities).sum(-1)
    return RateParts(q.log_prob(z) - joint, joint - marginals, marginals - prior.log_prob(z))


def check_factorised(q: Distribution, prior: Distribution) -> None:
    """Raises UserError unless q is a product of normals and p(z) factorises, without labels."""
    if not is_factorised_normal(q):
        raise UserError("the total correlation needs q(z_d|x), which posterior=gaussian has")
    if not isinstance(prior, Independent) or prior.batch_shape:
        raise UserError("the total correlation needs p(z_d), which prior=standard_normal has")


def log_mixture_weights(estimator: Estimator, batch: int, images: int, like: Tensor) -> Tensor:
    """Returns log weights [B, B] with which log q(z_i | x_j) are summed over j to log q(z_i).

    Chen et al. (2018), arXiv:1802.04942, appendix C. If B is one, q(z) is that of its image: all of
    the rate is the KL to the prior, and the last image of an evaluation, left over from full
    batches, adds nothing to the other parts.

    Args:
        estimator: `weighted` has 1 / (N B) for all (section C.1). That is too little by a factor of
            about N, so the total correlation comes out too large by about (D - 1) log N.
            `stratified` estimates q(z) itself without bias. The weight is 1 / N for x_i, which z is
            from, and (N - 1) / (N (B - 1)) for each other, which together stand for all other
            images. The paper (section C.2) has (N - B + 1) / (N (B - 1)) for one of these and 1 /
            (B - 1) for the rest; this is the mean over the choice of that one: of lower variance,
            and exact if the batch is all images. If the mutual information is between log B and log
            N, few of the images that overlap at z are in the batch: it comes out too large, and the
            total correlation too small, even negative.
        batch: B.
        images: N, the number of images that the batch is from.
        like: Gives the type and the device.
    """
    if batch == 1:
        return like.new_zeros(1, 1)
    if estimator == "weighted":
        return like.new_full((batch, batch), -math.log(images * batch))
    others = math.log(max(images - 1, 1)) - math.log(images * max(batch - 1, 1))
    weights = like.new_full((batch, batch), others)
    return weights.fill_diagonal_(-math.log(images))


def jackknife_logsumexp(log_terms: Tensor, images: int) -> Tensor:
    """Returns log sum_j exp(log_terms_ij) [K, B, D], jackknifed unless B < 3 or B is all N.

    The logarithm of an unbiased estimate is too small, by half its relative variance and more. The
    jackknife (Quenouille, 1956, Biometrika 43) estimates that bias from how the logarithm changes
    when one image j != i is left out and the others are given its weight. The result is the plain
    `logsumexp` if the batch is all images, which have been drawn without replacement, or shows
    fewer than three.

    Args:
        log_terms: Of images i (dim 1) and j (dim 2), [K, B, B, D].
        images: N, the number of images that the batch is from.
    """
    others = log_terms.shape[1] - 1
    if others < 2 or others >= images - 1:
        return log_terms.logsumexp(2)
    largest = log_terms.detach().amax(2, keepdim=True)
    terms = (log_terms - largest).exp()
    own = terms.diagonal(dim1=1, dim2=2).mT.unsqueeze(2)
    total = terms.sum(2, keepdim=True)
    scale = others / (others - 1)
    without = own + scale * (total - own) - scale * terms  # [.., i, j, ..], unused at i = j
    left_out = without.clamp_min(torch.finfo(terms.dtype).eps).log()
    left_out = left_out.sum(2) - left_out.diagonal(dim1=1, dim2=2).mT
    total = total.squeeze(2).log()
    bias = (left_out - others * total) / scale
    return largest.squeeze(2) + total - (images - 1 - others) / (images - 1) * bias
