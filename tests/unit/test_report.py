"""The report of a sweep: its numbers, its page and what it says where something is missing."""

import base64
import json
import math
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from vaelab import report as reports
from vaelab.commands import cli, report
from vaelab.errors import UserError
from vaelab.report import curves, differences, page, plots, summary, views
from vaelab.runs import comparability

ROOT = cli.CONF.parent

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def grid(**axes):
    """All combinations of settings, as a sweep's jobs."""
    jobs = [{}]
    for name, values in axes.items():
        jobs = [{**job, name.replace("__", "."): str(v)} for job in jobs for v in values]
    return jobs


BETA_BY_SIZE = grid(model__beta=[0.5, 2], model__latent_dim=[2, 8], seed=[1, 2, 3])


def result(job, **changes):
    """A results.json whose numbers are simple functions of the settings."""
    beta, seed = float(job.get("model.beta", 1)), int(job.get("seed", 0))
    size = int(job.get("model.latent_dim", 4))
    rate, distortion = size / beta + 0.1 * seed, 100 + 5 * beta - size
    return {
        "val/elbo": -(rate + distortion) - 1,
        "test/elbo": -(rate + distortion),
        "test/rate": rate,
        "test/distortion": distortion,
        "test/active_units": float(min(size, 3)),
        "seed": seed,
        "seconds": 10.5,
        "epochs": 2,
        "steps": 20,
        "device": "cpu",
        "versions": {"vaelab": "0.1.0", "torch": "2.9.0"},
        "git_commit": "abc",
        "overrides": [],
        "config": {"model": {"latent_dim": size, "beta": beta}, "seed": seed},
    } | changes


def name(job):
    return "_".join(f"{k.split('.')[-1]}-{re.sub('[^A-Za-z0-9.]', '-', v)}" for k, v in job.items())


def finish(folder, job, **changes):
    """Writes a finished run."""
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text("model:\n  latent_dim: 4\n")
    (folder / "results.json").write_text(json.dumps(result(job, **changes)))
    (folder / "figures").mkdir(exist_ok=True)
    for picture in ("samples", "reconstructions"):
        shade = int(10 * float(job.get("model.beta", 1))) % 255
        Image.new("RGB", (20, 20), (shade, 0, 0)).save(folder / "figures" / f"{picture}.png")
    log(folder, {"val/elbo": {10: -130.0, 20: -120.0 - float(job.get("seed", 0))}})


