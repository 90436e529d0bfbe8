"""`ELBO` and `Terms` against torch.distributions, exact evidences and finite differences.

The models are `VAE`, `BetaVAE` and conditional VAEs (CVAE). Also tests their use of labels, and
the configurations and checkpoints that they refuse.
"""

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
FIXED_SCALE = 0.3
LIKELIHOODS = {
    "bernoulli": "likelihood=bernoulli",
    "gaussian": "likelihood=gaussian",
    "fixed gaussian": f"likelihood=gaussian model.likelihood.scale={FIXED_SCALE}",
}


@pytest.fixture
def build_randomized(build):
    """(*overrides, network) -> a small model with noise added to all trained weights."""

    def build_model(*overrides, network="mlp"):
        words = " ".join([SMALL, NETWORKS[network], *overrides]).split()
        model = build(*words, x_shape=SHAPE, num_classes=CLASSES)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn_like(parameter)
        return model

    return build_model


def elbo_by_hand(model, x, y, z, scale):
    """The ELBO [B] estimated from samples z [K, B, D], by full covariances and a loop over samples.

    A scale of None means a Bernoulli likelihood.
    """
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
def test_elbo_and_loss_match_torch_distributions(
    build_randomized, model, likelihood, samples, kind, tolerance
):
    model = build_randomized(
        MODELS[model], LIKELIHOODS[likelihood], f"model.num_samples={samples}"
    ).to(kind)
    x, y = (t.to(kind) for t in batch(model))
    torch.manual_seed(1)
    loss, _, _ = model.loss(x, y)
    torch.manual_seed(1)
    terms = model.terms(x, y)
    assert terms.z.shape == (samples, len(x), LATENTS)
    scale = {"bernoulli": None, "fixed gaussian": FIXED_SCALE}.get(likelihood)
    if likelihood == "gaussian":
        scale = model.likelihood.log_scale.exp()
    if likelihood == "fixed gaussian" and kind == torch.float64:
        scale = model.likelihood.log_scale.exp()  # 0.3 rounded to float32
    expected = elbo_by_hand(model, x, y, terms.z, scale)
    assert_close(terms.elbo, expected, atol=tolerance, rtol=0)
    assert_close(loss, -expected.mean(), atol=tolerance, rtol=0)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_beta_weights_rate_in_loss_but_not_elbo(build_randomized, beta):
    model = build_randomized("model=beta_vae", f"model.beta={beta}")
    x, y = batch(model)
    torch.manual_seed(1)
    loss, *parts = model.loss(x, y)
    torch.manual_seed(1)
    terms = model.terms(x, y)
    assert_close(loss, (terms.distortion + beta * terms.rate).mean())
    assert_close(terms.elbo, -(terms.distortion + terms.rate))
    assert_close(parts, [terms.distortion.detach(), terms.rate.detach()])
    assert not any(part.requires_grad for part in parts)


def test_rate_and_distortion_are_positive_and_elbo_negative(build_randomized):
    model = build_randomized()
    terms = model.terms(*batch(model))
    assert (terms.rate > 0).all()
    assert (terms.distortion > 0).all()
    assert (terms.elbo < 0).all()


@pytest.mark.parametrize("model", ["vae", "cvae with p(z|y)"])
def test_closed_form_rate_matches_monte_carlo_estimate(build_randomized, model):
    model = build_randomized(MODELS[model])
    x, y = batch(model, count=5)
    with torch.no_grad():
        terms = model.terms(x, y, num_samples=20_000)
        ratio = terms.q.log_prob(terms.z) - terms.prior.log_prob(terms.z)
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - terms.rate).abs() < 5 * error).all()
    assert (error < 0.05 * terms.rate).all()


@pytest.mark.parametrize("model", ["vae", "cvae with p(z|y)"])
def test_rate_is_sum_of_rate_per_latent(build_randomized, model):
    model = build_randomized(MODELS[model])
    terms = model.terms(*batch(model))
    assert terms.rate_per_latent.shape == (10, LATENTS)
    assert_close(terms.rate_per_latent.sum(1), terms.rate)
    assert_close(terms.rate, kl_divergence(terms.q, terms.prior.expand([10])))


