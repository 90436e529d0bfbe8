import pytest
import torch
from hydra.errors import InstantiationException
from torch.distributions import Independent, Normal, kl_divergence
from torch.testing import assert_close

from vaelab.errors import UserError
from vaelab.priors import ConditionalNormal, StandardNormal


def kl_by_hand(mean, scale, prior_mean, prior_scale):
    """KL(N(m, s^2) || N(m', s'^2)) summed over latents."""
    ratio = (scale**2 + (mean - prior_mean) ** 2) / prior_scale**2
    return 0.5 * (ratio - 1 + 2 * (prior_scale / scale).log()).sum(-1)


def posterior(count, latents):
    mean, scale = torch.randn(count, latents), torch.rand(count, latents) + 0.1
    return mean, scale, Independent(Normal(mean, scale), 1)


@pytest.mark.parametrize("prior", [StandardNormal, ConditionalNormal])
def test_starts_standard_normal(prior):
    p = prior(4, 3)(torch.eye(3))
    z = torch.randn(5, 3, 4)
    expected = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    assert p.event_shape == (4,)
    assert_close(p.log_prob(z), expected.log_prob(z))


def test_standard_normal_is_the_same_for_every_label():
    assert StandardNormal(4, 3)(torch.eye(3)).batch_shape == ()
    assert not list(StandardNormal(4, 3).parameters())


def test_conditional_normal_is_a_table_over_labels():
    prior = ConditionalNormal(2, 3)
    mean, log_scale = torch.randn(3, 2), torch.randn(3, 2)
    with torch.no_grad():
        prior.params.weight.copy_(torch.cat([mean, log_scale], 1).T)
    rows = torch.tensor([2, 0, 0, 1])
    p = prior(torch.eye(3)[rows])
    assert p.batch_shape == (4,)
    assert_close(p.mean, mean[rows])
    assert_close(p.stddev, log_scale.exp()[rows])


def test_rate_against_the_standard_normal():
    mean, scale, q = posterior(5, 4)
    expected = kl_by_hand(mean, scale, torch.zeros(4), torch.ones(4))
    p = StandardNormal(4, 3)(torch.eye(3)[:1].expand(5, 3))
    assert_close(kl_divergence(q, p.expand([5])), expected)


def test_rate_against_the_conditional_normal():
    prior = ConditionalNormal(4, 3)
    with torch.no_grad():
        prior.params.weight.normal_()
    rows = torch.tensor([2, 0, 0, 1, 2])
    mean, scale, q = posterior(5, 4)
    prior_mean, prior_log_scale = prior.params.weight.T[rows].chunk(2, 1)
    expected = kl_by_hand(mean, scale, prior_mean, prior_log_scale.exp())
    assert_close(kl_divergence(q, prior(torch.eye(3)[rows])), expected)


def test_conditional_normal_is_not_for_an_unconditional_model(build):
    with pytest.raises(UserError, match="model=cvae"):
        ConditionalNormal(4, 0)
    with pytest.raises(InstantiationException) as error:
        build("model=vae", "prior=conditional_normal")
    assert isinstance(error.value.__cause__, UserError)
