"""Tests of `vaelab.reproductions`: protocols, and comparison of records with published figures."""

import itertools
import json
import math
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image

from vaelab import reproductions
from vaelab.commands import train
from vaelab.commands.config_folders import CONF
from vaelab.errors import UserError
from vaelab.reproductions import records
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


def record_content(metrics=None, **changes):
    """Returns what a record.json has at least, with some of it changed."""
    seed = {"metrics": metrics or {"nll": {"value": 80.0, "se": None}}, "seconds": 30}
    return {"command": "vaelab reproduce trial/vae", "seeds": {"1": seed}} | changes


@pytest.fixture
def protocol():
    return Protocol.model_validate(PROTOCOL)


@pytest.fixture
def kept(tmp_path):
    """A function that writes a record of a run by its NLL for each seed."""

    def write(run, *nll, se=None, form="full", further=()):
        folder = tmp_path / "trial" / (run if form == "full" else f"{run}_short")
        folder.mkdir(parents=True, exist_ok=True)
        estimates = [{"value": value, "se": se} for value in nll]
        seeds = {str(i): {"metrics": {"nll": e}, "seconds": 30} for i, e in enumerate(estimates)}
        settings = Protocol.model_validate(PROTOCOL).overrides(run, form == "short", further)
        command = " ".join(["vaelab", "reproduce", f"trial/{run}", *further])
        content = {"command": command, "seeds": seeds, "settings": settings, "further": [*further]}
        (folder / "record.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_later_settings_of_a_protocol_count(protocol):
    whole = protocol.overrides("cvae", is_short=False, seed=2)
    assert whole == ["data=mnist_5k", "trainer.max_epochs=5", "model=cvae", "seed=2"]
    assert "trainer.max_epochs=1" in protocol.overrides("cvae", is_short=True)


def test_short_form_has_the_first_seed_or_its_own(protocol):
    assert protocol.repetitions(is_short=False) == protocol.seeds
    assert protocol.repetitions(is_short=True) == protocol.seeds[:1]
    short = protocol.short.model_copy(update={"seeds": [7, 8]})
    own = protocol.model_copy(update={"short": short})
    assert own.repetitions(is_short=True) == [7, 8]
    assert own.repetitions(is_short=False) == protocol.seeds


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
    assert rows[0].command == "vaelab reproduce trial/vae"
    both = "vaelab reproduce trial/vae; vaelab reproduce trial/cvae"
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
    commands = "`vaelab reproduce trial/vae; vaelab reproduce trial/cvae`"
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
        (folder / "record.json").write_text(json.dumps(record_content(metrics=values)))

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


@pytest.mark.parametrize(
    ("further", "reached"),
    [
        ([], "yes"),
        (["trainer.max_epochs=1"], "yes, further settings"),
        (["+trainer.gradient_clip_val=1"], "yes, further settings"),
        (["trainer=gpu"], "yes, further settings"),
        (["trainer.accelerator=cpu", "paths.data=x", "logger=csv", "logger.csv.x=1"], "yes"),
        (["compiled=true"], "yes, further settings"),
    ],
)
def test_record_with_further_settings_is_not_the_protocols(protocol, kept, further, reached):
    folder = kept("vae", 80.0, further=further)
    rows = reproductions.compare_protocol(folder, "trial", protocol, "full")
    assert [cells(row)[5] for row in rows] == [reached]
    assert rows[0].is_current


def test_missed_figure_of_further_settings_is_not_listed_as_missed(protocol, kept):
    folder = kept("vae", 99.0, further=["a=1"])
    rows = reproductions.compare_protocol(folder, "trial", protocol, "full")
    reproductions.write_table(folder / "README.md", rows)
    table = (folder / "README.md").read_text()
    assert "| no, further settings |" in table
    assert "Not reached" not in table


def test_list_of_protocols_does_not_count_further_settings(protocol, kept, tmp_path, capsys):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "trial.yaml").write_text(yaml.safe_dump(PROTOCOL))
    reproductions.print_protocols(kept("vae", 80.0, further=["a=1"]), tmp_path / "conf")
    assert "0 of 2" in capsys.readouterr().out
    reproductions.print_protocols(kept("vae", 80.0), tmp_path / "conf")
    assert "1 of 2" in capsys.readouterr().out


