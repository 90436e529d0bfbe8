"""Tests of `vaelab.report.views`: the data of plots, against formulas of the made-up results."""

import math
import weakref
from itertools import pairwise

import numpy as np
import pytest
from support.report_pages import page_figures, render_report, unpack_array
from support.sweep_folders import BETA_BY_SIZE, grid_jobs, results_content, write_event_file

from vaelab import report as reports
from vaelab.report import curves, decimals, mean_curves, views


def test_rate_distortion_lines_join_means_over_seeds(make_sweep):
    found = views.rate_distortion_view(reports.read_sweep(make_sweep(BETA_BY_SIZE)))
    assert [line["model.latent_dim"].tolist() for line in found.lines] == [[2, 2], [8, 8]]
    assert [line["model.beta"].tolist() for line in found.lines] == [[0.5, 2.0]] * 2
    assert found.lines[0]["R"].tolist() == pytest.approx([2 / 0.5 + 0.2, 2 / 2 + 0.2])
    assert found.lines[1]["D"].tolist() == pytest.approx([102.5 - 8, 110 - 8])


def test_contour_values_are_round_and_above_least(make_sweep):
    view = views.rate_distortion_view(reports.read_sweep(make_sweep(BETA_BY_SIZE)))
    constants = view.contour_values()
    assert constants
    assert min(constants) > view.least
    assert {round(b - a, 6) for a, b in pairwise(constants)} <= {1, 2, 5}


@pytest.mark.parametrize(("step", "expected"), [(0.7, 1), (1.2, 2), (3, 5), (70, 100), (0, 0)])
def test_round_step_is_1_2_or_5_times_power_of_ten(step, expected):
    assert views.round_step(step) == expected


def test_metric_view_averages_over_seeds_and_further_axes(make_sweep):
    jobs = grid_jobs(model__beta=[0.5, 2], model__latent_dim=[2, 8], lr=[0.1, 0.2], seed=[1, 3])
    found = reports.read_sweep(make_sweep(jobs))
    field = views.metric_view(found, "test/rate", reports.Ranking())
    expected = [[size / beta + 0.2 for beta in (0.5, 2)] for size in (2, 8)]
    np.testing.assert_allclose(field.mean, expected)
    assert np.isnan(field.sd).all()  # would mix seeds and learning rates
    assert (field.n == 4).all()
    assert field.best_cell() == (0, 1)  # lower is better
    assert views.metric_view(found, "test/elbo", reports.Ranking()).best_cell() == (0, 0)
    assert views.metric_view(
        found, "test/rate", reports.Ranking("test/rate", "higher")
    ).best_cell() == (1, 0)
    html = render_report(make_sweep(jobs))
    assert "Mean over seeds and lr" in html


def test_metric_without_direction_has_no_best_cell_and_no_better_colour(make_sweep):
    folder = make_sweep(BETA_BY_SIZE, **{"test/penalty": 2.0})
    found = reports.read_sweep(folder)
    field = views.metric_view(found, "test/penalty", reports.Ranking())
    assert np.isfinite(field.mean).all()
    assert field.best_cell() is None
    html = render_report(folder)
    assert "light is better" not in html.partition("<script")[0]
    framed, bars = {}, {}
    for metric, figure in page_figures(html)["metrics"].items():
        framed[metric] = len(figure["layout"]["shapes"])
        bars[metric] = figure["data"][0]["colorbar"]["title"]["text"]
    assert (framed["test/penalty"], framed["test/rate"]) == (0, 1)
    assert bars["test/penalty"] == "test/penalty, nats per image"
    assert bars["test/rate"] == "test/rate, nats per image; light is better"


def test_missing_setting_is_separate_level_none(make_sweep):
    jobs = grid_jobs(model__beta=[1, 2], model__latent_dim=[2, 8]) + grid_jobs(
        model__latent_dim=[2, 8]
    )
    folder = make_sweep(jobs)
    found = reports.read_sweep(folder)
    field = views.metric_view(found, "test/rate", reports.Ranking())
    assert field.x.labels == ["1", "2", "none"]
    np.testing.assert_allclose(field.mean, [[2, 1, 2], [8, 4, 8]])
    assert [len(line) for line in views.rate_distortion_view(found).lines] == [2, 2]
    figures = page_figures(render_report(folder))
    (points,) = figures["rate-distortion"].values()
    drawn = [x for t in points["data"] if t["mode"] == "markers" for x in t["x"] if x is not None]
    assert sorted(drawn) == [1, 2, 2, 4, 8, 8]
    (units,) = figures["active-units"].values()
    assert [line["name"] for line in units["data"]] == [
        "all latents",
        "beta 1",
        "beta 2",
        "beta none",
    ]


def test_curve_settings_take_finished_runs_if_any(make_sweep):
    folder = make_sweep(grid_jobs(model__beta=[1, 2], seed=[1, 2]), done=3)
    for run in ("beta-1_seed-2", "beta-2_seed-2"):
        (folder / run / "results.json").unlink(missing_ok=True)
        write_event_file(folder / run, {"val/elbo": {10: -130.0, 20: -999.0}}, second=1)
        (folder / run / ".hydra").mkdir(exist_ok=True)
        (folder / run / ".hydra" / "config.yaml").write_text("")
    (folder / "beta-2_seed-1" / "results.json").unlink()
    html = render_report(folder)
    lines = {t["name"]: t for t in page_figures(html)["curves"]["val/elbo"]["data"] if "name" in t}
    assert unpack_array(lines["1"]["y"]) == [-130.0, -121.0]
    assert unpack_array(lines["2"]["y"]) == [-130.0, (-999.0 - 121) / 2]
    assert unpack_array(lines["2"]["x"]) == [10, 20]


def test_curves_are_read_of_best_settings_alone_and_one_setting_at_a_time(make_sweep, monkeypatch):
    """Of 2,000 runs all curves would take gigabytes, and the page would hold thousands of lines."""

    class Tracked(dict):
        """Curves of a run that can be referenced weakly."""

    references, read, most = [], [], []
    original = curves.read_curves

    def count(run):
        found = Tracked(original(run))
        read.append(run.name)
        references.append(weakref.ref(found))
        most.append(sum(reference() is not None for reference in references))
        return found

    monkeypatch.setattr(curves, "read_curves", count)
    monkeypatch.setattr(mean_curves, "MOST", 3)
    betas = [1, 2, 3, 4, 5, 6, 7]
    html = render_report(make_sweep(grid_jobs(model__beta=betas, seed=[1, 2])))
    values = {beta: -results_content({"model.beta": beta})["val/elbo"] for beta in betas}
    best = sorted(betas, key=values.get)[:3]
    assert sorted(read) == sorted(f"beta-{beta}_seed-{seed}" for beta in best for seed in (1, 2))
    assert max(most) <= 4  # two seeds, and those of the setting before
    names = [t["name"] for t in page_figures(html)["curves"]["val/elbo"]["data"] if "name" in t]
    assert names == [str(beta) for beta in sorted(best)]
    assert "The 3 best settings by val/elbo, of 7." in html


@pytest.mark.parametrize(
    ("values", "deviations", "places"),
    [
        ([-95.2, -97.1], [0.26, 0.31], 2),
        ([0.17532], [0.00047], 5),
        ([14.0, 3.0], [math.nan], 0),
        ([14.0, 3.5], [0.5], 2),
        ([-95.27416], [math.nan], 2),
        ([0.9123], [], 4),
        ([math.nan], [math.nan], 0),
        ([123456.7], [], 0),
    ],
)
def test_decimal_places(values, deviations, places):
    assert decimals.decimal_places(values, deviations) == places
