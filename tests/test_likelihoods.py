import math

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from vaelab.likelihoods import Bernoulli, Gaussian
from vaelab.metrics import bits_per_dim


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


@pytest.mark.parametrize("scale", [0.1, 1.0, "learned"])
def test_gaussian_agrees_with_scipy(scale):
    likelihood = Gaussian(scale).double()
    params, x = torch.randn(4, 2, 3, 5).double(), torch.rand(4, 2, 3, 5).double()
    sigma = 0.25 if scale == "learned" else scale
    expected = stats.norm(params.numpy() + 0.5, sigma).logpdf(x.numpy()).sum((1, 2, 3))
    assert_close(likelihood(params).log_prob(x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("scale", "factor"), [(1.0, 0.5), (math.sqrt(0.5), 1.0)])
def test_gaussian_is_a_squared_error_and_its_constant(scale, factor):
    params, x = torch.randn(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    squares = (x - params - 0.5).square().sum((1, 2, 3))
    constant = 16 * (math.log(scale) + 0.5 * math.log(2 * math.pi))
    assert_close(-Gaussian(scale)(params).log_prob(x), factor * squares + constant)


def test_a_fresh_gaussian_is_grey_and_of_one_scale():
    p = Gaussian()(torch.zeros(2, 3, 4, 4))
    assert_close(p.mean, torch.full((2, 3, 4, 4), 0.5))
    assert_close(p.stddev, torch.full((2, 3, 4, 4), 0.25))


@pytest.mark.parametrize(("scale", "learned"), [("learned", True), (0.25, False)])
def test_only_a_learned_scale_is_learned(scale, learned):
    likelihood = Gaussian(scale)
    before = likelihood.log_scale.clone()
    p = likelihood(torch.zeros(1, 1, 8, 8, requires_grad=True))
    p.log_prob(torch.rand(1, 1, 8, 8)).sum().backward()
    assert (likelihood.log_scale.grad is not None) is learned
    assert torch.equal(likelihood.log_scale, before)  # no batch sets it


@pytest.mark.parametrize("likelihood", [Bernoulli(), Gaussian()])
def test_batch_and_event(likelihood):
    p = likelihood(torch.randn(5, 2, 3 * likelihood.params_per_channel, 4, 6))
    assert p.batch_shape == (5, 2)
    assert p.event_shape == (3, 4, 6)


def test_pixels_of_the_likelihoods():
    assert Bernoulli.pixels == {"binary": 0.0}
    assert Gaussian.pixels == {"dequantized": 8.0, "grey": None}


def test_a_coin_for_each_pixel_is_one_bit():
    log_mass = Bernoulli()(torch.zeros(3, 8, 8)).log_prob(torch.ones(3, 8, 8))
    offset = Bernoulli.pixels["binary"]
    assert bits_per_dim(log_mass.item(), (3, 8, 8), offset) == pytest.approx(1.0, abs=1e-6)


def test_a_uniform_density_is_eight_bits():
    density = torch.distributions.Uniform(torch.zeros(3, 8, 8), torch.ones(3, 8, 8))
    nats = density.log_prob(torch.full((3, 8, 8), 0.7)).sum().item()
    assert bits_per_dim(nats, (3, 8, 8), Gaussian.pixels["dequantized"]) == 8.0


@pytest.mark.parametrize(
    ("logit", "x", "expected"),
    [(200.0, 1.0, 0.0), (200.0, 0.0, -200.0), (-200.0, 1.0, -200.0), (-200.0, 0.0, 0.0)],
)
def test_extreme_logits_are_not_clamped(logit, x, expected):
    logits = torch.full((1, 2, 2), logit, requires_grad=True)
    log_mass = Bernoulli()(logits).log_prob(torch.full((1, 2, 2), x))
    assert log_mass.item() == pytest.approx(4 * expected, abs=1e-6)
    log_mass.backward()
    assert_close(logits.grad, torch.full((1, 2, 2), x - (logit > 0)))
