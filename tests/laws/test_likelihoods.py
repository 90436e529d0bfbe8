"""Likelihoods, against scipy, numerical integrals, sums over all pixel values and formulas."""

import math

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from vaelab.distributions.projection import project
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
from vaelab.metrics.bits import bits_per_dim


def all_images(height, width):
    """Every black and white image, [2^(H * W), 1, H, W]."""
    numbers = torch.arange(2 ** (height * width))[:, None]
    bits = numbers >> torch.arange(height * width) & 1
    return bits.reshape(-1, 1, height, width).double()


@pytest.mark.parametrize("spread", [0.0, 1.0, 20.0])
def test_bernoulli_sums_to_one(spread):
    p = Bernoulli()(spread * torch.randn(1, 3, 3).double())
    log_mass = p.log_prob(all_images(3, 3)).logsumexp(0)
    assert_close(log_mass.item(), 0.0, atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [0.05, 0.3, 2.0, "learned"])
def test_gaussian_integrates_to_one(scale):
    likelihood = Gaussian(scale).double()
    wide = 20 if scale == 2.0 else 4
    x = torch.linspace(-wide, wide, 20_001).double()
    density = likelihood(torch.tensor([[[0.3]]]).double()).log_prob(x[:, None, None, None]).exp()
    assert_close(torch.trapezoid(density, x).item(), 1.0, atol=1e-9, rtol=0)


def test_bernoulli_agrees_with_scipy():
    logits = 3 * torch.randn(4, 2, 3, 5).double()
    x = torch.rand(4, 2, 3, 5).round().double()
    expected = stats.bernoulli(logits.sigmoid().numpy()).logpmf(x.numpy()).sum((1, 2, 3))
    assert_close(Bernoulli()(logits).log_prob(x), torch.from_numpy(expected))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 1, 67)])
def test_bernoulli_float32_log_prob_agrees_with_float64(shape):
    logits = 8 * torch.randn(50, *shape) - 6
    x = torch.rand_like(logits).round()
    exact = torch.distributions.Bernoulli(logits=logits.double()).log_prob(x.double())
    mistake = Bernoulli()(logits).log_prob(x) - exact.sum((1, 2, 3))
    assert mistake.abs().max() < 3e-7 * logits[0].abs().sum()


def test_bernoulli_log_prob_is_exact_at_logits_of_10000():
    logits, x = torch.tensor([1e4, -1e4, 1e4]), torch.tensor([1.0, 0.0, 0.0])
    log_prob = Bernoulli()(logits.view(3, 1, 1, 1)).log_prob(x.view(3, 1, 1, 1))
    assert log_prob.tolist() == [0.0, 0.0, -1e4]


def test_bernoulli_gradients_agree_with_finite_differences():
    logits = torch.randn(2, 3, 1, 2, 3).double().requires_grad_()
    x = torch.rand(3, 1, 2, 3).double().requires_grad_()

    def log_prob(logits, x):
        return Bernoulli()(logits).log_prob(x)

    assert torch.autograd.gradcheck(log_prob, (logits, x))
    assert torch.autograd.gradgradcheck(log_prob, (logits, x))


