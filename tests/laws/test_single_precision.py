"""Float32 likelihoods, posteriors, priors and rates at extreme parameters, against float64.

Logits and means reach +-300, scales e^-9 to e^5 and pixels 0 and 1, as in trained networks. Other
tests compare the float64 results with independent code. `ContinuousBernoulli` is compared with
mpmath at 100 digits.
"""

import copy
import math

import mpmath
import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence
from torch.testing import assert_close

from vaelab.distributions.divergence import kl_per_group
from vaelab.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Gaussian,
    Laplace,
)
from vaelab.likelihoods.levels import LogisticLevels
from vaelab.likelihoods.logistic_mixture import MixtureImage
from vaelab.posteriors import FullGaussian, InverseAutoregressiveFlow, SplineFlow
from vaelab.posteriors import Gaussian as GaussianPosterior
from vaelab.priors import ConditionalNormal, CouplingFlow, GaussianMixture, StandardNormal

IMAGES, LATENTS, CLASSES = 20, 8, 10
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


def draw_log_scales(*shape):
    """Draws log-scales uniformly from [-9, 5]."""
    return -9 + 14 * torch.rand(shape)


def draw_extreme_params(name, size):
    """Draws params [20, P, 8, 8] of a likelihood of RGB images, logits and means up to +-size."""
    likelihood = LIKELIHOODS[name]
    params = size * (2 * torch.rand(IMAGES, likelihood.channels(3), 8, 8) - 1)
    if name.endswith("per_pixel"):
        params[:, 3:] = draw_log_scales(IMAGES, 3, 8, 8)
    if name == "discretized_logistic_mixture":  # a view: weights, means, scales, coefficients
        params.unflatten(1, (3, -1))[:, :, 4:7] = draw_log_scales(IMAGES, 3, 3, 8, 8)
    return params


def draw_images(likelihood):
    """Draws images [20, 3, 8, 8], a quarter of their pixels 0 and a quarter 1."""
    x = torch.randint(256, (IMAGES, 3, 8, 8)) / 255
    x[:, :, :2], x[:, :, 2:4] = 0, 1
    return x.round() if "binary" in likelihood.pixels else x


@pytest.mark.parametrize("size", [1, 30, 300])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_likelihood_in_float32_agrees_with_float64(name, size):
    likelihood = LIKELIHOODS[name]
    params, x = draw_extreme_params(name, size), draw_images(likelihood)
    p = copy.deepcopy(likelihood).eval()(params)
    exact = copy.deepcopy(likelihood).double().eval()(params.double())
    x_exact = x.double()
    if likelihood.pixels == {"grey": 0.0}:  # the levels k / 255 rounded to float64
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
def test_likelihood_gradients_are_finite_at_extreme_params(name):
    likelihood, params = LIKELIHOODS[name], draw_extreme_params(name, 300).requires_grad_()
    p = copy.deepcopy(likelihood)(params)
    p.log_prob(draw_images(likelihood)).sum().backward()
    assert params.grad.isfinite().all()


def exact_continuous_bernoulli(logit, x):
    """The log-density, its derivative by the logit, the mean and the variance, by mpmath."""
    mpmath.mp.dps = 100
    logit, x = mpmath.mpf(logit), mpmath.mpf(x)
    if logit == 0:
        return 0.0, float(x) - 0.5, 0.5, 1 / 12
    mean = 1 / (1 - mpmath.exp(-logit)) - 1 / logit
    log_density = mpmath.log(logit / mpmath.expm1(logit)) + logit * x
    variance = 1 / logit**2 - 1 / (4 * mpmath.sinh(logit / 2) ** 2)
    return tuple(map(float, (log_density, x - mean, mean, variance)))


LOGIT_SIZES = [0, 1e-20, 1e-6, 0.05, 0.0999, 0.1001, 1, 5, 15.9, 16, 20, 50, 90, 300]
PIXELS = [0.0, 1 / 512, 0.3, 0.5, 0.8, 254.5 / 256, 1 - 2**-24, 1.0]


@pytest.mark.parametrize("logit", [*LOGIT_SIZES, *(-size for size in LOGIT_SIZES)])
def test_continuous_bernoulli_agrees_with_mpmath(logit):
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
def test_continuous_bernoulli_icdf_inverts_cdf_and_samples_have_moments(logit):
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


def test_continuous_bernoulli_mean_at_extreme_logits():
    p = ContinuousBernoulli()(torch.tensor([-300.0, 300.0]).view(2, 1, 1, 1))
    assert_close(p.mean.flatten(), torch.tensor([1 / 300, 1 - 1 / 300]))