def test_difference_needs_the_same_further_settings(protocol, kept):
    def compared(of, minus):
        kept("vae", 80.0, further=of)
        folder = kept("cvae", 77.0, further=minus)
        rows = reproductions.compare_protocol(folder, "trial", protocol, "full")
        return [row.figure.name for row in rows]

    both = ["nll", "nll - nll of cvae"]
    assert compared(["a=1"], []) == ["nll"]
    assert compared([], ["a=1"]) == ["nll"]
    assert compared(["a=1"], ["a=2"]) == ["nll"]
    assert compared(["a=1", "b=2"], ["b=2", "+a=1"]) == both
    assert compared(["trainer.accelerator=gpu"], []) == both


def test_record_of_the_protocol_is_not_replaced_by_one_with_further_settings(kept):
    folder = kept("vae", 80.0, form="short")
    check = reproductions.check_replaceable
    with pytest.raises(UserError, match=r"vae_short: is the record .* a=1 does not .* kept=FOLDER"):
        check(folder, "trial", "vae", "short", ["a=1"])
    check(folder, "trial", "vae", "short", ["trainer.accelerator=cpu"])
    check(folder, "trial", "vae", "full", ["a=1"])
    check(folder, "trial", "vae", "short", [])
    kept("vae", 80.0, form="short", further=["a=1"])
    check(folder, "trial", "vae", "short", ["a=2"])


def test_plane_leaves_out_further_settings(kept, protocol):
    folder = kept("vae", 80.0, further=["a=1"])
    path = folder / "trial" / "vae" / "record.json"
    values = {"test/rate": {"value": 25.0}, "test/distortion": {"value": 60.0}}
    path.write_text(json.dumps(record_content(values, further=["a=1"])))
    assert plane_points(folder, "trial", protocol, "full") == {}
    path.write_text(json.dumps(record_content(values)))
    assert plane_points(folder, "trial", protocol, "full") == {"vae": (25.0, 60.0)}


def test_further_seed_takes_the_place_of_the_protocols(protocol):
    assert protocol.repetitions(False, ["seed=5"]) == [5]
    assert protocol.repetitions(True, ["seed=4", "a=1", "seed=5"]) == [5]
    for seed in ("1,2", "[1,2]", "-1", "x", ""):
        with pytest.raises(UserError, match=r"seed=.*: is one whole number"):
            protocol.repetitions(False, [f"seed={seed}"])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        *(
            json.dumps({k: v for k, v in record_content().items() if k != name})
            for name in ("command", "seeds")
        ),
        json.dumps(record_content(seeds={})),
        json.dumps(record_content(seeds={"1": {"metrics": {}}})),
        json.dumps(record_content(seeds={"1": {"metrics": {}, "seconds": "30"}})),
        json.dumps(record_content(seeds={"1": {"seconds": 30}})),
        json.dumps(record_content({"nll": 80.0})),
        json.dumps(record_content({"nll": {"value": "x"}})),
        json.dumps(record_content(further="a=1")),
        json.dumps(record_content(further=["a"])),
        json.dumps(record_content(seeds={"1": {"metrics": {}, "seconds": math.nan}})),
        json.dumps(record_content(seeds={"1": {"metrics": {}, "seconds": math.inf}})),
        "[" * 100_000,
    ],
)
def test_damaged_record_is_left_out_and_named(tmp_path, kept, content):
    folder, protocols = kept("cvae", 77.0), tmp_path / "conf"
    kept("vae", 80.0, form="short")
    kept("cvae", 70.0, form="short")
    path = folder / "trial" / "vae_short" / "record.json"
    protocols.mkdir()
    (protocols / "trial.yaml").write_text(json.dumps(PROTOCOL | {"plane": True}))
    assert len(reproductions.compare_all(folder, protocols)) == 1
    assert reproductions.damaged_records(folder, protocols) == []
    path.write_text(content)
    assert reproductions.compare_all(folder, protocols) == []
    assert reproductions.write_planes(folder, protocols) == []
    (line,) = reproductions.damaged_records(folder, protocols)
    anew = f"`vaelab reproduce trial/vae --short kept={path.parents[2]}` writes it anew"
    assert line == f"{path}: damaged, and left out; {anew}"


