"""The rate in three parts, estimated on a batch of images.

Shapes: K samples, B images of N, D latents. Units: nats.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent

from vaelab.distributions.pairwise import is_factorised
from vaelab.errors import UserError

Estimator = Literal["weighted", "stratified"]


class Parts(NamedTuple):
    """What the rate is the sum of, for each sample, each [K, B]."""

    mutual_information: Tensor  # of image and code
    total_correlation: Tensor  # of the latents
    dimension_wise_kl: Tensor  # to the prior


def decomposed(
    q: Distribution, prior: Distribution, z: Tensor, estimator: Estimator, images: int
) -> Parts:
    """Chen et al. (2018), arXiv:1802.04942, eq. 2, before the expectation over z.

    log q(z | x) - log q(z), log q(z) - sum_d log q(z_d) and sum_d [log q(z_d) - log p(z_d)], whose
    sum is log q(z | x) - log p(z) whatever the estimates.

    Args:
        q: q(z | x_j), factorised, batch [B].
        prior: p(z), factorised, batch [].
        z: Samples [K, B, D] of q.
        estimator: Of q(z) and q(z_d), see `log_weights`. The logarithms of the stratified ones are
            `jackknifed`, without which the total correlation is too large by 0.08 nats a latent
            where sigma^2 = 0.05 and B = 64.
        images: N.

    Raises:
        UserError: As `check` does.
    """
    check(q, prior)
    centred = (z.unsqueeze(-2) - q.mean) / q.stddev
    constant = q.stddev.log() + 0.5 * math.log(2 * math.pi)
    densities = -centred.square() / 2 - constant  # log q(z_i,d | x_j), [K, B, B, D]
    weights = log_weights(estimator, z.shape[1], images, like=z).unsqueeze(-1)

    def aggregate(log_densities: Tensor) -> Tensor:
        terms = weights + log_densities
        return jackknifed(terms, images) if estimator == "stratified" else terms.logsumexp(2)

    joint = aggregate(densities.sum(-1, keepdim=True)).squeeze(-1)
    marginals = aggregate(densities).sum(-1)
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
            batch is all images. Where the mutual information is between log B and log N, few of
            the images that overlap at z are in the batch: it comes out too large, and the total
            correlation too small, even negative.
        batch: B. Where it is one, q(z) is that of its image: all of the rate is to the prior, and
            the last image of an evaluation, left over from full batches, adds nothing else.
        images: N.
        like: Gives the type and the device.
    """
    if batch == 1:
        return like.new_zeros(1, 1)
    if estimator == "weighted":
        return like.new_full((batch, batch), -math.log(images * batch))
    others = math.log(max(images - 1, 1)) - math.log(images * max(batch - 1, 1))
    weights = like.new_full((batch, batch), others)
    return weights.fill_diagonal_(-math.log(images))


def jackknifed(log_terms: Tensor, images: int) -> Tensor:
    """Log sum_j exp(log_terms_ij), less its bias by which images are in the batch, [K, B, D].

    The logarithm of an unbiased estimate is too small by half its relative variance and more. The
    jackknife (Quenouille, 1956, Biometrika 43) takes that from how the logarithm changes as each of
    the images j != i is left out and the others are given its weight. Nothing changes where the
    batch is all images, which have been drawn without replacement, or shows fewer than three.

    Args:
        log_terms: Of images i (dim 1) and j (dim 2), [K, B, B, D].
        images: N.
    """
    others = log_terms.shape[1] - 1
    if others < 2 or others >= images - 1:
        return log_terms.logsumexp(2)
    largest = log_terms.detach().amax(2, keepdim=True)
    terms = (log_terms - largest).exp()
    own = terms.diagonal(dim1=1, dim2=2).mT.unsqueeze(2)
    total = terms.sum(2, keepdim=True)
    scale = others / (others - 1)
    without = own + scale * (total - own) - scale * terms  # j, and nonsense where j = i
    left_out = without.clamp_min(torch.finfo(terms.dtype).eps).log()
    left_out = left_out.sum(2) - left_out.diagonal(dim1=1, dim2=2).mT
    total = total.squeeze(2).log()
    bias = (left_out - others * total) / scale
    return largest.squeeze(2) + total - (images - 1 - others) / (images - 1) * bias
