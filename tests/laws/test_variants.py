"""Every variant is its formula: against slow sums, its neutral setting, and the parts it takes."""

import math
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

from vaelab.distributions.mmd import squared_mmd
from vaelab.errors import UserError


@pytest.fixture
def make(build):
    """(*overrides) -> a small model in double precision, at no special point."""
    return partial(small, build)


# At its neutral setting a variant is the VAE, or what it says it is.

NEUTRAL = {
    "beta": ("model=beta_vae model.beta=1", "model=vae"),
    "capacity": ("model=capacity_vae model.capacity=0 model.gamma=1", "model=vae"),
    "stratified": ("model=beta_tcvae model.beta=1", "model=vae"),
    "weighted": ("model=beta_tcvae model.beta=1 model.estimator=weighted", "model=vae"),
    "dip": ("model=dip_vae model.off_diagonal=0 model.diagonal=0", "model=vae"),
    "dip of codes": (
        "model=dip_vae model.covariance=codes model.off_diagonal=0 model.diagonal=0",
        "model=vae",
    ),
    "info": ("model=info_vae model.alpha=0 model.divergence_weight=1", "model=vae"),
    "info is wae": (
        "model=info_vae model.alpha=1 model.divergence_weight=7 model.kernel=gaussian",
        "model=wae posterior=gaussian model.divergence_weight=7 model.kernel=gaussian "
        "model.scales=[1.0]",
    ),
    "wae": ("model=wae model.divergence_weight=0", "model=ae"),
    "rae": ("model=rae model.code_weight=0 model.decoder_weight=0", "model=ae"),
    "rae of none": ("model=rae model.code_weight=0 model.regulariser=none", "model=ae"),
    "noisy ae": ("model=ae posterior=gaussian", "model=beta_vae model.beta=0"),
    # The rate of a mixture prior is estimated from the samples, as importance weights are.
    "iwae": ("model=iwae model.num_samples=1 prior=mixture", "model=vae prior=mixture"),
    "miwae": (
        "model=miwae model.num_samples=4 model.groups=4 prior=mixture",
        "model=vae model.num_samples=4 prior=mixture",
    ),
    "ciwae": (
        "model=ciwae model.num_samples=4 model.beta=1 prior=mixture",
        "model=vae model.num_samples=4 prior=mixture",
    ),
    "miwae of one": (
        "model=miwae model.num_samples=4 model.groups=1",
        "model=iwae model.num_samples=4",
    ),
    "piwae of one": (
        "model=piwae model.num_samples=4 model.groups=1",
        "model=iwae model.num_samples=4",
    ),
    "ciwae of none": (
        "model=ciwae model.num_samples=4 model.beta=0",
        "model=iwae model.num_samples=4",
    ),
}


@pytest.mark.parametrize("case", NEUTRAL)
def test_neutral_settings(make, case):
    """The value and every gradient."""
    variant, reference = map(make, NEUTRAL[case])
    reference.load_state_dict(variant.state_dict())
    x, y = images(variant)
    found, expected = objective(variant, x, y), objective(reference, x, y)
    assert_close(found, expected, atol=1e-10, rtol=0)
    found, expected = gradients(variant, found), gradients(reference, expected)
    for name in expected:
        assert_close(found[name], expected[name], atol=1e-9, rtol=1e-9)


# Each formula, one number at a time.


class Numbers:
    """Arrays of what a formula is of, each made anew from the outputs of the networks."""

    def __init__(self, model, terms, x, y):
        context = model.context(y)
        params = model.posterior.params(model.encoder(x, context))
        self.z = terms.z.detach().numpy()  # [K, B, D]
        if params.shape[1] == LATENTS:
            self.mean = params.detach().numpy()
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


def capacity(n):
    return n.distortion.mean() + 3 * abs(n.rate.mean() - 1.5)


