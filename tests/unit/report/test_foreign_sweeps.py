"""Tests that the report of a sweep made by somebody else reads nothing outside of its folder."""

import base64
import json

import pandas as pd
import pytest
from support.report_pages import render_report, write_report_files
from support.sweep_folders import grid_jobs, write_event_file, write_finished_run

from vaelab import report as reports
from vaelab.commands import report
from vaelab.errors import UserError
from vaelab.runs.folder import check_links

SECRET, NUMBER = "s3cret-7f1c", 918273645.0
JOBS = grid_jobs(model__beta=[0.5, 2])


@pytest.fixture
def home(tmp_path):
    """A folder of the victim's, with a text, a configuration, results, a picture and curves."""
    folder = tmp_path / "home"
    write_finished_run(folder, {}, **{"val/elbo": NUMBER, "device": SECRET})
    (folder / "own.txt").write_text(SECRET)
    (folder / "own.yaml").write_text(f"model:\n  beta: {SECRET}\n")
    (folder / "job.log").write_text(SECRET)
    (folder / "failure.json").write_text(json.dumps({"error": SECRET}))
    (folder / "progress.json").write_text(json.dumps({"epoch": SECRET, "share": 0.5}))
    (folder / "metrics.csv").write_text(f"step,val/{SECRET}\n1,2.0\n")
    return folder


def edit_jobs(folder, change):
    """Changes the jobs in `sweep.json` by a function, in place."""
    content = json.loads((folder / "sweep.json").read_text())
    change(content["jobs"])
    (folder / "sweep.json").write_text(json.dumps(content))


def replace_by_link(path, target):
    """Puts a link in the place of a file or of nothing."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def name_folder(text):
    """Returns the attack that names a folder as the folder of the first job."""
    return lambda sweep, home: edit_jobs(
        sweep, lambda jobs: jobs[0].update(folder=text.format(home))
    )


def name_log(text):
    """Returns the attack that names a file as the log of a failed job."""

    def attack(sweep, home):
        (sweep / "beta-0.5" / "results.json").unlink()
        failure = {"error": "it failed", "log": text.format(home)}
        (sweep / "beta-0.5" / "failure.json").write_text(json.dumps(failure))

    return attack


def link(name, target, *missing):
    """Returns the attack that links a file of the first job; removes the `missing` ones."""

    def attack(sweep, home):
        run = sweep / "beta-0.5"
        for other in missing:
            for path in run.glob(other):
                path.unlink()
        replace_by_link(run / name, home / target)

    return attack


def link_run(sweep, home):
    """The folder of a job is a link to one of the victim's."""
    (sweep / "beta-0.5").rename(sweep / "gone")
    (sweep / "beta-0.5").symlink_to(home)


ATTACKS = {
    "folder above": name_folder("../home"),
    "absolute folder": name_folder("{}"),
    "link as folder": link_run,
    "log above": name_log("../../home/own.txt"),
    "absolute log": name_log("{}/own.txt"),
    "link as log": link("job.log", "own.txt", "results.json"),
    "link as failure": link("failure.json", "failure.json", "results.json"),
    "link as progress": link("progress.json", "progress.json", "results.json"),
    "link as results": link("results.json", "results.json"),
    "link as evaluation": link("evaluation.json", "results.json"),
    "link as picture": link("figures/samples.png", "own.txt"),
    "link as real picture": link("figures/samples.png", "figures/reconstructions.png"),
    "link as curves": link("metrics.csv", "metrics.csv", "events.*"),
    "link as configuration": link(".hydra/config.yaml", "own.yaml"),
}


