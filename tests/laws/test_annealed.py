"""Annealed importance sampling, against exact log evidences.

Its Hamiltonian Monte Carlo moves are compared with a Gaussian target of known moments.
"""

import math

import pytest
import torch
from support.linear_gaussian import build_linear, log_evidence
from torch.distributions import MultivariateNormal, Normal
from torch.testing import assert_close

from vaelab import conditions, likelihoods
from vaelab.metrics import annealed as annealed_module
from vaelab.metrics.annealed import (
    ChainState,
    ais_estimates,
    integrate_leapfrog,
    move_chains,
    temperature_schedule,
)
from vaelab.priors import ConditionalNormal

SHAPE = (1, 8, 8)


@pytest.fixture
def conditional():
    """A linear-Gaussian VAE of three classes, with a learned prior p(z | y)."""
    model = build_linear(
        classes={"label": 3},
        condition=conditions.OneHot,
        latent_dim=2,
        prior=ConditionalNormal,
        likelihood=likelihoods.Gaussian(scale=1.0),
    )
    torch.nn.init.normal_(model.prior.params.weight, std=0.5)
    return model


def conditional_log_evidence(model, x, y):
    """The log evidence [B], log N(x; W mu_y + V y + b, W S_y W' + s^2 I)."""
    weights, context = model.decoder.out.weight.split([2, 3], 1)
    mean, log_scale = model.prior.params(y).chunk(2, 1)
    mean = mean @ weights.T + y @ context.T + model.decoder.out.bias + 0.5
    noise = model.likelihood.log_scale.mul(2).exp() * torch.eye(64).double()
    spread = weights @ log_scale.mul(2).exp().diag_embed() @ weights.T
    return MultivariateNormal(mean, spread + noise).log_prob(x.flatten(1))


def make_noise_batch(count):
    """Draws noise images [B, 1, 8, 8], with empty labels [B, 0]."""
    return torch.rand(count, *SHAPE).double(), torch.zeros(count, 0).double()


def standard_error(values):
    """The standard error of the mean of values [N]."""
    return float(values.std() / math.sqrt(len(values)))


def test_temperature_schedule_is_rescaled_sigmoid():
    rise = [1 / (1 + math.exp(-4 * s)) for s in (-1, -0.5, 0, 0.5, 1)]
    expected = [(r - rise[0]) / (rise[-1] - rise[0]) for r in rise[1:]]
    assert temperature_schedule(4) == pytest.approx(expected)
    assert temperature_schedule(1) == [1.0]


def test_ais_with_one_step_is_importance_sampling_from_prior(conditional):
    x, y = torch.rand(6, *SHAPE).double(), torch.eye(3).double().repeat(2, 1)
    torch.manual_seed(1)
    found = ais_estimates(conditional, x, y, num_chains=50, num_steps=1, leapfrog_steps=3)
    torch.manual_seed(1)
    with torch.no_grad():
        # The last sample is that of the pilot chain.
        z = conditional.latent_prior(y).sample((51,))[:-1]
        log_p = conditional.image_likelihood(z, y).log_prob(x)
    assert_close(found["nll"], -(log_p.exp().mean(0).log()))
    assert found["acceptance"].isnan().all()


def test_ais_nll_falls_to_exact_nll_with_more_steps(linear):
    x, y = make_noise_batch(30)
    exact = -log_evidence(linear, x).detach()
    gaps = []
    for steps in (1, 10, 100, 400):
        found = ais_estimates(linear, x, y, num_chains=8, num_steps=steps, leapfrog_steps=2)
        gaps.append(found["nll"] - exact)
    means = [float(gap.mean()) for gap in gaps]
    assert means == sorted(means, reverse=True)
    assert means[0] > 1
    assert abs(means[-1]) < 4 * standard_error(gaps[-1]) < 0.12
    assert ((found["acceptance"] > 0.4) & (found["acceptance"] < 0.9)).all()


def test_ais_nll_agrees_with_exact_nll_for_conditional_prior(conditional):
    x, y = torch.rand(30, *SHAPE).double(), torch.eye(3).double().repeat(10, 1)
    exact = -conditional_log_evidence(conditional, x, y).detach()
    gap = (
        ais_estimates(conditional, x, y, num_chains=16, num_steps=200, leapfrog_steps=2)["nll"]
        - exact
    )
    assert abs(gap.mean()) < 4 * standard_error(gap) < 0.15
    other = -conditional_log_evidence(conditional, x, y.roll(1, 0)).detach()
    assert (other - exact).abs().mean() > 0.5


def test_ais_mean_weight_is_the_evidence(linear, monkeypatch):
    """Even with few, inaccurate moves and step sizes that change wildly."""
    monkeypatch.setattr(annealed_module, "GAIN", 3.0)
    linear.likelihood.log_scale.data.zero_()
    count = 10_000
    x, y = make_noise_batch(1)
    found = ais_estimates(linear, x.expand(count, -1, -1, -1), y.expand(count, -1), 1, 20, 1)
    log_weights = -found["nll"] - log_evidence(linear, x).detach()
    weights = log_weights.exp()
    assert abs(weights.mean() - 1) < 4 * standard_error(weights) < 0.04
    assert log_weights.mean() < -0.1


