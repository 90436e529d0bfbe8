import math
from contextlib import suppress

import pytest
import torch
from torch.distributions import (
    Bernoulli,
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
)
from torch.testing import assert_close

from vaelab.errors import NotFiniteError, UserError
from vaelab.metrics.bits import bits_per_dim
from vaelab.terms import Terms
from vaelab.training import totals
from vaelab.training.totals import ACTIVE, Totals
from vaelab.training.window import SCALARS, Window

COUNT, LATENTS = 9, 4


def standard_normal(latents=LATENTS):
    return Independent(Normal(torch.zeros(latents), torch.ones(latents)), 1)


def mixture():
    means = torch.tensor([[-1.0], [1.0]]).expand(2, LATENTS)
    return MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(means, 1.0), 1))


@pytest.fixture
def images():
    """(rows, prior) -> Terms of some of the same nine images."""
    mean, scale = torch.randn(COUNT, LATENTS), torch.rand(COUNT, LATENTS) + 0.1
    noise = torch.randn(2, COUNT, LATENTS)
    x, logits = torch.rand(COUNT, 1, 3, 3).round(), torch.randn(2, COUNT, 1, 3, 3)

    def terms(rows=slice(None), prior=None):
        q = Independent(Normal(mean[rows], scale[rows]), 1)
        z = mean[rows] + scale[rows] * noise[:, rows]
        p = Independent(Bernoulli(logits=logits[:, rows]), 3)
        return Terms(x[rows], q, prior or standard_normal(), z, p)

    return terms


def loss_of(terms):
    return (terms.distortion + 4 * terms.rate).mean()


def totals_of(*parts):
    found = Totals()
    for terms in parts:
        found.add(terms, loss_of(terms))
    return found


RAGGED = [(4, 4, 1), (1, 8), (9,), (1,) * 9]


@pytest.mark.parametrize("sizes", RAGGED)
def test_ragged_batches_weigh_what_they_hold(images, sizes):
    rows = torch.arange(COUNT).split(sizes)
    values, rates = totals_of(*(images(part) for part in rows)).compute_means()
    whole = images()
    for name in ("distortion", "rate", "elbo"):
        assert values[name] == pytest.approx(getattr(whole, name).mean().item(), rel=1e-6)
    assert values["loss"] == pytest.approx(loss_of(whole).item(), rel=1e-6)
    assert_close(rates.float(), whole.rate_per_latent.mean(0))
    assert rates.sum().item() == pytest.approx(values["rate"], rel=1e-6)
    assert values.keys() == {*SCALARS, "active_units"}


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_processes_are_added_up_to_the_same_bits(images, monkeypatch, world_size):
    rows = torch.arange(COUNT).split((3, 3, 2, 1))
    expected = totals_of(*(images(part) for part in rows)).compute_means()
    each = [
        totals_of(*(images(part) for part in rows[rank::world_size])) for rank in range(world_size)
    ]
    told = []
    with monkeypatch.context() as patch:
        patch.setattr(totals, "gather_values", lambda own: told.append(own) or [own])
        for process in each:
            with suppress(AssertionError):  # one of five has no batch
                process.compute_means()
    monkeypatch.setattr(totals, "gather_values", lambda _: told)
    for process in each:
        values, rates = process.compute_means()
        assert values == expected[0]
        assert torch.equal(rates, expected[1])


def test_a_rate_that_does_not_split_is_one_group(images):
    prior = mixture()
    parts = (images(part, prior) for part in torch.arange(COUNT).split((5, 4)))
    values, rates = totals_of(*parts).compute_means()
    whole = images(prior=prior)
    assert_close(rates.float(), whole.rate.mean()[None])
    assert values["rate"] == pytest.approx(whole.rate.mean().item(), rel=1e-6)
    assert values["active_units"] == LATENTS


def test_nothing_is_kept_for_a_gradient(images):
    terms = images()
    mean = terms.q.mean.clone().requires_grad_()
    q = Independent(Normal(mean, terms.q.stddev), 1)
    totals = totals_of(Terms(terms.x, q, terms.prior, terms.z, terms.p))
    assert not totals.rows[0].requires_grad


def active_units(codes, sizes):
    """Of posterior means [N, D], in batches of these sizes."""
    totals = Totals()
    for mean in codes.split(sizes):
        q = Independent(Normal(mean, torch.ones_like(mean)), 1)
        x, logits = torch.zeros(len(mean), 1, 1, 1), torch.zeros(1, len(mean), 1, 1, 1)
        p = Independent(Bernoulli(logits=logits), 3)
        totals.add(Terms(x, q, standard_normal(codes.shape[1]), q.rsample((1,)), p), x.sum())
    return totals.compute_means()[0]["active_units"]


