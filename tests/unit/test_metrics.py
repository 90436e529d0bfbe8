"""`Totals`, `Window` and `bits_per_dim` against plain means and exact values."""

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
    """Returns the standard normal distribution over D latents, factorised."""
    return Independent(Normal(torch.zeros(latents), torch.ones(latents)), 1)


def mixture_prior():
    """Returns a mixture of two Gaussians, which does not factorise over latents."""
    means = torch.tensor([[-1.0], [1.0]]).expand(2, LATENTS)
    return MixtureSameFamily(Categorical(torch.ones(2)), Independent(Normal(means, 1.0), 1))


@pytest.fixture
def make_terms():
    """(rows, prior) -> Terms of the nine images, or of some; K = 2, the same noise at each call."""
    mean, scale = torch.randn(COUNT, LATENTS), torch.rand(COUNT, LATENTS) + 0.1
    noise = torch.randn(2, COUNT, LATENTS)
    x, logits = torch.rand(COUNT, 1, 3, 3).round(), torch.randn(2, COUNT, 1, 3, 3)

    def terms(rows=slice(None), prior=None):
        q = Independent(Normal(mean[rows], scale[rows]), 1)
        z = mean[rows] + scale[rows] * noise[:, rows]
        p = Independent(Bernoulli(logits=logits[:, rows]), 3)
        return Terms(x[rows], q, prior or standard_normal(), z, p)

    return terms


def beta_vae_loss(terms):
    """Returns the loss [] with beta = 4, so that it differs from the negative ELBO."""
    return (terms.distortion + 4 * terms.rate).mean()


def collect_totals(*parts):
    """Returns new `Totals` with each of the Terms `parts` added as one batch."""
    found = Totals()
    for terms in parts:
        found.add(terms, beta_vae_loss(terms))
    return found


BATCH_SIZES = [(4, 4, 1), (1, 8), (9,), (1,) * 9]  # of the nine images


@pytest.mark.parametrize("sizes", BATCH_SIZES)
def test_totals_means_weigh_batches_by_size(make_terms, sizes):
    rows = torch.arange(COUNT).split(sizes)
    values, rates = collect_totals(*(make_terms(part) for part in rows)).compute_means()
    whole = make_terms()
    for name in ("distortion", "rate", "elbo"):
        assert values[name] == pytest.approx(getattr(whole, name).mean().item(), rel=1e-6)
    assert values["loss"] == pytest.approx(beta_vae_loss(whole).item(), rel=1e-6)
    assert_close(rates.float(), whole.rate_per_latent.mean(0))
    assert rates.sum().item() == pytest.approx(values["rate"], rel=1e-6)
    assert values.keys() == {*SCALARS, "active_units"}


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_totals_are_bit_exact_for_any_number_of_processes(make_terms, monkeypatch, world_size):
    rows = torch.arange(COUNT).split((3, 3, 2, 1))
    expected = collect_totals(*(make_terms(part) for part in rows)).compute_means()
    each = [
        collect_totals(*(make_terms(part) for part in rows[rank::world_size]))
        for rank in range(world_size)
    ]
    gathered = []
    with monkeypatch.context() as patch:
        patch.setattr(totals, "gather_values", lambda own: gathered.append(own) or [own])
        for process in each:
            with suppress(AssertionError):  # of five processes one has no batch
                process.compute_means()
    monkeypatch.setattr(totals, "gather_values", lambda _: gathered)
    for process in each:
        values, rates = process.compute_means()
        assert values == expected[0]
        assert torch.equal(rates, expected[1])


def test_totals_rates_of_non_factorised_prior_are_one_group(make_terms):
    prior = mixture_prior()
    parts = (make_terms(part, prior) for part in torch.arange(COUNT).split((5, 4)))
    values, rates = collect_totals(*parts).compute_means()
    whole = make_terms(prior=prior)
    assert_close(rates.float(), whole.rate.mean()[None])
    assert values["rate"] == pytest.approx(whole.rate.mean().item(), rel=1e-6)
    assert values["active_units"] == LATENTS


def test_totals_detach_terms_from_gradients(make_terms):
    terms = make_terms()
    mean = terms.q.mean.clone().requires_grad_()
    q = Independent(Normal(mean, terms.q.stddev), 1)
    totals = collect_totals(Terms(terms.x, q, terms.prior, terms.z, terms.p))
    assert not totals.rows[0].requires_grad