def exact_logistic(level, loc, log_scale):
    """The log-mass of a level, its derivative by the log-scale, and the clamped mean, by mpmath."""
    mpmath.mp.dps = 100
    loc, scale, infinite = mpmath.mpf(loc), mpmath.exp(mpmath.mpf(log_scale)), mpmath.mpf("inf")
    above = infinite if level == 255 else (level + 0.5 - 255 * loc) / (255 * scale)
    below = -infinite if level == 0 else (level - 0.5 - 255 * loc) / (255 * scale)

    def cdf(x):
        return 1 / (1 + mpmath.exp(-x))

    def slope(x):
        return 0 if mpmath.isinf(x) else -x * cdf(x) * cdf(-x)  # of the cdf by the log-scale

    mass = cdf(above) - cdf(below)
    area = [scale * mpmath.log1p(mpmath.exp(edge / scale)) for edge in (loc, loc - 1)]
    return tuple(
        map(float, (mpmath.log(mass), (slope(above) - slope(below)) / mass, area[0] - area[1]))
    )


LOCATIONS = [-3.0, 0.0, 0.25, 0.5, 1.0, 4.0]


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("log_scale", [-2, -0.01, 0, 0.01, 2, 7, 10, 14, 16, 50, 79])
def test_logistic_levels_agree_with_mpmath(log_scale, level):
    log_scales = torch.full((len(LOCATIONS),), float(log_scale), requires_grad=True)
    p = LogisticLevels(torch.tensor(LOCATIONS), log_scales)
    log_mass = p.log_prob(torch.tensor(level / 255))
    (slope,) = torch.autograd.grad(log_mass.sum(), log_scales)
    rows = [exact_logistic(level, loc, log_scales[0].item()) for loc in LOCATIONS]
    expected, slopes, means = torch.tensor(rows).double().mT
    assert_close(log_mass.double(), expected, rtol=1e-6, atol=1e-4)
    assert_close(slope.double(), slopes, rtol=1e-5, atol=1e-4)
    assert_close(p.mean.double(), means, rtol=0, atol=1e-6)


@pytest.mark.parametrize("log_scale", [79.0, 81.0, 89.0, 100.0, 1e10])
def test_logistic_of_huge_scale_has_mean_half_and_finite_gradients(log_scale):
    wide = torch.full((1, 1, 1, 1), log_scale, requires_grad=True)
    levels = LogisticLevels(torch.full((1, 1, 1, 1), 0.3), wide)
    weights = torch.tensor([0.0, -200.0]).view(2, 1, 1)  # of the second, exactly 0
    narrow = torch.full_like(wide, -3.0)
    scales = torch.cat([narrow, wide])
    means, no_coefficients = torch.full_like(scales, 0.7), torch.zeros(2, 0, 1, 1)
    mixture = MixtureImage(weights, means, scales, no_coefficients)
    alone = LogisticLevels(means[:1], narrow)
    assert_close(levels.mean, torch.full_like(levels.mean, 0.5))
    assert_close(mixture.mean, alone.mean[0])
    for p, x in ((levels, 0.5), (mixture, 0.5), (levels, 0.0)):
        loss = p.log_prob(torch.full((1, 1, 1), x)).sum() + p.mean.sum()
        (gradient,) = torch.autograd.grad(loss, wide, retain_graph=True)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert p.sample((20,)).isfinite().all()


def test_optimal_gaussian_is_finite_at_perfect_reconstruction():
    params = torch.zeros(2, 1, 4, 4, requires_grad=True)
    likelihood = Gaussian("optimal")
    log_density = likelihood(params).log_prob(torch.full((2, 1, 4, 4), 0.5))
    assert_close(log_density, torch.full((2,), -16 * math.log(1e-6 * math.sqrt(2 * math.pi))))
    log_density.sum().backward()
    assert params.grad.isfinite().all()


FLOW_SETTINGS = {"transforms": 2, "hidden": [16], "context": 4}
POSTERIORS = {
    "gaussian": GaussianPosterior,
    "full_gaussian": FullGaussian,
    "iaf": lambda *sizes: InverseAutoregressiveFlow(*sizes, **FLOW_SETTINGS),
    "spline": lambda *sizes: SplineFlow(*sizes, bins=8, **FLOW_SETTINGS),
}
PRIORS = {
    "standard_normal": StandardNormal,
    "conditional_normal": ConditionalNormal,
    "mixture": lambda *sizes: GaussianMixture(*sizes, components=6),
    "flow": lambda *sizes: CouplingFlow(*sizes, transforms=3, hidden=[16]),
}
FLOW_TOLERANCES = {"iaf": 1e-4, "spline": 1e-3}  # wider, for log_prob by the inverse
ONE_HOT_LABELS = torch.eye(CLASSES)[torch.arange(IMAGES) % CLASSES]


