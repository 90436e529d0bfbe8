"""Tests of ELBO surgery (`vaelab.metrics.aggregate`) against limits, closed forms and integration.

Shapes: N images, D latents.
"""

import math
from types import SimpleNamespace

import pytest
import torch
from scipy import integrate, stats
from torch.distributions import Independent, LowRankMultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from vaelab.distributions.pairwise import log_densities
from vaelab.metrics import aggregate
from vaelab.metrics.aggregate import elbo_surgery, log_mean_density


def normal(mean, scale):
    """Returns factorised Gaussians with means and scales [..., D]."""
    return Independent(Normal(mean, scale), 1)


def posterior_model(means, scales, prior=None):
    """Returns a fake model with posteriors [N, D], whose images x [n] are indices of posteriors.

    The prior is `prior(y)`, or standard normal by default.
    """
    unit = normal(torch.zeros_like(means[0]), torch.ones_like(means[0]))
    return SimpleNamespace(
        latent_posterior=lambda x, y: normal(means[x], scales[x]),
        latent_prior=lambda y: prior(y) if prior else unit,
    )


def indexed_batch(count):
    """Returns x [count], all images of a `posterior_model`, and empty labels y [count, 0]."""
    return torch.arange(count), torch.zeros(count, 0)


def test_mutual_information_of_equal_posteriors_is_zero():
    mean, scale = torch.randn(3).expand(20, 3), torch.rand(3).expand(20, 3) + 0.1
    found = elbo_surgery(posterior_model(mean, scale), *indexed_batch(20), num_samples=2_000)
    assert_close(found["mutual_information"], torch.zeros(20), atol=1e-5, rtol=0)
    rate = kl_divergence(normal(mean, scale), normal(torch.zeros(3), torch.ones(3)))
    assert_close(found["marginal_kl"].mean(), rate.mean(), atol=0.05, rtol=0)


def test_mutual_information_of_distant_posteriors_is_log_n():
    mean = 100 * torch.arange(20.0)[:, None].expand(20, 3)
    found = elbo_surgery(posterior_model(mean, torch.ones_like(mean)), *indexed_batch(20))
    assert_close(found["mutual_information"], torch.full((20,), math.log(20)))


def test_total_correlation_of_independent_latents_is_zero():
    """Means on a grid, and scales of a latent that do not depend on the other: q(z) factorises."""
    across, up = torch.randn(7), torch.randn(9)
    mean = torch.cartesian_prod(across, up)
    scale = torch.cartesian_prod(torch.rand(7) + 0.1, torch.rand(9) + 0.1)
    found = elbo_surgery(posterior_model(mean, scale), *indexed_batch(63), num_samples=3)
    assert_close(found["total_correlation"], torch.zeros(63), atol=1e-5, rtol=0)


def test_total_correlation_of_equal_latents_is_exact():
    """Each of three latents identifies all 20 images, so two of them repeat log 20 nats."""
    mean = 100 * torch.arange(20.0)[:, None].expand(20, 3)
    found = elbo_surgery(posterior_model(mean, torch.ones_like(mean)), *indexed_batch(20))
    assert_close(found["total_correlation"], torch.full((20,), 2 * math.log(20)))


def test_total_correlation_of_gaussian_agrees_with_closed_form():
    """Means from N(0, C) with noise s^2 give q(z) = N(0, C + s^2 I), up to the draw of 4,000."""
    r, s = 0.9, 0.3
    covariance = torch.tensor([[1.0, r], [r, 1.0]])
    mean = torch.randn(4000, 2) @ torch.linalg.cholesky(covariance).T
    found = elbo_surgery(posterior_model(mean, torch.full_like(mean, s)), *indexed_batch(4000))
    expected = -0.5 * math.log(1 - (r / (1 + s**2)) ** 2)
    assert found["total_correlation"].mean().item() == pytest.approx(expected, abs=0.05)


def test_mutual_information_and_marginal_kl_sum_to_rate():
    mean, scale = torch.randn(300, 4), torch.rand(300, 4) + 0.1
    found = elbo_surgery(posterior_model(mean, scale), *indexed_batch(300), num_samples=200)
    rate = kl_divergence(normal(mean, scale), normal(torch.zeros(4), torch.ones(4)))
    difference = found["mutual_information"] + found["marginal_kl"] - rate
    error = difference.std() / math.sqrt(300)
    assert abs(difference.mean()) < 4 * error < 0.05
    assert (found["mutual_information"] <= math.log(300)).all()


def integral(f):
    """Returns the integral of a function of one latent over [-12, 12]."""
    return integrate.quad(f, -12, 12, points=[-1, 0, 2], limit=500)[0]


