"""The bound is the bound: against torch.distributions, exact evidences and its own limits."""

import math
from types import SimpleNamespace

import pytest
import torch
from hydra.errors import InstantiationException
from support.linear_gaussian import log_evidence, make_exact
from support.models import (
    CLASSES,
    LATENTS,
    NETWORKS,
    SHAPE,
    assert_gradients_are_differences,
    batch,
)
from torch import nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.testing import assert_close

from vaelab.errors import UserError
from vaelab.networks import ModulatedLayers, Modulation
from vaelab.priors import ConditionalNormal
from vaelab.terms import Terms

SMALL = f"model.latent_dim={LATENTS}"
MODELS = {
    "vae": "model=vae",
    "beta_vae": "model=beta_vae",
    "cvae": "model=cvae",
    "cvae with p(z|y)": "model=cvae prior=conditional_normal",
}
FIXED = 0.3
LIKELIHOODS = {
    "bernoulli": "likelihood=bernoulli",
    "gaussian": "likelihood=gaussian",
    "fixed gaussian": f"likelihood=gaussian model.likelihood.scale={FIXED}",
}


@pytest.fixture
def small(build):
    """(*overrides) -> a small model, none of whose weights is at a special value."""

    def build_small(*overrides, network="mlp"):
        words = " ".join([SMALL, NETWORKS[network], *overrides]).split()
        model = build(*words, x_shape=SHAPE, num_classes=CLASSES)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn_like(parameter)
        return model

    return build_small


def elbo_by_hand(model, x, y, z, scale):
    """The estimate of the bound from the same z, by full covariances and a loop over samples."""
    context = y if model.context_dim else y[:, :0]
    mean, log_scale = model.posterior.params(model.encoder(x, context)).chunk(2, 1)
    q = MultivariateNormal(mean, log_scale.mul(2).exp().diag_embed())
    prior = MultivariateNormal(torch.zeros_like(mean), torch.ones_like(mean).diag_embed())
    if isinstance(model.prior, ConditionalNormal):
        mean, log_scale = model.prior.params.weight.T[y.argmax(1)].chunk(2, 1)
        prior = MultivariateNormal(mean, log_scale.mul(2).exp().diag_embed())
    log_likelihoods = []
    for sample in z:
        params = model.decoder(sample, context)
        p = Bernoulli(logits=params) if scale is None else Normal(params + 0.5, scale)
        log_likelihoods.append(p.log_prob(x).sum((1, 2, 3)))
    return torch.stack(log_likelihoods).mean(0) - kl_divergence(q, prior)