def perturb_weights(module):
    """Adds noise to the weights of a module, in place, and returns it."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return module


def build_extreme_posterior(name, size):
    """Returns the posteriors of 20 images, in float32 and in float64, of the same weights."""
    posterior = perturb_weights(POSTERIORS[name](IMAGES, LATENTS))
    with torch.no_grad():
        posterior.params.bias.zero_()
        means, scales, *rest = posterior.params.weight.split(LATENTS)
        means.copy_(size * (2 * torch.rand_like(means) - 1))
        scales.copy_(draw_log_scales(*scales.shape))
        for weights in rest:
            weights.mul_(3)
        h = torch.eye(IMAGES)
        return posterior(h), copy.deepcopy(posterior).double()(h.double())


def build_extreme_prior(name):
    """Returns the priors given 20 labels, in float32 and in float64, of the same weights."""
    prior = perturb_weights(PRIORS[name](LATENTS, CLASSES))
    with torch.no_grad():
        if name == "mixture":
            prior.means.mul_(20)
            prior.log_scales.copy_(draw_log_scales(*prior.log_scales.shape))
        if name == "conditional_normal":
            prior.params.weight[:LATENTS] = 10 * torch.randn(LATENTS, CLASSES)
            prior.params.weight[LATENTS:] = draw_log_scales(LATENTS, CLASSES)
        return prior(ONE_HOT_LABELS), copy.deepcopy(prior).double()(ONE_HOT_LABELS.double())


@pytest.mark.parametrize("size", [1, 30, 300])
@pytest.mark.parametrize("name", ["gaussian", "iaf", "spline"])
def test_posterior_log_prob_in_float32_agrees_with_float64(name, size):
    q, exact = build_extreme_posterior(name, size)
    with torch.no_grad():
        z = q.sample((5,))
        found, expected = q.log_prob(z.clone()), exact.log_prob(z.double())
    assert found.dtype == torch.float32
    tolerance = FLOW_TOLERANCES.get(name, 1e-6)
    assert_close(found.double(), expected, rtol=tolerance, atol=max(1e-5, tolerance))


@pytest.mark.parametrize("name", ["iaf", "spline"])
def test_flow_sample_and_its_log_prob_agree_with_float64(name):
    q, exact = build_extreme_posterior(name, 300)
    with torch.no_grad():
        noise = torch.randn(5, IMAGES, LATENTS)
        z, z_exact = q.transform_noise(noise), exact.transform_noise(noise.double())
        assert_close(z.double(), z_exact, rtol=1e-5, atol=1e-4)
        assert_close(q.log_prob(z).double(), exact.log_prob(z_exact), rtol=1e-5, atol=1e-4)


def test_full_gaussian_log_prob_agrees_with_torch_in_float64():
    # From the same float32 parameters: L^-1 would multiply differences of rounding.
    q, _ = build_extreme_posterior("full_gaussian", 30)
    z = q.sample((5,))
    expected = MultivariateNormal(q.loc.double(), scale_tril=q.scale_tril.double())
    assert_close(q.log_prob(z).double(), expected.log_prob(z.double()), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("size", [1, 30, 300])
@pytest.mark.parametrize("name", PRIORS)
def test_prior_log_prob_in_float32_agrees_with_float64(name, size):
    p, exact = build_extreme_prior(name)
    z = size * torch.randn(5, IMAGES, LATENTS)
    with torch.no_grad():
        found, expected = p.log_prob(z), exact.log_prob(z.double())
    assert found.dtype == torch.float32
    tolerance = 1e-5 if name == "flow" else 1e-6
    assert_close(found.double(), expected, rtol=tolerance, atol=1e-4)


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("prior", PRIORS)
def test_kl_per_group_in_float32_agrees_with_float64(prior, size):
    (q, exact_q), (p, exact_p) = (
        build_extreme_posterior("gaussian", size),
        build_extreme_prior(prior),
    )
    with torch.no_grad():
        z = q.sample((5,))
        found = kl_per_group(q, p, z).sum(-1)
        expected = kl_per_group(exact_q, exact_p, z.double()).sum(-1)
    tolerance = 1e-4 if prior == "flow" else 1e-6
    assert_close(found.double(), expected, rtol=tolerance, atol=1e-4)


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("prior", ["standard_normal", "conditional_normal"])
def test_full_gaussian_kl_in_float32_agrees_with_float64(prior, size):
    (q, exact_q), (p, exact_p) = (
        build_extreme_posterior("full_gaussian", size),
        build_extreme_prior(prior),
    )
    with torch.no_grad():
        found, expected = kl_divergence(q, p), kl_divergence(exact_q, exact_p)
    assert_close(found.double(), expected, rtol=1e-6, atol=1e-4)