def total_correlation(n, log_estimate):
    """2 * mutual information + 5 * total correlation + 0.5 * dimension-wise KL, by the rate."""
    loss = n.distortion.mean() + n.rate.mean()
    samples, count, latents = n.z.shape
    for k in range(samples):
        for i in range(count):
            densities = [
                [normal(n.z[k, i, d], n.mean[j, d], n.scale[j, d]) for d in range(latents)]
                for j in range(count)
            ]
            joint = log_estimate(i, [math.prod(each) for each in densities], IMAGES)
            product = sum(log_estimate(i, each, IMAGES) for each in zip(*densities, strict=True))
            own = math.log(math.prod(densities[i]))
            prior = sum(math.log(normal(n.z[k, i, d], 0, 1)) for d in range(latents))
            parts = 1 * (own - joint) + 4 * (joint - product) - 0.5 * (product - prior)
            loss += parts / (samples * count)
    return loss


def normal(z, mean, scale):
    return math.exp(-0.5 * ((z - mean) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))


def dip(n, codes):
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


def mmd(a, b, kernel, scales):
    """Algorithm 2 of Tolstikhin et al., for [B, D] each."""
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


def drawn(model, x, y):
    """What the objective draws from N(0, I), after the noise of z."""
    torch.manual_seed(1)
    shape = model.terms(x, y).z.shape
    return torch.randn(shape, dtype=torch.float64).numpy()


