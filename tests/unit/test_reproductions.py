"""Tests of `vaelab.reproductions`: protocols, and comparison of records with published figures."""

import json
import math
from pathlib import Path

import pytest
import yaml
from PIL import Image

from vaelab import reproductions
from vaelab.commands import train
from vaelab.commands.config_folders import CONF
from vaelab.errors import UserError
from vaelab.reproductions.plane import plane_points
from vaelab.reproductions.protocol import Protocol, chosen_runs, split_name
from vaelab.reproductions.tables import cells, time_text
from vaelab.runs import validation

PROTOCOL = {
    "paper": "Somebody 2020",
    "about": "A trial.",
    "settings": ["data=mnist_5k", "trainer.max_epochs=9"],
    "runs": {"vae": ["model=vae"], "cvae": ["model=cvae", "trainer.max_epochs=5"]},
    "seeds": [1, 2],
    "figures": [
        {"of": "vae", "metric": "nll", "published": 80, "source": "p. 1", "tolerance": 1},
        {
            "of": "vae",
            "metric": "nll",
            "minus": "cvae",
            "published": 2.5,
            "source": "p. 2",
            "tolerance": 0.25,
            "better": "higher",
            "short": 1.0,
        },
    ],
    "short": {"settings": ["trainer.max_epochs=1"]},
}
ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "results" / "reproductions"
NAMES = reproductions.protocol_names(CONF / "reproduce")


@pytest.fixture
def protocol():
    return Protocol.model_validate(PROTOCOL)


@pytest.fixture
def kept(tmp_path):
    """A function that writes a record of a run by its NLL for each seed."""

    def write(run, *nll, se=None, form="full"):
        folder = tmp_path / "trial" / (run if form == "full" else f"{run}_short")
        folder.mkdir(parents=True)
        estimates = [{"value": value, "se": se} for value in nll]
        seeds = {str(i): {"metrics": {"nll": e}, "seconds": 30} for i, e in enumerate(estimates)}
        settings = Protocol.model_validate(PROTOCOL).overrides(run, form == "short", ["a=1"])
        content = {"command": f"vaelab reproduce trial/{run} a=1", "seeds": seeds}
        content |= {"settings": settings, "further": ["a=1"]}
        (folder / "record.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_later_settings_of_a_protocol_count(protocol):
    whole = protocol.overrides("cvae", is_short=False, seed=2)
    assert whole == ["data=mnist_5k", "trainer.max_epochs=5", "model=cvae", "seed=2"]
    assert "trainer.max_epochs=1" in protocol.overrides("cvae", is_short=True)
    assert protocol.repetitions(is_short=True) == [1]


@pytest.mark.parametrize(
    ("nll", "reached"), [(79.0, True), (80.0, True), (81.0, True), (81.01, False)]
)
def test_figure_is_reached_within_its_tolerance_or_better(protocol, kept, nll, reached):
    (row,) = reproductions.compare_protocol(kept("vae", nll), "trial", protocol, "full")
    assert row.is_reached == reached
    assert row.gap == pytest.approx(nll - 80)


@pytest.mark.parametrize(
    ("better", "ours", "reached"),
    [
        *[("equal", 81.5, False), ("equal", 78.5, False), ("equal", 79.2, True)],
        *[("higher", 99.0, True), ("higher", 79.0, True), ("higher", 78.9, False)],
    ],
)
def test_figure_has_a_better_side(kept, better, ours, reached):
    figure = PROTOCOL["figures"][0] | {"better": better}
    changed = Protocol.model_validate(PROTOCOL | {"figures": [figure]})
    (row,) = reproductions.compare_protocol(kept("vae", ours), "trial", changed, "full")
    assert row.is_reached == reached


def test_difference_needs_both_runs_and_has_the_error_over_seeds(protocol, kept):
    folder = kept("cvae", 77.0, 79.0, se=0.5)
    assert reproductions.compare_protocol(folder, "trial", protocol, "full") == []
    kept("vae", 80.0, 81.0, se=0.5)
    rows = reproductions.compare_protocol(folder, "trial", protocol, "full")
    assert [row.figure.name for row in rows] == ["nll", "nll - nll of cvae"]
    assert rows[1].ours == 2.5
    assert rows[1].error == pytest.approx(0.5)  # of 3 and 2: sd sqrt(1/2), over sqrt(2)
    assert rows[1].seconds == 120
    assert rows[0].command == "vaelab reproduce trial/vae a=1"
    both = "vaelab reproduce trial/vae a=1; vaelab reproduce trial/cvae a=1"
    assert rows[1].command == both


def test_short_form_has_gates_of_its_own(protocol, kept):
    kept("vae", 90.0, form="short")
    folder = kept("cvae", 88.5, form="short")
    (row,) = reproductions.compare_protocol(folder, "trial", protocol, "short")
    assert row.is_reached  # 1.5, published 2.5, gate 1.0
    reproductions.write_table(folder / "README.md", [row])
    table = (folder / "README.md").read_text()
    figure = "| trial, short | vae: nll - nll of cvae |"
    assert f"{figure} 2.5 (gate ≥ 1) | 1.50 | -1.00 | yes |" in table
    commands = "`vaelab reproduce trial/vae a=1; vaelab reproduce trial/cvae a=1`"
    assert f"{figure} p. 2 | {commands} |" in table


def test_plane_has_the_runs_on_record(tmp_path):
    protocols = tmp_path / "protocols"
    protocols.mkdir()
    content = json.dumps(PROTOCOL | {"plane": True})  # which is YAML
    (protocols / "trial.yaml").write_text(content)
    kept, metrics = tmp_path / "kept", {"test/rate": 25.0, "test/distortion": 60.0}

    def record(run):
        values = {name: {"value": value} for name, value in metrics.items()}
        folder = kept / "trial" / f"{run}_short"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(json.dumps({"seeds": {"1": {"metrics": values}}}))

    record("vae")
    assert reproductions.write_planes(kept, protocols) == []  # one point is no plane
    record("cvae")
    (path,) = reproductions.write_planes(kept, protocols)
    assert path == kept / "trial" / "rate_distortion_short.png"
    assert Image.open(path).size[0] > 300
    protocol = reproductions.read_protocol(protocols, "trial")
    points = plane_points(kept, "trial", protocol, "short")
    assert points == {"vae": (25.0, 60.0), "cvae": (25.0, 60.0)}


def test_figure_that_is_not_reached_is_said_with_its_reason(kept):
    figure = PROTOCOL["figures"][0] | {"why": "a smaller network"}
    changed = Protocol.model_validate(PROTOCOL | {"figures": [figure]})
    folder = kept("vae", 81.5)
    rows = reproductions.compare_protocol(folder, "trial", changed, "full")
    reproductions.write_table(folder / "README.md", rows)
    table = (folder / "README.md").read_text()
    assert "- trial, vae: nll is 81.50, a gap of +1.50: a smaller network" in table


def test_kept_tables_are_those_of_the_kept_records(tmp_path):
    rows = reproductions.compare_all(RECORDS, CONF / "reproduce")
    reproductions.write_table(tmp_path / "README.md", rows)
    table = (RECORDS / "README.md").read_text(encoding="utf-8")
    assert table == (tmp_path / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Reproductions")[2].partition("\n## ")[0]
    shown = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(shown) == 11
    assert not [line for line in shown if line not in table.splitlines()]


def test_records_are_small():
    for folder in RECORDS.glob("*/*/"):
        assert sum(path.stat().st_size for path in folder.iterdir()) < 1_000_000, folder


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "80"),
        ({"tolerance": 0}, "≤ 80"),
        ({"tolerance": 0, "better": "higher", "short": 80}, "≥ 80"),
        ({"tolerance": 0, "better": "higher", "short": 70}, "≥ 80 (gate ≥ 70)"),
        ({"tolerance": 0, "better": "equal", "short": 2}, "80 (gate ±2)"),
    ],
)
def test_published_figure_is_a_bound_where_nothing_is_tolerated(kept, changes, text):
    figure = PROTOCOL["figures"][0] | {"short": 80} | changes
    changed = Protocol.model_validate(PROTOCOL | {"figures": [figure]})
    (row,) = reproductions.compare_protocol(
        kept("vae", 80.0, form="short"), "trial", changed, "short"
    )
    assert cells(row)[2] == text


