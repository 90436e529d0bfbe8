"""Likelihoods, posteriors and priors in float32, at parameters that trained networks reach.

Logits and means to +-300, scales from e^-9 to e^5, pixels at both edges; against float64, which
other tests hold against other people's code, or against many digits.
"""

import copy
import math

import mpmath
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from vaelab.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
)
from vaelab.posteriors import FullGaussian, InverseAutoregressiveFlow, SplineFlow
from vaelab.posteriors import Gaussian as GaussianPosterior
from vaelab.priors import ConditionalNormal, CouplingFlow, GaussianMixture, StandardNormal
from vaelab.terms import kl_per_group

IMAGES, LATENTS, LABELS = 20, 8, 10
LIKELIHOODS = {
    "bernoulli": Bernoulli(),
    "continuous_bernoulli": ContinuousBernoulli(),
    "gaussian": Gaussian("learned"),
    "gaussian per_pixel": Gaussian("per_pixel"),
    "gaussian optimal": Gaussian("optimal"),
    "laplace per_pixel": Laplace("per_pixel"),
    "discretized_logistic": DiscretizedLogistic("learned"),
    "discretized_logistic per_pixel": DiscretizedLogistic("per_pixel"),
    "discretized_logistic_mixture": DiscretizedLogisticMixture(3),
    "categorical": Categorical(),
}


def log_scales(*shape):
    """From e^-9 to e^5."""
    return -9 + 14 * torch.rand(shape)


def extreme(name, size):
    """A likelihood's parameters [20, P, 8, 8] for images of three channels."""
    likelihood = LIKELIHOODS[name]
    params = size * (2 * torch.rand(IMAGES, likelihood.channels(3), 8, 8) - 1)
    if name.endswith("per_pixel"):
        params[:, 3:] = log_scales(IMAGES, 3, 8, 8)
    if name == "discretized_logistic_mixture":  # a view: weights, means, scales, coefficients
        params.unflatten(1, (3, -1))[:, :, 4:7] = log_scales(IMAGES, 3, 3, 8, 8)
    return params


def images(likelihood):
    """Images [20, 3, 8, 8], a quarter of them black and a quarter white."""
    x = torch.randint(256, (IMAGES, 3, 8, 8)) / 255
    x[:, :, :2], x[:, :, 2:4] = 0, 1
    return x.round() if "binary" in likelihood.pixels else x


@pytest.mark.parametrize("size", [1, 30, 300])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihood_is_that_of_float64(name, size):
    likelihood = LIKELIHOODS[name]
    params, x = extreme(name, size), images(likelihood)
    p = copy.deepcopy(likelihood).eval()(params)
    exact = copy.deepcopy(likelihood).double().eval()(params.double())
    x_exact = x.double()
    if likelihood.pixels == {"grey": 0.0}:  # the levels themselves, as near as float64 gets
        x_exact = (x_exact * 255).round() / 255
    found, expected = p.log_prob(x), exact.log_prob(x_exact)
    assert found.dtype == torch.float32
    assert_close(found.double(), expected, rtol=5e-7, atol=1e-3)
    assert_close(p.mean.double(), exact.mean, rtol=1e-6, atol=1e-4)
    drawn = p.sample((2,))
    assert drawn.isfinite().all()
    if "gaussian" not in name and "laplace" not in name:
        assert drawn.min() >= 0
        assert drawn.max() <= 1


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_gradients_of_likelihoods_are_finite(name):
    likelihood, params = LIKELIHOODS[name], extreme(name, 300).requires_grad_()
    p = copy.deepcopy(likelihood)(params)
    p.log_prob(images(likelihood)).sum().backward()
    assert params.grad.isfinite().all()


def exact_continuous_bernoulli(logit, x):
    """Log-density, its derivative by the logit, mean, variance."""
    mpmath.mp.dps = 100
    logit, x = mpmath.mpf(logit), mpmath.mpf(x)
    if logit == 0:
        return 0.0, float(x) - 0.5, 0.5, 1 / 12
    mean = 1 / (1 - mpmath.exp(-logit)) - 1 / logit
    log_density = mpmath.log(logit / mpmath.expm1(logit)) + logit * x
    variance = 1 / logit**2 - 1 / (4 * mpmath.sinh(logit / 2) ** 2)
    return tuple(map(float, (log_density, x - mean, mean, variance)))