def test_active_units_of_known_codes():
    assert ACTIVE == 0.01
    signs = torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    spreads = torch.tensor([0.0, 0.09, 0.11, 1.0])  # standard deviations; active above 0.1
    codes = signs * spreads
    for sizes in (100, [99, 1], [60, 40]):
        assert active_units(codes, sizes) == 2


def test_active_units_where_batches_differ_only_from_each_other():
    codes = torch.cat([torch.zeros(50, 2), torch.ones(50, 2)])
    codes[:, 1] = 3
    assert active_units(codes, 50) == 1


@pytest.mark.parametrize("offset", [1.0, 10.0, 100.0, 1000.0])
def test_active_units_far_from_the_origin(offset):
    """A constant code is not active wherever it lies, and a varying one is."""
    codes = (offset * torch.linspace(1, 3, 20)).repeat(100, 1)
    codes[::2, ::2] += 0.3
    assert active_units(codes, 30) == 10


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["distortion", "rate", "loss"])
def test_totals_name_the_term_that_is_not_finite(images, name, value):
    terms, loss = images(), torch.tensor(1.0)
    if name == "distortion":
        terms.log_likelihood[:, 3] = value
    if name == "rate":
        terms.rate_per_latent[3, 1] = value
    totals = Totals()
    totals.add(images(slice(0, 3)), loss)
    totals.add(terms, loss if name == "distortion" else loss * value)  # which has the rate
    with pytest.raises(NotFiniteError, match=f"the {name} of the evaluated images is"):
        totals.compute_means()


def test_window_is_a_mean_over_batches_and_then_empty():
    window = Window()
    distortion, rate, loss = torch.rand(3, 5), torch.rand(3, 5), torch.rand(3)
    for row in zip(distortion, rate, loss, strict=True):
        window.append(*row)
    assert len(window) == 3
    found = window.pop_means(last_batch=3)
    means = {"distortion": distortion.mean(), "rate": rate.mean(), "loss": loss.mean()}
    means["elbo"] = -(means["distortion"] + means["rate"])
    assert found == pytest.approx({name: float(value) for name, value in means.items()})
    assert len(window) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", range(3))
@pytest.mark.parametrize("row", [0, 2, 4])
def test_window_names_the_first_step_and_term(row, column, value):
    window = Window()
    for i in range(5):
        terms = [torch.ones(6), torch.ones(6), torch.ones(())]
        if i == row:
            terms[column].view(-1)[-1] = value
            if SCALARS[column] == "rate":  # the loss has it, but that of a deterministic code
                terms[2] += value
        if i > row:
            terms = [torch.full_like(term, math.nan) for term in terms]
        window.append(*terms)
    expected = f"the {SCALARS[column]} became .* at training step {16 + row}$"
    with pytest.raises(NotFiniteError, match=expected):
        window.pop_means(last_batch=20)


def test_not_finite_is_an_error_of_the_user():
    assert issubclass(NotFiniteError, UserError)


@pytest.mark.parametrize(
    ("elbo", "shape", "offset", "expected"),
    [
        (-784 * math.log(2), (1, 28, 28), 0.0, 1.0),
        (0.0, (3, 32, 32), 8.0, 8.0),
        (3072 * math.log(2) * 5, (3, 32, 32), 8.0, 3.0),
        (-100.0, (1, 10, 10), 0.0, 1 / math.log(2)),
    ],
)
def test_bits_per_dim(elbo, shape, offset, expected):
    assert bits_per_dim(elbo, shape, offset) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_a_window_has_the_means_of_all_batches(count):
    torch.manual_seed(0)
    batches = [torch.randn(2, 3 + i % 2, dtype=torch.float64) for i in range(count)]  # some ragged
    losses = torch.randn(count, dtype=torch.float64)
    window = Window()
    for _ in range(2):  # it is empty again after a reading
        for (distortion, rate), loss in zip(batches, losses, strict=True):
            window.append(distortion, rate, loss)
        assert len(window) == count
        found = window.pop_means(0)
        distortion, rate = torch.stack([batch.mean(1) for batch in batches]).mean(0).tolist()
        expected = {"distortion": distortion, "rate": rate, "loss": losses.mean().item()}
        assert found == pytest.approx(expected | {"elbo": -distortion - rate}, rel=1e-12)
        assert len(window) == 0


def test_a_window_names_the_batch_that_is_not_finite():
    window, fine = Window(), torch.ones(2)
    for i in range(100):
        window.append(fine, fine * (math.nan if i == 70 else 1), torch.tensor(1.0))
    with pytest.raises(NotFiniteError, match="the rate became nan at training step 470"):
        window.pop_means(499)
