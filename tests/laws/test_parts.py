"""Every likelihood with every prior, posterior and network: those of conf/, whatever is there."""

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

from vaelab.commands import cli
from vaelab.conditions import OneHot, Unconditional
from vaelab.data import pixels
from vaelab.models import VAE

SHAPE = (3, 9, 8)  # channels that a mixture chains, and sides that halve unevenly
CLASSES, LATENTS, IMAGES, SAMPLES = 3, 3, 4, 16
LARGEST = 6  # of any size in the settings of a part
ERRORS = 6  # standard errors that an estimate may be from what it estimates


def choices(group):
    return sorted(path.stem for path in (cli.CONF / group).glob("*.yaml"))


LIKELIHOODS = [
    *((name, {}) for name in choices("likelihood")),  # a learned scale, where there is a choice
    *(("gaussian", {"scale": scale}) for scale in (0.5, "per_pixel", "optimal")),
]
OWN = {"codes", "codebook", "deterministic"}  # parts of models that take no others
PRIORS, POSTERIORS = (sorted({*choices(group)} - OWN) for group in ("prior", "posterior"))
NETWORKS = choices("network")
ONLY_CONDITIONAL = {"conditional_normal"}


def named(value):
    """A choice as the id of a test: gaussian-per_pixel."""
    name, settings = (value, {}) if isinstance(value, str) else value
    return "-".join([name, *map(str, settings.values())])


@cache
def composed(choice):
    """The configuration with one choice, as the command line composes it."""
    with initialize_config_dir(str(cli.CONF), version_base="1.3"):
        return hydra.compose("train", [choice])