def test_ais_splits_images_into_chunks(linear, monkeypatch):
    x, y = make_noise_batch(7)
    counts = []
    monkeypatch.setattr(annealed_module, "images_per_chunk", lambda *_: 20)
    decode = linear.image_likelihood
    monkeypatch.setattr(
        linear, "image_likelihood", lambda z, y: counts.append(z.shape) or decode(z, y)
    )
    found = ais_estimates(linear, x, y, num_chains=5, num_steps=100, leapfrog_steps=1)
    assert [c[:2] for c in counts] == [(6, 3)] * 100 + [(6, 3)] * 100 + [(6, 1)] * 100
    assert_close(found["nll"], -log_evidence(linear, x).detach(), atol=1.0, rtol=0)


def test_ais_acceptance_excludes_pilot_chain(linear):
    found = ais_estimates(
        linear, *make_noise_batch(50), num_chains=1, num_steps=2, leapfrog_steps=1
    )
    assert found["acceptance"].unique().tolist() == [0.0, 1.0]  # one chain, one move


def test_ais_leaves_no_gradients_in_the_model(linear):
    ais_estimates(linear, *make_noise_batch(2), num_chains=2, num_steps=3, leapfrog_steps=1)
    assert all(p.grad is None for p in linear.parameters())
    assert linear.decoder.out.weight.requires_grad


# Hamiltonian moves: at temperature 1/2 the target is N(4/3, 1/3) in each latent


def densities(z):
    """Log-densities of z [C, B, D], [C, B] each: a prior N(0, 1), a likelihood N(2, 1/4)."""
    return Normal(0, 1).log_prob(z).sum(-1), Normal(2, 0.5).log_prob(z).sum(-1)


TEMPERATURE, MEAN, VARIANCE = 0.5, 4 / 3, 1 / 3


def draw_target_state(count):
    """Draws the state of chains, for 2 images and 3 latents, from the target."""
    z = MEAN + math.sqrt(VARIANCE) * torch.randn(count, 2, 3).double()
    return ChainState.evaluate(z, densities)


def test_chain_state_log_target_and_slope():
    state = draw_target_state(5)
    assert_close(
        state.log_target(TEMPERATURE), densities(state.z)[0] + TEMPERATURE * densities(state.z)[1]
    )
    assert_close(state.slope(TEMPERATURE), -(state.z - MEAN) / VARIANCE)
    assert not state.slope(TEMPERATURE).requires_grad


@pytest.mark.parametrize("size", [0.3, 0.9])
def test_move_chains_keeps_target_distribution(size):
    """The moments of 40,000 chains that start from the target; large steps need rejections."""
    state, rejected = draw_target_state(40_000), 0.0
    sizes = torch.tensor([size, size / 2]).double()
    start = state.z
    for _ in range(10):
        state, probability, accepted = move_chains(
            state, densities, TEMPERATURE, sizes, leapfrog_steps=2
        )
        rejected += 1 - accepted[:, 0].double().mean().item()
    assert size < 0.5 or rejected > 1
    assert_close(probability.mean(), accepted.double().mean(), atol=0.01, rtol=0)
    error = 5 / math.sqrt(40_000)
    z = (state.z - MEAN) / math.sqrt(VARIANCE)
    assert z.mean(0).abs().max() < error
    assert (z.square().mean(0) - 1).abs().max() < math.sqrt(2) * error
    before = (start - MEAN) / math.sqrt(VARIANCE)
    assert (z * before).mean(0).abs().max() < 0.9  # the chains have moved
    assert_close(state.log_likelihood, densities(state.z)[1])
    assert_close(state.prior_slope, -state.z)


def test_move_chains_converges_to_target_distribution():
    state = ChainState.evaluate(torch.full((5_000, 2, 3), -3.0).double(), densities)
    for _ in range(60):
        state = move_chains(
            state, densities, TEMPERATURE, torch.full((2,), 0.5).double(), leapfrog_steps=2
        )[0]
    assert_close(state.z.mean().item(), MEAN, atol=0.03, rtol=0)
    assert_close(state.z.var().item(), VARIANCE, atol=0.03, rtol=0)


def test_integrate_leapfrog_is_reversible_and_second_order():
    """Half the step size has a quarter of the energy error."""
    state = draw_target_state(10)
    momentum = torch.randn_like(state.z)

    def energy(at, momentum):
        return 0.5 * momentum.square().sum(-1) - at.log_target(TEMPERATURE)

    gains = []
    for size, steps in ((0.2, 5), (0.1, 10)):
        sizes = torch.full((2,), size).double()
        end, last = integrate_leapfrog(state, momentum, densities, TEMPERATURE, sizes, steps)
        back, reversed_ = integrate_leapfrog(end, -last, densities, TEMPERATURE, sizes, steps)
        assert (end.z - state.z).abs().max() > 0.5
        assert_close(back.z, state.z)
        assert_close(reversed_, -momentum)
        gains.append((energy(end, last) - energy(state, momentum)).abs().mean())
    assert gains[0] < 0.5
    assert gains[1] / gains[0] == pytest.approx(1 / 4, rel=0.3)


def test_move_chains_rejects_diverging_trajectories():
    def steep(z):
        return -0.5 * z.square().sum(-1), -1e6 * z.pow(4).sum(-1)

    state = ChainState.evaluate(torch.ones(4, 2, 3), steep)
    sizes = torch.tensor([1e-5, 10.0])
    after, probability, accepted = move_chains(state, steep, 1.0, sizes, leapfrog_steps=5)
    assert after.z.isfinite().all()
    assert torch.equal(after.z[:, 1], state.z[:, 1])
    assert torch.equal(probability[:, 1], torch.zeros(4))
    assert accepted[:, 0].all()
    assert not accepted[:, 1].any()