def log(folder, curves, second=0, number=0):
    """Writes an event file: of a start of the run at that second, the one of that number in it."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("events.*"))
    writer = EventFileWriter(str(folder))
    for tag, points in curves.items():
        for step, value in points.items():
            scalar = Summary.Value(tag=tag, simple_value=value)
            writer.add_event(Event(step=step, summary=Summary(value=[scalar])))
    writer.close()
    (path,) = set(folder.glob("events.*")) - before
    return path.rename(folder / f"events.out.tfevents.{1_800_000_000 + second}.host.1.{number}")


@pytest.fixture
def sweep(tmp_path):
    """(jobs, done=None) -> a sweep folder, with `done` of its jobs finished, or all of them."""

    def make(jobs, done=None):
        folder = tmp_path / "sweep"
        plan = [{"folder": name(job) or "run", "overrides": job} for job in jobs]
        folder.mkdir(exist_ok=True)
        index = {"command": "python train.py -m 'a<b'", "jobs": plan}
        (folder / "sweep.json").write_text(json.dumps(index))
        for job in plan[:done]:
            finish(folder / job["folder"], job["overrides"])
        return folder

    return make


def page_of(folder, metric="val/elbo", direction="auto", best=4):
    """The page of a sweep folder, as if in `report` in it."""
    found, ranking = reports.read_sweep(folder), reports.Ranking(metric, direction)
    html = page.render_page(found, ranking, curves.read_all_curves(found), best, folder / "report")
    for figures in embedded(html).values():
        for figure in list(figures.values())[:8]:
            go.Figure(figure)  # checks every name and value
    return html


def written(folder):
    """The folder of the report of a sweep folder."""
    paths = reports.write_report(
        reports.read_sweep(folder), folder / "report", reports.Ranking(), 4
    )
    assert all(path.stat().st_size for path in paths)
    return folder / "report"


def embedded(html):
    """The figures in a page, by plot and by the choice of its menu."""
    found = re.findall(
        r'type="application/json" id="([a-z0-9-]+)-figures">(.*?)</script>', html, re.S
    )
    return {key: json.loads(text) for key, text in found}


def test_means_and_deviations_are_over_seeds(sweep):
    jobs = reports.read_sweep(sweep(BETA_BY_SIZE)).jobs
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


def test_settings_stand_by_size_and_not_by_letters(sweep):
    jobs = grid(model__latent_dim=[16, 2, 8], optimizer=["sgd", "adam"])
    found = reports.read_sweep(sweep(jobs))
    means = summary.means_over(found.jobs, found.settings, ["val/elbo"])
    assert means.settings["model.latent_dim"].tolist() == [2, 2, 8, 8, 16, 16]
    assert means.settings["optimizer"].tolist() == ["sgd", "adam"] * 3  # as they were given


def test_states_are_told_apart(sweep):
    folder = sweep(grid(seed=range(5)), done=1)
    (folder / "seed-1").mkdir()
    (folder / "seed-1" / "failure.json").write_text('{"error": "oh", "exit": 1, "log": "job.log"}')
    (folder / "seed-2" / ".hydra").mkdir(parents=True)
    (folder / "seed-2" / ".hydra" / "config.yaml").write_text("")
    (folder / "seed-3").mkdir()
    progress = {"epoch": 3, "epochs": None, "share": 0.25, "val/elbo": -97.0}
    (folder / "seed-3" / "progress.json").write_text(json.dumps(progress))
    found = reports.read_sweep(folder)
    states = ["done", "failed", "unfinished", "unfinished", "not begun"]
    assert found.jobs["state"].tolist() == states
    assert found.jobs["progress"][[0, 3]].tolist() == [1.0, 0.25]
    assert found.counts() == "5 runs: 1 done, 1 failed, 2 unfinished, 1 not begun"
    assert summary.means_over(found.jobs, [], []).setting_rows() == [{"jobs": 5, "done": 1}]
    html = page_of(folder)
    assert "25%" in html
    assert "epoch 3, val/elbo -97.00" in html


def test_a_finished_run_is_done_whatever_failed_before(sweep):
    folder = sweep(grid(seed=[1]))
    (folder / "seed-1" / "failure.json").write_text('{"error": "oh"}')
    assert reports.read_sweep(folder).jobs["state"].tolist() == ["done"]


def test_damaged_results_are_a_failure_of_that_run(sweep):
    folder = sweep(grid(seed=[1, 2]))
    (folder / "seed-2" / "results.json").write_text('{"val/elbo": -1')
    jobs = reports.read_sweep(folder).jobs
    assert jobs["state"].tolist() == ["done", "failed"]
    assert jobs["error"][1].startswith("results.json cannot be read")


def test_the_line_of_constant_elbo_passes_through_the_best_run(sweep):
    html = page_of(sweep(BETA_BY_SIZE))
    (figure,) = embedded(html)["rate-distortion"].values()
    (line,) = [trace for trace in figure["data"] if trace.get("name", "").startswith("D + R")]
    jobs = [result(job) for job in BETA_BY_SIZE]
    best = max(jobs, key=lambda job: job["test/elbo"])
    assert line["name"] == f"D + R = {-best['test/elbo']:.1f} nats"
    (x0, x1), (y0, y1) = line["x"], line["y"]
    assert (y1 - y0) / (x1 - x0) == pytest.approx(-1)
    assert y0 + x0 == pytest.approx(best["test/rate"] + best["test/distortion"])
    points = [t for t in figure["data"] if t["mode"] == "markers" and t["x"] != [None]]
    xs, ys = (np.concatenate([t[side] for t in points]) for side in "xy")
    assert len(xs) == len(BETA_BY_SIZE)
    assert (xs + ys).min() == pytest.approx(y0 + x0)


def test_lines_join_means_over_seeds(sweep):
    found = views.rate_distortion_view(reports.read_sweep(sweep(BETA_BY_SIZE)))
    assert [line["model.latent_dim"].tolist() for line in found.lines] == [[2, 2], [8, 8]]
    assert [line["model.beta"].tolist() for line in found.lines] == [[0.5, 2.0]] * 2
    assert found.lines[0]["R"].tolist() == pytest.approx([2 / 0.5 + 0.2, 2 / 2 + 0.2])
    assert found.lines[1]["D"].tolist() == pytest.approx([102.5 - 8, 110 - 8])


def test_lines_of_constant_elbo_are_round_and_worse(sweep):
    view = views.rate_distortion_view(reports.read_sweep(sweep(BETA_BY_SIZE)))
    constants = view.contour_values()
    assert constants
    assert min(constants) > view.least
    assert {round(b - a, 6) for a, b in pairwise(constants)} <= {1, 2, 5}


@pytest.mark.parametrize(("step", "expected"), [(0.7, 1), (1.2, 2), (3, 5), (70, 100), (0, 0)])
def test_nice_steps(step, expected):
    assert views.round_step(step) == expected


def test_a_heat_map_is_the_mean_over_seeds_and_further_axes(sweep):
    jobs = grid(model__beta=[0.5, 2], model__latent_dim=[2, 8], lr=[0.1, 0.2], seed=[1, 3])
    found = reports.read_sweep(sweep(jobs))
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
    html = page_of(sweep(jobs))
    assert "Mean over seeds and lr" in html


def test_the_page_has_the_numbers_of_the_tables(sweep):
    folder = sweep(BETA_BY_SIZE)
    html, to = page_of(folder), written(folder)
    (row,) = re.findall(r'<tr class="best">(.*?)</tr>', html, re.S)[:1]
    cells = [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", row, re.S)]
    # beta 0.5, two latents: -(4 + 0.2 + 102.5 - 2 + 1), and the seeds differ by 0.1
    assert cells[:4] == ["0.5", "2", "3", "-105.70 ± 0.10"]
    assert (
        "Best val/elbo, mean over seeds: <b>-105.70 ± 0.10</b> at beta 0.5, latent_dim 2." in html
    )
    table = pd.read_csv(to / "summary.csv").query("metric == 'val/elbo'")
    assert table["mean"].tolist() == pytest.approx([-105.7, -111.7, -110.2, -107.2])
    assert table["sd"].tolist() == pytest.approx([0.1] * 4)
    assert table["n"].tolist() == [3] * 4


def test_parquet_and_csv_are_one_table(sweep):
    folder = sweep(BETA_BY_SIZE, done=11)
    other = [{**job, "model": "vae,x"} for job in BETA_BY_SIZE]
    plan = [{"folder": name(a), "overrides": b} for a, b in zip(BETA_BY_SIZE, other, strict=True)]
    (folder / "sweep.json").write_text(json.dumps({"command": "x", "jobs": plan}))
    measured = {
        "nll": {"value": 90.5, "se": 0.25},
        "rate_per_latent": {"value": [1.0], "se": [0.1]},
    }
    (folder / name(BETA_BY_SIZE[0]) / "evaluation.json").write_text(json.dumps(measured))
    to = written(folder)
    csv, parquet = pd.read_csv(to / "runs.csv"), pd.read_parquet(to / "runs.parquet")
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)
    assert len(parquet) == 12
    assert parquet["model.latent_dim"].dtype == "Int64"
    assert parquet["model.beta"].dtype == "float64"
    assert parquet["nll"].tolist()[:1] == [90.5]
    assert parquet["nll_se"].notna().sum() == 1
    assert parquet["state"].value_counts().to_dict() == {"done": 11, "not begun": 1}
    assert "rate_per_latent" not in parquet


def test_nothing_of_a_single_seed_has_a_deviation(sweep):
    folder = sweep(grid(model__beta=[0.5, 1, 2]))
    html, to = page_of(folder), written(folder)
    assert "± " not in re.sub(
        r"<section id=\"terms\">.*", "", html.partition("<main>")[2], flags=re.S
    )
    assert pd.read_csv(to / "summary.csv")["sd"].isna().all()
    for figures in embedded(html).values():
        for figure in figures.values():
            assert not any("error_y" in trace or "fill" in trace for trace in figure["data"])


SWEEPS = {
    "nothing finished": (grid(model__beta=[1, 2], seed=[1, 2]), 0),
    "one run": (grid(seed=[1]), None),
    "one run without settings": ([{}], None),
    "seeds alone": (grid(seed=[1, 2, 3]), None),
    "one axis": (grid(model__beta=[0.1, 1, 10], seed=[1, 2]), None),
    "one text axis": (grid(model=["vae", "cvae"], seed=[1, 2]), None),
    "two text axes": (grid(model=["vae", "cvae"], data=["a", "b", "c"]), None),
    "four axes": (grid(a=[1, 2], model__beta=[1, 2], b=["x", "y"], model__latent_dim=[2, 3]), None),
    "partly finished": (BETA_BY_SIZE, 5),
    "one finished": (BETA_BY_SIZE, 1),
    "booleans": (grid(compile=["true", "false"], model__beta=[1, 2]), None),
    "a search": (
        [
            {"model.beta": f"{1.7**i:.9f}", "model.latent_dim": str(2 + i % 13), "lr": f"{i}e-3"}
            for i in range(1, 20)
        ],
        None,
    ),
    "settings that some jobs have": (
        [{"model.beta": "2"}, {"model": "vae"}, {"model.beta": "3"}],
        None,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("jobs", SWEEPS)
def test_every_kind_of_sweep_has_a_page(sweep, jobs):
    folder = sweep(*SWEEPS[jobs])
    html = page_of(folder)
    assert (written(folder) / "report.html").stat().st_size > 4e6
    figures = embedded(html)
    for plot, choices in figures.items():
        assert f'<section id="{plot}">' in html
        assert choices
    assert ("nan" in html.lower().split("<script", 1)[0]) is False
    kinds = {"two text axes": "heatmap", "a search": "scatter", "one axis": "scatter"}
    if jobs in kinds:
        assert figures["metrics"]["val/elbo"]["data"][0]["type"] == kinds[jobs]
    if jobs == "nothing finished":
        assert figures == {}
        assert "No run is finished with val/elbo yet." in html


def test_runs_without_a_setting_are_a_level_of_their_own(sweep):
    jobs = grid(model__beta=[1, 2], model__latent_dim=[2, 8]) + grid(model__latent_dim=[2, 8])
    folder = sweep(jobs)
    found = reports.read_sweep(folder)
    field = views.metric_view(found, "test/rate", reports.Ranking())
    assert field.x.labels == ["1", "2", "none"]
    np.testing.assert_allclose(field.mean, [[2, 1, 2], [8, 4, 8]])
    assert [len(line) for line in views.rate_distortion_view(found).lines] == [2, 2]
    figures = embedded(page_of(folder))
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


def test_a_search_stands_best_first(sweep):
    html = page_of(sweep(*SWEEPS["a search"]))
    table = re.search(r"Settings and their main metrics.*?</table>", html, re.S)[0]
    shown = [float(value) for value in re.findall(r'"(-\d+\.\d+)" class="number"', table)[::2]]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == 19
    (figure,) = embedded(html)["rate-distortion"].values()
    assert [t["mode"] for t in figure["data"] if t.get("line", {}).get("width") == 1.2] == []


def test_the_page_has_what_was_measured_and_nothing_else(sweep):
    folder = sweep(grid(model__beta=[1, 2], seed=[1, 2]), done=3)
    odd = folder / "beta-1_seed-1" / "results.json"
    content = result({"model.beta": "1", "seed": "1"}, **{"test/rate": math.nan})
    odd.write_text(json.dumps(content | {"val/elbo": -math.inf, "odd/text": "x", "odd/flag": True}))
    evaluation = {"nll": {"value": 90, "se": 1.0}, "odd": {"value": math.nan, "se": None}}
    (folder / "beta-1_seed-2" / "evaluation.json").write_text(json.dumps(evaluation))
    html = page_of(folder)
    menu = embedded(html)["metrics"]
    assert {"val/elbo", "test/rate", "nll", "seconds"} <= menu.keys()
    assert not {"odd", "odd/text", "odd/flag"} & menu.keys()
    assert "NaN" not in json.dumps(embedded(html))
    assert "-106.20 <small>n=1</small>" in html or "-105.20 <small>n=1</small>" in html
    best = re.search(r'<section id="best">.*?</section>', html, re.S)[0]
    assert "beta-1_seed-1" not in best


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        *[("val/elbo", False), ("nll", True), ("test/loss", True), ("test/rate", True)],
        *[("test/bits_per_dim", True), ("active_units", False), ("mig", False), ("ssim", False)],
        *[("seconds", True), ("psnr", False), ("mse", True), ("train/images_per_second", False)],
    ],
)
def test_which_direction_is_better(metric, lower):
    assert reports.Ranking(metric).lower is lower
    assert reports.Ranking(metric, "lower").lower is True
    assert reports.Ranking(metric, "higher").lower is False


def test_the_best_runs_are_beside_each_other_with_their_pictures(sweep):
    folder = sweep(grid(model__beta=[1, 2, 3], seed=[1, 2]))
    (folder / "beta-1_seed-2" / "figures" / "samples.png").unlink()
    html = page_of(folder, best=3)
    table = re.search(r'<table class="pictures">.*?</table>', html, re.S)[0]
    assert re.findall(r"<small>(.*?)</small>", table) == [
        *["beta-1_seed-1", "beta-1_seed-2", "beta-2_seed-1"]
    ]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table, re.S)
    assert [kind for kind, _ in rows] == ["reconstructions", "samples"]
    first = (folder / "beta-1_seed-1" / "figures" / "samples.png").read_bytes()
    assert base64.b64encode(first).decode() in rows[1][1].split("</td>")[0]
    assert "none" in rows[1][1].split("</td>")[1]
    html = page_of(folder, metric="test/rate", best=2)
    table = re.search(r'<table class="pictures">.*?</table>', html, re.S)[0]
    assert re.findall(r"<small>(.*?)</small>", table) == ["beta-3_seed-1", "beta-3_seed-2"]
    assert '<section id="best">' not in page_of(folder, best=0)


def test_failures_are_at_the_top_with_their_logs(sweep):
    folder = sweep(grid(model__beta=[1, 2], seed=[1, 2]), done=3)
    failed = folder / "beta-2_seed-2"
    failed.mkdir()
    error = "ValueError: <script>alert(1)</script> & more"
    (failed / "failure.json").write_text(json.dumps({"error": error, "exit": 1, "log": "job.log"}))
    (failed / "job.log").write_text("first\n" * 50 + "</pre><img src=x onerror=alert(1)>\n")
    html, to = page_of(folder), folder / "report"
    assert html.index('id="attention"') < html.index('id="settings"')
    assert "beta 2, seed 2" in html
    assert "ValueError: &lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "a&lt;b" in html  # of the command
    address = re.search(r'<a href="(.*?)">beta-2_seed-2/job.log</a>', html)[1]
    assert (to / address).resolve() == (failed / "job.log").resolve()


def test_user_strings_end_no_script_and_make_no_html(sweep):
    bad = "</script><b>x</b>"
    html = page_of(sweep(grid(**{"mo<b>del": [bad, "y"]}, model__beta=[1, 2])))
    assert bad not in html
    assert "<b>x" not in html
    figures = embedded(html)
    tick = figures["metrics"]["val/elbo"]["layout"]["yaxis"]["ticktext"][0]
    assert tick == "&lt;/script&gt;&lt;b&gt;x&lt;/b&gt;"  # plotly.js reads HTML in labels


def test_figures_end_no_script():
    text = page.script_json({"": "</script><!-- <script>"})
    assert "<" not in text
    assert json.loads(text) == {"": "</script><!-- <script>"}


def test_curves_are_those_that_tensorboard_reads(tmp_path):
    values = {step: math.sin(step) for step in range(0, 300, 7)}
    path = log(tmp_path, {"val/elbo": values, "hp/val_elbo": {0: 1.0}, "train/loss": {3: 2.0}})
    image = Summary.Value(tag="samples", image=Summary.Image(encoded_image_string=b"x" * 50_000))
    writer = EventFileWriter(str(tmp_path))
    writer.add_event(Event(step=300, summary=Summary(value=[image])))
    after = Summary.Value(tag="val/elbo", simple_value=5.0)
    writer.add_event(Event(step=301, summary=Summary(value=[after])))
    writer.close()
    found = curves.read_curves(tmp_path)
    assert found.keys() == {"val/elbo", "train/loss"}
    board = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
    expected = {event.step: event.value for event in board.Scalars("val/elbo")}
    assert found["val/elbo"].to_dict() == expected
    assert found["val/elbo"][301] == 5.0
    # A file that is being written, or was cut off, is read up to there
    whole = path.read_bytes()
    for end in (len(whole) - 1, len(whole) - 20, 30, 5, 0):
        path.write_bytes(whole[:end])
        assert len(dict.fromkeys(step for _, step, _ in curves.read_scalars(path))) <= len(values)
    path.write_bytes(whole[:-1])
    assert len(list(curves.read_scalars(path))) == len(values)


def test_a_resumed_run_has_one_curve(tmp_path):
    log(tmp_path, {"val/elbo": {10: 1.0, 20: 2.0, 30: 3.0}}, second=100)
    log(tmp_path, {"val/elbo": {30: 33.0, 40: 4.0}}, second=1000, number=10)
    log(tmp_path, {"val/elbo": {40: -4.0}}, second=1000, number=9)
    log(tmp_path, {"val/elbo": {5: 0.5, 10: 0.0}}, second=99)
    assert curves.read_curves(tmp_path)["val/elbo"].to_dict() == {
        5: 0.5,
        10: 1,
        20: 2,
        30: 33,
        40: 4,
    }


def test_curves_of_the_csv_logger(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "epoch,step,train/loss,val/elbo,test/elbo\n0,9,5.0,,\n0,9,,-3.0,\n1,19,,-2.0,\n1,20,,,1.0\n"
    )
    found = curves.read_curves(tmp_path)
    assert found["val/elbo"].to_dict() == {9: -3.0, 19: -2.0}
    assert found["train/loss"].to_dict() == {9: 5.0}
    assert found.keys() == {"val/elbo", "train/loss"}


def test_the_average_of_curves():
    a, b = pd.Series({1: 1.0, 2: 4.0, 3: 9.0}), pd.Series({1: 3.0, 2: math.inf})
    table = curves.mean_curve([a, b])
    assert table["mean"].tolist() == [2.0, 4.0, 9.0]
    assert table["sd"][1] == pytest.approx(math.sqrt(2))
    assert table["sd"][[2, 3]].isna().all()
    long = curves.thinned(curves.mean_curve([pd.Series(range(1000))]), 100)
    assert len(long) == 100
    assert (long.index[0], long.index[-1]) == (0, 999)


def test_a_curve_is_of_finished_runs_where_there_are_any(sweep):
    folder = sweep(grid(model__beta=[1, 2], seed=[1, 2]), done=3)
    for run in ("beta-1_seed-2", "beta-2_seed-2"):
        (folder / run / "results.json").unlink(missing_ok=True)
        log(folder / run, {"val/elbo": {10: -130.0, 20: -999.0}}, second=1)
        (folder / run / ".hydra").mkdir(exist_ok=True)
        (folder / run / ".hydra" / "config.yaml").write_text("")
    (folder / "beta-2_seed-1" / "results.json").unlink()
    html = page_of(folder)
    lines = {t["name"]: t for t in embedded(html)["curves"]["val/elbo"]["data"] if "name" in t}
    assert unpacked(lines["1"]["y"]) == [-130.0, -121.0]
    assert unpacked(lines["2"]["y"]) == [-130.0, (-999.0 - 121) / 2]
    assert unpacked(lines["2"]["x"]) == [10, 20]


def unpacked(array):
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()


def test_bands_of_curves_are_one_deviation_wide(sweep):
    html = page_of(sweep(grid(model__beta=[1, 2], seed=[1, 2, 3])))
    bands = [t for t in embedded(html)["curves"]["val/elbo"]["data"] if "fill" in t]
    assert len(bands) == 2
    # at step 20 the seeds are at -121, -122 and -123
    assert unpacked(bands[0]["y"]) == [-130, -121, -123, -130]


def test_active_units_stand_below_all_latents(sweep):
    html = page_of(sweep(BETA_BY_SIZE))
    (figure,) = embedded(html)["active-units"].values()
    everything, *lines = figure["data"]
    assert everything["x"] == everything["y"] == [2, 8]
    assert [line["y"] for line in lines] == [[2, 3], [2, 3]]
    assert [line["name"] for line in lines] == ["beta 0.5", "beta 2"]
    html = page_of(sweep(grid(model__beta=[1, 2, 4], seed=[1, 2])))
    everything, line = next(iter(embedded(html)["active-units"].values()))["data"]
    assert everything["y"] == [4, 4, 4]
    assert line["y"] == [3, 3, 3]


def runs_of(tmp_path, *configs):
    """A folder of runs that no sweep made."""
    for i, config in enumerate(configs):
        folder = tmp_path / "runs" / "deeper" / f"run {i}"
        finish(folder, {"seed": str(i)})
        (folder / ".hydra" / "config.yaml").write_text(config)
    return tmp_path / "runs"


def test_a_folder_of_runs_is_swept_in_what_differs(tmp_path):
    config = (
        "model:\n  _target_: vaelab.models.{model}\n  latent_dim: {size}\n  num_samples: 1\n"
        "data:\n  source:\n    name: {data}\n    file: {data}.npz\n    folder: /tmp/{data}\n"
        "  seed: ${{seed}}\nannealing: {annealing}\nlogger:\n  save_dir: /tmp/{seed}\n"
        "seed: {seed}\npaths:\n  data: /{seed}\n"
    )
    settings = [
        ("VAE", 2, "a", "null", 1),
        ("VAE", 4, "a", "null", 2),
        ("BetaVAE", 2, "b", "{_target_: x.Annealing, duration: 3}", 1),
        ("BetaVAE", 4, "b", "{_target_: x.Annealing, duration: 3}", 2),
    ]
    keys = ("model", "size", "data", "annealing", "seed")
    folder = runs_of(
        tmp_path, *(config.format(**dict(zip(keys, s, strict=True))) for s in settings)
    )
    found = reports.read_sweep(folder)
    assert found.swept == [
        *(
            "model.latent_dim",
            "model",
            "annealing",
            "data.source.name",
            "annealing.duration",
            "seed",
        )
    ]
    assert found.jobs["model"].tolist() == ["VAE", "VAE", "BetaVAE", "BetaVAE"]
    assert found.jobs["annealing"].tolist() == ["None", "None", "Annealing", "Annealing"]
    assert found.jobs["model.latent_dim"].tolist() == [2, 4, 2, 4]
    assert found.jobs["folder"][0] == "deeper/run 0"
    written(folder)


def test_a_run_folder_is_a_sweep_of_one(tmp_path):
    finish(tmp_path / "run", {})
    found = reports.read_sweep(tmp_path / "run")
    assert found.jobs["folder"].tolist() == ["."]
    assert found.swept == []
    html = page_of(tmp_path / "run")
    assert "<h1>run</h1>" in html


MNIST = {"_target_": "vaelab.data.TorchvisionDataset", "name": "MNIST", "folder": "/a"}
FASHION = {"_target_": "vaelab.data.TorchvisionDataset", "name": "FashionMNIST", "folder": "/b"}


def of(source, pixels, likelihood, **changes):
    """A run's configuration, as far as it tells what its numbers are of."""
    model = {"likelihood": {"_target_": f"vaelab.likelihoods.{likelihood}"}, "latent_dim": 4}
    return {"model": model, "data": {"source": source, "pixels": pixels}} | changes


