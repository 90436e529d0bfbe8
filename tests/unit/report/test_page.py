"""Tests of `vaelab.report.page`: contents, order and escaping of the report's HTML page."""

import base64
import json
import math
import re

import pandas as pd
import pytest
from support.report_pages import page_figures, render_report, write_report_files
from support.sweep_folders import BETA_BY_SIZE, SWEEPS, grid_jobs, results_content

from vaelab import report as reports
from vaelab.report import page


def test_page_and_summary_csv_show_the_same_means(make_sweep):
    folder = make_sweep(BETA_BY_SIZE)
    html, to = render_report(folder), write_report_files(folder)
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


def test_report_of_single_seed_has_no_standard_deviations(make_sweep):
    folder = make_sweep(grid_jobs(model__beta=[0.5, 1, 2]))
    html, to = render_report(folder), write_report_files(folder)
    assert "± " not in re.sub(
        r"<section id=\"terms\">.*", "", html.partition("<main>")[2], flags=re.S
    )
    assert pd.read_csv(to / "summary.csv")["sd"].isna().all()
    for figures in page_figures(html).values():
        for figure in figures.values():
            assert not any("error_y" in trace or "fill" in trace for trace in figure["data"])


@pytest.mark.slow
@pytest.mark.parametrize("jobs", SWEEPS)
def test_report_is_written_for_every_kind_of_sweep(make_sweep, jobs):
    folder = make_sweep(*SWEEPS[jobs])
    html = render_report(folder)
    assert (write_report_files(folder) / "report.html").stat().st_size > 4e6
    figures = page_figures(html)
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


def test_settings_table_of_search_is_best_first(make_sweep):
    html = render_report(make_sweep(*SWEEPS["a search"]))
    table = re.search(r"Settings and their main metrics.*?</table>", html, re.S)[0]
    shown = [float(value) for value in re.findall(r'"(-\d+\.\d+)" class="number"', table)[::2]]
    assert shown == sorted(shown, reverse=True)
    assert len(shown) == 19
    (figure,) = page_figures(html)["rate-distortion"].values()
    assert [t["mode"] for t in figure["data"] if t.get("line", {}).get("width") == 1.2] == []


def test_page_shows_finite_metrics_only(make_sweep):
    folder = make_sweep(grid_jobs(model__beta=[1, 2], seed=[1, 2]), done=3)
    odd = folder / "beta-1_seed-1" / "results.json"
    content = results_content({"model.beta": "1", "seed": "1"}, **{"test/rate": math.nan})
    odd.write_text(json.dumps(content | {"val/elbo": -math.inf, "odd/text": "x", "odd/flag": True}))
    evaluation = {"nll": {"value": 90, "se": 1.0}, "odd": {"value": math.nan, "se": None}}
    (folder / "beta-1_seed-2" / "evaluation.json").write_text(json.dumps(evaluation))
    html = render_report(folder)
    menu = page_figures(html)["metrics"]
    assert {"val/elbo", "test/rate", "nll", "seconds"} <= menu.keys()
    assert not {"odd", "odd/text", "odd/flag"} & menu.keys()
    assert "NaN" not in json.dumps(page_figures(html))
    assert "-106.20 <small>n=1</small>" in html or "-105.20 <small>n=1</small>" in html
    best = re.search(r'<section id="best">.*?</section>', html, re.S)[0]
    assert "beta-1_seed-1" not in best


def test_page_shows_pictures_of_best_runs_in_ranking_order(make_sweep):
    folder = make_sweep(grid_jobs(model__beta=[1, 2, 3], seed=[1, 2]))
    (folder / "beta-1_seed-2" / "figures" / "samples.png").unlink()
    html = render_report(folder, best=3)
    table = re.search(r'<table class="pictures">.*?</table>', html, re.S)[0]
    assert re.findall(r"<small>(.*?)</small>", table) == [
        *["beta-1_seed-1", "beta-1_seed-2", "beta-2_seed-1"]
    ]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', table, re.S)
    assert [kind for kind, _ in rows] == ["reconstructions", "samples"]
    first = (folder / "beta-1_seed-1" / "figures" / "samples.png").read_bytes()
    assert base64.b64encode(first).decode() in rows[1][1].split("</td>")[0]
    assert "none" in rows[1][1].split("</td>")[1]
    html = render_report(folder, metric="test/rate", best=2)
    table = re.search(r'<table class="pictures">.*?</table>', html, re.S)[0]
    assert re.findall(r"<small>(.*?)</small>", table) == ["beta-3_seed-1", "beta-3_seed-2"]
    assert '<section id="best">' not in render_report(folder, best=0)


def test_page_ranks_runs_within_comparable_groups(mixed_sweep):
    found = reports.read_sweep(mixed_sweep)
    assert list(found.parts) == [
        "MNIST, binary pixels, mass",
        "MNIST, grey pixels, mass",
        "MNIST, grey pixels, density",
        "FashionMNIST, binary pixels, mass",
    ]
    assert [len(part.jobs) for part in found.parts.values()] == [4] * 4
    assert {tuple(part.axes) for part in found.parts.values()} == {("model.beta",)}
    html = render_report(mixed_sweep)
    assert html.count('class="winner"') == 4
    for value in ("-0.50", "-900.50", "1499.50", "-130.50"):
        assert re.search(
            rf"est val/elbo, mean over seeds: <b>{value}\d* ± 0.0\d*</b> at beta", html
        )
    assert html.count('<tr class="best">') == 4 * 2 + 4  # two tables per group, one of all runs
    lines = [figure for key, figure in page_figures(html).items() if "rate-distortion" in key]
    assert len(lines) == 4
    assert len(re.findall(r'<section id="settings[-\d]*">', html)) == 4


def test_page_lists_failed_jobs_first_with_error_and_log(make_sweep):
    folder = make_sweep(grid_jobs(model__beta=[1, 2], seed=[1, 2]), done=3)
    failed = folder / "beta-2_seed-2"
    failed.mkdir()
    error = "ValueError: <script>alert(1)</script> & more"
    (failed / "failure.json").write_text(json.dumps({"error": error, "exit": 1, "log": "job.log"}))
    (failed / "job.log").write_text("first\n" * 50 + "</pre><img src=x onerror=alert(1)>\n")
    html, to = render_report(folder), folder / "report"
    assert html.index('id="attention"') < html.index('id="settings"')
    assert "beta 2, seed 2" in html
    assert "ValueError: &lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in html
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert "a&lt;b" in html  # in the command of sweep.json
    address = re.search(r'<a href="(.*?)">beta-2_seed-2/job.log</a>', html)[1]
    assert (to / address).resolve() == (failed / "job.log").resolve()


def test_page_escapes_html_in_settings(make_sweep):
    bad = "</script><b>x</b>"
    html = render_report(make_sweep(grid_jobs(**{"mo<b>del": [bad, "y"]}, model__beta=[1, 2])))
    assert bad not in html
    assert "<b>x" not in html
    figures = page_figures(html)
    tick = figures["metrics"]["val/elbo"]["layout"]["yaxis"]["ticktext"][0]
    assert tick == "&lt;/script&gt;&lt;b&gt;x&lt;/b&gt;"  # plotly.js reads HTML in labels


def test_script_json_escapes_less_than():
    text = page.script_json({"": "</script><!-- <script>"})
    assert "<" not in text
    assert json.loads(text) == {"": "</script><!-- <script>"}


def test_page_loads_nothing_from_network(make_sweep):
    html = render_report(make_sweep(BETA_BY_SIZE))
    assert "default-src 'none'" in html
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", own)
    assert html.count("plotly.js v") == 1