SIZES = [0, 1e-20, 1e-6, 0.05, 0.0999, 0.1001, 1, 5, 15.9, 16, 20, 50, 90, 300]
PIXELS = [0.0, 1 / 512, 0.3, 0.5, 0.8, 254.5 / 256, 1 - 2**-24, 1.0]


@pytest.mark.parametrize("logit", [*SIZES, *(-size for size in SIZES)])
def test_continuous_bernoulli_against_many_digits(logit):
    logits = torch.full((len(PIXELS), 1, 1, 1), float(logit), requires_grad=True)
    x = torch.tensor(PIXELS).view(-1, 1, 1, 1)
    p = ContinuousBernoulli()(logits)
    log_density = p.log_prob(x)
    log_density.sum().backward()
    rows = [exact_continuous_bernoulli(logits[0].item(), pixel) for pixel in x.flatten().tolist()]
    expected, gradients, means, variances = torch.tensor(rows).double().mT
    assert_close(log_density.double(), expected, rtol=2e-7, atol=2e-7)
    assert_close(logits.grad.flatten().double(), gradients, rtol=1e-5, atol=2e-6)
    assert_close(p.mean.flatten().double(), means, rtol=2e-6, atol=1e-7)
    assert_close(p.variance.flatten().double(), variances, rtol=1e-4, atol=0)


@pytest.mark.parametrize("logit", [-300.0, -20.0, -1.0, -1e-4, 0.0, 1e-4, 1.0, 20.0, 300.0])
def test_continuous_bernoulli_draws_by_its_distribution_function(logit):
    p = ContinuousBernoulli()(torch.full((1, 1, 1), logit)).base_dist
    u = torch.linspace(0, 1, 1001)[:, None, None, None]
    x = p.icdf(u).double()
    share = torch.expm1(logit * x) / math.expm1(logit) if abs(logit) > 1e-3 else x
    tolerance = 1e-5 if abs(logit) > 1e-3 else 1e-4
    assert_close(share.flatten(), u.double().flatten(), rtol=0, atol=tolerance * max(1, abs(logit)))
    drawn = p.sample((40_000,)).double()
    exact = exact_continuous_bernoulli(logit, 0.5)
    assert drawn.mean().item() == pytest.approx(exact[2], abs=5 * (exact[3] / 40_000) ** 0.5)
    assert drawn.var().item() == pytest.approx(exact[3], rel=0.1)


def test_a_continuous_bernoulli_can_be_black_and_white():
    p = ContinuousBernoulli()(torch.tensor([-300.0, 300.0]).view(2, 1, 1, 1))
    assert_close(p.mean.flatten(), torch.tensor([1 / 300, 1 - 1 / 300]))


def test_a_perfect_batch_has_a_finite_optimal_density():
    params = torch.zeros(2, 1, 4, 4, requires_grad=True)
    likelihood = Gaussian("optimal")
    log_density = likelihood(params).log_prob(torch.full((2, 1, 4, 4), 0.5))
    assert_close(log_density, torch.full((2,), -16 * math.log(1e-6 * math.sqrt(2 * math.pi))))
    log_density.sum().backward()
    assert params.grad.isfinite().all()


FLOW = {"transforms": 2, "hidden": [16], "context": 4}
POSTERIORS = {
    "gaussian": GaussianPosterior,
    "full_gaussian": FullGaussian,
    "iaf": lambda *sizes: InverseAutoregressiveFlow(*sizes, **FLOW),
    "spline": lambda *sizes: SplineFlow(*sizes, bins=8, **FLOW),
}
PRIORS = {
    "standard_normal": StandardNormal,
    "conditional_normal": ConditionalNormal,
    "mixture": lambda *sizes: GaussianMixture(*sizes, components=6),
    "flow": lambda *sizes: CouplingFlow(*sizes, transforms=3, hidden=[16]),
}
TOLERANCE = {"iaf": 1e-4, "spline": 1e-3}  # of the inverse, by which it is compared
LABEL = torch.eye(LABELS)[torch.arange(IMAGES) % LABELS]