@pytest.fixture
def mixed(sweep):
    """Sixteen runs: the mass of bits, of levels and a density of MNIST, and of Fashion-MNIST."""
    jobs = grid(model__beta=[0.5, 2], seed=[1, 2], likelihood=["a", "b", "c", "d"])
    configs = {
        "a": of(MNIST, "binary", "Bernoulli"),
        "b": of(MNIST | {"folder": "/c"}, "grey", "DiscretizedLogistic"),
        "c": of(MNIST, "grey", "Gaussian"),
        "d": of(FASHION, "binary", "Bernoulli"),
    }
    shift = {"a": 0.0, "b": -900.0, "c": 1500.0, "d": -130.0}
    folder = sweep(jobs, done=0)
    for job in jobs:
        kind = job["likelihood"]
        values = {"val/elbo": shift[kind] - float(job["model.beta"]), "config": configs[kind]}
        finish(folder / name(job), job, **values)
    return folder


def test_runs_are_ranked_within_what_can_be_compared(mixed):
    found = reports.read_sweep(mixed)
    assert list(found.parts) == [
        "MNIST, binary pixels, mass",
        "MNIST, grey pixels, mass",
        "MNIST, grey pixels, density",
        "FashionMNIST, binary pixels, mass",
    ]
    assert [len(part.jobs) for part in found.parts.values()] == [4] * 4
    assert {tuple(part.axes) for part in found.parts.values()} == {("model.beta",)}
    html = page_of(mixed)
    assert html.count('class="winner"') == 4
    for value in ("-0.50", "-900.50", "1499.50", "-130.50"):
        assert re.search(
            rf"est val/elbo, mean over seeds: <b>{value}\d* ± 0.0\d*</b> at beta", html
        )
    assert html.count('<tr class="best">') == 4 * 2 + 4  # each of two tables, and of all runs
    lines = [figure for key, figure in embedded(html).items() if "rate-distortion" in key]
    assert len(lines) == 4
    assert len(re.findall(r'<section id="settings[-\d]*">', html)) == 4


