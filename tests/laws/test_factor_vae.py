"""FactorVAE: two losses in one step, each for its own weights."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

SMALL = ["model.latent_dim=3", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]
SMALL += ["model.discriminator.hidden=[16,16]"]


@pytest.fixture
def subject(build):
    """(*overrides) -> a model and a batch."""

    def make(*overrides):
        model = build("model=factor_vae", *SMALL, *overrides, x_shape=(1, 8, 8), num_classes=3)
        return model.double(), torch.rand(12, 1, 8, 8).double().round(), torch.eye(3)[[0] * 12]

    return make


def gradients(model, loss):
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
    return {
        n: torch.zeros_like(w) if g is None else g
        for n, w, g in zip(names, weights, found, strict=True)
    }


def test_the_losses_of_a_step_by_the_papers_words(subject):
    model, x, y = subject("model.gamma=7", "condition=none")
    y = y.double()
    torch.manual_seed(3)
    loss, distortion, rate = model.loss(x, y)
    seen = gradients(model, loss)

    torch.manual_seed(3)
    terms = model.terms(x[::2], y[::2])
    others = model.encode(x[1::2], y[1::2]).rsample((1,))[0].detach()
    shuffled = model.shuffle_latents(others)
    d_codes = torch.sigmoid(model.discriminator(terms.z[0]))
    total_correlation = (d_codes.log() - (1 - d_codes).log()).mean()
    vae = (terms.distortion + terms.rate).mean() + 7 * total_correlation
    told = model.discriminator(terms.z[0].detach()).sigmoid().log().mean()
    not_told = logsigmoid(-model.discriminator(shuffled)).mean()
    judge = -(told + not_told) / 2

    assert_close(loss, vae)
    assert_close((distortion, rate), (terms.distortion.detach(), terms.rate.detach()))
    of_vae, of_judge = gradients(model, vae), gradients(model, judge)
    for name, gradient in seen.items():
        expected = (of_judge if name.startswith("discriminator.") else of_vae)[name]
        assert gradient.abs().sum() > 0
        assert_close(gradient, expected)


def test_without_gamma_it_is_the_vae(subject, build):
    model, x, y = subject("model.gamma=0")
    vae = build(*SMALL[:3], x_shape=(1, 8, 8), num_classes=3).double()
    vae.load_state_dict({n: w for n, w in model.state_dict().items() if "discriminator" not in n})
    terms = model.terms(x, y)
    assert_close(model.objective(terms), vae.objective(terms))


def test_each_latent_is_shuffled_over_the_batch_by_itself(subject):
    model, *_ = subject()
    codes = torch.randn(50, 3).double()
    shuffled = model.shuffle_latents(codes)
    assert_close(shuffled.sort(0).values, codes.sort(0).values)
    rows = [(shuffled == code).sum(1) for code in codes]
    assert max(int(row.max()) for row in rows) < 3  # no code is whole, as good as always
    firsts = torch.stack([model.shuffle_latents(codes)[0, 0] for _ in range(2000)])
    places = (firsts[:, None] == codes[:, 0]).double().argmax(1) + torch.rand(2000)
    assert kstest(places / 50, "uniform").pvalue > 1e-3


def test_a_discriminator_that_is_right_gives_the_total_correlation(subject):
    """Of Gaussian codes with correlation r: -log(1 - r^2) / 2, by the true density ratio."""
    model, *_ = subject()
    r = 0.8
    cholesky = torch.tensor([[1, 0], [r, math.sqrt(1 - r * r)]]).double()
    joint = torch.distributions.MultivariateNormal(torch.zeros(2).double(), scale_tril=cholesky)
    apart = torch.distributions.Normal(0.0, 1.0)

    class Right(torch.nn.Module):
        def forward(self, z):
            return joint.log_prob(z) - apart.log_prob(z).sum(-1)

    model.discriminator = Right()
    terms = type("Terms", (), {"z": joint.sample((1, 100_000))})
    found = model.total_correlation(terms)
    error = float(found.std() / math.sqrt(len(found)))
    assert float(found.mean()) == pytest.approx(-0.5 * math.log(1 - r * r), abs=4 * error)
    codes = terms.z[0]
    shuffled = model.shuffle_latents(codes)
    right = model.discriminator_loss(codes, shuffled)
    for wrong in (0.5, 2.0):
        Right.forward = lambda _, z, by=wrong: by * (joint.log_prob(z) - apart.log_prob(z).sum(-1))
        assert model.discriminator_loss(codes, shuffled) > right


def test_the_discriminator_has_settings_of_its_own_and_keeps_them(subject):
    model, *_ = subject("model.optimizer.lr=0.01", "model.discriminator_optimizer.lr=0.5")
    optimizer = model.configure_optimizers()
    ours, theirs = optimizer.param_groups
    assert (ours["lr"], ours["betas"]) == (0.01, (0.9, 0.999))
    assert (theirs["lr"], list(theirs["betas"])) == (0.5, [0.5, 0.9])
    assert len(ours["params"]) + len(theirs["params"]) == len(list(model.parameters()))
    assert {id(p) for p in theirs["params"]} == {id(p) for p in model.discriminator.parameters()}
