"""The autoregressive likelihood, against sums over all images and its own samples."""

import pytest
import torch
from torch.testing import assert_close

from vaelab.errors import UserError
from vaelab.likelihoods import Autoregressive, Bernoulli


class Shaped:
    """What the likelihood asks a model for: the shape of x."""

    def __init__(self, *x_shape):
        self.x_shape = x_shape


def build_likelihood(*x_shape, reach=2, hidden=(16, 12)):
    """A likelihood in float64 whose pixels depend on each other strongly."""
    likelihood = Autoregressive(reach=reach, hidden=[*hidden], given=3)
    likelihood.connect(Shaped(*x_shape))
    with torch.no_grad():
        for parameter in likelihood.parameters():
            parameter.mul_(3)
    return likelihood.double()


def all_images(channels, height, width):
    """Every black and white image, [2^n, C, H, W]."""
    size = channels * height * width
    bits = torch.arange(2**size)[:, None] >> torch.arange(size) & 1
    return bits.reshape(-1, channels, height, width).double()


@pytest.mark.parametrize("x_shape", [(1, 3, 3), (1, 2, 5), (2, 2, 2), (1, 1, 7), (1, 7, 1)])
@pytest.mark.parametrize("reach", [1, 2, 9])
def test_autoregressive_sums_to_one(x_shape, reach):
    p = build_likelihood(*x_shape, reach=reach)(torch.randn(3, *x_shape[1:]).double())
    log_mass = p.log_prob(all_images(*x_shape)).logsumexp(0)
    assert_close(log_mass.item(), 0.0, atol=1e-12, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_depend_on_exactly_the_pixels_before_within_reach(channels):
    likelihood, reach, side = build_likelihood(channels, 6, 6, reach=2), 2, 6
    x = torch.randint(2, (1, channels, side, side)).double()
    params = torch.randn(1, side, side, 3).double()

    def logits(x):
        return likelihood.logits(likelihood.read_before(x), params)[0].sum(-1)

    slopes = torch.autograd.functional.jacobian(logits, x)[:, :, 0].abs().amin(2)  # of any channel
    for row in range(side):
        for column in range(side):
            across = (torch.arange(side) - column).abs() <= reach
            seen = torch.zeros(side, side, dtype=torch.bool)
            seen[max(0, row - reach) : row] = across
            seen[row, max(0, column - reach) : column] = True
            assert torch.equal(slopes[row, column] > 0, seen)


def test_sampling_frequencies_agree_with_probabilities():
    torch.manual_seed(1)
    likelihood, count = build_likelihood(1, 2, 3), 40_000
    p = likelihood(torch.randn(2, 3, 2, 3).double())
    images = all_images(1, 2, 3)
    expected = torch.stack([p.log_prob(image) for image in images]).exp()  # [64, 2]
    drawn = p.sample((count,)).flatten(2) @ (2.0 ** torch.arange(6)).double()
    for k in range(2):
        counts = drawn[:, k].long().bincount(minlength=64)
        chi_square = ((counts - count * expected[:, k]) ** 2 / (count * expected[:, k])).sum()
        assert chi_square < 120  # 63 degrees of freedom: exceeded once in 100,000


def test_mean_is_that_of_each_pixel_given_the_means_before():
    likelihood = build_likelihood(1, 3, 4)
    params = torch.randn(5, 3, 3, 4).double()
    mean = likelihood(params).mean
    again = likelihood.logits(likelihood.read_before(mean), params.movedim(1, -1)).sigmoid()
    assert_close(mean, again.movedim(-1, 1))


def test_without_pixels_before_it_is_the_bernoulli_likelihood():
    likelihood = build_likelihood(2, 4, 4)
    with torch.no_grad():
        likelihood.before.weight.zero_()
    params, x = torch.randn(3, 2, 3, 4, 4).double(), torch.randint(2, (2, 2, 4, 4)).double()
    read = likelihood.read_before(x)
    plain = Bernoulli()(likelihood.logits(read, params.movedim(-3, -1)).movedim(-1, -3))
    p = likelihood(params)
    assert_close(p.log_prob(x), plain.log_prob(x))
    assert_close(p.mean, plain.mean)


def test_autoregressive_shapes_and_gradients():
    likelihood = build_likelihood(2, 4, 6)
    params = torch.randn(5, 2, 3, 4, 6, dtype=torch.double, requires_grad=True)
    p = likelihood(params)
    assert p.batch_shape == (5, 2)
    assert p.event_shape == (2, 4, 6)
    assert p.mean.shape == (5, 2, 2, 4, 6)
    assert p.sample((7,)).shape == (7, 5, 2, 2, 4, 6)
    assert p.expand((3, 5, 2)).sample().shape == (3, 5, 2, 2, 4, 6)
    x = torch.randint(2, (2, 2, 4, 6)).double()
    log_prob = p.log_prob(x)  # x [B, ...] for params [K, B, ...], as in the ELBO
    assert log_prob.shape == (5, 2)
    log_prob.sum().backward()
    assert (params.grad != 0).flatten(2).any(-1).all()
    assert all(parameter.grad is not None for parameter in likelihood.parameters())
    alone = likelihood(params.detach()[3:4, 1:2]).log_prob(x[1:2])
    assert_close(alone, log_prob[3:4, 1:2])
    assert_close(p.expand((3, 5, 2)).log_prob(x)[1], log_prob)


@pytest.mark.parametrize("x_shape", [(5,), (2, 9)])
def test_autoregressive_refuses_numbers(x_shape):
    likelihood = Autoregressive(reach=2, hidden=[4], given=1)
    with pytest.raises(UserError, match="likelihood=autoregressive takes images"):
        likelihood.connect(Shaped(*x_shape))