def test_rate_without_closed_form_is_estimated_from_samples(build_randomized):
    model = build_randomized()
    terms = model.terms(*batch(model), num_samples=3)
    pair = Independent(Normal(torch.tensor([[-1.0], [1.0]]).expand(2, LATENTS), 1.0), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(2)), pair)
    estimated = Terms(terms.x, terms.q, mixture, terms.z, terms.p)
    ratio = terms.q.log_prob(terms.z) - mixture.log_prob(terms.z)
    assert estimated.rate_per_latent.shape == (10, 1)
    assert_close(estimated.rate, ratio.mean(0))
    assert_close(estimated.elbo, estimated.log_weights.mean(0))


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_distortion_is_sum_over_pixels(build_randomized, likelihood):
    """An image tiled 2 x 2 has four times the distortion and the same rate."""
    model = build_randomized("model=beta_vae model.beta=2", LIKELIHOODS[likelihood])
    x, y = batch(model)
    terms = model.terms(x, y)
    params = model.decoder(terms.z[0], model.context(y))[None]
    p = model.likelihood(params.tile(2, 2))
    tiled = Terms(x.tile(2, 2), terms.q, terms.prior, terms.z, p)
    assert_close(tiled.distortion, 4 * terms.distortion)
    assert_close(model.objective(tiled), (4 * terms.distortion + 2 * terms.rate).mean())


def test_loss_is_mean_over_images_and_samples(build_randomized):
    model = build_randomized()
    x, y = batch(model)
    terms = model.terms(x, y, num_samples=2)
    twice = Terms(
        x.repeat(2, 1, 1, 1),
        Independent(Normal(*(t.repeat(2, 1) for t in (terms.q.mean, terms.q.stddev))), 1),
        terms.prior,
        terms.z.repeat(1, 2, 1),
        model.image_likelihood(terms.z.repeat(1, 2, 1), y.repeat(2, 1)),
    )
    assert_close(model.objective(twice), model.objective(terms))
    assert_close(terms.distortion, -terms.p.log_prob(x).sum(0) / 2)


def test_decode_keeps_leading_dimensions_of_z(build_randomized):
    model = build_randomized("model=cvae")
    y = batch(model)[1]
    z = torch.randn(2, 3, len(y), LATENTS)
    p = model.image_likelihood(z, y)
    assert p.batch_shape == (2, 3, len(y))
    assert p.event_shape == SHAPE
    assert_close(p.mean[1, 2], model.image_likelihood(z[1, 2], y).mean)


@pytest.mark.parametrize("model", MODELS)
def test_forward_and_sample_return_images_and_samples_differ(build_randomized, model):
    model = build_randomized(MODELS[model])
    x, y = batch(model)
    assert model.mean_reconstruction(x, y).shape == x.shape
    first = model.sample_means(y)
    assert first.shape == x.shape
    assert not torch.equal(first, model.sample_means(y))
    assert not torch.equal(first[0], first[CLASSES])  # same label, different z


# Importance weights and exact evidences.


def nll(terms, samples):
    """Minus the importance weighted bound of K = `samples`, [].

    It is averaged over images and over disjoint groups of K samples.
    """
    groups = terms.log_weights.unflatten(0, (-1, samples))
    return -(groups.logsumexp(1) - math.log(samples)).mean()


@pytest.mark.parametrize("model", ["vae", "cvae with p(z|y)"])
def test_importance_weighted_bound_tightens_with_more_samples(build_randomized, model):
    model = build_randomized(MODELS[model])
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


