"""The objectives of variants against formulas in loops over numbers, and against simpler models.

Also tests the squared MMD, and the posteriors and priors that each variant trains or refuses.
"""

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from support.by_loops import LOG_ESTIMATES
from support.models import IMAGES, LATENTS, SHAPE, batch, gradients, images, objective, small
from torch.distributions import Bernoulli, Distribution, MultivariateNormal, kl_divergence
from torch.testing import assert_close

from vaelab.commands.config_folders import CONF
from vaelab.distributions.mmd import squared_mmd
from vaelab.errors import UserError


@pytest.fixture
def build_randomized(build):
    """(*overrides) -> a small model in double precision with noise added to all weights."""
    return partial(small, build)


# At its neutral setting a variant equals the VAE, or another simpler model.

NEUTRAL = {
    "beta_vae": ("model=beta_vae model.beta=1", "model=vae"),
    "capacity_vae": ("model=capacity_vae model.capacity=0 model.gamma=1", "model=vae"),
    "beta_tcvae stratified": ("model=beta_tcvae model.beta=1", "model=vae"),
    "beta_tcvae weighted": ("model=beta_tcvae model.beta=1 model.estimator=weighted", "model=vae"),
    "dip_vae means": ("model=dip_vae model.off_diagonal=0 model.diagonal=0", "model=vae"),
    "dip_vae codes": (
        "model=dip_vae model.covariance=codes model.off_diagonal=0 model.diagonal=0",
        "model=vae",
    ),
    "info_vae": ("model=info_vae model.alpha=0 model.divergence_weight=1", "model=vae"),
    "info_vae as wae": (
        "model=info_vae model.alpha=1 model.divergence_weight=7 model.kernel=gaussian",
        "model=wae posterior=gaussian model.divergence_weight=7 model.kernel=gaussian "
        "model.scales=[1.0]",
    ),
    "wae": ("model=wae model.divergence_weight=0", "model=ae"),
    "rae": ("model=rae model.code_weight=0 model.decoder_weight=0", "model=ae"),
    "rae without regulariser": ("model=rae model.code_weight=0 model.regulariser=none", "model=ae"),
    "ae with gaussian posterior": ("model=ae posterior=gaussian", "model=beta_vae model.beta=0"),
    # The rate of a point is infinite, and a weight of 0 leaves it out.
    "beta_vae of points": (
        "model=beta_vae model.beta=0 posterior=deterministic",
        "model=ae",
    ),
    "beta_vae of points with free bits": (
        "model=beta_vae model.beta=0 model.free_bits=1 model.free_bits_group=4 "
        "posterior=deterministic",
        "model=ae",
    ),
    "capacity_vae of points": (
        "model=capacity_vae model.gamma=0 posterior=deterministic",
        "model=ae",
    ),
    "info_vae of points as wae": (
        "model=info_vae model.alpha=1 model.divergence_weight=7 posterior=deterministic",
        "model=wae model.divergence_weight=7 model.kernel=gaussian model.scales=[1.0]",
    ),
    # The rate of a mixture prior is estimated from the samples, as importance weights are.
    "iwae with one sample": (
        "model=iwae model.num_samples=1 prior=mixture",
        "model=vae prior=mixture",
    ),
    "miwae with one sample a group": (
        "model=miwae model.num_samples=4 model.groups=4 prior=mixture",
        "model=vae model.num_samples=4 prior=mixture",
    ),
    "ciwae with beta 1": (
        "model=ciwae model.num_samples=4 model.beta=1 prior=mixture",
        "model=vae model.num_samples=4 prior=mixture",
    ),
    "miwae with one group": (
        "model=miwae model.num_samples=4 model.groups=1",
        "model=iwae model.num_samples=4",
    ),
    "piwae with one group": (
        "model=piwae model.num_samples=4 model.groups=1",
        "model=iwae model.num_samples=4",
    ),
    "ciwae with beta 0": (
        "model=ciwae model.num_samples=4 model.beta=0",
        "model=iwae model.num_samples=4",
    ),
}