@pytest.mark.slow
def test_files_of_a_mixed_folder_are_by_group(mixed):
    to = written(mixed)
    groups = set(pd.read_csv(to / "runs.csv")["group"])
    assert (
        groups
        == set(reports.read_sweep(mixed).parts)
        == set(pd.read_csv(to / "summary.csv")["group"])
    )
    assert (to / "figures" / "MNIST-grey-pixels-density" / "line_val_elbo.png").exists()
    assert not list((to / "figures").glob("*.png"))


def test_an_unfinished_run_is_told_by_its_configuration(mixed):
    for folder, config in (("x", of(FASHION, "${kind}", "Bernoulli", kind="binary")), ("y", {})):
        (mixed / folder / ".hydra").mkdir(parents=True)
        (mixed / folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
    plan = json.loads((mixed / "sweep.json").read_text())
    plan["jobs"] += [{"folder": folder, "overrides": {}} for folder in ("x", "y", "z")]
    (mixed / "sweep.json").write_text(json.dumps(plan))
    jobs = reports.read_sweep(mixed).jobs.set_index("folder")
    assert jobs.loc["x", "group"] == "FashionMNIST, binary pixels, mass"
    assert jobs.loc[["y", "z"], "group"].isna().all()
    html = page_of(mixed)
    assert '<span class="setting">x</span>' in html


def test_what_says_where_data_are_makes_no_group():
    sprites = {"_target_": "vaelab.data.Sprites", "size": 32}
    configs = [
        of(sprites, "binary", "Bernoulli"),
        of(sprites | {"size": 64}, "binary", "Bernoulli"),
        of({"_target_": "vaelab.data.Arrays", "path": "/x/mine.npz"}, "binary", "Bernoulli"),
        of({"_target_": "vaelab.data.Arrays", "path": "/y/mine.npz"}, "binary", "Mine"),
        {},
    ]
    keys = [comparability.scale_key(config) for config in configs]
    assert list(comparability.key_labels(keys).values()) == [
        "Sprites, binary pixels, mass, size=32",
        "Sprites, binary pixels, mass, size=64",
        "mine.npz, binary pixels, mass",
        "mine.npz, binary pixels, Mine",
        "unknown data, None pixels, unknown likelihood",
    ]
    assert comparability.key_labels(keys[:1] * 3) == {keys[0]: ""}
    assert comparability.scale_key(of(MNIST, "grey", "Gaussian")) == comparability.scale_key(
        of(MNIST | {"folder": "/elsewhere"}, "grey", "Gaussian")
    )


def test_every_axis_of_numbers_has_its_unit(sweep):
    html = page_of(sweep(BETA_BY_SIZE))
    figures = embedded(html)
    bar = figures["metrics"]["test/rate"]["data"][0]["colorbar"]["title"]["text"]
    assert bar == "test/rate, nats per image"
    (units,) = figures["active-units"].values()
    assert units["layout"]["yaxis"]["title"]["text"] == "active_units, number of latents"
    curve = figures["curves"]["val/elbo"]["layout"]
    assert curve["yaxis"]["title"]["text"] == "val/elbo, nats per image"
    assert curve["xaxis"]["title"]["text"] == "optimizer steps"


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "10", None], "Int64", [1, 10, None]),
        (["1", "0.5", "1e-3"], "float64", [1.0, 0.5, 0.001]),
        (["true", "false"], "boolean", [True, False]),
        (["1", "x"], "str", ["1", "x"]),
        (["[8,8]", "[16]"], "str", ["[8,8]", "[16]"]),
        ([None, None], "str", [None, None]),
    ],
)
def test_settings_are_typed_columns(values, kind, expected):
    column = differences.typed_column(values)
    assert column.dtype == kind
    assert [None if pd.isna(value) else value for value in column] == expected