@pytest.mark.parametrize("scale", [0.1, 1.0, "learned"])
def test_gaussian_agrees_with_scipy(scale):
    likelihood = Gaussian(scale).double()
    params, x = torch.randn(4, 2, 3, 5).double(), torch.rand(4, 2, 3, 5).double()
    sigma = 0.25 if scale == "learned" else scale
    expected = stats.norm(params.numpy() + 0.5, sigma).logpdf(x.numpy()).sum((1, 2, 3))
    assert_close(likelihood(params).log_prob(x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("scale", "factor"), [(1.0, 0.5), (math.sqrt(0.5), 1.0)])
def test_gaussian_negative_log_prob_is_squared_error_plus_constant(scale, factor):
    params, x = torch.randn(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    squares = (x - params - 0.5).square().sum((1, 2, 3))
    constant = 16 * (math.log(scale) + 0.5 * math.log(2 * math.pi))
    assert_close(-Gaussian(scale)(params).log_prob(x), factor * squares + constant)


def test_gaussian_starts_at_mid_grey_with_stddev_0_25():
    p = Gaussian()(torch.zeros(2, 3, 4, 4))
    assert_close(p.mean, torch.full((2, 3, 4, 4), 0.5))
    assert_close(p.stddev, torch.full((2, 3, 4, 4), 0.25))


@pytest.mark.parametrize(("scale", "learned"), [("learned", True), (0.25, False)])
def test_gaussian_scale_has_gradient_only_if_learned(scale, learned):
    likelihood = Gaussian(scale)
    before = likelihood.log_scale.clone()
    p = likelihood(torch.zeros(1, 1, 8, 8, requires_grad=True))
    p.log_prob(torch.rand(1, 1, 8, 8)).sum().backward()
    assert (likelihood.log_scale.grad is not None) is learned
    assert torch.equal(likelihood.log_scale, before)  # log_prob does not update it


ALL_LIKELIHOODS = [
    Bernoulli(),
    ContinuousBernoulli(),
    Gaussian("learned"),
    Gaussian("per_pixel"),
    Gaussian("optimal"),
    Gaussian(0.5),
    Laplace("learned"),
    Laplace("per_pixel"),
    DiscretizedLogistic("learned"),
    DiscretizedLogistic("per_pixel"),
    DiscretizedLogisticMixture(3),
    Categorical(),
]


def likelihood_id(likelihood) -> str:
    """The pytest id: class name, and decoder outputs per pixel where they are fixed."""
    return f"{type(likelihood).__name__} {getattr(likelihood, 'params', '')}"


@pytest.mark.parametrize("likelihood", ALL_LIKELIHOODS, ids=likelihood_id)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_likelihood_shapes_gradients_and_batch_independence(likelihood, channels):
    params = torch.randn(5, 2, likelihood.channels(channels), 4, 6, requires_grad=True)
    p, shape = likelihood(params), (channels, 4, 6)
    assert p.batch_shape == (5, 2)
    assert p.event_shape == shape
    assert p.mean.shape == (5, 2, *shape)
    assert p.sample().shape == (5, 2, *shape)
    assert p.sample((7,)).shape == (7, 5, 2, *shape)
    assert p.expand((3, 5, 2)).sample().shape == (3, 5, 2, *shape)
    x = torch.randint(256, (2, *shape)) / 255
    x = x.round() if "binary" in likelihood.pixels else x
    log_prob = p.log_prob(x)  # x [B, ...] for params [K, B, ...], as in the ELBO
    assert log_prob.shape == (5, 2)
    log_prob.sum().backward()
    assert (params.grad != 0).flatten(2).any(-1).all()
    alone = likelihood(params.detach()[3:4, 1:2]).log_prob(x[1:2])
    if not getattr(likelihood, "optimal", False):  # the optimal scale depends on the batch
        assert_close(alone[0, 0], log_prob[3, 1].detach())


LEVELS = torch.arange(256).double() / 255
DISCRETE_LIKELIHOODS = [
    likelihood for likelihood in ALL_LIKELIHOODS if likelihood.pixels == {"grey": 0.0}
]
CONTINUOUS_LIKELIHOODS = [
    likelihood for likelihood in ALL_LIKELIHOODS if "dequantized" in likelihood.pixels
]


@pytest.mark.parametrize("likelihood", DISCRETE_LIKELIHOODS, ids=likelihood_id)
@pytest.mark.parametrize("spread", [0.0, 1.0, 10.0])
def test_discrete_likelihood_sums_to_one_over_levels(likelihood, spread):
    p = likelihood.double()(spread * torch.randn(20, likelihood.channels(1), 1, 1).double())
    log_masses = p.log_prob(LEVELS[:, None, None, None, None])
    assert_close(log_masses.logsumexp(0), torch.zeros(20).double(), atol=1e-12, rtol=0)


def test_logistic_mixture_sums_to_one_and_matches_mean_and_samples():
    likelihood = DiscretizedLogisticMixture(3)
    p = likelihood(torch.randn(1, likelihood.channels(2), 1, 1).double())
    x = torch.cartesian_prod(LEVELS, LEVELS)[:, None, :, None, None]
    log_masses = p.log_prob(x)
    assert log_masses.logsumexp(0).item() == pytest.approx(0, abs=1e-12)
    exact = (log_masses.exp()[..., None] * x[..., 0, 0]).sum(0)
    drawn = p.sample((40_000,)).squeeze()
    assert_close(drawn.mean(0), exact[0], atol=5 * float(drawn.std(0).max()) / 200, rtol=0)
    assert p.mean[0, 0].item() == pytest.approx(exact[0, 0].item(), abs=1e-4)


@pytest.mark.parametrize(
    "likelihood", [d for d in CONTINUOUS_LIKELIHOODS if type(d) is not ContinuousBernoulli]
)
def test_continuous_likelihoods_integrate_to_one(likelihood):
    x = torch.linspace(-15, 15, 300_001).double()
    params = 0.3 * torch.randn(likelihood.channels(1), 1, 1).double()
    density = likelihood.double().eval()(params).log_prob(x[:, None, None, None]).exp()
    assert_close(torch.trapezoid(density, x).item(), 1.0, atol=1e-6, rtol=0)


@pytest.mark.parametrize("logit", [-30.0, -1.0, -1e-3, 0.0, 1e-3, 5.0])
def test_continuous_bernoulli_integrates_to_one_with_published_constant(logit):
    x = torch.linspace(0, 1, 100_001).double()
    p = ContinuousBernoulli()(torch.full((1, 1, 1), logit).double())
    density = p.log_prob(x[:, None, None, None]).exp()
    assert_close(torch.trapezoid(density, x).item(), 1.0, atol=1e-5, rtol=0)
    unnormalised = math.exp(logit * 0.8 - math.log1p(math.exp(logit)))
    log_c = p.log_prob(torch.full((1, 1, 1), 0.8).double()).item() - math.log(unnormalised)
    m = 1 / (1 + math.exp(-logit))
    # Loaiza-Ganem & Cunningham (2019), arXiv:1907.06845, eq. 6: 2 atanh(1 - 2m) / (1 - 2m)
    exact = 2.0 if logit == 0 else math.log((1 - m) / m) / (1 - 2 * m)
    assert log_c == pytest.approx(math.log(exact), abs=1e-4)


@pytest.mark.parametrize(
    "likelihood", [DiscretizedLogistic("learned"), Categorical()], ids=likelihood_id
)
def test_discrete_likelihood_mean_and_samples_agree_with_masses(likelihood):
    p = likelihood.double()(torch.randn(50, likelihood.channels(1), 1, 1).double())
    exact = (p.log_prob(LEVELS[:, None, None, None, None]).exp() * LEVELS[:, None]).sum(0)
    assert_close(p.mean.flatten(), exact, atol=2e-4, rtol=0)
    drawn = p.sample((4_000,)).squeeze()
    assert torch.isin(drawn, LEVELS).all()
    assert_close(drawn.mean(0), exact, atol=0.03, rtol=0)


@pytest.mark.parametrize("scale", [0.002, 0.05, 1.0])
def test_discretized_logistic_mass_is_difference_of_logistic_cdfs(scale):
    loc, k = torch.tensor(0.3), torch.tensor([0, 1, 76, 77, 254, 255])
    p = DiscretizedLogistic(scale).double()((loc - 0.5).reshape(1, 1, 1).double())
    logistic = stats.logistic(loc.item(), scale)
    upper, lower = logistic.cdf((k + 0.5) / 255), logistic.cdf((k - 0.5) / 255)
    upper[-1], lower[0] = 1.0, 0.0  # the first and last bins are unbounded
    found = p.log_prob((k.double() / 255)[:, None, None, None]).exp()
    assert_close(found, torch.from_numpy(upper - lower), atol=1e-6, rtol=1e-6)


def test_discretized_logistic_log_mass_and_gradient_of_unlikely_level():
    params = torch.tensor([60.0, -60.0]).reshape(2, 1, 1, 1).requires_grad_()
    log_mass = DiscretizedLogistic(1e-3)(params).log_prob(torch.full((1, 1, 1), 0.5))
    assert_close(log_mass, torch.full((2,), -60.0 / 1e-3), rtol=1e-3, atol=0)
    log_mass.sum().backward()
    assert_close(params.grad.flatten().abs(), torch.full((2,), 1e3), rtol=1e-3, atol=0)


def test_projection_blocks_only_gradients_that_lead_farther_out():
    values = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.2], requires_grad=True)
    inside = project(values, 0, 1)
    assert inside.tolist() == [0, 0, 0.5, 1, 1]
    for sign, expected in ((1.0, [0, 0, 1, 1, 1]), (-1.0, [-1, -1, -1, 0, 0])):
        (gradient,) = torch.autograd.grad(inside.sum() * sign, values, retain_graph=True)
        assert gradient.tolist() == expected  # zero where a descent step would lead outside