@pytest.mark.parametrize("case", NEUTRAL)
def test_variant_at_neutral_setting_equals_simpler_model(build_randomized, case):
    """Compares the loss and every gradient."""
    variant, reference = map(build_randomized, NEUTRAL[case])
    reference.load_state_dict(variant.state_dict())
    x, y = images(variant)
    found, expected = objective(variant, x, y), objective(reference, x, y)
    assert_close(found, expected, atol=1e-10, rtol=0)
    found, expected = gradients(variant, found), gradients(reference, expected)
    for name in expected:
        assert_close(found[name], expected[name], atol=1e-9, rtol=1e-9)


# Each formula in loops over numbers.


class FormulaInputs:
    """NumPy arrays that a formula uses, computed from the outputs of the networks.

    A deterministic posterior has neither `scale` nor `rate`.
    """

    def __init__(self, model, terms, x, y):
        context = model.context(y)
        params = model.posterior.params(model.encoder(x, context))
        self.z = terms.z.detach().numpy()  # [K, B, D]
        if params.shape[1] == LATENTS:
            self.mean = params.detach().numpy()  # [B, D]
        else:
            mean, log_scale = params.chunk(2, 1)
            self.mean, self.scale = mean.detach().numpy(), log_scale.exp().detach().numpy()
            q = MultivariateNormal(mean, log_scale.mul(2).exp().diag_embed())
            unit = MultivariateNormal(torch.zeros_like(mean), torch.eye(LATENTS).double())
            self.rate = kl_divergence(q, unit).detach().numpy()  # [B]
        log_likelihood = [
            Bernoulli(logits=model.decoder(sample, context)).log_prob(x).sum((1, 2, 3))
            for sample in terms.z
        ]
        self.distortion = -torch.stack(log_likelihood).mean(0).detach().numpy()  # [B]
        self.weights = [p.detach().numpy() for p in model.decoder.parameters()]


def capacity_loss(n):
    """The loss of `CapacityVAE` with capacity 1.5 and gamma 3."""
    return n.distortion.mean() + 3 * abs(n.rate.mean() - 1.5)


def beta_tc_loss(n, log_estimate):
    """The loss of `BetaTCVAE` with alpha 2, beta 5 and gamma 0.5.

    It is distortion + rate + the sum over the rate's parts of (weight - 1) * part. `log_estimate`
    estimates log q(z), see `LOG_ESTIMATES`.
    """
    loss = n.distortion.mean() + n.rate.mean()
    samples, count, latents = n.z.shape
    for k in range(samples):
        for i in range(count):
            densities = [
                [normal_density(n.z[k, i, d], n.mean[j, d], n.scale[j, d]) for d in range(latents)]
                for j in range(count)
            ]
            joint = log_estimate(i, [math.prod(each) for each in densities], IMAGES)
            product = sum(log_estimate(i, each, IMAGES) for each in zip(*densities, strict=True))
            own = math.log(math.prod(densities[i]))
            prior = sum(math.log(normal_density(n.z[k, i, d], 0, 1)) for d in range(latents))
            parts = 1 * (own - joint) + 4 * (joint - product) - 0.5 * (product - prior)
            loss += parts / (samples * count)
    return loss


def normal_density(z, mean, scale):
    return math.exp(-0.5 * ((z - mean) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))


def dip_loss(n, codes):
    """The loss of `DIPVAE` with weights 2 and 3, for the covariance of codes or of means."""
    count, latents = n.mean.shape
    centre = [sum(n.mean[i, d] for i in range(count)) / count for d in range(latents)]
    loss = n.distortion.mean() + n.rate.mean()
    for a in range(latents):
        for b in range(latents):
            products = [
                (n.mean[i, a] - centre[a]) * (n.mean[i, b] - centre[b]) for i in range(count)
            ]
            covariance = sum(products) / count
            if codes and a == b:
                covariance += sum(n.scale[i, a] ** 2 for i in range(count)) / count
            loss += 3 * (covariance - 1) ** 2 if a == b else 2 * covariance**2
    return loss