def smaller(settings):
    """Settings of a part with every size in them at most `LARGEST`."""
    if isinstance(settings, dict):
        return {key: smaller(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [smaller(value) for value in settings]
    return min(settings, LARGEST) if type(settings) is int else settings


@cache
def factory(group, choice, part):
    """The factory of one part, from the real file and of small sizes."""
    settings = OmegaConf.to_container(composed(f"{group}={choice}").model[part])
    return instantiate(smaller(settings), _convert_="all")


def build(likelihood, network, prior, posterior, *, conditional):
    """A fresh small model of these choices, and a batch (x, y) of the pixels that it takes."""
    name, changes = likelihood
    cfg = composed(f"likelihood={name}")
    settings = smaller(OmegaConf.to_container(cfg.model.likelihood)) | changes
    model = VAE(
        latent_dim=LATENTS,
        encoder=factory("network", network, "encoder"),
        decoder=factory("network", network, "decoder"),
        prior=factory("prior", prior, "prior"),
        posterior=factory("posterior", posterior, "posterior"),
        likelihood=instantiate(settings),
        optimizer=torch.optim.Adam,
        x_shape=SHAPE,
        pixels=cfg.data.pixels,
        **labelled(conditional),
    )
    images = torch.randint(256, (IMAGES, *SHAPE)).byte()
    x = pixels.draw(images, cfg.data.pixels, torch.default_generator)
    return model, x, torch.eye(CLASSES)[torch.arange(IMAGES) % CLASSES]


def labelled(conditional):
    """What a model is told of the labels."""
    condition = OneHot if conditional else Unconditional
    return {"classes": {"label": CLASSES}, "numbers": {}, "condition": condition}


@torch.no_grad()
def move(model):
    """Takes prior and posterior from the start, where they are close and no rate has a sign.

    Of the posterior the biases: what large features make of large weights may be of any size.
    """
    biases = [p for p in model.posterior.parameters() if p.dim() == 1]
    for parameter in [*model.prior.parameters(), *biases]:
        parameter += 0.2 * torch.randn_like(parameter)


def check_gradients(model, x, y, combination):
    """The first step of a training is finite, and reaches every parameter.

    Returns:
        Whether it moves the parameter, by name: a narrow layer of ReLUs may be dead by chance.
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
def check_bounds(model, x, y, combination):
    """-(distortion + rate) is the mean of the log-weights, and so at most the log of their mean.

    The second is Jensen's inequality, exact for the mean over the same z. The first is
    exact where the rate is estimated from these z. Where it has a closed form, they differ by the
    error of sampling log q(z) - log p(z) alone, whatever the likelihood: of a known size.

    Returns:
        Whether a rate of the wrong sign would have been seen, so large it is beside that error.
    """
    model, x, y = (value.double() for value in (model.eval(), x, y))
    move(model)
    terms = model.terms(x, y, num_samples=SAMPLES)
    log_weights = terms.log_weights
    assert log_weights.shape == (SAMPLES, IMAGES), combination
    ratio = terms.q.log_prob(terms.z) - terms.prior.log_prob(terms.z)
    error = (ratio.var(0).sum() / SAMPLES).sqrt() / IMAGES
    margin = ERRORS * error + 1e-12 * log_weights.abs().max()  # rounding
    elbo = terms.elbo.mean()
    difference = elbo - log_weights.mean()
    assert difference.abs() <= margin, f"{combination}: {difference} +- {error}"
    bound = (log_weights.logsumexp(0) - math.log(SAMPLES)).mean()
    assert elbo <= bound + margin, f"{combination}: {elbo} is above {bound} +- {error}"
    return bool(2 * ratio.mean().abs() > margin)


def check_every(combinations, *, conditional):
    """Gradients and bounds of each (likelihood, network, prior, posterior)."""
    moved, still, told = set(), set(), 0
    for likelihood, network, prior, posterior in combinations:
        combination = f"{likelihood} network={network} prior={prior} posterior={posterior}"
        model, x, y = build(likelihood, network, prior, posterior, conditional=conditional)
        for name, moves in check_gradients(model, x, y, combination).items():
            choice = {"prior": prior, "posterior": posterior}.get(name.partition(".")[0], network)
            (moved if moves else still).add((choice, name))
        told += check_bounds(model, x, y, combination)
    assert not still - moved
    assert told > len(combinations) / 2


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=named)
def test_gradients_and_bounds(likelihood, network):
    check_every([*product([likelihood], [network], PRIORS, POSTERIORS)], conditional=True)


@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_and_bounds_of_networks_without_labels(network):
    plain = [["standard_normal"], ["gaussian"]]
    check_every([*product(LIKELIHOODS, [network], *plain)], conditional=False)


def test_gradients_and_bounds_of_priors_and_posteriors_without_labels():
    priors = [prior for prior in PRIORS if prior not in ONLY_CONDITIONAL]
    check_every([*product([("bernoulli", {})], ["mlp"], priors, POSTERIORS)], conditional=False)


@pytest.mark.parametrize("posterior", POSTERIORS)
@pytest.mark.parametrize("prior", PRIORS)
@torch.no_grad()
def test_prior_and_posterior_are_normalised(prior, posterior):
    """What the bounds cannot see: a constant or a Jacobian missing in a density.

    It is in both sides of them where the rate is estimated. With m = (p + q) / 2, from which half
    the z of either are, the mean of p / m is the integral of p, and of terms between 0 and 2.
    """
    for conditional in (True, False):
        if prior in ONLY_CONDITIONAL and not conditional:
            continue
        plain = ("bernoulli", {}), "mlp"
        model, x, y = build(*plain, prior, posterior, conditional=conditional)
        move(model)
        q, p = model.encode(x, y), model.latent_prior(y).expand([IMAGES])
        drawn = q.rsample((1_000,))
        z = torch.stack([drawn, p.sample((1_000,))])
        log_q, log_p = q.log_prob(z), p.log_prob(z)
        assert_close(q.log_prob(drawn), log_q[0], rtol=1e-4, atol=1e-4)  # as it is remembered
        log_m = torch.logaddexp(log_q, log_p) - math.log(2)
        for log_density in (log_q, log_p):
            parts = (log_density - log_m).exp()
            error = (parts.var(1).sum(0) / 1_000).sqrt() / 2  # of each half, then of their mean
            assert error.max() < 0.02
            assert ((parts.mean((0, 1)) - 1).abs() < 5 * error + 1e-5).all()
