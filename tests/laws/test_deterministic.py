"""Codes that are points: no bound, a selection of their own, and what the RAE adds."""

import math
from functools import partial

import pytest
import torch
from support.models import LATENTS, gradients, images, objective, small
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.testing import assert_close

from vaelab.errors import NotApplicable, NotFiniteError
from vaelab.metrics.evidence import evidence_estimates
from vaelab.training.totals import Totals
from vaelab.training.window import Window


@pytest.fixture
def make(build):
    """(*overrides) -> a small model in double precision, at no special point."""
    return partial(small, build)


def test_a_deterministic_code_has_no_bound(make):
    """KL(point || density) is infinite: the ELBO is so too, and nothing is made up for it."""
    model = make("model=ae model.num_samples=2")
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
    assert_close(model(x, y), model.decode(terms.q.mean, y).mean)


def test_an_infinite_rate_is_refused_only_where_the_loss_has_it(make):
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
        model = make(overrides)
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
def test_the_gradient_penalty_is_the_squared_jacobian(make, draws):
    model = make("model=rae model.regulariser=gradient model.code_weight=0 model.decoder_weight=2")
    x, y = images(model, count=3)
    code = model.encode(x, y).mean
    jacobian = torch.autograd.functional.jacobian(lambda z: model.decode(z, y).mean.sum(0), code)
    expected = jacobian.square().sum() / 3  # the sum over images keeps each z's own
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


def test_a_point_moves_with_the_shape_it_is_given(make):
    q = make("model=ae").posterior(torch.randn(5, 10).double())
    assert q.expand((2, 5)).rsample((3,)).shape == (3, 2, 5, LATENTS)
    assert torch.equal(q.stddev, torch.zeros(5, LATENTS).double())
    prior = Independent(Normal(torch.zeros(LATENTS), 1.0), 1)
    assert torch.equal(kl_divergence(q, prior), torch.full((5,), math.inf).double())
