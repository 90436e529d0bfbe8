"""Deterministic posteriors of `AE` and `RAE`: infinite rates, and RAE's penalty by autograd."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from support.models import LATENTS, gradients, images, objective, small
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.testing import assert_close

from vaelab import evaluation
from vaelab.data import Images
from vaelab.data.splits import Splits
from vaelab.errors import NotApplicable, NotFiniteError
from vaelab.evaluation.subject import Subject
from vaelab.metrics.evidence import evidence_estimates
from vaelab.training.totals import Totals
from vaelab.training.window import Window


@pytest.fixture
def build_randomized(build):
    """(*overrides) -> a small float64 model with noise added to all weights."""
    return partial(small, build)


def test_deterministic_posterior_has_infinite_rate_and_no_evidence(build_randomized):
    """The KL divergence of a point from a density is infinite, so the ELBO is -infinity."""
    model = build_randomized("model=ae model.num_samples=2")
    x, y = images(model)
    terms = model.terms(x, y)
    assert_close(terms.z, terms.q.mean.expand(2, -1, -1))
    assert (terms.rate == math.inf).all()
    assert (terms.elbo == -math.inf).all()
    assert terms.distortion.isfinite().all()
    for ask in (lambda: terms.log_weights, lambda: evidence_estimates(model, x, y, 5)):
        with pytest.raises(NotApplicable, match="posterior=deterministic has no density"):
            ask()
    expected = Bernoulli(logits=model.decoder(terms.z[0], model.context(y))).log_prob(x)
    assert_close(terms.distortion, -expected.sum((1, 2, 3)))
    assert_close(model.mean_reconstruction(x, y), model.image_likelihood(terms.q.mean, y).mean)


def test_window_and_totals_accept_infinite_rate_only_with_finite_loss(build_randomized):
    finite, infinite = torch.ones(2), torch.full((2,), math.inf)
    window = Window()
    window.append(finite, infinite, torch.tensor(1.0))
    values = window.pop_means(0)
    assert values == {"distortion": 1.0, "rate": math.inf, "loss": 1.0, "elbo": -math.inf}
    for distortion, rate, loss, named in (
        (finite, infinite, math.inf, "rate"),
        (finite, infinite * math.nan, 1.0, "rate"),
        (infinite, finite, 1.0, "distortion"),
        (finite, finite, math.nan, "loss"),
    ):
        window = Window()
        window.append(finite, finite, torch.tensor(1.0))
        window.append(distortion, rate, torch.tensor(loss))
        with pytest.raises(NotFiniteError, match=f"the {named} became .* at training step 7"):
            window.pop_means(7)

    for overrides, fine in (("model=ae", True), ("model=vae posterior=deterministic", False)):
        model = build_randomized(overrides)
        terms = model.terms(*images(model))
        totals = Totals()
        totals.add(terms, model.objective(terms), other=torch.tensor(3.0))
        if fine:
            values, _ = totals.compute_means()
            assert values["elbo"] == -math.inf
            assert values["other"] == 3.0
            assert values["distortion"] == pytest.approx(terms.distortion.mean().item())
        else:
            with pytest.raises(NotFiniteError, match="the rate of the evaluated images is inf"):
                totals.compute_means()


@pytest.mark.parametrize("draws", [4_000])
def test_rae_gradient_penalty_is_squared_decoder_jacobian(build_randomized, draws):
    model = build_randomized(
        "model=rae model.regulariser=gradient model.code_weight=0 model.decoder_weight=2"
    )
    x, y = images(model, count=3)
    code = model.latent_posterior(x, y).mean
    jacobian = torch.autograd.functional.jacobian(
        lambda z: model.image_likelihood(z, y).mean.sum(0), code
    )
    expected = jacobian.square().sum() / 3  # no cross terms between images
    values = torch.stack(
        [2 * model.squared_jacobian(model.terms(x, y)).mean().detach() for _ in range(draws)]
    )
    error = values.std() / math.sqrt(draws)
    assert (values.mean() - 2 * expected).abs() < 4 * error
    assert error < 0.05 * expected

    loss = objective(model, x, y) - model.terms(x, y).distortion.mean()
    assert loss > 0
    reached = gradients(model, loss)
    assert reached["decoder.out.weight"].any()
    assert reached["encoder.layers.layers.0.weight"].any()
    with torch.no_grad():
        assert_close(objective(model, x, y), model.terms(x, y).distortion.mean())


def test_point_expands_samples_and_has_infinite_kl(build_randomized):
    q = build_randomized("model=ae").posterior(torch.randn(5, 10).double())
    assert q.expand((2, 5)).rsample((3,)).shape == (3, 2, 5, LATENTS)
    assert torch.equal(q.stddev, torch.zeros(5, LATENTS).double())
    prior = Independent(Normal(torch.zeros(LATENTS), 1.0), 1)
    assert torch.equal(kl_divergence(q, prior), torch.full((5,), math.inf).double())


def test_evaluation_of_point_lacks_only_what_needs_a_posterior_density(
    build, tmp_path, monkeypatch
):
    small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=3"]
    model = build("model=ae", "condition=one_hot", *small, x_shape=(1, 8, 8), num_classes=2).eval()
    pixels, labels = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8), torch.arange(60) % 2
    splits = Splits(pixels[:30], labels[:30], pixels[30:], labels[30:], num_classes=2)
    data = Images(source=lambda: splits, batch_size=10, val_size=5, pixels="binary")
    data.setup("test")
    judge = SimpleNamespace(name="none", accuracy={}, logits=lambda x: x.flatten(1)[:, :2])
    monkeypatch.setattr(Subject, "classifier", judge)
    subject = Subject(model, data, tmp_path, track=lambda batches, _: batches)
    found = evaluation.ais(subject, images=4, chains=2, steps=2, leapfrog_steps=1, num_samples=5)
    found |= evaluation.latents(subject, num_samples=1, images="test")
    found |= evaluation.conditional(subject, per_class=5, images=4, num_samples=2)
    lacking = {name for name, entry in found.items() if "reason" in entry}
    assert lacking == {
        *("nll_minus_ais", "mutual_information", "marginal_kl", "total_correlation"),
        *("nll_given_label", "nll_marginal", "label_information", "wrong_label_cost"),
        "label_accuracy",
    }
    for name in ("nll_ais", "ais_acceptance", "active_units", "agreement", "probe"):
        assert math.isfinite(found[name]["value"])
    for name in lacking:
        assert "posterior=deterministic has no density" in found[name]["reason"]