def test_projection_is_a_function_of_transforms():
    values = torch.tensor([-2.0, 0.5, 2.0])
    gradients = torch.func.vmap(torch.func.grad(lambda v: project(v, 0, 1)))(values)
    assert gradients.tolist() == [0, 1, 1]


def test_expanded_logistic_levels_have_the_gradient_of_their_sum():
    scale = torch.tensor([-9.0], requires_grad=True)
    image = LogisticLevels(torch.full((1, 2), 0.5), scale)
    pixels = torch.tensor([[0.5, 0.52]])  # of which one draws the scale outward and one inward
    expanded = image.expand(torch.Size((3, 2)))
    (one,) = torch.autograd.grad(-image.log_prob(pixels).sum(), scale, retain_graph=True)
    (three,) = torch.autograd.grad(-expanded.log_prob(pixels).sum(), scale)
    assert_close(three, 3 * one)
    assert one < 0


@pytest.mark.parametrize("is_mixture", [False, True])
def test_logistic_scale_comes_back_from_below_its_floor(is_mixture):
    """As that of a pixel that was the same in all images until one differs."""
    log_scale = torch.tensor([-9.0], requires_grad=True)
    mean, scales = torch.full((1, 1, 1), 0.5), log_scale[:, None, None]
    for is_far, pixel in enumerate((mean, torch.full_like(mean, 0.8))):
        image = LogisticLevels(mean, scales)
        if is_mixture:
            weights, none = torch.zeros(1, 1, 1), torch.zeros(1, 0, 1, 1)
            image = MixtureImage(weights, mean[None], scales[None], none)
        (gradient,) = torch.autograd.grad(-image.log_prob(pixel).sum(), log_scale)
        assert gradient < 0 if is_far else gradient == 0