def sigma_point_terms(model, x):
    """`Terms` whose samples are the 2D sigma points of q: their means of quadratics are exact."""
    q = model.latent_posterior(x, x.new_zeros(len(x), 0))
    steps = math.sqrt(LATENTS) * torch.eye(LATENTS).double()
    z = q.mean + q.stddev * torch.cat([steps, -steps])[:, None]
    y = x.new_zeros(len(x), 0)
    return Terms(x, q, model.latent_prior(y), z, model.image_likelihood(z, y))


def test_elbo_equals_log_evidence_at_exact_posterior(linear):
    make_exact(linear)
    x = torch.rand(6, *SHAPE).double()
    terms = sigma_point_terms(linear, x)
    expected = log_evidence(linear, x)
    assert_close(terms.elbo, expected, atol=1e-6, rtol=0)
    assert_close(terms.log_weights, expected.expand(2 * LATENTS, -1), atol=1e-6, rtol=0)


def test_log_evidence_minus_elbo_is_kl_to_exact_posterior(linear):
    make_exact(linear)
    x = torch.rand(6, *SHAPE).double()
    expected = log_evidence(linear, x)
    exact = linear.latent_posterior(x, x.new_zeros(6, 0))
    for _ in range(10):
        make_exact(linear)
        with torch.no_grad():
            for parameter in linear.posterior.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        terms = sigma_point_terms(linear, x)
        assert (terms.elbo < expected).all()
        assert_close(terms.elbo, expected - kl_divergence(terms.q, exact))


def test_importance_weighted_bound_converges_to_log_evidence(linear):
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


def test_encoder_gradient_of_elbo_vanishes_at_exact_posterior(linear):
    """The bound is tight there, so no change of the encoder improves it."""
    make_exact(linear)
    sigma_point_terms(linear, torch.rand(50, *SHAPE).double()).elbo.mean().backward()
    for parameter in linear.posterior.parameters():
        assert parameter.grad.abs().max() < 1e-9


# Parameters.


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("model", ["vae", "cvae with p(z|y)"])
def test_loss_gradients_match_finite_differences(build_randomized, model, likelihood):
    """Includes the gradient through the samples. Compares each parameter's largest entry only."""
    model = build_randomized(MODELS[model], LIKELIHOODS[likelihood], "model.num_samples=2").double()
    x, y = (t.double() for t in batch(model))

    def loss():
        torch.manual_seed(1)
        return model.loss(x, y)[0]

    assert_gradients_are_differences(model, loss)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("model", MODELS)
def test_every_parameter_of_fresh_model_has_nonzero_gradient(build, model, network, likelihood):
    words = " ".join([SMALL, MODELS[model], NETWORKS[network], LIKELIHOODS[likelihood]]).split()
    model = build(*words, x_shape=SHAPE, num_classes=CLASSES)  # fresh, as at the start of training
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
def test_autocast_keeps_elbo_terms_in_float32(build_randomized, network, likelihood):
    model = build_randomized(
        "model=cvae prior=conditional_normal", LIKELIHOODS[likelihood], network=network
    )
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
def test_state_dict_holds_only_parameters(build_randomized, model):
    model = build_randomized(MODELS[model])
    assert "beta" in dict(model.named_buffers())
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


# Labels.


@pytest.mark.parametrize("network", NETWORKS)
def test_unconditional_model_ignores_labels(build_randomized, network):
    model = build_randomized(network=network)
    x, y = batch(model)
    assert model.context(y).shape == (len(y), 0)
    q, other = model.latent_posterior(x, y), model.latent_posterior(x, y.roll(1, 0))
    assert torch.equal(q.mean, other.mean)
    assert torch.equal(q.stddev, other.stddev)
    z = torch.randn(len(y), LATENTS)
    assert torch.equal(
        model.image_likelihood(z, y).mean, model.image_likelihood(z, y.roll(1, 0)).mean
    )
    assert torch.equal(model.latent_prior(y).mean, torch.zeros(LATENTS))