def squared_mmd_by_loops(a, b, kernel, scales):
    """The unbiased squared MMD of a and b, [B, D] each: Tolstikhin et al. (2018), algorithm 2."""
    count, latents = a.shape

    def k(u, v):
        squares = sum((u[d] - v[d]) ** 2 for d in range(latents))
        widths = [2 * latents * scale for scale in scales]
        if kernel == "gaussian":
            return sum(math.exp(-squares / width) for width in widths)
        return sum(width / (width + squares) for width in widths)

    total = 0.0
    for i in range(count):
        for j in range(count):
            if i != j:
                total += (k(a[i], a[j]) + k(b[i], b[j])) / (count * (count - 1))
            total -= 2 * k(a[i], b[j]) / count**2
    return total


def draw_prior_samples(model, x, y):
    """The samples [K, B, D] of N(0, I) that the objective draws, after the noise of z."""
    torch.manual_seed(1)
    shape = model.terms(x, y).z.shape
    return torch.randn(shape, dtype=torch.float64).numpy()


FORMULAS = {
    "model=capacity_vae model.capacity=1.5 model.gamma=3": lambda n, draws: capacity_loss(n),
    "model=beta_tcvae model.alpha=2 model.beta=5 model.gamma=0.5": lambda n, draws: beta_tc_loss(
        n, LOG_ESTIMATES["stratified"]
    ),
    "model=beta_tcvae model.alpha=2 model.beta=5 model.gamma=0.5 model.estimator=weighted": (
        lambda n, draws: beta_tc_loss(n, LOG_ESTIMATES["weighted"])
    ),
    "model=dip_vae model.off_diagonal=2 model.diagonal=3": lambda n, draws: dip_loss(
        n, codes=False
    ),
    "model=dip_vae model.off_diagonal=2 model.diagonal=3 model.covariance=codes": (
        lambda n, draws: dip_loss(n, codes=True)
    ),
    "model=info_vae model.alpha=-0.5 model.divergence_weight=4 model.scales=[0.5,2]": (
        lambda n, draws: (
            n.distortion.mean()
            + 1.5 * n.rate.mean()
            + 2.5
            * np.mean(
                [
                    squared_mmd_by_loops(*ab, "gaussian", [0.5, 2])
                    for ab in zip(n.z, draws, strict=True)
                ]
            )
        )
    ),
    "model=wae model.divergence_weight=4 model.scales=[0.5,2]": lambda n, draws: (
        n.distortion.mean()
        + 4
        * np.mean(
            [
                squared_mmd_by_loops(*ab, "inverse_multiquadratic", [0.5, 2])
                for ab in zip(n.z, draws, strict=True)
            ]
        )
    ),
    "model=ae": lambda n, draws: n.distortion.mean(),
    "model=rae model.code_weight=0.5 model.decoder_weight=0.125": lambda n, draws: (
        n.distortion.mean()
        + 0.5 * np.mean([0.5 * sum(c * c for c in code) for code in n.mean])
        + 0.125 * sum((w**2).sum() for w in n.weights)
    ),
}


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("overrides", FORMULAS)
def test_variant_objective_matches_formula_by_loops(build_randomized, overrides, samples):
    model = build_randomized(overrides, f"model.num_samples={samples}")
    x, y = images(model)
    with torch.no_grad():
        torch.manual_seed(1)
        numbers = FormulaInputs(model, model.terms(x, y), x, y)
        expected = FORMULAS[overrides](numbers, draw_prior_samples(model, x, y))
        assert_close(objective(model, x, y).item(), float(expected), atol=1e-8, rtol=0)


def test_capacity_applies_to_mean_rate_of_batch(build_randomized):
    """Not to the rate of each image: rates above and below C cancel."""
    model = build_randomized("model=capacity_vae", "model.gamma=3")
    terms = model.terms(*images(model))
    rates = terms.rate.detach()
    model.capacity.fill_(rates.mean())
    assert_close(model.objective(terms), terms.distortion.mean(), atol=1e-5, rtol=0)
    assert 3 * (rates - rates.mean()).abs().mean() > 0.1
    model.capacity.fill_(rates.mean() + 2)
    below = gradients(model, model.objective(terms))["posterior.params.bias"]
    terms = model.terms(*images(model))
    rate_up = gradients(model, terms.rate.mean())["posterior.params.bias"]
    assert below @ rate_up < 0  # the rate is below C, so the loss raises it


