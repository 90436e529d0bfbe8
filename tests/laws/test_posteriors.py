"""Posteriors, against torch distributions, autograd Jacobians and numerical integrals.

Also every combination of model, prior and posterior.
"""

import math

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from vaelab.metrics.evidence import evidence_estimates
from vaelab.posteriors import FullGaussian, Gaussian, InverseAutoregressiveFlow, SplineFlow
from vaelab.priors import ConditionalNormal, StandardNormal
from vaelab.training.checkpoint_format import check_architecture

FEATURES = 5
FLOW_SETTINGS = {"transforms": 3, "hidden": [8], "context": 4}
FLOWS = {
    "iaf": lambda latents: InverseAutoregressiveFlow(FEATURES, latents, **FLOW_SETTINGS),
    "spline": lambda latents: SplineFlow(FEATURES, latents, bins=6, **FLOW_SETTINGS),
}
POSTERIORS = FLOWS | {
    "gaussian": lambda latents: Gaussian(FEATURES, latents),
    "full_gaussian": lambda latents: FullGaussian(FEATURES, latents),
}


def build_perturbed_posterior(name, latents):
    """Returns a new posterior with noise added to its initial weights."""
    posterior = POSTERIORS[name](latents)
    with torch.no_grad():
        for parameter in posterior.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return posterior


@pytest.mark.parametrize("latents", [1, 2])
@pytest.mark.parametrize("name", POSTERIORS)
def test_posterior_density_integrates_to_one(name, latents):
    q = build_perturbed_posterior(name, latents)(torch.randn(2, FEATURES))
    line = torch.linspace(-9, 9, 451)  # standard deviations
    grid = torch.cartesian_prod(*[line] * latents).view(-1, 1, latents)
    with torch.no_grad():
        density = q.log_prob(q.mean + q.stddev * grid).double().exp()
        mass = density.sum(0) * (q.stddev * (line[1] - line[0])).prod(1)
    assert mass.tolist() == pytest.approx([1, 1], abs=2e-3)


@pytest.mark.parametrize("latents", [1, 4])
@pytest.mark.parametrize("name", FLOWS)
def test_flow_log_prob_agrees_with_autograd_jacobian(name, latents):
    q = build_perturbed_posterior(name, latents).double()(torch.randn(3, FEATURES).double())
    noise = torch.randn(3, latents).double()
    z = q.transform_noise(noise)
    by_autograd = torch.autograd.functional.jacobian(q.transform, noise)
    jacobians = torch.stack([by_autograd[i, :, i] for i in range(3)])
    expected = Normal(0.0, 1.0).log_prob(noise).sum(1) - jacobians.det().abs().log()
    assert_close(q.log_prob(z), expected)  # the log-density kept from drawing z
    assert_close(q.log_prob(z.clone()), expected)  # by the inverse of the flow


@pytest.mark.parametrize("name", FLOWS)
def test_flow_log_prob_of_last_sample_skips_the_inverse(name, monkeypatch):
    q = build_perturbed_posterior(name, 4)(torch.randn(3, FEATURES))
    z = q.rsample((2,))
    found = q.log_prob(z)
    monkeypatch.setattr(type(q.transform), "inv", None)
    assert torch.equal(q.log_prob(z), found)
    with pytest.raises(AttributeError):
        q.log_prob(z.clone())


@pytest.mark.parametrize("name", FLOWS)
def test_flow_log_prob_has_gradients_for_sample_without_gradients(name):
    posterior = build_perturbed_posterior(name, 4)
    q = posterior(torch.randn(3, FEATURES))
    z = q.sample()
    q.log_prob(z).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in posterior.parameters())


