"""Every likelihood with every network, prior and posterior of conf/: gradients and bounds.

The choices are all files of conf/, except parts that only one model takes. Also tests that every
prior and posterior is normalised.
"""

import math
from functools import cache
from itertools import product

import hydra
import pytest
import torch
from hydra import initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch.testing import assert_close

from vaelab.commands import config_folders
from vaelab.conditions import OneHot, Unconditional
from vaelab.data import pixels
from vaelab.models import VAE

SHAPE = (3, 9, 8)  # a mixture couples the channels; the sides do not halve evenly
CLASSES, LATENTS, IMAGES, SAMPLES = 3, 3, 4, 16
MAX_SIZE = 6  # limit of every size in the settings of a part
MAX_STANDARD_ERRORS = 6  # tolerance of an estimate


def choices(group):
    """The names of the files in conf/GROUP, sorted."""
    return sorted(path.stem for path in (config_folders.CONF / group).glob("*.yaml"))


LIKELIHOODS = [
    *((name, {}) for name in choices("likelihood")),  # scale=learned, where there is a scale
    *(("gaussian", {"scale": scale}) for scale in (0.5, "per_pixel", "optimal")),
]
MODEL_SPECIFIC = {"codes", "codebook", "deterministic"}  # parts that only one model takes
PRIORS, POSTERIORS = (
    sorted({*choices(group)} - MODEL_SPECIFIC) for group in ("prior", "posterior")
)
NETWORKS = choices("network")
ONLY_CONDITIONAL = {"conditional_normal"}


def choice_id(value):
    """The pytest id of a choice, such as gaussian-per_pixel."""
    name, settings = (value, {}) if isinstance(value, str) else value
    return "-".join([name, *map(str, settings.values())])


@cache
def compose_choice(choice):
    """Returns the training configuration with one override, composed as on the command line."""
    with initialize_config_dir(str(config_folders.CONF), version_base="1.3"):
        return hydra.compose("train", [choice])