MEANS, SCALES = [-1.0, 2.0, 2.0], [0.5, 0.8, 0.8]  # of three images, the last two equal


def q_pdf(z):
    """Returns q(z), the mean of the posteriors' densities, at a number z."""
    return stats.norm(MEANS, SCALES).pdf(z).mean()


def conditional_prior(y):
    """Returns p(z | y) for one-hot y [N, 2], with D = 1."""
    mean, scale = y @ torch.tensor([[-2.0], [1.0]]), y @ torch.tensor([[1.0], [0.7]])
    return normal(mean.double(), scale.double())


def conditional_prior_pdf(z):
    """Returns the mean of p(z | y) over the three images at a number z."""
    return stats.norm([-2.0, 1.0, 1.0], [1.0, 0.7, 0.7]).pdf(z).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "p"), [(None, stats.norm.pdf), (conditional_prior, conditional_prior_pdf)]
)
def test_elbo_surgery_of_mixture_agrees_with_numeric_integration(prior, p):
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # classes of unequal size
    means, scales = (torch.tensor(v).double()[:, None] for v in (MEANS, SCALES))
    found = elbo_surgery(
        posterior_model(means, scales, prior), torch.arange(3), y, num_samples=40_000
    )
    components = [stats.norm(m, s) for m, s in zip(MEANS, SCALES, strict=True)]
    for n, c in enumerate(components):
        information = integral(lambda z, c=c: c.pdf(z) * (c.logpdf(z) - math.log(q_pdf(z))))
        marginal = integral(lambda z, c=c: c.pdf(z) * (math.log(q_pdf(z)) - math.log(p(z))))
        assert found["mutual_information"][n].item() == pytest.approx(information, abs=0.02)
        assert found["marginal_kl"][n].item() == pytest.approx(marginal, abs=0.02)
    total = integral(lambda z: q_pdf(z) * (math.log(q_pdf(z)) - math.log(p(z))))
    assert found["marginal_kl"].mean().item() == pytest.approx(total, abs=0.01)


@pytest.mark.parametrize(("images", "entries"), [(1, 1), (7, 100), (1000, 2**20)])
def test_log_mean_density_does_not_depend_on_chunk_sizes(monkeypatch, images, entries):
    sizes = []
    monkeypatch.setattr(aggregate, "entries_per_chunk", lambda _: entries)
    monkeypatch.setattr(
        aggregate,
        "log_densities",
        lambda q, z: sizes.append(len(z) * q.mean.numel()) or log_densities(q, z),
    )
    means, scales, z = torch.randn(30, 4), torch.rand(30, 4) + 0.1, torch.randn(50, 4)
    parts = [normal(*p) for p in zip(means.split(images), scales.split(images), strict=True)]
    expected = normal(means, scales).log_prob(z[:, None]).logsumexp(1) - math.log(30)
    assert_close(log_mean_density(parts, z), expected, atol=1e-4, rtol=1e-5)
    assert max(sizes) <= max(entries, parts[0].mean.numel())

    monkeypatch.setattr(aggregate, "IMAGES", images)
    found = elbo_surgery(posterior_model(1e3 * means, scales), *indexed_batch(30))
    assert_close(found["mutual_information"], torch.full((30,), math.log(30)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2])
def test_log_densities_agree_with_float64_log_prob(scale):
    """Small scales make the terms of the matrix product millions of times larger than their sum."""
    mean, scales = 3 * torch.randn(40, 128), scale * (torch.rand(40, 128) + 0.5)
    z = normal(mean, scales).sample()
    exact = normal(mean.double(), scales.double()).log_prob(z.double()[:, None])
    assert_close(log_densities(normal(mean, scales), z), exact, atol=1e-5, rtol=1e-9)


def test_log_mean_density_takes_other_distributions():
    mean, scale, z = torch.randn(6, 3), torch.rand(6, 3) + 0.1, torch.randn(9, 3)
    same = LowRankMultivariateNormal(mean, torch.zeros(6, 3, 1), scale.square())
    assert_close(log_mean_density([same], z), log_mean_density([normal(mean, scale)], z))


def test_elbo_surgery_takes_conditional_vae(build):
    small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=3"]
    cvae = build("model=cvae", "prior=conditional_normal", *small, x_shape=(1, 8, 8), num_classes=4)
    x, y = torch.rand(600, 1, 8, 8).round(), torch.eye(4).repeat(150, 1)
    found = elbo_surgery(cvae, x, y)
    assert {name: values.shape for name, values in found.items()} == {
        "mutual_information": (600,),
        "total_correlation": (600,),
        "marginal_kl": (600,),
    }
    assert not found["marginal_kl"].requires_grad
