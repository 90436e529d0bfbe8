"""The two parts of the rate: against their limits, numeric integration and the rate itself."""

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
    return Independent(Normal(mean, scale), 1)


def model(means, scales, prior=None):
    """A model whose images are the numbers of their posteriors."""
    unit = normal(torch.zeros_like(means[0]), torch.ones_like(means[0]))
    return SimpleNamespace(
        encode=lambda x, y: normal(means[x], scales[x]),
        latent_prior=lambda y: prior(y) if prior else unit,
    )


def numbers(count):
    return torch.arange(count), torch.zeros(count, 0)


def test_equal_posteriors_hold_no_information():
    mean, scale = torch.randn(3).expand(20, 3), torch.rand(3).expand(20, 3) + 0.1
    found = elbo_surgery(model(mean, scale), *numbers(20), num_samples=2_000)
    assert_close(found["mutual_information"], torch.zeros(20), atol=1e-5, rtol=0)
    rate = kl_divergence(normal(mean, scale), normal(torch.zeros(3), torch.ones(3)))
    assert_close(found["marginal_kl"].mean(), rate.mean(), atol=0.05, rtol=0)


def test_posteriors_far_apart_hold_all_of_it():
    mean = 100 * torch.arange(20.0)[:, None].expand(20, 3)
    found = elbo_surgery(model(mean, torch.ones_like(mean)), *numbers(20))
    assert_close(found["mutual_information"], torch.full((20,), math.log(20)))


def test_the_total_correlation_of_independent_latents_is_zero():
    """Means on a grid, and scales of a latent that know no other: q(z) is a product."""
    across, up = torch.randn(7), torch.randn(9)
    mean = torch.cartesian_prod(across, up)
    scale = torch.cartesian_prod(torch.rand(7) + 0.1, torch.rand(9) + 0.1)
    found = elbo_surgery(model(mean, scale), *numbers(63), num_samples=3)
    assert_close(found["total_correlation"], torch.zeros(63), atol=1e-5, rtol=0)


def test_the_total_correlation_of_latents_that_say_the_same():
    """Each of three latents tells all 20 images apart: all but one of them is too much."""
    mean = 100 * torch.arange(20.0)[:, None].expand(20, 3)
    found = elbo_surgery(model(mean, torch.ones_like(mean)), *numbers(20))
    assert_close(found["total_correlation"], torch.full((20,), 2 * math.log(20)))


def test_the_total_correlation_of_a_gaussian():
    """Of means from N(0, C) with noise s^2: that of N(0, C + s^2 I), up to 4,000 images."""
    r, s = 0.9, 0.3
    covariance = torch.tensor([[1.0, r], [r, 1.0]])
    mean = torch.randn(4000, 2) @ torch.linalg.cholesky(covariance).T
    found = elbo_surgery(model(mean, torch.full_like(mean, s)), *numbers(4000))
    expected = -0.5 * math.log(1 - (r / (1 + s**2)) ** 2)
    assert found["total_correlation"].mean().item() == pytest.approx(expected, abs=0.05)


def test_the_parts_sum_to_the_rate():
    mean, scale = torch.randn(300, 4), torch.rand(300, 4) + 0.1
    found = elbo_surgery(model(mean, scale), *numbers(300), num_samples=200)
    rate = kl_divergence(normal(mean, scale), normal(torch.zeros(4), torch.ones(4)))
    difference = found["mutual_information"] + found["marginal_kl"] - rate
    error = difference.std() / math.sqrt(300)
    assert abs(difference.mean()) < 4 * error < 0.05
    assert (found["mutual_information"] <= math.log(300)).all()


def integral(f):
    return integrate.quad(f, -12, 12, points=[-1, 0, 2], limit=500)[0]


MEANS, SCALES = [-1.0, 2.0, 2.0], [0.5, 0.8, 0.8]  # one image there and two here


def q(z):
    return stats.norm(MEANS, SCALES).pdf(z).mean()


def conditional_prior(y):
    mean, scale = y @ torch.tensor([[-2.0], [1.0]]), y @ torch.tensor([[1.0], [0.7]])
    return normal(mean.double(), scale.double())


def conditional_p(z):
    return stats.norm([-2.0, 1.0, 1.0], [1.0, 0.7, 0.7]).pdf(z).mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "p"), [(None, stats.norm.pdf), (conditional_prior, conditional_p)]
)
def test_a_mixture_has_the_values_of_numeric_integration(prior, p):
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])  # in unequal shares
    means, scales = (torch.tensor(v).double()[:, None] for v in (MEANS, SCALES))
    found = elbo_surgery(model(means, scales, prior), torch.arange(3), y, num_samples=40_000)
    components = [stats.norm(m, s) for m, s in zip(MEANS, SCALES, strict=True)]
    for n, c in enumerate(components):
        information = integral(lambda z, c=c: c.pdf(z) * (c.logpdf(z) - math.log(q(z))))
        marginal = integral(lambda z, c=c: c.pdf(z) * (math.log(q(z)) - math.log(p(z))))
        assert found["mutual_information"][n].item() == pytest.approx(information, abs=0.02)
        assert found["marginal_kl"][n].item() == pytest.approx(marginal, abs=0.02)
    total = integral(lambda z: q(z) * (math.log(q(z)) - math.log(p(z))))
    assert found["marginal_kl"].mean().item() == pytest.approx(total, abs=0.01)


@pytest.mark.parametrize(("images", "entries"), [(1, 1), (7, 100), (1000, 2**20)])
def test_the_portions_do_not_matter(monkeypatch, images, entries):
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
    found = elbo_surgery(model(1e3 * means, scales), *numbers(30))
    assert_close(found["mutual_information"], torch.full((30,), math.log(30)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2])
def test_the_product_of_matrices_is_as_exact_as_the_sum(scale):
    """Where the terms are millions of times larger than their sum, too."""
    mean, scales = 3 * torch.randn(40, 128), scale * (torch.rand(40, 128) + 0.5)
    z = normal(mean, scales).sample()
    exact = normal(mean.double(), scales.double()).log_prob(z.double()[:, None])
    assert_close(log_densities(normal(mean, scales), z), exact, atol=1e-5, rtol=1e-9)


def test_any_other_distribution_will_do():
    mean, scale, z = torch.randn(6, 3), torch.rand(6, 3) + 0.1, torch.randn(9, 3)
    same = LowRankMultivariateNormal(mean, torch.zeros(6, 3, 1), scale.square())
    assert_close(log_mean_density([same], z), log_mean_density([normal(mean, scale)], z))


def test_it_takes_a_real_model(build):
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
