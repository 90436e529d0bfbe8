"""Tests of `vaelab.report.summary`: means over seeds and rankings, against exact values."""

import math

import pytest
from support.sweep_folders import BETA_BY_SIZE, grid_jobs

from vaelab import report as reports
from vaelab.errors import UserError
from vaelab.report import summary


def test_means_over_takes_finite_values_of_all_seeds(make_sweep):
    jobs = reports.read_sweep(make_sweep(BETA_BY_SIZE)).jobs
    jobs.loc[0, "val/elbo"], jobs.loc[1, "val/elbo"], jobs.loc[2, "val/elbo"] = 1.0, 2.0, 6.0
    jobs.loc[3, "val/elbo"], jobs.loc[4, "val/elbo"], jobs.loc[5, "val/elbo"] = 4.0, math.inf, None
    means = summary.means_over(jobs, ["model.beta", "model.latent_dim"], ["val/elbo"])
    assert means.settings["model.beta"].tolist() == [0.5, 0.5, 2, 2]
    assert means.settings["model.latent_dim"].tolist() == [2, 8, 2, 8]
    assert means.mean["val/elbo"][:2].tolist() == [3.0, 4.0]
    assert means.sd["val/elbo"][0] == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(means.sd["val/elbo"][1])
    assert means.n["val/elbo"].tolist() == [3, 1, 3, 3]
    alone = summary.means_over(jobs[:3], [], ["val/elbo"])
    assert alone.mean["val/elbo"].tolist() == [3.0]


def test_means_over_sorts_numbers_by_value(make_sweep):
    jobs = grid_jobs(model__latent_dim=[16, 2, 8], optimizer=["sgd", "adam"])
    found = reports.read_sweep(make_sweep(jobs))
    means = summary.means_over(found.jobs, found.settings, ["val/elbo"])
    assert means.settings["model.latent_dim"].tolist() == [2, 2, 8, 8, 16, 16]
    assert means.settings["optimizer"].tolist() == ["sgd", "adam"] * 3  # in the order given


LOWER = ["nll", "test/loss", "test/rate", "test/bits_per_dim", "seconds", "mse"]
HIGHER = ["val/elbo", "active_units", "mig", "ssim", "psnr", "train/images_per_second"]
NONE = ["total_correlation", "val/minibatch_total_correlation", "test/penalty", "val/divergence"]
NONE += ["nll_minus_ais", "val/rate_1", "val/discriminated_total_correlation", "my_own_metric"]
BETTER = dict.fromkeys(LOWER, "lower") | dict.fromkeys(HIGHER, "higher")
BETTER |= dict.fromkeys(NONE, "none")


@pytest.mark.parametrize("metric", BETTER)
def test_ranking_direction_by_metric_and_setting(metric):
    assert reports.Ranking(metric).better == BETTER[metric]
    assert reports.Ranking(metric, "lower").better == "lower"
    assert reports.Ranking(metric, "higher").better == "higher"


def test_ranking_by_a_metric_without_direction_asks_for_one(make_sweep):
    folder = make_sweep(BETA_BY_SIZE, **{"test/penalty": 2.0, "val/mine": 1.0})
    found = reports.read_sweep(folder)
    for metric in ("test/penalty", "val/mine"):
        with pytest.raises(UserError, match=f"metric={metric}: .* direction=lower or direction="):
            reports.Ranking(metric).check_metric(found)
        reports.Ranking(metric, "lower").check_metric(found)