def test_dip_codes_penalty_includes_full_gaussian_covariances(build_randomized):
    model = build_randomized(
        "model=dip_vae posterior=full_gaussian model.covariance=codes",
        "model.off_diagonal=2 model.diagonal=0",
    )
    terms = model.terms(*images(model))
    z = terms.q.sample((40_000,)).flatten(0, 1)
    sampled = z.T.cov(correction=0)
    off_diagonal = sampled - sampled.diag().diag()
    assert off_diagonal.abs().max() > 0.1
    assert_close(model.penalty(terms.q), 2 * off_diagonal.square().sum(), rtol=0.05, atol=0.01)


# The squared maximum mean discrepancy (MMD).


@pytest.mark.parametrize("kernel", ["gaussian", "inverse_multiquadratic"])
def test_squared_mmd_is_unbiased_and_grows_with_shift(kernel):
    a, b = torch.randn(2, 3_000, 20, 3).double()
    same = squared_mmd(a, b, kernel, [0.5, 2.0])
    assert same.shape == (3_000,)
    error = same.std() / math.sqrt(3_000)
    assert same.mean().abs() < 4 * error
    assert (same < 0).any()  # a biased estimate, with its diagonals, is never negative
    shifts = [squared_mmd(a + shift, b, kernel, [0.5, 2.0]).mean() for shift in (0, 0.5, 1, 2)]
    assert all(second > first + 4 * error for first, second in pairwise(shifts))


def test_squared_mmd_of_gaussians_matches_closed_form():
    """The closed form E k = (C / (C + 2 s))^(D/2) exp(-|m|^2 / (C + 2 s)) if a - b ~ N(m, s I)."""
    latents, shift = 3, 0.7
    a, b = torch.randn(2, 2_000, 50, latents).double()
    values = squared_mmd(a + shift, b, "gaussian", [1.0])
    width = 2 * latents

    def mean_kernel(squares):
        """E k of a - b, with C = `width`, s = 2 and |m|^2 = `squares`."""
        return (width / (width + 4)) ** (latents / 2) * math.exp(-squares / (width + 4))

    expected = 2 * mean_kernel(0) - 2 * mean_kernel(latents * shift**2)
    assert (values.mean() - expected).abs() < 4 * values.std() / math.sqrt(2_000)


@pytest.mark.parametrize(
    ("overrides", "rate"),
    [
        ("model=wae", 0.0),
        ("model=info_vae model.alpha=0.25", 0.75),
        ("model=beta_tcvae", 1.0),
        ("model=beta_tcvae model.estimator=weighted", 1.0),
        ("model=dip_vae", 1.0),
        ("model=dip_vae model.covariance=codes", 1.0),
    ],
)
def test_terms_that_compare_images_are_zero_for_one_image(build_randomized, overrides, rate):
    """The last batch of an evaluation may have one image."""
    model = build_randomized(overrides)
    with torch.no_grad():
        torch.manual_seed(1)
        terms = model.terms(*images(model, count=1))
        expected = terms.distortion + (rate * terms.rate if rate else 0)
        assert_close(model.objective(terms), expected.mean())
        details = model.extra_metrics(terms)
    compared = ("divergence", "penalty", "minibatch_mutual_information")
    for name in details.keys() & set(compared):
        assert_close(details[name].sum().item(), 0.0)


# Posteriors and priors: a variant trains all of their parameters, or refuses them.