@pytest.mark.parametrize("name", FLOWS)
def test_flow_cached_and_inverted_log_prob_have_equal_gradients(name):
    posterior = build_perturbed_posterior(name, 4).double()
    h = torch.randn(3, FEATURES).double()
    gradients = []
    for copied in (False, True):
        torch.manual_seed(1)
        q = posterior(h)
        z = q.rsample((2,))
        value = q.log_prob(z * 1 if copied else z).sum()
        gradients.append(torch.autograd.grad(value, [*posterior.parameters()]))
    assert_close(*gradients)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_posterior_starts_near_gaussian(name):
    posterior = POSTERIORS[name](4)
    h = torch.randn(3, FEATURES)
    mean, log_scale, _ = posterior.params(h).split([4, 4, 4], 1)
    expected = Independent(Normal(mean, log_scale.exp()), 1)
    q = posterior(h)
    z = expected.sample((50,))
    assert_close(q.log_prob(z), expected.log_prob(z), atol=0.2, rtol=0)
    assert_close(q.mean, expected.mean, atol=0.05, rtol=0)
    assert_close(q.stddev, expected.stddev, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", POSTERIORS)
def test_posterior_samples_have_its_mean_and_stddev(name):
    q = build_perturbed_posterior(name, 3)(torch.randn(2, FEATURES))
    z = q.sample((40_000,))
    tolerance = 0.15 if name in FLOWS else 0.03  # a flow estimates its moments from 64 fixed draws
    assert ((q.mean - z.mean(0)).abs() < tolerance * q.stddev).all()
    assert_close(q.stddev, z.std(0), atol=0, rtol=tolerance)


@pytest.mark.parametrize("name", FLOWS)
def test_flow_sample_second_moments_agree_with_density(name):
    """The expected moments are integrals of the density over a grid."""
    q = build_perturbed_posterior(name, 2)(torch.randn(1, FEATURES))
    line = torch.linspace(-9, 9, 451)
    grid = torch.cartesian_prod(line, line)
    with torch.no_grad():
        density = q.log_prob((q.mean + q.stddev * grid)[:, None]).double().exp()
        mass = density * (q.stddev * (line[1] - line[0])).prod()
        z = (q.sample((100_000,))[:, 0] - q.mean) / q.stddev
    moments = (grid.double().T * mass[:, 0]) @ grid.double()
    assert_close(moments, (z.T @ z / len(z)).double(), atol=0.05, rtol=0.05)


# FullGaussian


def test_full_gaussian_agrees_with_torch_multivariate_normal():
    posterior = build_perturbed_posterior("full_gaussian", 4)
    h = torch.randn(3, FEATURES)
    q = posterior(h)
    mean, log_diagonal, below = posterior.params(h).split([4, 4, 6], 1)
    cholesky = torch.zeros(3, 4, 4)
    rows = [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]
    for i, (row, column) in enumerate(rows):
        cholesky[:, row, column] = below[:, i]
    for i in range(4):
        cholesky[:, i, i] = log_diagonal[:, i].exp()
    expected = MultivariateNormal(mean, cholesky @ cholesky.mT)
    z = q.rsample((7,))
    assert_close(q.log_prob(z), expected.log_prob(z), atol=1e-4, rtol=1e-4)
    assert_close(q.stddev, expected.stddev)
    assert q.expand((2, 3)).rsample((5,)).shape == (5, 2, 3, 4)


def test_full_gaussian_with_diagonal_covariance_equals_gaussian():
    posterior = build_perturbed_posterior("full_gaussian", 4)
    with torch.no_grad():
        posterior.params.weight[8:] = 0
        posterior.params.bias[8:] = 0
    simple = Gaussian(FEATURES, 4)
    simple.params.weight.data = posterior.params.weight.data[:8]
    simple.params.bias.data = posterior.params.bias.data[:8]
    h, z = torch.randn(3, FEATURES), torch.randn(5, 3, 4)
    assert_close(posterior(h).log_prob(z), simple(h).log_prob(z))
    p = StandardNormal(4, 0)(h[:, :0])
    assert_close(kl_divergence(posterior(h), p), kl_divergence(simple(h), p.expand([3])))


@pytest.mark.parametrize("prior", [StandardNormal, ConditionalNormal])
def test_full_gaussian_kl_agrees_with_torch_and_samples(prior):
    posterior, prior = build_perturbed_posterior("full_gaussian", 4), prior(4, 3)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_()
        q, p = posterior(torch.randn(3, FEATURES)), prior(torch.eye(3))
        found = kl_divergence(q, p)
        mean, scale = (t.expand(3, 4) for t in (p.mean, p.stddev))
        exact = kl_divergence(
            MultivariateNormal(q.loc, scale_tril=q.scale_tril),
            MultivariateNormal(mean, scale_tril=scale.diag_embed()),
        )
        assert_close(found, exact)
        z = q.sample((20_000,))
        ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - found).abs() < 5 * error).all()


# Every combination of model, prior and posterior

SHAPE, CLASSES, LATENTS = (1, 8, 8), 3, 3
SMALL_SETTINGS = {
    "prior=mixture": "model.prior.components=4",
    "prior=vamp": "model.prior.components=6",
    "prior=flow": "model.prior.transforms=2 model.prior.hidden=[6]",
    "posterior=iaf": "model.posterior.transforms=2 model.posterior.hidden=[6]",
    "posterior=spline": "model.posterior.transforms=2 model.posterior.hidden=[6]",
}
PRIORS = ["standard_normal", "conditional_normal", "mixture", "vamp", "flow"]