def shrunk_settings(settings):
    """The settings of a part with every integer in them at most `MAX_SIZE`."""
    if isinstance(settings, dict):
        return {key: shrunk_settings(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [shrunk_settings(value) for value in settings]
    return min(settings, MAX_SIZE) if type(settings) is int else settings


@cache
def part_factory(group, choice, part):
    """Returns the factory of one part from its file in conf/, with small sizes; cached."""
    settings = OmegaConf.to_container(compose_choice(f"{group}={choice}").model[part])
    return instantiate(shrunk_settings(settings), _convert_="all")


def build_small_model(likelihood, network, prior, posterior, *, conditional):
    """Returns a new small model of these choices, and a batch (x, y) of pixels that it takes."""
    name, changes = likelihood
    cfg = compose_choice(f"likelihood={name}")
    settings = shrunk_settings(OmegaConf.to_container(cfg.model.likelihood)) | changes
    model = VAE(
        latent_dim=LATENTS,
        encoder=part_factory("network", network, "encoder"),
        decoder=part_factory("network", network, "decoder"),
        prior=part_factory("prior", prior, "prior"),
        posterior=part_factory("posterior", posterior, "posterior"),
        likelihood=instantiate(settings),
        optimizer=torch.optim.Adam,
        x_shape=SHAPE,
        pixels=cfg.data.pixels,
        **label_settings(conditional),
    )
    images = torch.randint(256, (IMAGES, *SHAPE)).byte()
    x = pixels.draw(images, cfg.data.pixels, torch.default_generator)
    return model, x, torch.eye(CLASSES)[torch.arange(IMAGES) % CLASSES]


def label_settings(conditional):
    """The arguments of a model that describe its labels."""
    condition = OneHot if conditional else Unconditional
    return {"classes": {"label": CLASSES}, "numbers": {}, "condition": condition}


@torch.no_grad()
def perturb_prior_and_posterior(model):
    """Adds noise to the prior and to the posterior's biases, in place.

    At their start prior and posterior are close, so the rate is too small to show its sign. The
    posterior's weights stay: large features could make any value of them.
    """
    biases = [p for p in model.posterior.parameters() if p.dim() == 1]
    for parameter in [*model.prior.parameters(), *biases]:
        parameter += 0.2 * torch.randn_like(parameter)


def assert_finite_gradients(model, x, y, combination):
    """Asserts that a training step is finite and that its gradient reaches every parameter.

    Returns:
        Whether the gradient is not zero, by parameter. In a narrow layer of ReLUs it may be zero
        by chance.
    """
    loss, distortion, rate = model.loss(x, y)
    for value in (loss, distortion, rate):
        assert value.isfinite().all(), combination
    loss.backward()
    moves = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{combination}: nothing reaches {name}"
            assert parameter.grad.isfinite().all(), f"{combination}: gradient of {name}"
            moves[name] = bool(parameter.grad.any())
    return moves


@torch.no_grad()
def assert_bounds(model, x, y, combination):
    """Asserts ELBO = mean log-weight <= log mean weight, after perturbing the model in float64.

    The inequality is Jensen's, exact for the mean over the same z. The equality is exact where
    the rate is estimated from these z. Where the rate has a closed form, both sides differ by the
    error of sampling log q(z) - log p(z), for any likelihood.

    Returns:
        Whether the rate is so large that the wrong sign would exceed that error.
    """
    model, x, y = (value.double() for value in (model.eval(), x, y))
    perturb_prior_and_posterior(model)
    terms = model.terms(x, y, num_samples=SAMPLES)
    log_weights = terms.log_weights
    assert log_weights.shape == (SAMPLES, IMAGES), combination
    ratio = terms.q.log_prob(terms.z) - terms.prior.log_prob(terms.z)
    error = (ratio.var(0).sum() / SAMPLES).sqrt() / IMAGES
    margin = MAX_STANDARD_ERRORS * error + 1e-12 * log_weights.abs().max()  # rounding
    elbo = terms.elbo.mean()
    difference = elbo - log_weights.mean()
    assert difference.abs() <= margin, f"{combination}: {difference} +- {error}"
    bound = (log_weights.logsumexp(0) - math.log(SAMPLES)).mean()
    assert elbo <= bound + margin, f"{combination}: {elbo} is above {bound} +- {error}"
    return bool(2 * ratio.mean().abs() > margin)


def assert_gradients_and_bounds(combinations, *, conditional):
    """Asserts gradients and bounds of each (likelihood, network, prior, posterior).

    Every parameter needs a gradient in one combination, and half of the rates a visible sign.
    """
    moved, still, sign_checks = set(), set(), 0
    for likelihood, network, prior, posterior in combinations:
        combination = f"{likelihood} network={network} prior={prior} posterior={posterior}"
        model, x, y = build_small_model(
            likelihood, network, prior, posterior, conditional=conditional
        )
        for name, moves in assert_finite_gradients(model, x, y, combination).items():
            choice = {"prior": prior, "posterior": posterior}.get(name.partition(".")[0], network)
            (moved if moves else still).add((choice, name))
        sign_checks += assert_bounds(model, x, y, combination)
    assert not still - moved
    assert sign_checks > len(combinations) / 2


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=choice_id)
def test_gradients_and_bounds_of_every_combination_with_labels(likelihood, network):
    assert_gradients_and_bounds(
        [*product([likelihood], [network], PRIORS, POSTERIORS)], conditional=True
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_and_bounds_of_likelihoods_and_networks_without_labels(network):
    plain = [["standard_normal"], ["gaussian"]]
    assert_gradients_and_bounds([*product(LIKELIHOODS, [network], *plain)], conditional=False)


def test_gradients_and_bounds_of_priors_and_posteriors_without_labels():
    priors = [prior for prior in PRIORS if prior not in ONLY_CONDITIONAL]
    assert_gradients_and_bounds(
        [*product([("bernoulli", {})], ["mlp"], priors, POSTERIORS)], conditional=False
    )


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", PRIORS)
@torch.no_grad()
def test_prior_and_posterior_are_normalised(prior, posterior):
    """By importance sampling from m = (p + q) / 2: the mean of p / m is the integral of p.

    The bounds cannot show a missing constant or Jacobian: where the rate is estimated, both sides
    have it. Half of the z are drawn from each of p and q. Each p / m is between 0 and 2.
    """
    for conditional in (True, False):
        if prior in ONLY_CONDITIONAL and not conditional:
            continue
        plain = ("bernoulli", {}), "mlp"
        model, x, y = build_small_model(*plain, prior, posterior, conditional=conditional)
        perturb_prior_and_posterior(model)
        q, p = model.latent_posterior(x, y), model.latent_prior(y).expand([IMAGES])
        drawn = q.rsample((1_000,))
        z = torch.stack([drawn, p.sample((1_000,))])
        log_q, log_p = q.log_prob(z), p.log_prob(z)
        assert_close(q.log_prob(drawn), log_q[0], rtol=1e-4, atol=1e-4)  # as kept from drawing
        log_m = torch.logaddexp(log_q, log_p) - math.log(2)
        for log_density in (log_q, log_p):
            parts = (log_density - log_m).exp()
            error = (parts.var(1).sum(0) / 1_000).sqrt() / 2  # the error of the mean of two halves
            assert error.max() < 0.02
            assert ((parts.mean((0, 1)) - 1).abs() < 5 * error + 1e-5).all()