def test_unconditional_weight_shapes_do_not_depend_on_num_classes(build):
    shapes = [
        {name: value.shape for name, value in model.state_dict().items()}
        for model in (build(num_classes=0), build(num_classes=10))
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("network", NETWORKS)
def test_fresh_cvae_encoder_and_decoder_depend_on_label(build, network):
    words = ["model=cvae", SMALL, *NETWORKS[network].split()]
    model = build(*words, x_shape=SHAPE, num_classes=CLASSES)
    x, y = batch(model)
    q, other = model.latent_posterior(x, y), model.latent_posterior(x, y.roll(1, 0))
    assert (q.mean != other.mean).any(1).all()
    z = torch.randn(len(y), LATENTS)
    p, other = model.image_likelihood(z, y), model.image_likelihood(z, y.roll(1, 0))
    assert (p.mean != other.mean).flatten(1).any(1).all()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("network", NETWORKS)
def test_label_modulates_every_hidden_layer_of_cvae(build_randomized, network, part):
    """One layer is enough: the label is removed from the inputs and from all other layers."""
    model = build_randomized("model=cvae", network=network)
    module = getattr(model, part)
    x, y = batch(model)
    inputs = x if part == "encoder" else torch.randn(len(y), LATENTS)

    def label_effects():
        """Whether another label changes the output for each image, [B]."""
        difference = module(inputs, y) - module(inputs, y.roll(1, 0))
        return difference.flatten(1).any(1)

    modulations = [m for m in module.modules() if isinstance(m, Modulation)]
    layers = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    assert len(modulations) == len(layers) - (part == "decoder")  # its last layer is not modulated
    with torch.no_grad():
        for stack in module.modules():
            if isinstance(stack, ModulatedLayers) and isinstance(stack.layers[0], nn.Linear):
                stack.layers[0].weight[:, -CLASSES:] = 0
        for modulation in modulations:
            modulation.table.zero_()
        assert not label_effects().any()
        for modulation in modulations:
            modulation.table.normal_()
            assert label_effects().all()
            modulation.table.zero_()


# Refusals.


def test_cvae_without_labels_is_refused(build):
    with pytest.raises(InstantiationException) as error:
        build("model=cvae", num_classes=0)
    assert isinstance(error.value.__cause__, UserError)
    assert "condition=one_hot needs labels" in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("likelihood", "pixels"),
    [("bernoulli", "grey"), ("bernoulli", "dequantized"), ("gaussian", "binary")],
)
def test_likelihood_refuses_unsupported_pixels(build, likelihood, pixels):
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
def test_evaluation_scalars_add_bits_per_dim_where_defined(build, overrides, expected):
    model = build(*overrides.split(), x_shape=SHAPE)
    nats = 64 * math.log(2) if expected == 1.0 else 0.0
    scalars = dict(model.evaluation_scalars({"elbo": -nats, "rate": 2.0}))
    assert scalars.pop("bits_per_dim", None) == expected
    assert scalars == {"elbo": -nats, "rate": 2.0}


def test_on_load_checkpoint_refuses_other_or_missing_weights(build):
    model, wider = build("model.latent_dim=2"), build("model.latent_dim=3")
    model.on_load_checkpoint({"state_dict": model.state_dict()})
    with pytest.raises(UserError, match="another architecture"):
        model.on_load_checkpoint({"state_dict": wider.state_dict()})
    with pytest.raises(UserError, match="absent"):
        model.on_load_checkpoint({"state_dict": {}})


def test_checkpoint_is_refused_if_a_scalar_is_not_finite(build_randomized):
    callback, *_ = build_randomized().configure_callbacks()
    alone = SimpleNamespace(reduce_boolean_decision=lambda decision: decision)
    trainer = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=6), strategy=alone)
    callback.window.append(torch.ones(2), torch.tensor([1.0, float("nan")]), torch.tensor(1.0))
    with pytest.raises(UserError, match="rate became nan at training step 6"):
        callback.on_save_checkpoint(trainer, None, {})


def test_distributions_validate_arguments_in_tests():
    """Set by the fixture `repeatable` of tests/conftest.py."""
    assert Distribution._validate_args