def test_names_are_as_short_as_they_can_be():
    assert differences.short_names(["model.beta", "seed"]) == {"model.beta": "beta", "seed": "seed"}
    both = ["model.encoder.hidden", "model.decoder.hidden"]
    assert differences.short_names(both) == {both[0]: both[0], both[1]: both[1]}
    assert differences.level_labels([0.12341, 0.12342]) == ["0.12341", "0.12342"]
    assert differences.level_labels([0.5, 12345678]) == ["0.5", "12345678"]


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
def test_decimals(values, deviations, places):
    assert views.decimal_places(values, deviations) == places


def failed(capsys, *arguments):
    """What `python report.py` with these arguments says before it exits with 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
        for variable in ("HYDRA_FULL_ERROR", "VAELAB_SHORT_ERROR"):
            patch.delenv(variable, raising=False)
        with pytest.raises(SystemExit) as exit_:
            report.main()
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_the_user_can_mend_is_one_line(sweep, tmp_path, capsys):
    folder = sweep(BETA_BY_SIZE)
    (tmp_path / "empty").mkdir()
    says = {
        ("sweep=nowhere",): "error: nowhere: there is no such folder",
        (f"sweep={tmp_path}/empty",): "is no sweep folder, and there is no run in it",
        (f"sweep={folder}", "metric=val/elbow"): "did you mean val/elbo?",
        (f"sweep={folder}", "direction=up"): "direction=up",
        (f"sweep={folder}", "best=-1"): "best=-1",
        (f"sweep={folder}", "bets=1"): "did you mean best?",
        (): "sweep has no value",
    }
    for arguments, said in says.items():
        assert said in failed(capsys, *arguments)
    (folder / "sweep.json").write_text("{")
    assert "sweep.json" in failed(capsys, f"sweep={folder}")


def test_an_unknown_metric_is_no_error_while_nothing_is_measured(sweep):
    folder = sweep(BETA_BY_SIZE, done=0)
    assert "No run is finished with nll yet." in page_of(folder, metric="nll")
    finish(folder / name(BETA_BY_SIZE[0]), BETA_BY_SIZE[0])
    with pytest.raises(UserError, match="metric=nll: no run has been measured by it"):
        reports.write_report(
            reports.read_sweep(folder), folder / "report", reports.Ranking("nll"), 4
        )


@pytest.mark.slow
def test_the_command_needs_no_torch(sweep):
    folder = sweep(BETA_BY_SIZE)
    code = (
        f"import sys; sys.argv = ['report.py', 'sweep={folder}', 'metric=test/rate'];"
        "import report; report.main();"
        "assert not {'torch', 'lightning', 'tensorflow'} & set(sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert lines[0] == "12 runs: 12 done"
    assert all(Path(line).is_file() for line in lines[1:])
    names = {Path(line).name for line in lines[1:]}
    assert {"report.html", "runs.csv", "runs.parquet", "summary.csv", "rate_distortion.png"} < names
    assert {"heat_map_test_rate.png", "active_units.png", "curves.png"} < names


TRY = """
<script>
for (const select of document.querySelectorAll("select")) {
  for (const option of select.options) {
    select.value = option.value;
    select.dispatchEvent(new Event("change"));
  }
  select.selectedIndex = 0;
  select.dispatchEvent(new Event("change"));
}
document.querySelector(".pictures img").click();
document.querySelector("dialog").click();
const heads = [...document.querySelector("table.sortable").tHead.rows[0].cells];
const column = heads.findIndex((head) => head.classList.contains("marked"));
heads[column].firstElementChild.click();
heads[column].firstElementChild.click();
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed to open the page")
@pytest.mark.parametrize("jobs", ["grid", "a search", "nothing finished"])
def test_a_browser_draws_the_page_without_an_error(sweep, tmp_path, jobs):
    html = page_of(sweep(*SWEEPS.get(jobs, (BETA_BY_SIZE, 11))))
    tried = tmp_path / "tried.html"
    if jobs == "grid":
        tried.write_text(html.replace("</body>", TRY + "</body>"))
    else:
        tried.write_text(html)
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--enable-logging=stderr"),
        *(f"--user-data-dir={tmp_path}/browser", "--window-size=1400,1000"),
        *("--virtual-time-budget=15000", "--dump-dom", tried.as_uri()),
    ]
    environment = os.environ | {"HOME": str(tmp_path)}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert "CONSOLE" not in ran.stderr, ran.stderr
    boxes = re.findall(r'<div class="plot([^"]*)" id="([a-z-]+)-plot"', ran.stdout)
    assert {box for _, box in boxes} == embedded(html).keys()
    assert all("drawn" in classes for classes, _ in boxes)
    if jobs == "grid":
        assert ran.stdout.count('class="main-svg"') >= len(boxes)
        table = re.search(r"<caption>Settings and their main.*?</table>", ran.stdout, re.S)[0]
        marked = re.findall(r'data-value="([-\d.]+)"', table)
        rows = np.array(marked, float).reshape(4, -1)
        assert rows[:, 3].tolist() == sorted(rows[:, 3], reverse=True)
        assert 'aria-sort="descending"' in table


def test_the_page_asks_nothing_of_a_network(sweep):
    html = page_of(sweep(BETA_BY_SIZE))
    assert "default-src 'none'" in html
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", own)
    assert html.count("plotly.js v") == 1


def test_many_curves_are_thinned(sweep):
    assert plots.POINTS * 12 * 4 / 3 < 5e6  # bytes of steps, means and deviations
    folder = sweep(grid(seed=[1]))
    log(folder / "seed-1", {"train/loss": {i: float(i) for i in range(2000)}}, second=5)
    html = page_of(folder)
    (line,) = embedded(html)["curves"]["train/loss"]["data"]
    assert len(unpacked(line["x"])) == 300
