"""The rate's three parts: exact where the batch is the data set, and near that where it is not."""

import math
from itertools import combinations, permutations

import pytest
import torch
from torch.distributions import (
    Independent,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.testing import assert_close

from vaelab.decomposition import decomposed, log_weights
from vaelab.errors import UserError


def standard(latents):
    return Independent(Normal(torch.zeros(latents).double(), 1.0), 1)


@pytest.fixture
def codes():
    """The q of 12 images and 3 latents, and 2 samples of each."""
    mean, scale = torch.randn(12, 3).double(), 0.2 + torch.rand(12, 3).double()
    q = Independent(Normal(mean, scale), 1)
    return q, q.sample((2,))


def log_normal(z, mean, scale):
    return -0.5 * ((z - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def by_loops(q, z, weight):
    """The three parts of each sample, with weight(i, j) of q(z_i | x_j), one number at a time."""
    mean, scale = q.mean.tolist(), q.stddev.tolist()
    images, latents = range(len(mean)), range(len(mean[0]))
    found = []
    for sample in z.tolist():
        for i in images:
            own = sum(log_normal(sample[i][d], mean[i][d], scale[i][d]) for d in latents)
            prior = sum(log_normal(sample[i][d], 0.0, 1.0) for d in latents)
            joint, marginals = 0.0, [0.0 for _ in latents]
            for j in images:
                each = [
                    math.exp(log_normal(sample[i][d], mean[j][d], scale[j][d])) for d in latents
                ]
                joint += weight(i, j) * math.prod(each)
                marginals = [m + weight(i, j) * e for m, e in zip(marginals, each, strict=True)]
            product = sum(map(math.log, marginals))
            joint = math.log(joint)
            found.append([own - joint, joint - product, product - prior])
    return torch.tensor(found, dtype=torch.float64).view(*z.shape[:2], 3)


def estimated(q, z, estimator, images):
    weights = log_weights(estimator, z.shape[1], images, like=z)
    return torch.stack(decomposed(q, standard(z.shape[-1]), z, weights), -1)


def test_parts_of_all_images_are_exact(codes):
    q, z = codes
    expected = by_loops(q, z, lambda i, j: 1 / 12)
    assert_close(estimated(q, z, "stratified", 12), expected, atol=1e-10, rtol=0)


def test_stratified_parts_of_a_batch(codes):
    q, z = codes
    expected = by_loops(q, z, lambda i, j: 1 / 500 if i == j else 499 / (500 * 11))
    assert_close(estimated(q, z, "stratified", 500), expected, atol=1e-10, rtol=0)


def test_weighted_parts_of_a_batch(codes):
    q, z = codes
    expected = by_loops(q, z, lambda i, j: 1 / (500 * 12))
    assert_close(estimated(q, z, "weighted", 500), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("estimator", ["stratified", "weighted"])
@pytest.mark.parametrize("images", [12, 60_000])
def test_parts_sum_to_the_rate(codes, estimator, images):
    """Exactly, with sigma points of q as the samples, for which a mean of squares is exact."""
    q, _ = codes
    steps = math.sqrt(3) * torch.eye(3).double()
    z = q.mean + q.stddev * torch.cat([steps, -steps])[:, None]
    found = estimated(q, z, estimator, images).sum(-1).mean(0)
    full = MultivariateNormal(q.mean, q.variance.diag_embed())
    prior = MultivariateNormal(torch.zeros(12, 3).double(), torch.eye(3).double().expand(12, 3, 3))
    assert_close(found, kl_divergence(full, prior), atol=1e-10, rtol=0)


def test_stratified_weights_estimate_the_aggregate_without_bias():
    """Over all batches of 3 of 6 images that hold the one that z is from."""
    densities = torch.rand(6).double()
    estimates = []
    for others in combinations(range(1, 6), 2):
        weights = log_weights("stratified", 3, 6, like=densities).exp()
        assert_close(weights.sum(1), torch.ones(3).double())
        estimates.append(weights[0] @ densities[[0, *others]])
    assert_close(torch.stack(estimates).mean(), densities.mean())


@pytest.mark.parametrize(("batch", "images"), [(4, 4), (4, 9), (5, 60_000)])
def test_stratified_weights_are_the_mean_of_the_papers(batch, images):
    """Of its estimate f(z, n*, B), over which of the other M = B - 1 images comes last."""
    others = batch - 1
    papers = [1 / others] * (others - 1) + [(images - others) / (images * others)]
    orders = torch.tensor(list(permutations(papers))).double().mean(0)
    weights = log_weights("stratified", batch, images, like=orders).exp()
    for i in range(batch):
        assert_close(weights[i, i].item(), 1 / images)
        assert_close(weights[i, torch.arange(batch) != i], orders)


@pytest.fixture(scope="module")
def large():
    """60,000 images whose codes add up to N(0, I) in ten latents, sigma^2 = 0.05."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(60_000, 10, generator=generator).double() * math.sqrt(0.95)

    def q(rows):
        return Independent(Normal(means[rows], math.sqrt(0.05)), 1)

    return q


def test_stratified_parts_are_near_the_exact_ones(large):
    """Where code in wide use, whose weights are in a column, says -28 for +4."""
    everything = torch.arange(60_000)
    z = large(torch.arange(160)).sample()
    uniform = torch.full((), -math.log(60_000)).double()
    exact = []
    for i, point in enumerate(z):
        log_densities = large(everything).base_dist.log_prob(point)
        joint = (uniform + log_densities.sum(1)).logsumexp(0)
        product = (uniform + log_densities).logsumexp(0).sum()
        own, prior = large(i).log_prob(point), standard(10).log_prob(point)
        exact.append(torch.stack([own - joint, joint - product, product - prior]))
    exact, error = torch.stack(exact).mean(0), torch.stack(exact).std(0) / math.sqrt(160)
    assert 3.0 < exact[1] < 5.0

    def of_batches(size, count):
        found = []
        for rows in torch.randperm(60_000)[: size * count].split(size):
            q = large(rows)
            found.append(estimated(q, q.sample((1,)), "stratified", 60_000).mean((0, 1)))
        return torch.stack(found)

    small, wide = of_batches(64, 100), of_batches(1024, 4)
    noise = 4 * (error + small.std(0) / 10)
    bias = torch.tensor([0.1, 0.8, 0.85]).double()  # of a logarithm at 64 images
    assert ((small.mean(0) - exact).abs() < bias + noise).all()
    assert ((wide.mean(0) - exact).abs() < 4 * error + 0.15).all()


@pytest.mark.parametrize(
    ("q", "prior", "message"),
    [
        (MultivariateNormal(torch.zeros(4, 2), torch.eye(2)), standard(2), "posterior=gaussian"),
        (standard(2).expand([4]), MultivariateNormal(torch.zeros(2), torch.eye(2)), "prior="),
        (standard(2).expand([4]), standard(2).expand([4]), "prior=standard_normal"),
    ],
)
def test_what_does_not_factorise_is_refused(q, prior, message):
    z = torch.zeros(1, 4, 2)
    with pytest.raises(UserError, match=message):
        decomposed(q, prior, z, log_weights("stratified", 4, 9, like=z))