FORMULAS = {
    "model=capacity_vae model.capacity=1.5 model.gamma=3": lambda n, draws: capacity(n),
    "model=beta_tcvae model.alpha=2 model.beta=5 model.gamma=0.5": lambda n, draws: (
        total_correlation(n, LOG_ESTIMATES["stratified"])
    ),
    "model=beta_tcvae model.alpha=2 model.beta=5 model.gamma=0.5 model.estimator=weighted": (
        lambda n, draws: total_correlation(n, LOG_ESTIMATES["weighted"])
    ),
    "model=dip_vae model.off_diagonal=2 model.diagonal=3": lambda n, draws: dip(n, codes=False),
    "model=dip_vae model.off_diagonal=2 model.diagonal=3 model.covariance=codes": (
        lambda n, draws: dip(n, codes=True)
    ),
    "model=info_vae model.alpha=-0.5 model.divergence_weight=4 model.scales=[0.5,2]": (
        lambda n, draws: (
            n.distortion.mean()
            + 1.5 * n.rate.mean()
            + 2.5 * np.mean([mmd(*ab, "gaussian", [0.5, 2]) for ab in zip(n.z, draws, strict=True)])
        )
    ),
    "model=wae model.divergence_weight=4 model.scales=[0.5,2]": lambda n, draws: (
        n.distortion.mean()
        + 4
        * np.mean(
            [mmd(*ab, "inverse_multiquadratic", [0.5, 2]) for ab in zip(n.z, draws, strict=True)]
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
def test_objectives_are_their_formulas(make, overrides, samples):
    model = make(overrides, f"model.num_samples={samples}")
    x, y = images(model)
    with torch.no_grad():
        torch.manual_seed(1)
        numbers = Numbers(model, model.terms(x, y), x, y)
        expected = FORMULAS[overrides](numbers, drawn(model, x, y))
        assert_close(objective(model, x, y).item(), float(expected), atol=1e-8, rtol=0)


def test_capacity_is_of_the_mean_rate(make):
    """Not the mean of each image's distance: codes on both sides of C cancel."""
    model = make("model=capacity_vae", "model.gamma=3")
    terms = model.terms(*images(model))
    rates = terms.rate.detach()
    model.capacity.fill_(rates.mean())
    assert_close(model.objective(terms), terms.distortion.mean(), atol=1e-5, rtol=0)
    assert 3 * (rates - rates.mean()).abs().mean() > 0.1
    model.capacity.fill_(rates.mean() + 2)
    below = gradients(model, model.objective(terms))["posterior.params.bias"]
    terms = model.terms(*images(model))
    rate_up = gradients(model, terms.rate.mean())["posterior.params.bias"]
    assert below @ rate_up < 0  # too little is held, so the rate is driven up


def test_dip_of_codes_counts_the_correlations_of_a_full_gaussian(make):
    model = make(
        "model=dip_vae posterior=full_gaussian model.covariance=codes",
        "model.off_diagonal=2 model.diagonal=0",
    )
    terms = model.terms(*images(model))
    z = terms.q.sample((40_000,)).flatten(0, 1)
    sampled = z.T.cov(correction=0)
    off_diagonal = sampled - sampled.diag().diag()
    assert off_diagonal.abs().max() > 0.1
    assert_close(model.penalty(terms.q), 2 * off_diagonal.square().sum(), rtol=0.05, atol=0.01)


# The discrepancy.


@pytest.mark.parametrize("kernel", ["gaussian", "inverse_multiquadratic"])
def test_the_discrepancy_is_unbiased_and_tells_distributions_apart(kernel):
    a, b = torch.randn(2, 3_000, 20, 3).double()
    same = squared_mmd(a, b, kernel, [0.5, 2.0])
    assert same.shape == (3_000,)
    error = same.std() / math.sqrt(3_000)
    assert same.mean().abs() < 4 * error
    assert (same < 0).any()  # which an estimate with its diagonals never is
    shifts = [squared_mmd(a + shift, b, kernel, [0.5, 2.0]).mean() for shift in (0, 0.5, 1, 2)]
    assert all(second > first + 4 * error for first, second in pairwise(shifts))


def test_the_discrepancy_of_gaussians():
    """Against its closed form, E k = (C / (C + 2 s))^(D/2) exp(-m^2 / (C + 2 s)) for N(m, s)."""
    latents, shift = 3, 0.7
    a, b = torch.randn(2, 2_000, 50, latents).double()
    values = squared_mmd(a + shift, b, "gaussian", [1.0])
    width = 2 * latents

    def mean(squares):
        return (width / (width + 4)) ** (latents / 2) * math.exp(-squares / (width + 4))

    expected = 2 * mean(0) - 2 * mean(latents * shift**2)
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
def test_of_one_image_what_compares_images_is_zero(make, overrides, rate):
    """Such as the last one of an evaluation, left over from full batches."""
    model = make(overrides)
    with torch.no_grad():
        torch.manual_seed(1)
        terms = model.terms(*images(model, count=1))
        expected = terms.distortion + (rate * terms.rate if rate else 0)
        assert_close(model.objective(terms), expected.mean())
        details = model.extra_metrics(terms)
    compared = ("divergence", "penalty", "minibatch_mutual_information")
    for name in details.keys() & set(compared):
        assert_close(details[name].sum().item(), 0.0)


# Parts. What a formula takes trains all of its parameters; what it does not take is refused.

MODELS = {
    "capacity": "model=capacity_vae",
    "tc": "model=beta_tcvae",
    "dip": "model=dip_vae",
    "dip of codes": "model=dip_vae model.covariance=codes",
    "info": "model=info_vae",
    "wae": "model=wae",
    "ae": "model=ae",
    "rae": "model=rae",
    "rae by gradient": "model=rae model.regulariser=gradient",
    "iwae": "model=iwae",
    "dreg": "model=iwae model.gradient=dreg",
    "miwae": "model=miwae",
    "piwae": "model=piwae",
    "ciwae": "model=ciwae",
}
PARTS = {
    "by itself": "",
    "full_gaussian": "posterior=full_gaussian",
    "iaf": "posterior=iaf",
    "spline": "posterior=spline",
    "deterministic": "posterior=deterministic",
    "mixture": "prior=mixture model.prior.components=7",
    "vamp": "prior=vamp model.prior.components=7",
    "coupling flow": "prior=flow",
}
NO_DENSITY, FLOW, LEARNED = "has no density", "needs posterior=gaussian", "does not train a prior"
UNSAMPLED, FACTORS = "needs draws from the prior with gradients", "the total correlation needs"
REFUSED = {
    **{("tc", part): FACTORS for part in PARTS if part != "by itself"},
    **{("dip of codes", part): FLOW for part in ("iaf", "spline", "deterministic")},
    **{("dreg", part): FLOW for part in ("iaf", "spline", "deterministic")},
    **{(name, "deterministic"): NO_DENSITY for name in ("iwae", "miwae", "piwae", "ciwae")},
    **{(name, part): UNSAMPLED for name in ("info", "wae") for part in ("mixture", "vamp")},
    **{
        (name, part): LEARNED
        for name in ("ae", "rae", "rae by gradient")
        for part in ("mixture", "vamp", "coupling flow")
    },
}
BOUNDLESS = {("capacity", "deterministic"), ("dip", "deterministic"), ("info", "deterministic")}


def refusal(make, *overrides):
    """What the user is told, in one line, when the model is made or takes its first step."""

    def first_step():
        model = make(*overrides)
        model.loss(*images(model))

    with pytest.raises((UserError, InstantiationException)) as error:
        first_step()
    found = error.value if isinstance(error.value, UserError) else error.value.__cause__
    assert isinstance(found, UserError)
    assert "\n" not in str(found)
    return str(found)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", MODELS)
def test_parts_train_or_are_refused(make, name, part):
    overrides = [MODELS[name], PARTS[part]]
    if message := REFUSED.get((name, part)):
        assert message in refusal(make, *overrides)
        return
    model = make(*overrides)
    loss, distortion, _ = model.loss(*images(model))
    assert distortion.isfinite().all()
    if (name, part) in BOUNDLESS:  # which ends training, by name
        assert not loss.isfinite()
        return
    assert loss.isfinite()
    for parameter, gradient in gradients(model, loss).items():
        assert gradient is not None, parameter
        assert gradient.isfinite().all(), parameter
        assert gradient.any(), parameter


@pytest.mark.parametrize("name", MODELS)
def test_labels_with_a_prior_of_their_own(make, name):
    """p(z | y): each sample against its own label's; TC is of one p(z), and AE of none learned."""
    overrides = [MODELS[name], "condition=one_hot prior=conditional_normal"]
    refused = {"tc": FACTORS, "ae": LEARNED, "rae": LEARNED, "rae by gradient": LEARNED}
    if name in refused:
        assert refused[name] in refusal(make, *overrides)
        return
    model = make(*overrides)
    found = gradients(model, model.loss(*images(model))[0])
    assert all(gradient.any() for gradient in found.values())


def test_details_are_of_the_images_or_of_the_batch(make):
    expected = {
        "tc": {
            "minibatch_mutual_information",
            "minibatch_total_correlation",
            "minibatch_dimension_wise_kl",
        },
        "dip": {"penalty"},
        "info": {"divergence"},
        "wae": {"divergence"},
        "iwae": {"importance_weighted_elbo"},
        "piwae": {"importance_weighted_elbo"},
        "capacity": set(),
    }
    for name, names in expected.items():
        model = make(MODELS[name])
        details = model.extra_metrics(model.terms(*images(model)))
        assert details.keys() == names
        assert all(value.shape in ((), (10,)) for value in details.values())


def test_the_parts_reported_add_up_to_the_rate(make):
    model = make(MODELS["tc"])
    x, y = images(model, count=4)
    terms = model.terms(x, y, num_samples=3)
    ratio = terms.q.log_prob(terms.z) - terms.prior.log_prob(terms.z)
    assert_close(sum(model.extra_metrics(terms).values()), ratio.mean(0))


def test_the_number_of_training_images_must_be_known(build):
    model = build("model=beta_tcvae", x_shape=SHAPE)
    assert not any("num_images" in name for name in model.state_dict())
    with pytest.raises(UserError, match="number of training images is not known"):
        model.loss(*batch(model))


@pytest.mark.parametrize("name", MODELS)
def test_checkpoints_hold_the_parameters_alone(make, name):
    model = make(MODELS[name])
    assert model.state_dict().keys() == dict(model.named_parameters()).keys()


@pytest.mark.parametrize("name", MODELS)
def test_a_compiled_step_has_the_same_gradient(make, name):
    """Of one graph, but where the objective takes a gradient itself, which is not compiled."""
    model = make(MODELS[name])
    assert model.can_compile == (name not in ("rae by gradient", "dreg", "piwae"))
    if not model.can_compile:
        return
    torch.compiler.reset()  # or it is the loss compiled anew too often
    x, y = images(model)
    found = []
    Distribution.set_default_validate_args(False)  # as in training
    for loss in (model.loss, torch.compile(model.loss, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(1)
        found.append(gradients(model, loss(x, y)[0]))
    for parameter, gradient in found[0].items():
        assert_close(found[1][parameter], gradient, atol=1e-9, rtol=1e-9)