def test_logistic_mixture_agrees_with_pixelcnn_plus_plus_formula():
    """Salimans et al. (2017), eqs. 2 and 3, by loops over pixels, components and channels."""
    likelihood = DiscretizedLogisticMixture(2)
    params = torch.randn(likelihood.channels(3), 1, 2).double()
    x = LEVELS[torch.tensor([[0, 255], [13, 200], [255, 0]])].reshape(3, 1, 2)
    total = 0.0
    for column in range(2):
        numbers = params[:, 0, column].reshape(2, 10)
        logits = numbers[:, 0].softmax(0)
        density = 0.0
        for m in range(2):
            means, scales, (a, b, c) = numbers[m, 1:4], numbers[m, 4:7], numbers[m, 7:].tanh()
            r, g, blue = (x[i, 0, column] for i in range(3))
            shifts = [0.0, a * (r - 0.5), b * (r - 0.5) + c * (g - 0.5)]
            product = logits[m]
            for i, value in enumerate((r, g, blue)):
                logistic = stats.logistic(
                    float(means[i] + 0.5 + shifts[i]), float((scales[i] - 2).exp())
                )
                high = 1.0 if value == 1 else logistic.cdf(float(value) + 0.5 / 255)
                low = 0.0 if value == 0 else logistic.cdf(float(value) - 0.5 / 255)
                product = product * (high - low)
            density = density + product
        total = total + density.log()
    assert_close(likelihood(params).log_prob(x), total)