@pytest.mark.parametrize(("kind", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("model", ["vae", "cvae", "cvae with p(z|y)"])
def test_loss_is_minus_the_elbo(small, model, likelihood, samples, kind, tolerance):
    model = small(MODELS[model], LIKELIHOODS[likelihood], f"model.num_samples={samples}").to(kind)
    x, y = (t.to(kind) for t in batch(model))
    torch.manual_seed(1)
    loss, _, _ = model.loss(x, y)
    torch.manual_seed(1)
    terms = model.terms(x, y)
    assert terms.z.shape == (samples, len(x), LATENTS)
    scale = {"bernoulli": None, "fixed gaussian": FIXED}.get(likelihood)
    if likelihood == "gaussian":
        scale = model.likelihood.log_scale.exp()
    if likelihood == "fixed gaussian" and kind == torch.float64:
        scale = model.likelihood.log_scale.exp()  # 0.3 rounded to float32
    expected = elbo_by_hand(model, x, y, terms.z, scale)
    assert_close(terms.elbo, expected, atol=tolerance, rtol=0)
    assert_close(loss, -expected.mean(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_beta_weighs_the_rate_and_not_the_elbo(small, beta):
    model = small("model=beta_vae", f"model.beta={beta}")
    x, y = batch(model)
    torch.manual_seed(1)
    loss, *parts = model.loss(x, y)
    torch.manual_seed(1)
    terms = model.terms(x, y)
    assert_close(loss, (terms.distortion + beta * terms.rate).mean())
    assert_close(terms.elbo, -(terms.distortion + terms.rate))
    assert_close(parts, [terms.distortion.detach(), terms.rate.detach()])
    assert not any(part.requires_grad for part in parts)


def test_signs(small):
    model = small()
    terms = model.terms(*batch(model))
    assert (terms.rate > 0).all()
    assert (terms.distortion > 0).all()
    assert (terms.elbo < 0).all()


@pytest.mark.parametrize("model", ["vae", "cvae with p(z|y)"])
def test_closed_form_of_the_rate_agrees_with_samples(small, model):
    model = small(MODELS[model])
    x, y = batch(model, count=5)
    with torch.no_grad():
        terms = model.terms(x, y, num_samples=20_000)
        ratio = terms.q.log_prob(terms.z) - terms.prior.log_prob(terms.z)
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - terms.rate).abs() < 5 * error).all()
    assert (error < 0.05 * terms.rate).all()


@pytest.mark.parametrize("model", ["vae", "cvae with p(z|y)"])
def test_rate_is_the_sum_over_latents(small, model):
    model = small(MODELS[model])
    terms = model.terms(*batch(model))
    assert terms.rate_per_latent.shape == (10, LATENTS)
    assert_close(terms.rate_per_latent.sum(1), terms.rate)
    assert_close(terms.rate, kl_divergence(terms.q, terms.prior.expand([10])))


def test_rate_without_a_closed_form_is_estimated_from_the_samples(small):
    model = small()
    terms = model.terms(*batch(model), num_samples=3)
    pair = Independent(Normal(torch.tensor([[-1.0], [1.0]]).expand(2, LATENTS), 1.0), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), pair)
    estimated = Terms(terms.x, terms.q, mixture, terms.z, terms.p)
    ratio = terms.q.log_prob(terms.z) - mixture.log_prob(terms.z)
    assert estimated.rate_per_latent.shape == (10, 1)
    assert_close(estimated.rate, ratio.mean(0))
    assert_close(estimated.elbo, estimated.log_weights.mean(0))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_tiled_image_has_its_distortion_as_often(small, likelihood):
    model = small("model=beta_vae model.beta=2", LIKELIHOODS[likelihood])
    x, y = batch(model)
    terms = model.terms(x, y)
    params = model.decoder(terms.z[0], model.context(y))[None]
    p = model.likelihood(params.tile(2, 2))
    tiled = Terms(x.tile(2, 2), terms.q, terms.prior, terms.z, p)
    assert_close(tiled.distortion, 4 * terms.distortion)
    assert_close(model.objective(tiled), (4 * terms.distortion + 2 * terms.rate).mean())


def test_loss_is_a_mean_over_images_and_samples(small):
    model = small()
    x, y = batch(model)
    terms = model.terms(x, y, num_samples=2)
    twice = Terms(
        x.repeat(2, 1, 1, 1),
        Independent(Normal(*(t.repeat(2, 1) for t in (terms.q.mean, terms.q.stddev))), 1),
        terms.prior,
        terms.z.repeat(1, 2, 1),
        model.decode(terms.z.repeat(1, 2, 1), y.repeat(2, 1)),
    )
    assert_close(model.objective(twice), model.objective(terms))
    assert_close(terms.distortion, -terms.p.log_prob(x).sum(0) / 2)


def test_decoding_keeps_the_leading_dimensions(small):
    model = small("model=cvae")
    y = batch(model)[1]
    z = torch.randn(2, 3, len(y), LATENTS)
    p = model.decode(z, y)
    assert p.batch_shape == (2, 3, len(y))
    assert p.event_shape == SHAPE
    assert_close(p.mean[1, 2], model.decode(z[1, 2], y).mean)


@pytest.mark.parametrize("model", MODELS)
def test_reconstructions_and_samples_are_images(small, model):
    model = small(MODELS[model])
    x, y = batch(model)
    assert model(x, y).shape == x.shape
    first = model.sample(y)
    assert first.shape == x.shape
    assert not torch.equal(first, model.sample(y))
    assert not torch.equal(first[0], first[CLASSES])  # the same label, another z


# Importance weights and exact evidences.


def nll(terms, samples):
    """-log of the mean of K weights, averaged over images and disjoint groups of samples."""
    groups = terms.log_weights.unflatten(0, (-1, samples))
    return -(groups.logsumexp(1) - math.log(samples)).mean()


@pytest.mark.parametrize("model", ["vae", "cvae with p(z|y)"])
def test_more_samples_tighten_the_bound(small, model):
    model = small(MODELS[model])
    x, y = batch(model, count=20)
    with torch.no_grad():
        terms = model.terms(x, y, num_samples=2_000)
    weights = terms.log_weights
    assert weights.shape == (2_000, 20)
    error = (weights + terms.rate - terms.log_likelihood).std(0) / math.sqrt(len(weights))
    assert ((weights.mean(0) - terms.elbo).abs() < 5 * error).all()
    bounds = [-terms.elbo.mean(), nll(terms, 5), nll(terms, 50), nll(terms, 500)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] - bounds[1] > 0.05


def exact_terms(model, x):
    """Terms with 2D sigma points of q for samples, for which a mean of squares is exact."""
    q = model.encode(x, x.new_zeros(len(x), 0))
    steps = math.sqrt(LATENTS) * torch.eye(LATENTS).double()
    z = q.mean + q.stddev * torch.cat([steps, -steps])[:, None]
    y = x.new_zeros(len(x), 0)
    return Terms(x, q, model.latent_prior(y), z, model.decode(z, y))


def test_elbo_of_the_exact_posterior_is_the_log_evidence(linear):
    make_exact(linear)
    x = torch.rand(6, *SHAPE).double()
    terms = exact_terms(linear, x)
    expected = log_evidence(linear, x)
    assert_close(terms.elbo, expected, atol=1e-6, rtol=0)
    assert_close(terms.log_weights, expected.expand(2 * LATENTS, -1), atol=1e-6, rtol=0)


def test_elbo_falls_short_of_the_log_evidence_by_the_posterior_gap(linear):
    make_exact(linear)
    x = torch.rand(6, *SHAPE).double()
    expected = log_evidence(linear, x)
    exact = linear.encode(x, x.new_zeros(6, 0))
    for _ in range(10):
        make_exact(linear)
        with torch.no_grad():
            for parameter in linear.posterior.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        terms = exact_terms(linear, x)
        assert (terms.elbo < expected).all()
        assert_close(terms.elbo, expected - kl_divergence(terms.q, exact))


def test_importance_weights_approach_the_log_evidence(linear):
    make_exact(linear)
    with torch.no_grad():
        linear.posterior.params.bias[LATENTS:] += 0.4
        linear.posterior.params.bias[:LATENTS] += 0.05
        x = torch.rand(20, *SHAPE).double()
        terms = linear.terms(x, x.new_zeros(20, 0), num_samples=4_000)
    evidence = log_evidence(linear, x).mean()
    bounds = [-terms.elbo.mean(), nll(terms, 5), nll(terms, 50), -evidence]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[0] - bounds[1] > 0.1
    assert_close(nll(terms, 4_000), -evidence, atol=0.02, rtol=0)


def test_the_gradient_vanishes_at_the_exact_posterior(linear):
    """The bound is tight there, so no first step of the encoder improves it."""
    make_exact(linear)
    exact_terms(linear, torch.rand(50, *SHAPE).double()).elbo.mean().backward()
    for parameter in linear.posterior.parameters():
        assert parameter.grad.abs().max() < 1e-9


# Parameters.


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("model", ["vae", "cvae with p(z|y)"])
def test_gradients_are_those_of_the_loss(small, model, likelihood):
    """Of all of it, the way through the samples too: against differences of the loss."""
    model = small(MODELS[model], LIKELIHOODS[likelihood], "model.num_samples=2").double()
    x, y = (t.double() for t in batch(model))

    def loss():
        torch.manual_seed(1)
        return model.loss(x, y)[0]

    assert_gradients_are_differences(model, loss)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("model", MODELS)
def test_gradients_reach_every_parameter(build, model, network, likelihood):
    words = " ".join([SMALL, MODELS[model], NETWORKS[network], LIKELIHOODS[likelihood]]).split()
    model = build(*words, x_shape=SHAPE, num_classes=CLASSES)  # fresh, as training finds it
    model.loss(*batch(model))[0].backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.numel():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        if name.endswith("table") and parameter.numel():
            assert parameter.grad.any(1).all(), name  # for each label
    if isinstance(model.prior, ConditionalNormal):
        assert model.prior.params.weight.grad.any(0).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("network", NETWORKS)
def test_half_precision_ends_before_the_bound(small, network, likelihood):
    model = small("model=cvae prior=conditional_normal", LIKELIHOODS[likelihood], network=network)
    x, y = batch(model)
    torch.manual_seed(1)
    full = model.terms(x, y)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.decoder(full.z[0], y).dtype == torch.bfloat16
        half = model.terms(x, y)
        loss = model.objective(half)
        assert {half.z.dtype, half.log_likelihood.dtype, half.rate.dtype} == {torch.float32}
        assert {half.elbo.dtype, half.log_weights.dtype, loss.dtype} == {torch.float32}
    assert not torch.equal(half.elbo, full.elbo)
    assert_close(half.elbo.mean(), full.elbo.mean(), rtol=0.01, atol=0)


@pytest.mark.parametrize("model", MODELS)
def test_checkpoints_hold_the_parameters_alone(small, model):
    model = small(MODELS[model])
    assert "beta" in dict(model.named_buffers())
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


# Labels.


@pytest.mark.parametrize("network", NETWORKS)
def test_an_unconditional_model_sees_no_label(small, network):
    model = small(network=network)
    x, y = batch(model)
    assert model.context(y).shape == (len(y), 0)
    q, other = model.encode(x, y), model.encode(x, y.roll(1, 0))
    assert torch.equal(q.mean, other.mean)
    assert torch.equal(q.stddev, other.stddev)
    z = torch.randn(len(y), LATENTS)
    assert torch.equal(model.decode(z, y).mean, model.decode(z, y.roll(1, 0)).mean)
    assert torch.equal(model.latent_prior(y).mean, torch.zeros(LATENTS))


def test_an_unconditional_model_is_the_same_with_and_without_labels(build):
    shapes = [
        {name: value.shape for name, value in model.state_dict().items()}
        for model in (build(num_classes=0), build(num_classes=10))
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_fresh_conditional_model_sees_the_label(build, network):
    words = ["model=cvae", SMALL, *NETWORKS[network].split()]
    model = build(*words, x_shape=SHAPE, num_classes=CLASSES)
    x, y = batch(model)
    q, other = model.encode(x, y), model.encode(x, y.roll(1, 0))
    assert (q.mean != other.mean).any(1).all()
    z = torch.randn(len(y), LATENTS)
    p, other = model.decode(z, y), model.decode(z, y.roll(1, 0))
    assert (p.mean != other.mean).flatten(1).any(1).all()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("network", NETWORKS)
def test_the_label_reaches_every_hidden_layer(small, network, part):
    """Each layer alone hears of it, when the inputs and all other layers are deaf."""
    model = small("model=cvae", network=network)
    module = getattr(model, part)
    x, y = batch(model)
    inputs = x if part == "encoder" else torch.randn(len(y), LATENTS)

    def changes():
        difference = module(inputs, y) - module(inputs, y.roll(1, 0))
        return difference.flatten(1).any(1)

    modulations = [m for m in module.modules() if isinstance(m, Modulation)]
    layers = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    assert len(modulations) == len(layers) - (part == "decoder")  # whose last gives the pixels
    with torch.no_grad():
        for stack in module.modules():
            if isinstance(stack, ModulatedLayers) and isinstance(stack.layers[0], nn.Linear):
                stack.layers[0].weight[:, -CLASSES:] = 0
        for modulation in modulations:
            modulation.table.zero_()
        assert not changes().any()
        for modulation in modulations:
            modulation.table.normal_()
            assert changes().all()
            modulation.table.zero_()


# Refusals.


def test_a_conditional_model_needs_labels(build):
    with pytest.raises(InstantiationException) as error:
        build("model=cvae", num_classes=0)
    assert isinstance(error.value.__cause__, UserError)
    assert "condition=one_hot needs labels" in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("likelihood", "pixels"),
    [("bernoulli", "grey"), ("bernoulli", "dequantized"), ("gaussian", "binary")],
)
def test_a_likelihood_refuses_pixels_it_does_not_model(build, likelihood, pixels):
    with pytest.raises(InstantiationException) as error:
        build(f"likelihood={likelihood}", f"data.pixels={pixels}")
    assert isinstance(error.value.__cause__, UserError)
    assert f"data.pixels={pixels}" in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("likelihood=bernoulli", 1.0),
        ("likelihood=gaussian", 8.0),
        ("likelihood=gaussian data.pixels=grey", None),
    ],
)
def test_bits_per_dim_are_logged_where_they_are_defined(build, overrides, expected):
    model = build(*overrides.split(), x_shape=SHAPE)
    logged = {}
    model.log_dict = lambda values, **_: logged.update(values)
    nats = 64 * math.log(2) if expected == 1.0 else 0.0
    model.log_scalars("val", {"elbo": -nats, "rate": 2.0})
    assert logged.pop("val/bits_per_dim", None) == expected
    assert logged == {"val/elbo": -nats, "val/rate": 2.0}


def test_a_checkpoint_of_another_architecture_is_refused(build):
    model, wider = build("model.latent_dim=2"), build("model.latent_dim=3")
    model.on_load_checkpoint({"state_dict": model.state_dict()})
    with pytest.raises(UserError, match="another architecture"):
        model.on_load_checkpoint({"state_dict": wider.state_dict()})
    with pytest.raises(UserError, match="absent"):
        model.on_load_checkpoint({"state_dict": {}})


def test_nothing_that_is_not_finite_reaches_a_checkpoint(small):
    model = small()
    model._trainer = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=6))
    model.window.append(torch.ones(2), torch.tensor([1.0, float("nan")]), torch.tensor(1.0))
    with pytest.raises(UserError, match="rate became nan at training step 6"):
        model.on_save_checkpoint({})


def test_validation_of_distributions_is_on():
    assert Distribution._validate_args