@pytest.fixture
def run_folder(tmp_path):
    """A function that writes the folder of a finished run, with a picture and curves or without."""

    def write(name, has_pictures):
        folder = tmp_path / "runs" / name
        (folder / "figures").mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps({"seconds": 1.0, "test/elbo": -80.0}))
        if has_pictures:
            (folder / "figures" / "samples.png").write_bytes(b"picture")
            (folder / "metrics.csv").write_text("step,val/elbo\n1,-90\n2,-80\n")
        return folder

    return write


def kept_names(folder):
    """Returns the names of the files in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def test_new_record_has_no_curves_and_pictures_of_an_older_one(tmp_path, run_folder):
    def keep(run):
        origin = reproductions.Origin("vaelab reproduce trial/vae", [])
        return reproductions.keep_run(tmp_path / "kept", "trial", "vae", "full", origin, {1: run})

    kept = keep(run_folder("whole", has_pictures=True))
    assert kept_names(kept) == ["curves.csv", "record.json", "samples.png"]
    keep(run_folder("bare", has_pictures=False))
    assert kept_names(kept) == ["record.json"]


def test_interrupted_replacement_of_a_record_leaves_a_whole_one(tmp_path, run_folder, monkeypatch):
    def keep(run, command):
        origin = reproductions.Origin(command, [])
        return reproductions.keep_run(tmp_path / "kept", "trial", "vae", "full", origin, {1: run})

    whole = run_folder("whole", has_pictures=True)
    kept = keep(whole, "old")
    unmeasured = run_folder("unmeasured", has_pictures=True)
    (unmeasured / "results.json").write_text("{}")
    with pytest.raises(UserError, match="left no results"):
        keep(unmeasured, "new")
    assert kept_names(kept) == ["curves.csv", "record.json", "samples.png"]

    def interrupt(*_):
        raise KeyboardInterrupt

    for name, names, command in [
        ("write_json", ["record.json"], "old"),
        ("atomic_file", ["record.json"], "new"),
    ]:
        keep(whole, "old")
        with monkeypatch.context() as patch:
            patch.setattr(records, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                keep(whole, "new")
        assert kept_names(kept) == names
        assert records.read_record(tmp_path / "kept", "trial", "vae", "full")["command"] == command


def full_settings(name, run):
    """Returns the settings of a run of a whole protocol by name, as texts."""
    protocol = reproductions.read_protocol(CONF / "reproduce", name)
    return dict(word.split("=", 1) for word in protocol.overrides(run, is_short=False))


def protocol_runs(*names):
    """Returns (protocol, run) of all runs of protocols."""
    folder = CONF / "reproduce"
    return [(name, run) for name in names for run in reproductions.read_protocol(folder, name).runs]


@pytest.mark.parametrize(("name", "run"), protocol_runs("burda2016", "rainforth2018"))
def test_budget_of_burda2016_is_that_of_its_section_5(name, run):
    # Burda et al. 2016 (arXiv:1509.00519), Section 5: 3^i passes over the data with a learning rate
    # of 0.001 * 10^(-i/7) for i = 0 ... 7, 3,280 in all, in batches of 20, with Adam's eps = 1e-4.
    # Rainforth et al. 2018 (arXiv:1802.04537) train by the same schedule.
    settings = full_settings(name, run)
    stages = [3**i for i in range(8)]
    assert sum(stages) == 3280
    assert settings["trainer.max_epochs"] == "3280"
    assert settings["data.batch_size"] == "20"
    assert float(settings["model.optimizer.lr"]) == 0.001
    assert float(settings["+model.optimizer.eps"]) == 1e-4
    scheduler = settings["model.scheduler"]
    milestones = re.search(r"milestones:\[([\d,]+)\]", scheduler)[1].split(",")
    assert [int(each) for each in milestones] == list(itertools.accumulate(stages))[:-1]
    assert float(re.search(r"gamma:([\d.]+)", scheduler)[1]) == pytest.approx(10 ** (-1 / 7))
    # Burda et al. 2016, Section 5: log p(x) by 5,000 samples.
    assert settings["metrics.likelihood.num_samples"] == "5000"


@pytest.mark.parametrize(("name", "run"), protocol_runs("locatello2019"))
def test_budget_of_locatello2019_is_that_of_its_appendix(name, run):
    # Locatello et al. 2019 (arXiv:1811.12359), Appendix, hyperparameters common to all methods:
    # batch size 64, 10 latents, Adam with 1e-4, 300,000 training steps. A batch of FactorVAE is two
    # of 64 here: the second is for the discriminator.
    settings = full_settings(name, run)
    assert settings["trainer.max_steps"] == "300000"
    assert settings["data.batch_size"] == ("128" if run == "factor_vae" else "64")
    assert settings["model.latent_dim"] == "10"
    assert float(settings["model.optimizer.lr"]) == 1e-4


@pytest.mark.parametrize(("name", "run"), protocol_runs("tomczak2018", "norouzi2020", "ladder"))
def test_budget_of_tomczak2018_is_that_of_its_paper_and_code(name, run):
    # Tomczak & Welling 2018 (arXiv:1705.07120), Section 5, and experiment.py of its code: 2,000
    # epochs at most, a warm-up of 100, patience of 50, batches of 100, Adam with 5e-4, 40 latents,
    # and log p(x) by 5,000 samples. Norouzi et al. 2020 (arXiv:2004.04795) use the same code.
    settings = full_settings(name, run)
    assert settings["trainer.max_epochs"] == "2000"
    assert [settings["annealing.unit"], settings["annealing.duration"]] == ["epochs", "100"]
    assert settings["early_stopping.patience"] == "50"
    assert settings["data.batch_size"] == "100"
    assert float(settings["model.optimizer.lr"]) == 5e-4
    assert settings["model.latent_dim"] == "40"
    assert settings["metrics.likelihood.num_samples"] == "5000"


@pytest.mark.parametrize("name", NAMES)
def test_numbers_of_epochs_and_samples_that_a_protocol_tells_are_those_it_has(name):
    protocol = reproductions.read_protocol(CONF / "reproduce", name)
    words = [word for run in protocol.runs for word in protocol.overrides(run, is_short=False)]
    settings = {
        "epochs": "trainer.max_epochs",
        "samples": "metrics.likelihood.num_samples",
    }
    for number, unit in re.findall(r"\b(\d,\d{3}) (epochs|samples)", protocol.about):
        assert f"{settings[unit]}={number.replace(',', '')}" in words


@pytest.mark.parametrize("name", NAMES)
def test_every_run_of_a_protocol_is_in_a_figure(name):
    protocol = reproductions.read_protocol(CONF / "reproduce", name)
    compared = set().union(*(figure.runs for figure in protocol.figures))
    assert [run for run in protocol.runs if run not in compared] == []


def test_nothing_to_compare_says_why(protocol):
    def text(form, *runs):
        return reproductions.nothing_text("trial", protocol, form, runs)

    assert text("short", "vae") == (
        "nothing to compare yet: each figure of vae needs another run, of trial/cvae, "
        "with the same further settings if any"
    )
    alone = protocol.model_copy(update={"figures": protocol.figures[:1]})
    said = reproductions.nothing_text("trial", alone, "full", ["cvae"])
    assert said == "nothing to compare: no figure of the whole form is of cvae"
    said = reproductions.nothing_text("trial", alone, "short", ["vae"])
    assert said == "nothing to compare: no figure of the short form is of vae"


def test_kept_records_are_of_the_protocols_as_they_are():
    rows = reproductions.compare_all(RECORDS, CONF / "reproduce")
    assert rows
    assert [row for row in rows if not row.is_current] == []


def test_missing_metric_is_not_reached(protocol, kept):
    folder = kept("vae", None)
    (row,) = reproductions.compare_protocol(folder, "trial", protocol, "full")
    assert math.isnan(row.ours)
    assert not row.is_reached


def test_misspelt_metric_is_told_before_the_training(protocol):
    assert reproductions.unknown_metrics(protocol) == []
    first, second = PROTOCOL["figures"]
    figures = [first | {"metric": "nil"}, second | {"minus_metric": "test/distorsion"}]
    found = Protocol.model_validate(PROTOCOL | {"figures": figures})
    assert reproductions.unknown_metrics(found) == [
        "nil: vaelab has no such metric; did you mean nll?",
        "test/distorsion: vaelab has no such metric; did you mean test/distortion?",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_metrics_of_protocols_are_known(name):
    protocol = reproductions.read_protocol(CONF / "reproduce", name)
    assert reproductions.unknown_metrics(protocol) == []


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


@pytest.mark.parametrize("value", [[1.0, 2.0], None, math.nan])
def test_figure_without_a_number_is_not_measured(protocol, kept, tmp_path, capsys, value):
    folder = kept("vae", value, se=[0.1])
    (row,) = reproductions.compare_protocol(folder, "trial", protocol, "full")
    assert cells(row)[3:6] == ["not measured", "", "no"]
    reproductions.write_table(tmp_path / "README.md", [row])
    assert "no single number of that name" in (tmp_path / "README.md").read_text()
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "trial.yaml").write_text(yaml.safe_dump(PROTOCOL))
    reproductions.print_protocols(folder, tmp_path / "conf")
    assert "0 of 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"settings": ["data"]}, "settings: data is no name=value"),
        ({"short": {"settings": ["data"]}}, "short.settings: data is no name=value"),
        ({"runs": {"vae": ["~a"], "cvae": []}}, "runs.vae: ~a is no name=value"),
    ],
)
def test_protocol_with_a_word_that_is_no_setting_is_refused(tmp_path, changes, said):
    (tmp_path / "trial.yaml").write_text(yaml.safe_dump(PROTOCOL | changes))
    with pytest.raises(UserError, match=rf"trial\.yaml: .*{said}"):
        reproductions.read_protocol(tmp_path, "trial")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(UserError, match=r"empty\.yaml: Input should be"):
        reproductions.read_protocol(tmp_path, "empty")


def test_cells_of_a_table_have_no_bars_or_lines_of_their_own(kept, tmp_path):
    figure = PROTOCOL["figures"][0] | {"source": "a | b\nc"}
    changed = Protocol.model_validate(PROTOCOL | {"figures": [figure]})
    rows = reproductions.compare_protocol(kept("vae", 80.0), "trial", changed, "full")
    reproductions.write_table(tmp_path / "README.md", rows)
    assert r"| a \| b c | `" in (tmp_path / "README.md").read_text()


def test_only_a_folder_of_a_protocol_has_records(kept, tmp_path):
    folder = kept("vae", 80.0)
    (tmp_path / "conf").mkdir()
    assert not reproductions.has_records(folder, tmp_path / "conf")
    (tmp_path / "conf" / "trial.yaml").write_text("")
    assert reproductions.has_records(folder, tmp_path / "conf")