def shown_secrets(sweep, home):
    """Returns what of the victim's is in the report's page or its table of jobs."""
    shown = render_report(sweep) + reports.read_sweep(sweep).jobs.to_csv()
    picture = (home / "figures" / "reconstructions.png").read_bytes()
    encoded = [base64.b64encode(content).decode() for content in (SECRET.encode(), picture)]
    return [text for text in (SECRET, str(int(NUMBER)), *encoded) if text in shown]


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_report_shows_nothing_from_outside(attack, make_sweep, home):
    sweep = make_sweep(JOBS)
    ATTACKS[attack](sweep, home)
    assert shown_secrets(sweep, home) == []
    (sweep / "sweep.json").unlink()
    assert shown_secrets(sweep, home) == []


def test_secrets_are_found_where_they_are_shown(home):
    assert len(shown_secrets(home.parent, home)) == 3  # the picture, the number and the device


def test_job_outside_of_sweep_is_called_failed(make_sweep, home):
    sweep = make_sweep(JOBS)
    name_folder("../home")(sweep, home)
    jobs = reports.read_sweep(sweep).jobs
    assert jobs["state"].tolist() == ["failed", "done"]
    assert jobs["error"][0] == f"results.json is outside of {sweep}"


@pytest.mark.parametrize("jobs", [3, [3], [{}], [{"folder": 3}], [{"folder": "a", "overrides": 1}]])
def test_damaged_sweep_json_is_an_error(make_sweep, jobs):
    sweep = make_sweep(JOBS)
    (sweep / "sweep.json").write_text(json.dumps({"jobs": jobs, "command": "a"}))
    with pytest.raises(UserError, match=r"sweep.json: damaged, or of no sweep of vaelab"):
        reports.read_sweep(sweep)


def test_file_that_is_no_png_is_not_embedded(make_sweep):
    sweep = make_sweep(JOBS)
    for folder in sweep.glob("beta-*"):
        (folder / "figures" / "samples.png").write_text("<svg onload=alert(1)>")
    html = render_report(sweep)
    assert "data:image/png;base64,iVBOR" in html
    assert base64.b64encode(b"<svg").decode()[:4] not in html.partition("<script")[0]


def test_curves_of_foreign_run_are_those_of_its_folder(make_sweep, home):
    sweep = make_sweep(JOBS)
    own = write_event_file(home, {f"val/{SECRET}": {1: 2.0}})
    (sweep / "beta-2" / "events.out.tfevents.1900000000.host.1.0").symlink_to(own)
    assert not shown_secrets(sweep, home)


def test_report_is_not_written_through_links(make_sweep, home, monkeypatch, capsys):
    sweep = make_sweep(JOBS)
    (sweep / "report").symlink_to(home)
    before = {path: path.stat().st_mtime_ns for path in home.rglob("*")}
    monkeypatch.setattr("sys.argv", ["report.py", f"sweep={sweep}"])
    with pytest.raises(SystemExit) as exit_:
        report.main()
    assert exit_.value.code == 2
    assert f"{sweep}/report is a link to {home}" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*")} == before


def test_check_links_allows_what_stays_inside_or_was_typed(tmp_path):
    folder, home = tmp_path / "run", tmp_path / "home"
    (folder / "report").mkdir(parents=True)
    home.mkdir()
    (folder / "report" / "last").symlink_to(folder)
    check_links(folder / "report", folder)
    (tmp_path / "typed").symlink_to(home)
    check_links(tmp_path / "typed", folder)
    check_links(folder / ".." / "typed", folder)
    (folder / "report" / "a.png").symlink_to(home / "a.png")  # which does not exist
    with pytest.raises(UserError, match=r"report/a\.png is a link to .*home/a\.png, outside of"):
        check_links(folder / "report", folder)


def test_runs_csv_has_no_formulas(make_sweep):
    bad = "=cmd|'/C calc'!A0"
    jobs = grid_jobs(**{"=name": [bad, "-a"]}, model__beta=["-1", "2"])
    to = write_report_files(make_sweep(jobs))
    table = pd.read_csv(to / "runs.csv")
    assert set(table["'=name"]) == {f"'{bad}", "'-a"}
    assert sorted(table["model.beta"].unique()) == [-1, 2]
    assert "\n=" not in (to / "summary.csv").read_text()
