"""Priors p(z | y) against closed forms, torch.distributions, numerical integrals and samples.

The priors are `StandardNormal`, `ConditionalNormal`, `GaussianMixture`, `Vamp` and `CouplingFlow`.
"""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from scipy.stats import kstest
from torch import nn
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    kl_divergence,
)
from torch.testing import assert_close

from vaelab.conditions import OneHot, Unconditional
from vaelab.errors import UserError
from vaelab.priors import ConditionalNormal, CouplingFlow, GaussianMixture, StandardNormal, Vamp
from vaelab.priors import mixture as mixtures


def kl_by_hand(mean, scale, prior_mean, prior_scale):
    """KL(N(m, s^2) || N(m', s'^2)) [B], summed over latents, of [B, D] or [D] each."""
    ratio = (scale**2 + (mean - prior_mean) ** 2) / prior_scale**2
    return 0.5 * (ratio - 1 + 2 * (prior_scale / scale).log()).sum(-1)


def random_posterior(count, latents):
    """Random means and scales [B, D], and the diagonal Gaussian with these."""
    mean, scale = torch.randn(count, latents), torch.rand(count, latents) + 0.1
    return mean, scale, Independent(Normal(mean, scale), 1)


@pytest.mark.parametrize("prior", [StandardNormal, ConditionalNormal])
def test_normal_priors_start_as_standard_normal(prior):
    p = prior(4, 3)(torch.eye(3))
    z = torch.randn(5, 3, 4)
    expected = Independent(Normal(torch.zeros(4), torch.ones(4)), 1)
    assert p.event_shape == (4,)
    assert_close(p.log_prob(z), expected.log_prob(z))


def test_standard_normal_ignores_labels_and_has_no_parameters():
    assert StandardNormal(4, 3)(torch.eye(3)).batch_shape == ()
    assert not list(StandardNormal(4, 3).parameters())


def test_conditional_normal_looks_up_mean_and_scale_by_label():
    prior = ConditionalNormal(2, 3)
    mean, log_scale = torch.randn(3, 2), torch.randn(3, 2)
    with torch.no_grad():
        prior.params.weight.copy_(torch.cat([mean, log_scale], 1).T)
    rows = torch.tensor([2, 0, 0, 1])
    p = prior(torch.eye(3)[rows])
    assert p.batch_shape == (4,)
    assert_close(p.mean, mean[rows])
    assert_close(p.stddev, log_scale.exp()[rows])


def test_kl_to_standard_normal_matches_closed_form():
    mean, scale, q = random_posterior(5, 4)
    expected = kl_by_hand(mean, scale, torch.zeros(4), torch.ones(4))
    p = StandardNormal(4, 3)(torch.eye(3)[:1].expand(5, 3))
    assert_close(kl_divergence(q, p.expand([5])), expected)


def test_kl_to_conditional_normal_matches_closed_form():
    prior = ConditionalNormal(4, 3)
    with torch.no_grad():
        prior.params.weight.normal_()
    rows = torch.tensor([2, 0, 0, 1, 2])
    mean, scale, q = random_posterior(5, 4)
    prior_mean, prior_log_scale = prior.params.weight.T[rows].chunk(2, 1)
    expected = kl_by_hand(mean, scale, prior_mean, prior_log_scale.exp())
    assert_close(kl_divergence(q, prior(torch.eye(3)[rows])), expected)


def test_conditional_normal_refuses_unconditional_model(build):
    with pytest.raises(UserError, match="model=cvae"):
        ConditionalNormal(4, 0)
    with pytest.raises(InstantiationException) as error:
        build("model=vae", "prior=conditional_normal")
    assert isinstance(error.value.__cause__, UserError)


class Encoder(nn.Module):
    """An encoder of images [B, 1, 2, 2] and one-hot labels [B, Y] to a diagonal Gaussian."""

    def __init__(self, latents, labels):
        super().__init__()
        self.layer = nn.Linear(4 + labels, 2 * latents)

    def forward(self, x, y):
        mean, log_scale = self.layer(torch.cat([x.flatten(1), y], 1)).chunk(2, 1)
        return Independent(Normal(2 * mean, log_scale.exp()), 1)


def build_vamp(latents, labels, components=6):
    """A `Vamp` with random pseudo-inputs [M, 1, 2, 2], connected to a stub model."""
    prior = Vamp(latents, labels, components=components, start="random")
    classes = {"label": labels} if labels else {}
    condition = (OneHot if labels else Unconditional)(classes, {})
    encode, told = Encoder(latents, labels).forward, {"condition": condition, "classes": classes}
    told |= {"x_shape": (1, 2, 2), "pixels": "grey"}
    prior.connect(SimpleNamespace(encode_for_prior=encode, context_dim=labels, **told))
    return prior