def active_units(codes, sizes):
    """Returns `active_units` of posterior means [N, D], added in batches of these sizes."""
    totals = Totals()
    for mean in codes.split(sizes):
        q = Independent(Normal(mean, torch.ones_like(mean)), 1)
        x, logits = torch.zeros(len(mean), 1, 1, 1), torch.zeros(1, len(mean), 1, 1, 1)
        p = Independent(Bernoulli(logits=logits), 3)
        totals.add(Terms(x, q, standard_normal(codes.shape[1]), q.rsample((1,)), p), x.sum())
    return totals.compute_means()[0]["active_units"]


def test_active_units_counts_latents_above_variance_threshold():
    assert ACTIVE == 0.01
    signs = torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    spreads = torch.tensor([0.0, 0.09, 0.11, 1.0])  # standard deviations; active above 0.1
    codes = signs * spreads
    for sizes in (100, [99, 1], [60, 40]):
        assert active_units(codes, sizes) == 2


def test_active_units_counts_variance_between_batches():
    codes = torch.cat([torch.zeros(50, 2), torch.ones(50, 2)])
    codes[:, 1] = 3
    assert active_units(codes, 50) == 1


@pytest.mark.parametrize("offset", [1.0, 10.0, 100.0, 1000.0])
def test_active_units_is_correct_far_from_origin(offset):
    """Ten latents are constant and ten vary, all with large means."""
    codes = (offset * torch.linspace(1, 3, 20)).repeat(100, 1)
    codes[::2, ::2] += 0.3
    assert active_units(codes, 30) == 10


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["distortion", "rate", "loss"])
def test_totals_error_names_non_finite_term(make_terms, name, value):
    terms, loss = make_terms(), torch.tensor(1.0)
    if name == "distortion":
        terms.log_likelihood[:, 3] = value
    if name == "rate":
        terms.rate_per_latent[3, 1] = value
    totals = Totals()
    totals.add(make_terms(slice(0, 3)), loss)
    totals.add(terms, loss if name == "distortion" else loss * value)  # the loss includes the rate
    with pytest.raises(NotFiniteError, match=f"the {name} of the evaluated images is"):
        totals.compute_means()


def test_window_pop_means_averages_batches_and_empties_window():
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
def test_window_error_names_first_non_finite_step_and_term(row, column, value):
    window = Window()
    for i in range(5):
        terms = [torch.ones(6), torch.ones(6), torch.ones(())]
        if i == row:
            terms[column].view(-1)[-1] = value
            if SCALARS[column] == "rate":  # an infinite rate with a finite loss is accepted
                terms[2] += value
        if i > row:
            terms = [torch.full_like(term, math.nan) for term in terms]
        window.append(*terms)
    expected = f"the {SCALARS[column]} became .* at training step {16 + row}$"
    with pytest.raises(NotFiniteError, match=expected):
        window.pop_means(last_batch=20)


def test_not_finite_error_is_a_user_error():
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
def test_bits_per_dim_matches_exact_values(elbo, shape, offset, expected):
    assert bits_per_dim(elbo, shape, offset) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [1, 64, 65, 200])
def test_window_pop_means_averages_any_number_of_batches(count):
    torch.manual_seed(0)
    batches = [torch.randn(2, 3 + i % 2, dtype=torch.float64) for i in range(count)]  # of two sizes
    losses = torch.randn(count, dtype=torch.float64)
    window = Window()
    for _ in range(2):  # pop_means empties the window
        for (distortion, rate), loss in zip(batches, losses, strict=True):
            window.append(distortion, rate, loss)
        assert len(window) == count
        found = window.pop_means(0)
        distortion, rate = torch.stack([batch.mean(1) for batch in batches]).mean(0).tolist()
        expected = {"distortion": distortion, "rate": rate, "loss": losses.mean().item()}
        assert found == pytest.approx(expected | {"elbo": -distortion - rate}, rel=1e-12)
        assert len(window) == 0


def test_window_error_names_non_finite_step_among_many_batches():
    window, fine = Window(), torch.ones(2)
    for i in range(100):
        window.append(fine, fine * (math.nan if i == 70 else 1), torch.tensor(1.0))
    with pytest.raises(NotFiniteError, match="the rate became nan at training step 470"):
        window.pop_means(499)