@pytest.fixture
def build_small(build):
    """(model, prior, posterior, *overrides) -> a new small model with its initial weights."""

    def build_combination(model, prior, posterior, *overrides):
        words = [f"model={model}", f"prior={prior}", f"posterior={posterior}", *overrides]
        words += [word for key in words[1:3] for word in SMALL_SETTINGS.get(key, "").split()]
        words += [f"model.latent_dim={LATENTS}", "model.encoder.hidden=[10]"]
        return build(*words, "model.decoder.hidden=[10]", x_shape=SHAPE, num_classes=CLASSES)

    return build_combination


def make_batch(count=6):
    """Draws binary images [B, 1, 8, 8], and one-hot labels [B, 3]."""
    return torch.rand(count, *SHAPE).round(), torch.eye(CLASSES)[torch.arange(count) % CLASSES]


COMBINATIONS = [
    (model, prior, posterior)
    for model in ("vae", "beta_vae", "cvae")
    for prior in PRIORS
    for posterior in POSTERIORS
    if model == "cvae" or prior != "conditional_normal"
]


@pytest.mark.parametrize(("model", "prior", "posterior"), COMBINATIONS)
def test_every_combination_trains_bounds_evidence_and_reloads(build_small, model, prior, posterior):
    """Checks gradients, the order of both bounds, the reloaded weights and shapes of the output."""
    built = build_small(model, prior, posterior, "model.num_samples=2")
    x, y = make_batch()
    loss, _, _ = built.loss(x, y)
    loss.backward()
    for name, parameter in built.named_parameters():
        if parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
    with torch.no_grad():
        for parameter in built.parameters():
            parameter -= 0.1 * parameter.grad / parameter.grad.norm()

    terms = built.terms(x, y, 3)
    assert terms.rate_per_latent.shape[1] in (1, LATENTS)
    assert {terms.elbo.shape, terms.log_weights.shape} == {(6,), (3, 6)}
    torch.manual_seed(1)
    bounds = evidence_estimates(built, x, y, 400)
    slack = 3 * built.terms(x, y, 400).log_weights.std() / 20
    assert (-bounds["nll"].mean() > bounds["elbo"].mean() - slack).all()

    fresh = build_small(model, prior, posterior)
    built.eval(), fresh.eval()
    built_state = {name: value.clone() for name, value in built.state_dict().items()}
    assert built_state.keys() == {name for name, _ in built.named_parameters()}
    check_architecture(fresh.state_dict(), built_state)
    fresh.load_state_dict(built_state)
    z = torch.randn(6, LATENTS)
    with torch.no_grad():
        assert torch.equal(fresh.latent_prior(y).log_prob(z), built.latent_prior(y).log_prob(z))
        assert torch.equal(
            fresh.latent_posterior(x, y).log_prob(z), built.latent_posterior(x, y).log_prob(z)
        )
        assert fresh.mean_reconstruction(x, y).shape == fresh.sample_means(y).shape == x.shape
        p = fresh.latent_prior(y).expand([6])
        assert (
            p.mean.shape == p.stddev.shape == fresh.latent_posterior(x, y).stddev.shape == z.shape
        )


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_prior_and_posterior_densities_are_unchanged_by_autocast(build_small, prior, posterior):
    """Bit for bit, given parameters that were computed without autocast."""
    model = build_small("cvae", prior, posterior)
    x, y = make_batch()
    q = model.latent_posterior(x, y)
    z = q.rsample((2,)).detach()
    p = build_small(
        "cvae", "standard_normal" if prior == "vamp" else prior, posterior
    ).latent_prior(y)
    full = [q.log_prob(z), p.log_prob(z)]
    torch.manual_seed(1)
    drawn = q.rsample((2,))
    with torch.autocast("cpu", torch.bfloat16):
        assert_close([q.log_prob(z), p.log_prob(z)], full, atol=0, rtol=0)
        torch.manual_seed(1)
        assert torch.equal(q.rsample((2,)), drawn)
        terms = model.terms(x, y)
        assert {terms.elbo.dtype, terms.log_weights.dtype} == {torch.float32}


@pytest.mark.parametrize("posterior", POSTERIORS)
def test_draw_in_two_processes_equals_draw_in_one(build_small, posterior, monkeypatch):
    model = build_small("vae", "standard_normal", posterior)
    x, y = make_batch()
    torch.manual_seed(1)
    q = model.latent_posterior(x, y)
    whole = model.draw(q, 2)
    density = q.log_prob(whole)
    for rank in (0, 1):
        share = slice(3 * rank, 3 * rank + 3)
        monkeypatch.setattr("vaelab.distributed.rank_and_world_size", lambda rank=rank: (rank, 2))
        torch.manual_seed(1)
        q = model.latent_posterior(x[share], y[share])
        z = model.draw(q, 2)
        assert_close(z, whole[:, share])
        assert_close(q.log_prob(z), density[:, share])
