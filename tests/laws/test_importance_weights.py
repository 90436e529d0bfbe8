"""IWAE, MIWAE, PIWAE and CIWAE: bounds and gradients, against loops, autograd and formulas.

A linear-Gaussian model gives the exact log evidence and the exact posterior.
"""

import math

import pytest
import torch
from hydra.errors import InstantiationException
from support.linear_gaussian import (
    log_evidence,
    make_exact,
    principal_components,
)
from support.models import CLASSES, LATENTS, NETWORKS, SHAPE, batch
from torch.testing import assert_close

from vaelab.errors import UserError
from vaelab.models import CIWAE, IWAE, MIWAE, PIWAE

K, GROUPS, BETA = 6, 2, 0.25  # BETA is exact in float32
SETTINGS = {
    "iwae": [],
    "miwae": [f"model.groups={GROUPS}"],
    "piwae": [f"model.groups={GROUPS}"],
    "ciwae": [f"model.beta={BETA}"],
}
MODEL_CLASSES = {"iwae": IWAE, "miwae": MIWAE, "piwae": PIWAE, "ciwae": CIWAE}


@pytest.fixture
def build_randomized(build):
    """(name, *overrides) -> a small float64 model with noise added to all weights."""

    def build_model(name, *overrides):
        small = [f"model.latent_dim={LATENTS}", *NETWORKS["mlp"].split()]
        samples = [f"model.num_samples={K}", *SETTINGS[name]]
        words = [f"model={name}", *small, *samples, *overrides]
        model = build(*words, x_shape=SHAPE, num_classes=CLASSES).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        return model

    return build_model


def make_batch(model):
    """Draws a batch for the model in float64: images [B, 1, 8, 8], one-hot labels [B, Y]."""
    x, y = batch(model)
    return x.double(), y.double()


def bound_by_loops(name, log_weights):
    """The bound [B] of log-weights [K, B], by loops over images and samples."""
    found = []
    for column in log_weights.T.tolist():
        weights = [math.exp(value - max(column)) for value in column]
        iwae = math.log(sum(weights) / K) + max(column)
        if name in ("iwae", "piwae"):
            found.append(iwae)
        if name == "ciwae":
            found.append(BETA * sum(column) / K + (1 - BETA) * iwae)
        if name == "miwae":  # sample k is of group k mod M
            parts = [weights[m::GROUPS] for m in range(GROUPS)]
            logs = [math.log(sum(part) * GROUPS / K) + max(column) for part in parts]
            found.append(sum(logs) / GROUPS)
    return torch.tensor(found, dtype=torch.float64)


def bound(name, log_weights):
    """The bound [B] of log-weights [K, B] at most 0, with gradients; for PIWAE that of IWAE."""
    if name == "miwae":
        parts = [log_weights[m::GROUPS] for m in range(GROUPS)]
        return sum(part.exp().mean(0).log() for part in parts) / GROUPS
    iwae = log_weights.exp().mean(0).log()
    return BETA * log_weights.mean(0) + (1 - BETA) * iwae if name == "ciwae" else iwae


def max_log_weight(log_weights):
    """The largest log-weight [], detached. Subtracting it keeps `exp` in range."""
    return log_weights.detach().amax()


