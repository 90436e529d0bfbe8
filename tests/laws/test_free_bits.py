"""Free bits: a lower limit to the batch mean of each group's rate, against loops."""

import pytest
import torch
from torch.testing import assert_close

from vaelab.errors import UserError

SMALL = ["model.latent_dim=4", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"]


@pytest.fixture
def build_model_and_batch(build):
    """(*overrides) -> a small float64 model whose latents have different rates, and a batch."""

    def build_example(*overrides):
        model = build(*SMALL, *overrides, x_shape=(1, 8, 8), num_classes=3).double()
        with torch.no_grad():
            model.posterior.params.bias[:4] += torch.tensor([0.1, 0.5, 1.0, 2.0])
        return model, torch.rand(10, 1, 8, 8).double().round(), torch.eye(3).double()[[0] * 10]

    return build_example


def loss_by_loops(terms, free_bits, group, beta=1.0):
    """The loss and the rate of each group, by loops over images and latents."""
    means, scales = terms.q.base_dist.loc.tolist(), terms.q.base_dist.scale
    count, latents = len(means), len(means[0])
    rates = [0.0] * latents
    for mean, scale in zip(means, scales.tolist(), strict=True):
        for latent, (m, s) in enumerate(zip(mean, scale, strict=True)):
            log_s = float(torch.tensor(s, dtype=torch.float64).log())
            rates[latent] += 0.5 * (m * m + s * s - 1 - 2 * log_s) / count
    groups = [sum(rates[i : i + group]) for i in range(0, latents, group)]
    penalty = sum(max(free_bits, rate) for rate in groups)
    return float(terms.distortion.detach().mean()) + beta * penalty, groups


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("free_bits", [0.2, 0.7, 100.0])
def test_free_bits_loss_agrees_with_loops(build_model_and_batch, free_bits, group):
    settings = [f"model.free_bits={free_bits}", f"model.free_bits_group={group}"]
    model, x, y = build_model_and_batch("model=beta_vae", "model.beta=3", *settings)
    terms = model.terms(x, y)
    expected, _ = loss_by_loops(terms, free_bits, group, beta=3.0)
    assert float(model.objective(terms)) == pytest.approx(expected, rel=1e-9)
    assert_close(terms.elbo, -(terms.distortion + terms.rate))  # without free bits


def test_objective_without_or_with_tiny_free_bits_is_negative_elbo(build_model_and_batch):
    model, x, y = build_model_and_batch()
    terms = model.terms(x, y)
    assert_close(model.objective(terms), -terms.elbo.mean())
    model.free_bits = 1e-9
    assert_close(model.objective(terms), -terms.elbo.mean())


def test_free_bits_give_gradient_only_to_groups_above_limit(build_model_and_batch):
    model, x, y = build_model_and_batch("model.free_bits=0.7")
    terms = model.terms(x, y)
    _, rates = loss_by_loops(terms, 0.7, 1)
    assert [rate > 0.7 for rate in rates] == [False, False, False, True]
    (gradient,) = torch.autograd.grad(model.rate_with_free_bits(terms), terms.q.base_dist.loc)
    assert gradient[:, :3].eq(0).all()
    assert gradient[:, 3].ne(0).all()


def test_free_bits_apply_to_batch_mean_not_single_images(build_model_and_batch):
    """A batch mean below the limit costs the limit, even if single images are above it."""
    model, x, y = build_model_and_batch("model.free_bits=2.5")
    terms = model.terms(x, y)
    each = terms.rate_per_latent[:, 3]
    model.free_bits = float(each.mean()) + 1e-6
    assert each.max() > model.free_bits
    assert float(model.rate_with_free_bits(terms)) == pytest.approx(4 * model.free_bits)


def test_free_bits_with_flow_prior_need_one_group(build_model_and_batch):
    flow = ["prior=flow", "model.prior.transforms=1", "model.prior.hidden=[4]"]
    model, x, y = build_model_and_batch("model.free_bits=0.5", "model.free_bits_group=4", *flow)
    terms = model.terms(x, y)
    expected = terms.distortion.mean() + terms.rate.mean().clamp(min=0.5)
    assert_close(model.objective(terms), expected)
    model, x, y = build_model_and_batch("model.free_bits=0.5", *flow)
    with pytest.raises(UserError, match=r"does not split over latents; .*free_bits_group=4"):
        model.objective(model.terms(x, y))


def test_free_bits_group_must_divide_latents(build):
    with pytest.raises(Exception, match="free_bits_group=3 does not divide the 4 latents"):
        build(*SMALL, "model.free_bits=1", "model.free_bits_group=3")