def test_optimal_gaussian_maximises_training_likelihood_and_is_fixed_in_evaluation():
    likelihood = Gaussian("optimal")
    params, x = torch.randn(4, 1, 8, 8).double(), torch.rand(4, 1, 8, 8).double()
    best = (x - params - 0.5).square().mean().sqrt().item()
    at = {s: Gaussian(s).double()(params).log_prob(x) for s in (best, 0.99 * best, 1.01 * best)}
    found = likelihood(params).log_prob(x)
    assert_close(found, at[best], rtol=1e-6, atol=1e-6)
    assert all(found.sum() >= other.sum() for other in at.values())
    assert likelihood.variance.item() == pytest.approx(best**2, rel=1e-6)  # after one batch

    likelihood.eval()
    before = likelihood.variance.clone()
    held = likelihood(params + 1).log_prob(x)
    assert_close(held, Gaussian(best).double()(params + 1).log_prob(x), rtol=1e-5, atol=1e-5)
    assert torch.equal(likelihood.variance, before)
    assert "variance" in likelihood.state_dict()


def test_optimal_gaussian_variance_is_running_mean_over_recent_batches():
    likelihood = Gaussian("optimal")
    for size in (1.0, 3.0):
        likelihood(torch.full((1, 1, 2, 2), -0.5)).log_prob(torch.full((1, 1, 2, 2), size))
    assert likelihood.variance.item() == pytest.approx(0.1 * 1 + 0.9 * 9)
    for _ in range(2000):  # of many batches each has a weight of 1 in 100
        likelihood.update_variance(torch.tensor(4.0))
    likelihood.update_variance(torch.tensor(104.0))
    assert likelihood.variance.item() == pytest.approx(5.0)


def test_laplace_agrees_with_scipy():
    params, x = torch.randn(4, 2, 3, 5).double(), torch.rand(4, 2, 3, 5).double()
    expected = stats.laplace(params.numpy() + 0.5, 0.2).logpdf(x.numpy()).sum((1, 2, 3))
    assert_close(
        Laplace(0.2).double()(params).log_prob(x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6
    )


def test_gaussian_per_pixel_scale_agrees_with_scipy():
    params = torch.randn(2, 6, 4, 4).double()
    x = torch.rand(2, 3, 4, 4).double()
    mean, scale = params[:, :3].numpy() + 0.5, 0.25 * params[:, 3:].exp().numpy()
    expected = stats.norm(mean, scale).logpdf(x.numpy()).sum((1, 2, 3))
    assert_close(Gaussian("per_pixel").double()(params).log_prob(x), torch.from_numpy(expected))


def test_likelihood_pixels_give_kinds_and_bits_offsets():
    assert Bernoulli.pixels == {"binary": 0.0}
    for density in (Gaussian, Laplace):
        assert density.pixels == {"dequantized": 8.0, "grey": None, "real": None}
    assert ContinuousBernoulli.pixels == {"dequantized": 8.0, "grey": None}
    for mass in (DiscretizedLogistic, DiscretizedLogisticMixture, Categorical):
        assert mass.pixels == {"grey": 0.0}


def test_bits_per_dim_is_1_for_bernoulli_half():
    log_mass = Bernoulli()(torch.zeros(3, 8, 8)).log_prob(torch.ones(3, 8, 8))
    offset = Bernoulli.pixels["binary"]
    assert bits_per_dim(log_mass.item(), (3, 8, 8), offset) == pytest.approx(1.0, abs=1e-6)


def test_bits_per_dim_is_8_for_uniform_density():
    density = torch.distributions.Uniform(torch.zeros(3, 8, 8), torch.ones(3, 8, 8))
    nats = density.log_prob(torch.full((3, 8, 8), 0.7)).sum().item()
    assert bits_per_dim(nats, (3, 8, 8), Gaussian.pixels["dequantized"]) == 8.0


@pytest.mark.parametrize(
    ("logit", "x", "expected"),
    [(200.0, 1.0, 0.0), (200.0, 0.0, -200.0), (-200.0, 1.0, -200.0), (-200.0, 0.0, 0.0)],
)
def test_bernoulli_does_not_clamp_extreme_logits(logit, x, expected):
    logits = torch.full((1, 2, 2), logit, requires_grad=True)
    log_mass = Bernoulli()(logits).log_prob(torch.full((1, 2, 2), x))
    assert log_mass.item() == pytest.approx(4 * expected, abs=1e-6)
    log_mass.backward()
    assert_close(logits.grad, torch.full((1, 2, 2), x - (logit > 0)))