def shaken(module):
    """The same with weights as after some training."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


def extreme_posterior(name, size):
    """Posteriors of 20 images, in float32 and in float64."""
    posterior = shaken(POSTERIORS[name](IMAGES, LATENTS))
    with torch.no_grad():
        posterior.params.bias.zero_()
        means, scales, *rest = posterior.params.weight.split(LATENTS)
        means.copy_(size * (2 * torch.rand_like(means) - 1))
        scales.copy_(log_scales(*scales.shape))
        for weights in rest:
            weights.mul_(3)
        h = torch.eye(IMAGES)
        return posterior(h), copy.deepcopy(posterior).double()(h.double())


def extreme_prior(name):
    """A prior, in float32 and in float64."""
    prior = shaken(PRIORS[name](LATENTS, LABELS))
    with torch.no_grad():
        if name == "mixture":
            prior.means.mul_(20)
            prior.log_scales.copy_(log_scales(*prior.log_scales.shape))
        if name == "conditional_normal":
            prior.params.weight[:LATENTS] = 10 * torch.randn(LATENTS, LABELS)
            prior.params.weight[LATENTS:] = log_scales(LATENTS, LABELS)
        return prior(LABEL), copy.deepcopy(prior).double()(LABEL.double())


@pytest.mark.parametrize("size", [1, 30, 300])
@pytest.mark.parametrize("name", ["gaussian", "iaf", "spline"])
def test_posterior_is_that_of_float64(name, size):
    q, exact = extreme_posterior(name, size)
    with torch.no_grad():
        z = q.sample((5,))
        found, expected = q.log_prob(z.clone()), exact.log_prob(z.double())
    assert found.dtype == torch.float32
    tolerance = TOLERANCE.get(name, 1e-6)
    assert_close(found.double(), expected, rtol=tolerance, atol=max(1e-5, tolerance))


@pytest.mark.parametrize("name", ["iaf", "spline"])
def test_a_drawn_latent_has_the_density_of_its_noise(name):
    q, exact = extreme_posterior(name, 300)
    with torch.no_grad():
        noise = torch.randn(5, IMAGES, LATENTS)
        z, z_exact = q.transform_noise(noise), exact.transform_noise(noise.double())
        assert_close(z.double(), z_exact, rtol=1e-5, atol=1e-4)
        assert_close(q.log_prob(z).double(), exact.log_prob(z_exact), rtol=1e-5, atol=1e-4)


def test_full_gaussian_is_that_of_torch_in_float64():
    # Of its very parameters: those of float64 differ by rounding, which L^-1 multiplies.
    q, _ = extreme_posterior("full_gaussian", 30)
    z = q.sample((5,))
    expected = MultivariateNormal(q.loc.double(), scale_tril=q.scale_tril.double())
    assert_close(q.log_prob(z).double(), expected.log_prob(z.double()), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("size", [1, 30, 300])
@pytest.mark.parametrize("name", PRIORS)
def test_prior_is_that_of_float64(name, size):
    p, exact = extreme_prior(name)
    z = size * torch.randn(5, IMAGES, LATENTS)
    with torch.no_grad():
        found, expected = p.log_prob(z), exact.log_prob(z.double())
    assert found.dtype == torch.float32
    tolerance = 1e-5 if name == "flow" else 1e-6
    assert_close(found.double(), expected, rtol=tolerance, atol=1e-4)


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("prior", PRIORS)
def test_rate_is_that_of_float64(prior, size):
    (q, exact_q), (p, exact_p) = extreme_posterior("gaussian", size), extreme_prior(prior)
    with torch.no_grad():
        z = q.sample((5,))
        found = kl_per_group(q, p, z).sum(-1)
        expected = kl_per_group(exact_q, exact_p, z.double()).sum(-1)
    tolerance = 1e-4 if prior == "flow" else 1e-6
    assert_close(found.double(), expected, rtol=tolerance, atol=1e-4)


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("prior", ["standard_normal", "conditional_normal"])
def test_rate_of_the_full_gaussian_is_that_of_float64(prior, size):
    (q, exact_q), (p, exact_p) = extreme_posterior("full_gaussian", size), extreme_prior(prior)
    with torch.no_grad():
        found, expected = kl_divergence(q, p), kl_divergence(exact_q, exact_p)
    assert_close(found.double(), expected, rtol=1e-6, atol=1e-4)
