"""Tests of the report page's plots, against exact values."""

import numpy as np
import pytest
from support.report_pages import page_figures, render_report, unpack_array
from support.sweep_folders import BETA_BY_SIZE, grid_jobs, results_content, write_event_file

from vaelab.report import curve_plots


def test_rate_distortion_plot_dashed_line_passes_through_best_run(make_sweep):
    html = render_report(make_sweep(BETA_BY_SIZE))
    (figure,) = page_figures(html)["rate-distortion"].values()
    (line,) = [trace for trace in figure["data"] if trace.get("name", "").startswith("D + R")]
    jobs = [results_content(job) for job in BETA_BY_SIZE]
    best = max(jobs, key=lambda job: job["test/elbo"])
    assert line["name"] == f"D + R = {-best['test/elbo']:.1f} nats"
    (x0, x1), (y0, y1) = line["x"], line["y"]
    assert (y1 - y0) / (x1 - x0) == pytest.approx(-1)
    assert y0 + x0 == pytest.approx(best["test/rate"] + best["test/distortion"])
    points = [t for t in figure["data"] if t["mode"] == "markers" and t["x"] != [None]]
    xs, ys = (np.concatenate([t[side] for t in points]) for side in "xy")
    assert len(xs) == len(BETA_BY_SIZE)
    assert (xs + ys).min() == pytest.approx(y0 + x0)


def test_active_units_plot_has_line_of_all_latents(make_sweep):
    html = render_report(make_sweep(BETA_BY_SIZE))
    (figure,) = page_figures(html)["active-units"].values()
    everything, *lines = figure["data"]
    assert everything["x"] == everything["y"] == [2, 8]
    assert [line["y"] for line in lines] == [[2, 3], [2, 3]]
    assert [line["name"] for line in lines] == ["beta 0.5", "beta 2"]
    html = render_report(make_sweep(grid_jobs(model__beta=[1, 2, 4], seed=[1, 2])))
    everything, line = next(iter(page_figures(html)["active-units"].values()))["data"]
    assert everything["y"] == [4, 4, 4]
    assert line["y"] == [3, 3, 3]


def test_curve_plot_band_is_one_standard_deviation(make_sweep):
    html = render_report(make_sweep(grid_jobs(model__beta=[1, 2], seed=[1, 2, 3])))
    bands = [t for t in page_figures(html)["curves"]["val/elbo"]["data"] if "fill" in t]
    assert len(bands) == 2
    # at step 20 the seeds are at -121, -122 and -123
    assert unpack_array(bands[0]["y"]) == [-130, -121, -123, -130]


def test_curve_plots_thin_long_curves(make_sweep):
    assert curve_plots.POINTS * 12 * 4 / 3 < 5e6  # bytes of steps, means and deviations
    folder = make_sweep(grid_jobs(seed=[1]))
    write_event_file(
        folder / "seed-1", {"train/loss": {i: float(i) for i in range(2000)}}, second=5
    )
    html = render_report(folder)
    (line,) = page_figures(html)["curves"]["train/loss"]["data"]
    assert len(unpack_array(line["x"])) == 300


def test_plots_show_units_of_metrics(make_sweep):
    html = render_report(make_sweep(BETA_BY_SIZE))
    figures = page_figures(html)
    bar = figures["metrics"]["test/rate"]["data"][0]["colorbar"]["title"]["text"]
    assert bar == "test/rate, nats per image; light is better"
    (units,) = figures["active-units"].values()
    assert units["layout"]["yaxis"]["title"]["text"] == "active_units, number of latents"
    curve = figures["curves"]["val/elbo"]["layout"]
    assert curve["yaxis"]["title"]["text"] == "val/elbo, nats per image"
    assert curve["xaxis"]["title"]["text"] == "optimizer steps"