MODELS = {
    "capacity_vae": "model=capacity_vae",
    "beta_tcvae": "model=beta_tcvae",
    "dip_vae means": "model=dip_vae",
    "dip_vae codes": "model=dip_vae model.covariance=codes",
    "info_vae": "model=info_vae",
    "wae": "model=wae",
    "ae": "model=ae",
    "rae": "model=rae",
    "rae gradient": "model=rae model.regulariser=gradient",
    "iwae": "model=iwae",
    "iwae dreg": "model=iwae model.gradient=dreg",
    "miwae": "model=miwae",
    "piwae": "model=piwae",
    "ciwae": "model=ciwae",
}
PARTS = {
    "default": "",
    "full_gaussian": "posterior=full_gaussian",
    "iaf": "posterior=iaf",
    "spline": "posterior=spline",
    "deterministic": "posterior=deterministic",
    "mixture": "prior=mixture model.prior.components=7",
    "vamp": "prior=vamp model.prior.components=7",
    "coupling flow": "prior=flow",
}
NO_DENSITY = "has no density"
NEEDS_GAUSSIAN = "needs posterior=gaussian"
NO_LEARNED_PRIOR = "does not train a prior"
NEEDS_DRAWS = "needs draws from the prior with gradients"
NEEDS_FACTORISED = "the total correlation needs"
REFUSED = {
    **{("beta_tcvae", part): NEEDS_FACTORISED for part in PARTS if part != "default"},
    **{("dip_vae codes", part): NEEDS_GAUSSIAN for part in ("iaf", "spline", "deterministic")},
    **{("iwae dreg", part): NEEDS_GAUSSIAN for part in ("iaf", "spline", "deterministic")},
    **{(name, "deterministic"): NO_DENSITY for name in ("iwae", "miwae", "piwae", "ciwae")},
    **{(name, part): NEEDS_DRAWS for name in ("info_vae", "wae") for part in ("mixture", "vamp")},
    **{
        (name, part): NO_LEARNED_PRIOR
        for name in ("ae", "rae", "rae gradient")
        for part in ("mixture", "vamp", "coupling flow")
    },
}
INFINITE_LOSS = {
    ("capacity_vae", "deterministic"),
    ("dip_vae means", "deterministic"),
    ("info_vae", "deterministic"),
}


def refusal_message(build_randomized, *overrides):
    """The one-line message of the UserError that the model raises when built or in its loss."""

    def build_and_compute_loss():
        model = build_randomized(*overrides)
        model.loss(*images(model))

    with pytest.raises((UserError, InstantiationException)) as error:
        build_and_compute_loss()
    found = error.value if isinstance(error.value, UserError) else error.value.__cause__
    assert isinstance(found, UserError)
    assert "\n" not in str(found)
    return str(found)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", MODELS)
def test_variant_trains_or_refuses_each_posterior_and_prior(build_randomized, name, part):
    overrides = [MODELS[name], PARTS[part]]
    if message := REFUSED.get((name, part)):
        assert message in refusal_message(build_randomized, *overrides)
        return
    model = build_randomized(*overrides)
    loss, distortion, _ = model.loss(*images(model))
    assert distortion.isfinite().all()
    if (name, part) in INFINITE_LOSS:  # a training run then stops with an error
        assert not loss.isfinite()
        return
    assert loss.isfinite()
    for parameter, gradient in gradients(model, loss).items():
        assert gradient is not None, parameter
        assert gradient.isfinite().all(), parameter
        assert gradient.any(), parameter


@pytest.mark.parametrize("name", MODELS)
def test_variant_trains_or_refuses_conditional_normal_prior(build_randomized, name):
    """`BetaTCVAE` needs one p(z) for all labels; `AE` and `RAE` take no prior to be learned."""
    overrides = [MODELS[name], "condition=one_hot prior=conditional_normal"]
    refused = {
        "beta_tcvae": NEEDS_FACTORISED,
        "ae": NO_LEARNED_PRIOR,
        "rae": NO_LEARNED_PRIOR,
        "rae gradient": NO_LEARNED_PRIOR,
    }
    if name in refused:
        assert refused[name] in refusal_message(build_randomized, *overrides)
        return
    model = build_randomized(*overrides)
    found = gradients(model, model.loss(*images(model))[0])
    assert all(gradient.any() for gradient in found.values())


