"""Tests of `vaelab.report.sweep`: states, settings and groups read from sweep folders."""

import json

import pytest
from support.report_pages import render_report, write_report_files
from support.sweep_folders import FASHION, grid_jobs, run_config, write_finished_run

from vaelab import report as reports
from vaelab.report import summary


def test_read_sweep_finds_state_and_progress_of_jobs(make_sweep):
    folder = make_sweep(grid_jobs(seed=range(5)), done=1)
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
    html = render_report(folder)
    assert "25%" in html
    assert "epoch 3, val/elbo -97.00" in html


def test_finished_job_is_done_despite_earlier_failure(make_sweep):
    folder = make_sweep(grid_jobs(seed=[1]))
    (folder / "seed-1" / "failure.json").write_text('{"error": "oh"}')
    assert reports.read_sweep(folder).jobs["state"].tolist() == ["done"]


@pytest.mark.parametrize("config", ["zz", 3, {"model": 3}, [1]])
def test_job_with_a_damaged_configuration_is_reported(make_sweep, config):
    folder = make_sweep(grid_jobs(seed=[1, 2]))
    path = folder / "seed-2" / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"config": config}))
    assert reports.read_sweep(folder).jobs["state"].tolist() == ["done", "done"]


def test_job_with_damaged_results_is_failed(make_sweep):
    folder = make_sweep(grid_jobs(seed=[1, 2]))
    (folder / "seed-2" / "results.json").write_text('{"val/elbo": -1')
    jobs = reports.read_sweep(folder).jobs
    assert jobs["state"].tolist() == ["done", "failed"]
    assert jobs["error"][1].startswith("results.json cannot be read")


def write_runs(tmp_path, *configs):
    """Writes finished runs with these configurations into a folder without `sweep.json`."""
    for i, config in enumerate(configs):
        folder = tmp_path / "runs" / "deeper" / f"run {i}"
        write_finished_run(folder, {"seed": str(i)})
        (folder / ".hydra" / "config.yaml").write_text(config)
    return tmp_path / "runs"


def test_read_sweep_knows_what_an_earlier_vaelab_did_without_a_setting(tmp_path):
    config = "model:\n  _target_: vaelab.models.LadderVAE\n  latent_dim: {}\n{}"
    scales = ["", "  prior_scale: exp\n", "  prior_scale: softplus\n"]
    folder = write_runs(tmp_path, *(config.format(i, scale) for i, scale in enumerate(scales)))
    assert reports.read_sweep(folder).jobs["model.prior_scale"].tolist() == [
        "exp",
        "exp",
        "softplus",
    ]


def test_read_sweep_without_sweep_json_takes_differing_settings(tmp_path):
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
    folder = write_runs(
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
    write_report_files(folder)


def test_read_sweep_of_run_folder_has_one_job(tmp_path):
    write_finished_run(tmp_path / "run", {})
    found = reports.read_sweep(tmp_path / "run")
    assert found.jobs["folder"].tolist() == ["."]
    assert found.swept == []
    html = render_report(tmp_path / "run")
    assert "<h1>run</h1>" in html


def test_group_of_unfinished_run_is_from_its_configuration(mixed_sweep):
    for folder, config in (
        ("x", run_config(FASHION, "${kind}", "Bernoulli", kind="binary")),
        ("y", {}),
    ):
        (mixed_sweep / folder / ".hydra").mkdir(parents=True)
        (mixed_sweep / folder / ".hydra" / "config.yaml").write_text(json.dumps(config))
    plan = json.loads((mixed_sweep / "sweep.json").read_text())
    plan["jobs"] += [{"folder": folder, "overrides": {}} for folder in ("x", "y", "z")]
    (mixed_sweep / "sweep.json").write_text(json.dumps(plan))
    jobs = reports.read_sweep(mixed_sweep).jobs.set_index("folder")
    assert jobs.loc["x", "group"] == "FashionMNIST, binary pixels, mass"
    assert jobs.loc[["y", "z"], "group"].isna().all()
    html = render_report(mixed_sweep)
    assert '<span class="setting">x</span>' in html