def test_record_of_other_settings_is_outdated(protocol, kept):
    folder = kept("vae", 80.0)
    changed = protocol.model_copy(update={"settings": ["data=mnist"]})
    rows = [
        reproductions.compare_protocol(folder, "trial", each, "full")[0]
        for each in (protocol, changed)
    ]
    assert [row.is_current for row in rows] == [True, False]
    reproductions.write_table(folder / "README.md", rows)
    table = (folder / "README.md").read_text()
    assert "| 80.00 | +0.00 | yes |" in table
    assert "| 80.00 | +0.00 | outdated |" in table


def test_kept_records_are_of_the_protocols_as_they_are():
    rows = reproductions.compare_all(RECORDS, CONF / "reproduce")
    assert rows
    assert [row for row in rows if not row.is_current] == []


def test_missing_metric_is_not_reached(protocol, kept):
    folder = kept("vae", None)
    (row,) = reproductions.compare_protocol(folder, "trial", protocol, "full")
    assert math.isnan(row.ours)
    assert not row.is_reached


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figures": []}, "figures: List should have at least 1 item"),
        ({"seed": 1}, "seed: Extra inputs"),
        ({"runs": {"a/b": []}}, "runs.a/b: small letters"),
        ({"runs": {"vae": []}}, "there is no run cvae"),
        ({"seeds": ["x"]}, "seeds.0: Input should be a valid integer"),
    ],
)
def test_wrong_protocol_is_told_in_a_line(tmp_path, change, message):
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(PROTOCOL | change))
    with pytest.raises(UserError, match=f"(?s)trial.yaml.*{message}"):
        reproductions.read_protocol(tmp_path, "trial")


def test_unknown_names_are_told(protocol):
    with pytest.raises(UserError, match="did you mean burda2016"):
        reproductions.read_protocol(CONF / "reproduce", "burda2026")
    with pytest.raises(UserError, match="trial/va: there is no such run; did you mean vae"):
        chosen_runs(protocol, "trial", "va")
    assert split_name("a/b") == ("a", "b")
    assert split_name("a") == ("a", None)


@pytest.mark.parametrize(
    ("seconds", "text"), [(59, "59 s"), (60, "1 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_time_text(seconds, text):
    assert time_text(seconds) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_protocol_is_a_command_line_of_train(compose, name):
    protocol = reproductions.read_protocol(CONF / "reproduce", name)
    for run in protocol.runs:
        for is_short in (False, True):
            cfg = compose(*protocol.overrides(run, is_short))
            validation.check_config(cfg, train.settings_schema)
