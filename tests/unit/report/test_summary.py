"""Tests of `vaelab.report.summary`: means over seeds and rankings, against exact values."""

import math

import pytest
from support.sweep_folders import BETA_BY_SIZE, grid_jobs

from vaelab import report as reports
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


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        *[("val/elbo", False), ("nll", True), ("test/loss", True), ("test/rate", True)],
        *[("test/bits_per_dim", True), ("active_units", False), ("mig", False), ("ssim", False)],
        *[("seconds", True), ("psnr", False), ("mse", True), ("train/images_per_second", False)],
    ],
)
def test_ranking_lower_by_metric_and_direction(metric, lower):
    assert reports.Ranking(metric).lower is lower
    assert reports.Ranking(metric, "lower").lower is True
    assert reports.Ranking(metric, "higher").lower is False