def test_extra_metrics_have_expected_names_and_shapes(build_randomized):
    expected = {
        "beta_tcvae": {
            "minibatch_mutual_information",
            "minibatch_total_correlation",
            "minibatch_dimension_wise_kl",
        },
        "dip_vae means": {"penalty"},
        "info_vae": {"divergence"},
        "wae": {"divergence"},
        "iwae": {"importance_weighted_elbo"},
        "piwae": {"importance_weighted_elbo"},
        "capacity_vae": set(),
    }
    for name, names in expected.items():
        model = build_randomized(MODELS[name])
        details = model.extra_metrics(model.terms(*images(model)))
        assert details.keys() == names
        assert all(value.shape in ((), (10,)) for value in details.values())


def test_beta_tcvae_extra_metrics_sum_to_sampled_rate(build_randomized):
    model = build_randomized(MODELS["beta_tcvae"])
    x, y = images(model, count=4)
    terms = model.terms(x, y, num_samples=3)
    ratio = terms.q.log_prob(terms.z) - terms.prior.log_prob(terms.z)
    assert_close(sum(model.extra_metrics(terms).values()), ratio.mean(0))


def test_beta_tcvae_loss_needs_number_of_training_images(build):
    model = build("model=beta_tcvae", x_shape=SHAPE)
    assert not any("num_images" in name for name in model.state_dict())
    with pytest.raises(UserError, match="number of training images is not known"):
        model.loss(*batch(model))


@pytest.mark.parametrize("name", MODELS)
def test_variant_state_dict_holds_only_parameters(build_randomized, name):
    model = build_randomized(MODELS[name])
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("name", MODELS)
def test_compiled_loss_has_same_gradients_as_eager(build_randomized, name):
    """Compiles the loss as one graph. Variants whose objective calls autograd cannot compile."""
    model = build_randomized(MODELS[name])
    assert model.can_compile == (name not in ("rae gradient", "iwae dreg", "piwae"))
    if not model.can_compile:
        return
    torch.compiler.reset()  # else torch reaches its recompilation limit
    x, y = images(model)
    found = []
    Distribution.set_default_validate_args(False)  # as in training
    for loss in (model.loss, torch.compile(model.loss, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        found.append(gradients(model, loss(x, y)[0]))
    for parameter, gradient in found[0].items():
        assert_close(found[1][parameter], gradient, atol=1e-9, rtol=1e-9)


# Half precision.

EVERY_MODEL = {path.stem: f"model={path.stem}" for path in CONF.glob("model/[!_]*.yaml")} | {
    "dip_vae of codes": "model=dip_vae model.covariance=codes",
    "iwae by dreg": "model=iwae model.gradient=dreg",
    "rae by gradient": "model=rae model.regulariser=gradient",
    "vae with free bits": "model=vae model.free_bits=0.1",
    "wae by inverse_multiquadratic": "model=wae model.kernel=inverse_multiquadratic",
}


@pytest.mark.parametrize("case", sorted(EVERY_MODEL))
def test_autocast_keeps_objective_and_metrics_of_all_variants_in_float32(build, case):
    """And to the bit, unless a network is asked again: a discriminator, or an upper level."""
    words = [*EVERY_MODEL[case].split(), "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
    words += ["model.discriminator.hidden=[8]"] if case == "factor_vae" else []
    model = build(*words, x_shape=SHAPE, num_classes=5)
    if hasattr(model, "num_images"):
        model.num_images = IMAGES
    x, y = batch(model)
    terms = model.terms(x, y)
    expected = objective_and_metrics(model, terms)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.encoder(x, model.context(y)).dtype == torch.bfloat16
        found = objective_and_metrics(model, replace(terms))  # computes all of it again
        again = objective_and_metrics(model, model.terms(x, y)) | {"step": model.loss(x, y)[0]}
    assert {name: value.dtype for name, value in again.items()} == dict.fromkeys(
        again, torch.float32
    )
    tolerance = 0.01 if case in ("factor_vae", "ladder_vae") else 0
    for name, value in expected.items():
        assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def objective_and_metrics(model, terms):
    """Returns what an evaluation adds up of terms, and draws with the same seed each time."""
    torch.manual_seed(1)
    found = {"objective": model.objective(terms), **model.extra_metrics(terms)}
    return found | {"distortion": terms.distortion, "rate": terms.rate, "elbo": terms.elbo}