def gradients(model, loss):
    """The gradients of a loss [] by parameter name; keeps the graph."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(learned.values()), retain_graph=True)
    return dict(zip(learned, found, strict=True))


def is_encoder_parameter(name):
    """True for the parameters of encoder and posterior."""
    return name.startswith(("encoder", "posterior"))


@pytest.mark.parametrize("gradient", ["standard", "dreg"])
@pytest.mark.parametrize("name", SETTINGS)
def test_objective_is_negative_mean_bound(build_randomized, name, gradient):
    model = build_randomized(name, f"model.gradient={gradient}")
    terms = model.terms(*make_batch(model))
    weights = terms.log_likelihood + terms.prior.log_prob(terms.z) - terms.q.log_prob(terms.z)
    expected = bound_by_loops(name, weights)
    assert_close(model.objective(terms), -expected.mean(), atol=1e-10, rtol=0)
    with torch.no_grad():
        assert_close(model.objective(terms), -expected.mean(), atol=1e-10, rtol=0)
    reported = model.extra_metrics(terms)["importance_weighted_elbo"]
    assert_close(reported, bound_by_loops("iwae", weights), atol=1e-10, rtol=0)
    assert (reported >= weights.mean(0)).all()


@pytest.mark.parametrize("posterior", ["gaussian", "full_gaussian", "iaf", "spline"])
@pytest.mark.parametrize("name", ["iwae", "miwae", "ciwae"])
def test_standard_gradient_is_gradient_of_the_bound(build_randomized, name, posterior):
    model = build_randomized(name, f"posterior={posterior}")
    terms = model.terms(*make_batch(model))
    found = gradients(model, model.objective(terms))
    expected = gradients(
        model, -bound(name, terms.log_weights - max_log_weight(terms.log_weights)).mean()
    )
    for parameter in expected:
        assert_close(found[parameter], expected[parameter], atol=1e-9, rtol=1e-9)
        assert expected[parameter].any()


@pytest.mark.parametrize("posterior", ["gaussian", "full_gaussian", "iaf", "spline"])
@pytest.mark.parametrize("prior", ["standard_normal", "mixture", "flow"])
def test_piwae_gradient_is_iwae_for_decoder_and_miwae_for_encoder(
    build_randomized, posterior, prior
):
    model = build_randomized("piwae", f"posterior={posterior}", f"prior={prior}")
    terms = model.terms(*make_batch(model))
    found = gradients(model, model.objective(terms))
    weights = terms.log_weights - max_log_weight(terms.log_weights)
    of = {name: gradients(model, -bound(name, weights).mean()) for name in ("iwae", "miwae")}
    for parameter in found:
        own, other = ("miwae", "iwae") if is_encoder_parameter(parameter) else ("iwae", "miwae")
        assert_close(found[parameter], of[own][parameter], atol=1e-9, rtol=1e-9)
        assert not torch.allclose(found[parameter], of[other][parameter], rtol=1e-3)


def dreg_weights(name, log_weights):
    """The factors [K, B] of the samples' path derivatives in DReG, of log-weights [K, B]."""
    weights = (log_weights - max_log_weight(log_weights)).exp()
    if name in ("miwae", "piwae"):
        sums = torch.stack([weights[m::GROUPS].sum(0) for m in range(GROUPS)])
        return (weights / sums.repeat(K // GROUPS, 1)).square() / GROUPS
    squares = (weights / weights.sum(0)).square()
    return BETA / K + (1 - BETA) * squares if name == "ciwae" else squares


@pytest.mark.parametrize("posterior", ["gaussian", "full_gaussian"])
@pytest.mark.parametrize("name", SETTINGS)
def test_dreg_gradient_agrees_with_published_formula(build_randomized, name, posterior):
    """Tucker et al. (2019), arXiv:1810.04152: sum_k c_k (d log w_k / d z_k) (d z_k / d phi).

    The first derivative is taken at a detached copy of z.
    """
    model = build_randomized(name, "model.gradient=dreg", f"posterior={posterior}", "prior=mixture")
    x, y = make_batch(model)
    terms = model.terms(x, y)
    found = gradients(model, model.objective(terms))

    leaf = terms.z.detach().requires_grad_()
    log_joint = model.image_likelihood(leaf, y).log_prob(x) + model.latent_prior(y).log_prob(leaf)
    weights = log_joint - model.latent_posterior(x, y).log_prob(leaf)
    (slopes,) = torch.autograd.grad(weights.sum(), leaf, retain_graph=True)
    counts = dreg_weights(name, weights.detach()).unsqueeze(-1)
    surrogate = -(counts * slopes * terms.z).sum((0, 2)).mean()
    encoder = [p for n, p in model.named_parameters() if is_encoder_parameter(n)]
    expected = torch.autograd.grad(surrogate, encoder)
    names = [n for n, _ in model.named_parameters() if is_encoder_parameter(n)]
    for parameter, value in zip(names, expected, strict=True):
        assert_close(found[parameter], value, atol=1e-9, rtol=1e-9)

    decoder = {n: p for n, p in model.named_parameters() if not is_encoder_parameter(n)}
    loss = -bound(name, weights - max_log_weight(weights)).mean()
    for parameter, value in zip(decoder, torch.autograd.grad(loss, decoder.values()), strict=True):
        assert_close(found[parameter], value, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("posterior", ["iaf", "spline"])
def test_dreg_refuses_flow_posteriors(build_randomized, posterior):
    model = build_randomized("iwae", "model.gradient=dreg", f"posterior={posterior}")
    with pytest.raises(UserError, match=r"model.gradient=dreg needs posterior=gaussian"):
        model.loss(*make_batch(model))


def test_miwae_refuses_groups_that_do_not_divide_num_samples(build):
    with pytest.raises(InstantiationException) as error:
        build("model=miwae", "model.num_samples=6", "model.groups=4")
    assert isinstance(error.value.__cause__, UserError)
    assert "model.groups=4 does not divide model.num_samples=6" in str(error.value.__cause__)


# A linear-Gaussian model, whose evidence is known


def build_linear_gaussian(name, **settings):
    """Returns a new linear-Gaussian model with the exact posterior, of the class `name`."""
    groups = {"groups": GROUPS} if name in ("miwae", "piwae") else {}
    beta = {"beta": BETA} if name == "ciwae" else {}
    options = {"gradient": "standard", "num_samples": K} | groups | beta | settings
    model = principal_components(MODEL_CLASSES[name], **options)
    make_exact(model)
    return model


def perturb_posterior(model):
    """Shifts and widens the exact posterior, in place."""
    with torch.no_grad():
        model.posterior.params.bias[LATENTS:] += 0.3
        model.posterior.params.bias[:LATENTS] += 0.05


@pytest.mark.parametrize("gradient", ["standard", "dreg"])
def test_iwae_bound_rises_with_samples_to_log_evidence(gradient):
    x, y = torch.rand(20, *SHAPE).double(), torch.zeros(20, 0).double()
    losses = []
    for samples in (1, 10, 100, 4_000):
        torch.manual_seed(0)
        model = build_linear_gaussian("iwae", num_samples=samples, gradient=gradient)
        perturb_posterior(model)
        losses.append(torch.stack([model.loss(x, y)[0] for _ in range(4_000 // samples)]).mean())
    expected = -log_evidence(model, x).mean()
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[1] > 0.1
    assert_close(losses[-1], expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", SETTINGS)
def test_dreg_gradient_is_zero_at_exact_posterior(name):
    """All weights equal the evidence there. The standard gradient of IWAE is still noisy."""
    model = build_linear_gaussian(name, gradient="dreg")
    model.loss(torch.rand(5, *SHAPE).double(), torch.zeros(5, 0).double())[0].backward()
    for parameter in model.posterior.parameters():
        assert parameter.grad.abs().max() < 1e-9
    noisy = build_linear_gaussian("iwae")
    noisy.loss(torch.rand(5, *SHAPE).double(), torch.zeros(5, 0).double())[0].backward()
    assert max(parameter.grad.abs().max() for parameter in noisy.posterior.parameters()) > 0.01


@pytest.mark.parametrize("name", SETTINGS)
def test_dreg_has_mean_of_standard_gradient_and_less_variance(name):
    count, repeats = 50, 200
    model = build_linear_gaussian(name)
    perturb_posterior(model)
    x = torch.rand(1, *SHAPE).double().expand(repeats, *SHAPE)
    y = torch.zeros(repeats, 0).double()
    found = {}
    for gradient in ("standard", "dreg"):
        model.gradient = gradient
        draws = []
        for _ in range(count):
            of = gradients(model, model.objective(model.terms(x, y)))
            draws.append(torch.cat([of[n].flatten() for n in of if is_encoder_parameter(n)]))
        found[gradient] = torch.stack(draws)
    mean = {kind: draws.mean(0) for kind, draws in found.items()}
    variance = {kind: draws.var(0) for kind, draws in found.items()}
    error = ((variance["standard"] + variance["dreg"]) / count).sqrt()
    distance = (mean["standard"] - mean["dreg"]) / error
    # Few entries are independent, as those of a row of weights share their noise.
    assert distance.abs().max() < 5
    assert mean["dreg"].norm() > 10 * (variance["dreg"] / count).sum().sqrt()
    assert variance["dreg"].sum() < 0.7 * variance["standard"].sum()
