"""Tests of `vaelab.report.writing`: tables and figures written to the report's folder."""

import json

import pandas as pd
import pytest
from support.report_pages import render_report, write_report_files
from support.sweep_folders import BETA_BY_SIZE, run_folder_name, write_finished_run

from vaelab import report as reports
from vaelab.errors import UserError


def test_runs_csv_and_parquet_have_equal_contents(make_sweep):
    folder = make_sweep(BETA_BY_SIZE, done=11)
    other = [{**job, "model": "vae,x"} for job in BETA_BY_SIZE]
    plan = [
        {"folder": run_folder_name(a), "overrides": b}
        for a, b in zip(BETA_BY_SIZE, other, strict=True)
    ]
    (folder / "sweep.json").write_text(json.dumps({"command": "x", "jobs": plan}))
    measured = {
        "nll": {"value": 90.5, "se": 0.25},
        "rate_per_latent": {"value": [1.0], "se": [0.1]},
    }
    (folder / run_folder_name(BETA_BY_SIZE[0]) / "evaluation.json").write_text(json.dumps(measured))
    to = write_report_files(folder)
    csv, parquet = pd.read_csv(to / "runs.csv"), pd.read_parquet(to / "runs.parquet")
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)
    assert len(parquet) == 12
    assert parquet["model.latent_dim"].dtype == "Int64"
    assert parquet["model.beta"].dtype == "float64"
    assert parquet["nll"].tolist()[:1] == [90.5]
    assert parquet["nll_se"].notna().sum() == 1
    assert parquet["state"].value_counts().to_dict() == {"done": 11, "not begun": 1}
    assert "rate_per_latent" not in parquet


@pytest.mark.slow
def test_write_report_separates_comparable_groups(mixed_sweep):
    to = write_report_files(mixed_sweep)
    groups = set(pd.read_csv(to / "runs.csv")["group"])
    assert (
        groups
        == set(reports.read_sweep(mixed_sweep).parts)
        == set(pd.read_csv(to / "summary.csv")["group"])
    )
    assert (to / "figures" / "MNIST-grey-pixels-density" / "line_val_elbo.png").exists()
    assert not list((to / "figures").glob("*.png"))


def test_write_report_refuses_unknown_metric_only_if_runs_measured(make_sweep):
    folder = make_sweep(BETA_BY_SIZE, done=0)
    assert "No run is finished with nll yet." in render_report(folder, metric="nll")
    write_finished_run(folder / run_folder_name(BETA_BY_SIZE[0]), BETA_BY_SIZE[0])
    with pytest.raises(UserError, match="metric=nll: no run has been measured by it"):
        reports.write_report(
            reports.read_sweep(folder), folder / "report", reports.Ranking("nll"), 4
        )
