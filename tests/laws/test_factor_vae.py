"""`FactorVAE`, against the formulas of Kim & Mnih (2018), exact total correlation and `VAE`."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

SMALL = ["model.latent_dim=3", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
SMALL += ["model.discriminator.hidden=[16,16]"]


@pytest.fixture
def build_model_and_batch(build):
    """(*overrides) -> a small float64 model, images [12, 1, 8, 8] and one-hot labels [12, 3]."""

    def build_example(*overrides):
        model = build("model=factor_vae", *SMALL, *overrides, x_shape=(1, 8, 8), num_classes=3)
        return model.double(), torch.rand(12, 1, 8, 8).double().round(), torch.eye(3)[[0] * 12]

    return build_example


def gradients(model, loss):
    """The gradients of a loss [] by parameter name, zeros where it does not reach."""
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
    return {
        n: torch.zeros_like(w) if g is None else g
        for n, w, g in zip(names, weights, found, strict=True)
    }


def test_factor_vae_loss_and_gradients_agree_with_paper(build_model_and_batch):
    """Kim & Mnih (2018), arXiv:1802.05983, eq. 2 and algorithm 2."""
    model, x, y = build_model_and_batch("model.gamma=7", "condition=none")
    y = y.double()
    torch.manual_seed(3)
    loss, distortion, rate = model.loss(x, y)
    seen = gradients(model, loss)

    torch.manual_seed(3)
    terms = model.terms(x[::2], y[::2])
    others = model.latent_posterior(x[1::2], y[1::2]).rsample((1,))[0].detach()
    shuffled = model.shuffle_latents(others)
    d_codes = torch.sigmoid(model.discriminator(terms.z[0]))
    total_correlation = (d_codes.log() - (1 - d_codes).log()).mean()
    vae = (terms.distortion + terms.rate).mean() + 7 * total_correlation
    log_real = model.discriminator(terms.z[0].detach()).sigmoid().log().mean()
    log_shuffled = logsigmoid(-model.discriminator(shuffled)).mean()
    discriminator_loss = -(log_real + log_shuffled) / 2

    assert_close(loss, vae)
    assert_close((distortion, rate), (terms.distortion.detach(), terms.rate.detach()))
    of_vae, of_discriminator = gradients(model, vae), gradients(model, discriminator_loss)
    for name, gradient in seen.items():
        expected = (of_discriminator if name.startswith("discriminator.") else of_vae)[name]
        assert gradient.abs().sum() > 0
        assert_close(gradient, expected)


def test_factor_vae_objective_with_gamma_0_equals_vae(build_model_and_batch, build):
    model, x, y = build_model_and_batch("model.gamma=0")
    vae = build(*SMALL[:3], x_shape=(1, 8, 8), num_classes=3).double()
    vae.load_state_dict({n: w for n, w in model.state_dict().items() if "discriminator" not in n})
    terms = model.terms(x, y)
    assert_close(model.objective(terms), vae.objective(terms))


def test_shuffle_latents_permutes_each_latent_independently(build_model_and_batch):
    model, *_ = build_model_and_batch()
    codes = torch.randn(50, 3).double()
    shuffled = model.shuffle_latents(codes)
    assert_close(shuffled.sort(0).values, codes.sort(0).values)
    rows = [(shuffled == code).sum(1) for code in codes]
    assert max(int(row.max()) for row in rows) < 3  # almost surely no code keeps all its latents
    firsts = torch.stack([model.shuffle_latents(codes)[0, 0] for _ in range(2000)])
    places = (firsts[:, None] == codes[:, 0]).double().argmax(1) + torch.rand(2000)
    assert kstest(places / 50, "uniform").pvalue > 1e-3


def test_total_correlation_with_optimal_discriminator_is_exact(build_model_and_batch):
    """It is -log(1 - r^2) / 2 for Gaussian codes with correlation r.

    The optimal discriminator is the log-ratio of the densities. Its loss is the least.
    """
    model, *_ = build_model_and_batch()
    r = 0.8
    cholesky = torch.tensor([[1, 0], [r, math.sqrt(1 - r * r)]]).double()
    joint = torch.distributions.MultivariateNormal(torch.zeros(2).double(), scale_tril=cholesky)
    independent = torch.distributions.Normal(0.0, 1.0)

    class OptimalDiscriminator(torch.nn.Module):
        def forward(self, z):
            return joint.log_prob(z) - independent.log_prob(z).sum(-1)

    model.discriminator = OptimalDiscriminator()
    terms = type("Terms", (), {"z": joint.sample((1, 100_000))})
    found = model.total_correlation(terms)
    error = float(found.std() / math.sqrt(len(found)))
    assert float(found.mean()) == pytest.approx(-0.5 * math.log(1 - r * r), abs=4 * error)
    codes = terms.z[0]
    shuffled = model.shuffle_latents(codes)
    right = model.discriminator_loss(codes, shuffled)
    for wrong in (0.5, 2.0):
        OptimalDiscriminator.forward = lambda _, z, by=wrong: (
            by * (joint.log_prob(z) - independent.log_prob(z).sum(-1))
        )
        assert model.discriminator_loss(codes, shuffled) > right


def test_discriminator_optimizer_has_its_own_parameter_group(build_model_and_batch):
    model, *_ = build_model_and_batch(
        "model.optimizer.lr=0.01", "model.discriminator_optimizer.lr=0.5"
    )
    optimizer = model.configure_optimizers()
    vae_group, discriminator_group = optimizer.param_groups
    assert (vae_group["lr"], vae_group["betas"]) == (0.01, (0.9, 0.999))
    assert (discriminator_group["lr"], list(discriminator_group["betas"])) == (0.5, [0.5, 0.9])
    assert len(vae_group["params"]) + len(discriminator_group["params"]) == len(
        list(model.parameters())
    )
    assert {id(p) for p in discriminator_group["params"]} == {
        id(p) for p in model.discriminator.parameters()
    }


def test_discriminator_loss_is_in_float32_under_autocast(build_model_and_batch):
    model, *_ = build_model_and_batch()
    model, codes = model.float(), torch.randn(6, 3)
    exact = model.discriminator_loss(codes, codes)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.discriminator(codes).dtype == torch.bfloat16
        loss = model.discriminator_loss(codes, codes)
    assert loss.dtype == torch.float32
    assert_close(loss, exact, rtol=0.01, atol=0)
