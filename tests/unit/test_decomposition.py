"""`decompose_rate` and its mixture weights against plain loops, exact densities and exact KL."""

import math
from itertools import combinations, permutations

import pytest
import torch
from support.by_loops import LOG_ESTIMATES
from torch.distributions import (
    Independent,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.testing import assert_close

from vaelab.distributions.total_correlation import decompose_rate, log_mixture_weights
from vaelab.errors import UserError


def standard_normal(latents):
    """Returns a standard normal distribution over D latents, in float64."""
    return Independent(Normal(torch.zeros(latents).double(), 1.0), 1)


@pytest.fixture
def codes():
    """Posteriors q of 12 images with 3 latents, and samples [2, 12, 3] of them."""
    mean, scale = torch.randn(12, 3).double(), 0.2 + torch.rand(12, 3).double()
    q = Independent(Normal(mean, scale), 1)
    return q, q.sample((2,))


def normal_log_density(z, mean, scale):
    return -0.5 * ((z - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def rate_parts_by_loops(q, z, log_estimate):
    """Returns the three parts of each sample, [K, B, 3], in plain loops.

    Args:
        q: Posteriors of B images.
        z: Samples [K, B, D].
        log_estimate: (i, [q(z_i | x_j) for each j]) -> the estimate of log q(z_i).
    """
    mean, scale = q.mean.tolist(), q.stddev.tolist()
    images, latents = range(len(mean)), range(len(mean[0]))
    found = []
    for sample in z.tolist():
        for i in images:
            own = sum(normal_log_density(sample[i][d], mean[i][d], scale[i][d]) for d in latents)
            prior = sum(normal_log_density(sample[i][d], 0.0, 1.0) for d in latents)
            each = [
                [
                    math.exp(normal_log_density(sample[i][d], mean[j][d], scale[j][d]))
                    for j in images
                ]
                for d in latents
            ]
            joint = log_estimate(i, [math.prod(ds) for ds in zip(*each, strict=True)])
            product = sum(log_estimate(i, ds) for ds in each)
            found.append([own - joint, joint - product, product - prior])
    return torch.tensor(found, dtype=torch.float64).view(*z.shape[:2], 3)


def stacked_rate_parts(q, z, estimator, images):
    """Returns the parts of `decompose_rate` with a standard normal prior, [K, B, 3]."""
    return torch.stack(decompose_rate(q, standard_normal(z.shape[-1]), z, estimator, images), -1)


@pytest.mark.parametrize("images", [2, 12])
def test_stratified_rate_parts_of_whole_data_set_are_exact(codes, images):
    q, z = codes
    q, z = Independent(Normal(q.mean[:images], q.stddev[:images]), 1), z[:, :images]
    expected = rate_parts_by_loops(q, z, lambda i, densities: math.log(sum(densities) / images))
    assert_close(stacked_rate_parts(q, z, "stratified", images), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("estimator", LOG_ESTIMATES)
@pytest.mark.parametrize("images", [13, 500])
def test_rate_parts_of_a_batch_match_plain_loops(codes, estimator, images):
    q, z = codes
    expected = rate_parts_by_loops(
        q, z, lambda i, densities: LOG_ESTIMATES[estimator](i, densities, images)
    )
    assert_close(stacked_rate_parts(q, z, estimator, images), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
@pytest.mark.parametrize("images", [12, 60_000])
def test_rate_parts_sum_to_closed_form_kl(codes, estimator, images):
    """The samples are sigma points of q, for which the mean of squares is exact."""
    q, _ = codes
    steps = math.sqrt(3) * torch.eye(3).double()
    z = q.mean + q.stddev * torch.cat([steps, -steps])[:, None]
    found = stacked_rate_parts(q, z, estimator, images).sum(-1).mean(0)
    full = MultivariateNormal(q.mean, q.variance.diag_embed())
    prior = MultivariateNormal(torch.zeros(12, 3).double(), torch.eye(3).double().expand(12, 3, 3))
    assert_close(found, kl_divergence(full, prior), atol=1e-10, rtol=0)


def test_stratified_weights_estimate_aggregate_posterior_without_bias():
    """The mean is over all batches of 3 of 6 images that contain image 0, which z is from."""
    densities = torch.rand(6).double()
    estimates = []
    for others in combinations(range(1, 6), 2):
        weights = log_mixture_weights("stratified", 3, 6, like=densities).exp()
        assert_close(weights.sum(1), torch.ones(3).double())
        estimates.append(weights[0] @ densities[[0, *others]])
    assert_close(torch.stack(estimates).mean(), densities.mean())


@pytest.mark.parametrize(("batch", "images"), [(4, 4), (4, 9), (5, 60_000)])
def test_stratified_weights_are_mean_of_weights_in_paper(batch, images):
    """The estimate f(z, n*, B) of Chen et al. (2018) gives the last image a weight of its own.

    The mean is over all orders of the M = B - 1 images other than n*.
    """
    others = batch - 1
    papers = [1 / others] * (others - 1) + [(images - others) / (images * others)]
    orders = torch.tensor(list(permutations(papers))).double().mean(0)
    weights = log_mixture_weights("stratified", batch, images, like=orders).exp()
    for i in range(batch):
        assert_close(weights[i, i].item(), 1 / images)
        assert_close(weights[i, torch.arange(batch) != i], orders)


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "rounds"), [(64, 10), (1024, 1)])
def test_stratified_rate_parts_of_small_batches_are_nearly_exact(batch, rounds):
    """The 60,000 images have an aggregate posterior of N(0, I) in ten latents, sigma^2 = 0.05.

    Widely used code, which has these weights in a column, finds a total correlation of -28 here.
    """
    means = torch.randn(60_000, 10) * math.sqrt(0.95)
    points = torch.arange(160)

    def q(rows):
        return Independent(Normal(means[rows], math.sqrt(0.05)), 1)

    z = q(points).sample()
    exact = []
    for i in points:
        log_densities = q(slice(None)).base_dist.log_prob(z[i])
        joint = log_densities.sum(1).logsumexp(0) - math.log(60_000)
        product = (log_densities.logsumexp(0) - math.log(60_000)).sum()
        own, prior = q(i).log_prob(z[i]), standard_normal(10).log_prob(z[i])
        exact.append(torch.stack([own - joint, joint - product, product - prior]))
    exact = torch.stack(exact)
    assert_close(exact.mean(0).tolist(), [10.9, 4.0, 0.0], atol=0.9, rtol=0)

    differences = []
    for few in points.split(16):
        for _ in range(rounds):  # the other images of the batch are drawn anew
            rows = torch.cat([few, torch.randint(160, 60_000, (batch - 16,))])
            samples = torch.cat([z[few], q(rows[16:]).sample()]).unsqueeze(0)
            found = stacked_rate_parts(q(rows), samples, "stratified", 60_000)[0, :16]
            differences.append((found - exact[few]).mean(0))
    differences = torch.stack(differences).float().unflatten(0, (10, rounds)).mean(1)
    error = differences.std(0) / math.sqrt(10)
    # Up to 0.1 nats of log q(z) come from images that are in hardly any batch. Without the
    # jackknife the error of the total correlation is 0.8 nats.
    assert (differences.mean(0).abs() < 0.12 + 4 * error).all()
    assert error.max() < 0.15


@pytest.mark.parametrize(
    ("q", "prior", "message"),
    [
        (
            MultivariateNormal(torch.zeros(4, 2), torch.eye(2)),
            standard_normal(2),
            "posterior=gaussian",
        ),
        (
            standard_normal(2).expand([4]),
            MultivariateNormal(torch.zeros(2), torch.eye(2)),
            "prior=",
        ),
        (standard_normal(2).expand([4]), standard_normal(2).expand([4]), "prior=standard_normal"),
    ],
)
def test_decompose_rate_rejects_distributions_that_do_not_factorise(q, prior, message):
    z = torch.zeros(1, 4, 2)
    with pytest.raises(UserError, match=message):
        decompose_rate(q, prior, z, "stratified", 9)