LEARNED_PRIORS = {
    "mixture": lambda latents, labels: GaussianMixture(latents, labels, components=5),
    "vamp": build_vamp,
    "flow": lambda latents, labels: CouplingFlow(latents, labels, transforms=3, hidden=[8]),
}


def build_randomized(name, latents, labels):
    """A learned prior with noise added to all weights."""
    prior = LEARNED_PRIORS[name](latents, labels)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return prior


def first_label(labels):
    """The first one-hot label, [1, Y], or [1, 0] if there are no labels."""
    return torch.eye(labels)[:1] if labels else torch.zeros(1, 0)


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("latents", [1, 2])
@pytest.mark.parametrize("name", LEARNED_PRIORS)
def test_learned_prior_density_integrates_to_one(name, latents, labels):
    p = build_randomized(name, latents, labels)(first_label(labels)).expand([1])
    line = torch.linspace(-9, 9, 601)  # standard deviations
    grid = torch.cartesian_prod(*[line] * latents).view(-1, 1, latents)
    with torch.no_grad():
        density = p.log_prob(p.mean + p.stddev * grid).double().exp()
        mass = density.sum() * (p.stddev * (line[1] - line[0])).prod()
    assert float(mass) == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("name", LEARNED_PRIORS)
def test_learned_prior_samples_follow_its_density(name, labels):
    p = build_randomized(name, 1, labels)(first_label(labels)).expand([1])
    line = torch.linspace(-12, 12, 4001)
    with torch.no_grad():
        cdf = p.log_prob(line[:, None, None]).flatten().double().exp().cumsum(0)
    cdf = (cdf / cdf[-1]).numpy()
    drawn = p.sample((4000,)).flatten().numpy()
    assert kstest(drawn, lambda z: np.interp(z, line.numpy(), cdf)).pvalue > 1e-3


@pytest.mark.parametrize("labels", [0, 3])
@pytest.mark.parametrize("name", LEARNED_PRIORS)
def test_learned_prior_mean_and_stddev_match_samples(name, labels):
    p = build_randomized(name, 3, labels)(first_label(labels)).expand([1])
    drawn = p.sample((20_000,))
    assert drawn.shape == (20_000, 1, 3)
    tolerance = 0.15 if name == "flow" else 0.04  # from 64 fixed draws
    assert_close(p.mean, drawn.mean(0), atol=tolerance, rtol=0)
    assert_close(p.stddev, drawn.std(0), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", LEARNED_PRIORS)
def test_learned_prior_has_one_batch_entry_per_label(name):
    """Without labels the batch shape is empty."""
    z = torch.randn(4, 3, 2)
    assert LEARNED_PRIORS[name](2, 0)(torch.zeros(3, 0)).batch_shape == ()
    p = build_randomized(name, 2, 3)(torch.eye(3))
    assert (p.batch_shape, p.event_shape) == ((3,), (2,))
    assert p.sample((4,)).shape == z.shape
    single = torch.stack([log_prob_at_label(p, z, label) for label in range(3)], 1)
    assert_close(p.log_prob(z), single)


def log_prob_at_label(p, z, label):
    """Log-densities [K] of the z [K, Y, D] of one label, when all labels get these z."""
    return p.log_prob(z[:, label, None].expand(-1, 3, -1))[:, label]


@pytest.mark.parametrize("name", ["mixture", "flow"])
def test_mixture_and_flow_densities_depend_on_label(name):
    p = build_randomized(name, 2, 3)(torch.eye(3))
    values = p.log_prob(torch.randn(2).expand(3, 2))
    assert len(set(values.tolist())) == 3


# Gaussian mixture.


def test_mixture_with_one_component_starts_as_standard_normal():
    z = torch.randn(7, 4)
    p = GaussianMixture(4, 0, components=1)(torch.zeros(1, 0))
    assert_close(p.log_prob(z), StandardNormal(4, 0)(torch.zeros(1, 0)).log_prob(z))


@pytest.mark.parametrize("components", [2, 3, 100])
def test_mixture_starts_with_mean_zero_and_variance_one(components):
    prior = GaussianMixture(4, 3, components=components)
    p = prior(torch.eye(3))
    assert_close(p.mean, torch.zeros(3, 4), atol=1e-5, rtol=0)
    assert_close(p.stddev, torch.ones(3, 4), atol=1e-4, rtol=0)
    assert torch.pdist(prior.means).min() > 0


@pytest.mark.parametrize("labels", [0, 3])
def test_mixture_matches_torch_mixture_same_family(labels):
    prior = build_randomized("mixture", 4, labels)
    y = torch.eye(3)[[2, 0]] if labels else torch.zeros(2, 0)
    logits = prior.logits[[2, 0]] if labels else prior.logits[0].expand(2, -1)
    parts = Independent(Normal(prior.means, prior.log_scales.exp()), 1).expand([2, 5])
    expected = MixtureSameFamily(Categorical(logits=logits), parts)
    p = prior(y).expand([2])
    z = torch.randn(6, 2, 4)
    assert_close(p.log_prob(z), expected.log_prob(z))
    assert_close(p.mean, expected.mean)
    assert_close(p.stddev, expected.stddev)


def test_mixture_density_matches_hand_computation():
    prior = GaussianMixture(1, 2, components=2)
    with torch.no_grad():
        prior.means.copy_(torch.tensor([[-1.0], [2.0]]))
        prior.log_scales.copy_(torch.tensor([[0.0], [math.log(0.5)]]))
        prior.logits.copy_(torch.tensor([[0.0, 0.0], [math.log(3), 0.0]]))
    # Of each component at z = 0.5, without the factor 1 / sqrt(2 pi).
    densities = [math.exp(-0.5 * 1.5**2), math.exp(-0.5 * 3**2) / 0.5]
    root = math.sqrt(2 * math.pi)
    expected = [sum(densities) / 2 / root, (3 * densities[0] + densities[1]) / 4 / root]
    found = prior(torch.eye(2)).log_prob(torch.full((2, 1), 0.5)).exp()
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("labels", [0, 3])
def test_mixture_log_prob_does_not_depend_on_chunk_size(monkeypatch, labels):
    p = build_randomized("mixture", 4, labels)(torch.eye(3)[:, :labels])
    shapes = [(7, 3, 4), (7, 1, 4), (7, 2, 3, 4), (3, 4)]
    points = [torch.randn(shape) for shape in shapes]
    whole = [p.log_prob(z) for z in points]
    monkeypatch.setattr(mixtures, "entries_per_chunk", lambda _: 100)
    assert_close([p.log_prob(z) for z in points], whole)


# VampPrior.


def test_vamp_density_is_mean_of_pseudo_input_posteriors():
    prior = build_vamp(2, 0)
    z = torch.randn(5, 2)
    parts = [
        prior.encode(u[None], torch.zeros(1, 0)).log_prob(z).exp() for u in prior.pseudo_inputs
    ]
    assert_close(prior(torch.zeros(1, 0)).log_prob(z), (sum(parts) / 6).log())


def test_conditional_vamp_density_averages_posteriors_of_same_label():
    prior = build_vamp(2, 3, components=7)  # three of the first label, two of the others
    z = torch.randn(5, 3, 2)
    found = prior(torch.eye(3)).log_prob(z)
    for label in range(3):
        inputs = prior.pseudo_inputs[label::3]
        y = torch.eye(3)[[label]]
        parts = [prior.encode(u[None], y).log_prob(z[:, label]).exp() for u in inputs]
        assert_close(found[:, label], (sum(parts) / len(parts)).log())


def test_vamp_pseudo_inputs_of_real_numbers_have_no_bounds():
    prior = Vamp(2, 0, components=6, start="images")
    told = {"context_dim": 0, "x_shape": (3,), "pixels": "real"}
    encoder = nn.Linear(3, 2)

    def encode(x, y):
        return Independent(Normal(encoder(x), torch.ones(())), 1)

    prior.connect(SimpleNamespace(encode_for_prior=encode, **told))
    rows = torch.tensor([[5.0, -7, 0], [30, 1, 2]])
    data = SimpleNamespace(stored=lambda _: (rows, None, torch.arange(2)), seed=0)
    prior.initialise(data)
    assert {tuple(u) for u in prior.pseudo_inputs.tolist()} == {tuple(x) for x in rows.tolist()}
    prior(torch.zeros(1, 0)).log_prob(torch.zeros(1, 2)).sum().backward()
    assert_close(prior(torch.zeros(1, 0)).components.mean, encoder(prior.pseudo_inputs))
    assert (prior.pseudo_inputs.grad != 0).all()


def test_vamp_refuses_fewer_components_than_labels():
    build_vamp(2, 3, components=3)
    with pytest.raises(UserError, match="components=2"):
        build_vamp(2, 3, components=2)


VAMP = "prior=vamp model.prior.components=20 model.encoder.hidden=[8] model.decoder.hidden=[8]"


@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_vamp_gradients_reach_pseudo_inputs_and_encoder(build, model):
    model = build(f"model={model}", *VAMP.split())
    y = torch.eye(10)
    model.latent_prior(y).log_prob(torch.randn(10, 16)).sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    meant = ("prior.", "encoder.", "posterior.")
    assert reached == {name for name, _ in model.named_parameters() if name.startswith(meant)}
    assert model.prior.pseudo_inputs.grad.flatten(1).any(1).all()


def test_vamp_shares_encoder_of_model_without_storing_it(build):
    """The prior of a deep copy uses the encoder of the copy."""
    model = build(*VAMP.split())
    assert [*model.prior.state_dict()] == ["pseudo_inputs"]
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.encoder.parameters():
            parameter.add_(0.01)
    z = torch.zeros(16)
    y = torch.zeros(1, 10)
    assert other.latent_prior(y).log_prob(z) != model.latent_prior(y).log_prob(z)
    model.load_state_dict(other.state_dict())
    assert_close(other.latent_prior(y).log_prob(z), model.latent_prior(y).log_prob(z))


@pytest.fixture
def digits(compose):
    """The default data module, with seed 3."""
    return instantiate(compose("seed=3").data, _convert_="all")


def setup_for_fit(model, data):
    """Calls `setup` with a trainer of this data module, as Lightning does before training."""
    told = {"datamodule": data, "callbacks": model.configure_callbacks()}
    model._trainer = SimpleNamespace(global_rank=0, world_size=1, **told)
    model.setup("fit")


@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_vamp_pseudo_inputs_start_as_training_images(build, digits, model):
    model, other = (build(f"model={model}", *VAMP.split()) for _ in range(2))
    setup_for_fit(model, digits)
    setup_for_fit(other, digits)
    assert torch.equal(model.prior.pseudo_inputs, other.prior.pseudo_inputs)
    images, labels, rows = digits.stored("train")
    training = images[rows].float() / 255
    for m, image in enumerate(model.prior.pseudo_inputs):
        found = (training == image).flatten(1).all(1).nonzero().flatten()
        assert len(found)
        if model.context_dim:
            assert m % 10 in labels[rows][found]
    assert len(model.prior.pseudo_inputs.unique(dim=0)) == 20


def test_vamp_start_depends_on_data_seed_and_start_setting(build, compose, digits):
    first = build(*VAMP.split())
    setup_for_fit(first, digits)
    second = build(*VAMP.split())
    setup_for_fit(second, instantiate(compose("seed=4").data, _convert_="all"))
    assert not torch.equal(first.prior.pseudo_inputs, second.prior.pseudo_inputs)
    third = build(*VAMP.split(), "model.prior.start=random")
    before = third.prior.pseudo_inputs.clone()
    setup_for_fit(third, digits)
    assert torch.equal(third.prior.pseudo_inputs, before)


def test_vamp_is_not_initialised_again_after_training_or_loading(build, digits):
    model = build(*VAMP.split())
    setup_for_fit(model, digits)
    with torch.no_grad():
        model.prior.pseudo_inputs.mul_(0.5)
    learned = model.prior.pseudo_inputs.clone()
    setup_for_fit(model, digits)
    assert torch.equal(model.prior.pseudo_inputs, learned)
    resumed, loaded = build(*VAMP.split()), build(*VAMP.split())
    setup_for_fit(resumed, digits)
    resumed.load_state_dict(model.state_dict())  # Lightning does, after setup
    loaded.load_state_dict(model.state_dict())
    setup_for_fit(loaded, digits)
    assert torch.equal(resumed.prior.pseudo_inputs, learned)
    assert torch.equal(loaded.prior.pseudo_inputs, learned)


# Coupling flow.


@pytest.mark.parametrize("labels", [0, 3])
def test_flow_starts_near_standard_normal(labels):
    z = torch.randn(50, 1, 4)
    p = CouplingFlow(4, labels, transforms=6, hidden=[64])(first_label(labels))
    expected = Independent(Normal(torch.zeros(4), torch.ones(4)), 1).log_prob(z)
    assert_close(p.log_prob(z), expected, atol=0.1, rtol=0)
