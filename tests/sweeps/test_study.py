"""Searches by Optuna: what is asked, what is told, and how one goes on."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from lightning.pytorch.trainer.states import TrainerFn

from vaelab.data import Images
from vaelab.data.store import Splits
from vaelab.errors import UserError
from vaelab.runs import naming
from vaelab.sweeps import build_search
from vaelab.sweeps.job import Job
from vaelab.sweeps.pruning import Pruning
from vaelab.training.callbacks import Checkpoint
from vaelab.training.trainer import Trainer

optuna = pytest.importorskip("optuna", reason='searches need optuna: pip install -e ".[optuna]"')

from optuna.distributions import (  # noqa: E402
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from vaelab.sweeps import journal  # noqa: E402
from vaelab.sweeps.objectives import read_numbers  # noqa: E402
from vaelab.sweeps.space import Axis, parse_axis  # noqa: E402
from vaelab.sweeps.study import Study  # noqa: E402

BETA = "model.beta=interval(0.5,8)"
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 0}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1}
BOTH = {"val/elbo": "maximize", "test/rate": "minimize"}


def of(given: str) -> Axis:
    return parse_axis(OverridesParser.create().parse_override(given))


SPACES = {
    "a=interval(0.5,8)": FloatDistribution(0.5, 8),
    "a=interval(1,8)": FloatDistribution(1, 8),
    "a=tag(log,interval(0.1,16))": FloatDistribution(0.1, 16, log=True),
    "a=int(interval(1,8))": IntDistribution(1, 8),
    "a=tag(log,int(interval(1,128)))": IntDistribution(1, 128, log=True),
    "a=range(1,8)": IntDistribution(1, 7),
    "a=range(3)": IntDistribution(0, 2),
    "a=range(2,17,4)": IntDistribution(2, 14, step=4),
    "a=range(8,1,-2)": IntDistribution(2, 8, step=2),
    "a=shuffle(range(1,8))": IntDistribution(1, 7),
    "a=tag(log,range(1,129))": IntDistribution(1, 128, log=True),
    "a=range(0,1,0.25)": FloatDistribution(0, 0.75, step=0.25),
    "a=range(0.1,0.8,0.2)": FloatDistribution(0.1, 0.7, step=0.2),
    "a=choice(2,8,32)": CategoricalDistribution([2, 8, 32]),
    "a=2,8,32": CategoricalDistribution([2, 8, 32]),
    "a=shuffle(2,8,32)": CategoricalDistribution([2, 8, 32]),
    "a=8,8,2": CategoricalDistribution([8, 2]),
    "a=mlp,conv": CategoricalDistribution(["mlp", "conv"]),
    "a='x, y',z": CategoricalDistribution(["x, y", "z"]),
    "a=null,0.5": CategoricalDistribution([None, 0.5]),
    "a=true,false": CategoricalDistribution([True, False]),
    "a=[8],[16,16]": CategoricalDistribution(["[8]", "[16,16]"]),
}


@pytest.mark.parametrize("given", SPACES)
def test_the_command_line_says_what_is_searched(given):
    found = of(given)
    assert found.distribution == SPACES[given]
    assert found.given == given.partition("=")[2]
    for number in range(len(getattr(found.distribution, "choices", ""))):
        value = found.distribution.choices[number]
        again = OverridesParser.create().parse_override(f"a={found.text(value)}").value()
        assert again == value or found.text(value) == value


def test_values_go_to_the_command_line_and_back():
    assert of("+m.a=1,2").key == "+m.a"
    assert of("+m.a=1,2").name == "m.a"
    assert of("a=interval(0,1)").text(0.1 + 0.2) == "0.30000000000000004"
    assert of("a=range(0,1,0.1)").text(0.1 + 0.2) == "0.3"
    assert of("a=range(0,8)").text(3) == "3"
    assert of("a='x, y',z").text("x, y") == "'x, y'"
    assert of("a=null,1").text(None) == "null"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("a=interval(8,1)", "low <= high"),
        ("a=tag(log,interval(0,8))", "low > 0"),
        ("a=tag(fast,interval(1,8))", "tag fast is not known, only log is"),
        ("a=range(8,1)", "is empty"),
        ("a=tag(log,range(1,9,2))", "step"),
        ("a=tag(log,range(0.1,0.9,0.1))", "a log scale is of interval"),
        ("a=tag(log,choice(1,2))", "choices have no log scale"),
    ],
)
def test_what_optuna_cannot_search_is_refused(given, said):
    with pytest.raises(UserError, match=said) as error:
        of(given)
    assert str(error.value).startswith(given)
    assert "\n" not in str(error.value)


class Launcher:
    """One start of the command: asks a study for jobs, without running them.

    Args:
        folder: Of the sweep.
        overrides: Of the command line.
        refused: Overrides that no job can have.
        settings: Of the study.
    """

    def __init__(
        self, folder: Path, *overrides: str, refused: Callable[[str], bool] = bool, **settings: Any
    ) -> None:
        self.folder = folder
        self.refused = refused if refused is not bool else lambda override: False
        parsed = OverridesParser.create().parse_overrides(list(overrides or [BETA]))
        given = {"n_trials": 4, "objectives": None, "sampler": TPE, "pruner": None} | settings
        study = build_search(folder, parsed, given)
        assert isinstance(study, Study)
        self.study = study

    def plan(
        self, overrides: list[str], environment: dict[str, str] | None = None, name: str = ""
    ) -> Job:
        for override in filter(self.refused, overrides):
            raise UserError(f"{override}: refused")
        swept = dict(override.split("=") for override in overrides)
        job = Job(overrides, swept, self.folder / name, environment=environment or {})
        if (job.folder / "results.json").exists():
            job.state = "done"
        return job

    def first(self) -> list[Job]:
        return self.study.first_jobs(self.plan)

    def ask(self) -> list[Job]:
        self.study.quiet_until = 0.0
        return self.study.next_jobs(1)

    def run(self, jobs: list[Job] | None = None, **results: Any) -> list[Job]:
        """Runs these jobs, or all that there are to come, to their ends."""
        ran = []
        while waiting := [job for job in jobs or self.ask() if job.state == "waiting"]:
            for job in waiting:
                finish(job, **results)
                self.study.record_end(job)
                ran.append(job)
            if jobs is not None:
                break
        return ran

    def fail(self, job: Job, error: str = "trouble") -> None:
        job.state, job.error = "failed", error
        self.study.record_end(job)


def finish(job: Job, **results: Any) -> None:
    """What a run leaves: by itself a bound that is best near beta = 2, and a rate that falls."""
    beta = float(job.swept.get("model.beta", 1))
    job.folder.mkdir(parents=True, exist_ok=True)
    content = {"val/elbo": -((beta - 2) ** 2), "test/rate": 10 - beta, "pruned": False}
    (job.folder / "results.json").write_text(json.dumps(content | results))
    job.state = "done"


def trials(folder: Path) -> list[Any]:
    store = journal.open_storage(folder / journal.FILE)
    return optuna.load_study(study_name=journal.STUDY, storage=store).trials


def states(folder: Path) -> list[str]:
    return [trial.state.name for trial in trials(folder)]


@pytest.fixture
def launch(tmp_path) -> Callable[..., Launcher]:
    """(*overrides, **settings) -> one start of the command in the same folder."""
    return lambda *overrides, **settings: Launcher(tmp_path / "sweep", *overrides, **settings)


def test_every_free_place_gets_a_trial_until_all_are_done(launch, tmp_path):
    launcher = launch("model=beta_vae", BETA, "model.latent_dim=2,8", "logger=none")
    assert launcher.first() == []
    assert launcher.study.jobs_to_come() == 4
    (one,), (two,) = launcher.ask(), launcher.ask()
    assert launcher.study.jobs_to_come() == 2
    assert one.overrides[0] == "model=beta_vae"
    assert one.overrides[1] == f"model.beta={one.swept['model.beta']}"
    assert one.overrides[3] == "logger=none"
    assert set(one.swept) >= {"model.beta", "model.latent_dim"}
    assert one.name.startswith("trial-0_beta-")
    assert two.name.startswith("trial-1_beta-")
    assert len(one.name) < 100
    assert one.environment == {}
    launcher.run([one, two])
    assert len(launcher.run()) == 2
    assert launcher.ask() == []
    assert launcher.study.jobs_to_come() == 0
    found = trials(tmp_path / "sweep")
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 4
    beta = float(one.swept["model.beta"])
    assert found[0].params["model.beta"] == beta
    assert found[0].values == [-((beta - 2) ** 2)]


def test_a_command_given_again_goes_on_with_the_interrupted_trials(launch, tmp_path):
    launcher = launch()
    launcher.first()
    launcher.run(launcher.ask())
    (killed,), (stopped,) = launcher.ask(), launcher.ask()
    stopped.state = "stopped"
    launcher.study.record_end(stopped)
    assert states(tmp_path / "sweep") == ["COMPLETE", "RUNNING", "RUNNING"]
    again = launch()
    done, *open_ = again.first()
    assert done.state == "done"
    assert [job.folder for job in open_] == [killed.folder, stopped.folder]
    assert [job.overrides for job in open_] == [killed.overrides, stopped.overrides]
    assert again.study.jobs_to_come() == 1
    again.run(open_)
    assert len(again.run()) == 1
    assert states(tmp_path / "sweep") == ["COMPLETE"] * 4


def test_a_run_that_nobody_told_of_is_told_at_the_next_start(launch, tmp_path):
    launcher = launch()
    launcher.first()
    (job,) = launcher.ask()
    finish(job)
    (found,) = launch().first()
    assert found.state == "done"
    assert states(tmp_path / "sweep") == ["COMPLETE"]


def test_a_trial_that_failed_is_tried_once_more_by_each_start(launch, tmp_path):
    launcher = launch(n_trials=2)
    launcher.first()
    (job,) = launcher.ask()
    launcher.fail(job)
    assert len(launcher.run()) == 1  # it keeps its place, so that no failure leads to another
    again = launch(n_trials=2)
    tried, done = again.first()
    assert (tried.state, done.state) == ("waiting", "done")
    assert tried.folder == job.folder
    assert tried.overrides == job.overrides
    again.fail(tried)
    assert again.ask() == []
    once_more = launch(n_trials=2)
    tried, _ = once_more.first()
    assert tried.folder == job.folder
    once_more.run([tried])
    assert once_more.ask() == []
    assert states(tmp_path / "sweep") == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert [job.state for job in launch(n_trials=2).first()] == ["done", "done"]


def test_what_was_told_of_a_failed_trial_is_not_told_again(launch, tmp_path):
    launcher = launch(pruner=MEDIAN)
    launcher.first()
    (job,) = launcher.ask()
    number, _, path = job.environment[journal.TRIAL].partition(":")
    journal.load_trial(Path(path), int(number)).report(-3.0, 0)
    launcher.fail(job)
    (tried,) = launch(pruner=MEDIAN).first()
    assert tried.environment[journal.TRIAL] == f"1:{path}"
    assert trials(tmp_path / "sweep")[1].intermediate_values == {0: -3.0}


def test_a_larger_number_of_trials_goes_on_and_a_smaller_one_stops(launch, tmp_path):
    launcher = launch(n_trials=2)
    launcher.first()
    launcher.run()
    more = launch(n_trials=3)
    assert len(more.first()) == 2
    assert len(more.run()) == 1
    less = launch(n_trials=1)
    assert len(less.first()) == 3
    assert less.study.jobs_to_come() == 0
    assert less.ask() == []


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"mig": 0.1}, "migg was not measured; did you mean mig?"),
        ({"migg": float("nan")}, "migg is not a number"),
        ({"migg": [1.0]}, "migg was not measured"),
    ],
)
def test_a_run_without_an_objective_has_failed(launch, tmp_path, results, said):
    launcher = launch(objectives={"migg": "maximize"})
    launcher.first()
    (job,) = launcher.run(launcher.ask(), **results)
    assert job.state == "failed"
    assert said in job.error
    assert states(tmp_path / "sweep") == ["FAIL"]


def test_objectives_are_read_from_both_files_of_a_run(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"val/elbo": -1, "pruned": True, "a": "b"}))
    entries = {"mig": {"value": 0.25, "se": 0.1}, "step": 3, "rates": {"value": [1.0], "se": None}}
    (tmp_path / "evaluation.json").write_text(json.dumps(entries))
    assert read_numbers(tmp_path) == {"val/elbo": -1.0, "mig": 0.25}


def test_a_pruned_run_takes_its_place_as_a_pruned_trial(launch, tmp_path):
    launcher = launch(n_trials=2, pruner=MEDIAN)
    launcher.first()
    (job,) = launcher.run(launcher.ask(), pruned=True)
    assert (job.state, job.error) == ("done", "pruned")
    assert len(launcher.run()) == 1
    assert states(tmp_path / "sweep") == ["PRUNED", "COMPLETE"]
    assert all(job.state == "done" for job in launch(n_trials=2, pruner=MEDIAN).first())


def test_directions_are_kept_whatever_their_order(launch):
    launcher = launch(objectives=BOTH)
    launcher.first()
    launcher.run()
    assert [d.name for d in launcher.study.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    other = launch(objectives=dict(reversed(BOTH.items())), n_trials=5)
    other.first()
    (job,) = other.run()
    elbo, rate = other.study.trials()[-1].values
    beta = float(job.swept["model.beta"])
    assert (elbo, rate) == (-((beta - 2) ** 2), 10 - beta)


def test_the_best_are_named_at_the_end(launch, tmp_path):
    alone = Launcher(tmp_path / "one", n_trials=6)
    alone.first()
    ran = alone.run()
    best = min(ran, key=lambda job: abs(float(job.swept["model.beta"]) - 2))
    said = alone.study.summary_lines()
    assert said[0].startswith("study      6 complete")
    assert best.name in said[-1]
    assert len(said) == 4
    launcher = launch(objectives=BOTH, n_trials=8)
    assert launcher.first() == []
    assert len(launcher.study.summary_lines()) == 1
    ran = launcher.run()
    pairs = [(float(job.swept["model.beta"]), job.name) for job in ran]
    front = [
        name
        for beta, name in pairs
        if not any(abs(b - 2) <= abs(beta - 2) and b > beta for b, _ in pairs)
    ]
    said = launcher.study.summary_lines()
    assert said[1] == f"Pareto front, {len(front)} of 8:"
    assert said[2].split() == ["val/elbo", "test/rate", "model.beta", "folder"]
    assert {line.rpartition("/")[2] for line in said[3:]} == set(front)
    elbos = [float(line.split()[0]) for line in said[3:]]
    assert elbos == sorted(elbos, reverse=True)


def test_launchers_share_a_search_and_do_not_ask_for_too_many(launch, tmp_path):
    here, there = launch(n_trials=3), launch(n_trials=3)
    here.first()
    there.first()
    (mine,) = here.ask()
    (followed,) = there.ask()  # what the other one has comes first
    assert followed.folder == mine.folder
    (theirs,) = there.ask()
    assert theirs.folder != mine.folder
    (followed,) = here.ask()
    assert followed.folder == theirs.folder
    (last,) = here.ask()
    assert here.ask() == []
    assert [job.folder for job in there.ask()] == [last.folder]
    assert there.ask() == []
    finish(mine)
    here.study.record_end(mine)
    mine_there = there.study.jobs[0]
    mine_there.state = "failed"
    there.study.record_end(mine_there)  # too late
    assert states(tmp_path / "sweep") == ["COMPLETE", "RUNNING", "RUNNING"]


def test_launchers_that_ask_at_the_same_moment_ask_for_no_more(launch, tmp_path):
    launchers = [launch(n_trials=6) for _ in range(3)]
    for launcher in launchers:
        launcher.first()

    def work(launcher: Launcher) -> None:
        for _ in range(12):
            launcher.ask()

    threads = [Thread(target=work, args=[launcher]) for launcher in launchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states(tmp_path / "sweep") == ["RUNNING"] * 6
    assert all(len(launcher.study.jobs) == 6 for launcher in launchers)


def test_trials_of_others_are_counted_when_they_have_ended(launch):
    here, there = launch(n_trials=2), launch(n_trials=2)
    here.first()
    there.first()
    there.run(there.ask())
    there.fail(*there.ask())
    assert [job.state for job in here.ask()] == ["done", "failed"]
    assert here.ask() == []


def test_proposals_follow_the_seed_and_never_begin_anew(launch, tmp_path):
    def proposed(folder: Path, seed: int, starts: int) -> list[str]:
        sampler = TPE | {"seed": seed}
        for number in range(starts):
            launcher = Launcher(folder, n_trials=6 * (number + 1) // starts, sampler=sampler)
            launcher.first()
            launcher.run()
        return [trial.params["model.beta"] for trial in trials(folder)]

    at_once = proposed(tmp_path / "a", 0, 1)
    assert proposed(tmp_path / "b", 0, 3) == at_once
    assert len(set(at_once)) == 6
    assert not set(proposed(tmp_path / "c", 1, 1)) & set(at_once)


def test_a_sequence_that_is_not_random_goes_on_with_its_seed(launch, tmp_path):
    halton = {"_target_": "optuna.samplers.QMCSampler", "seed": 0, "scramble": True}
    launch("a=interval(0,1)", sampler=halton, n_trials=3).first()
    for n_trials in (1, 2, 3):
        launcher = launch("a=interval(0,1)", sampler=halton, n_trials=n_trials)
        launcher.first()
        launcher.run()
    drawn = optuna.create_study(sampler=instantiate(halton), direction="maximize")
    for _ in range(3):
        drawn.tell(drawn.ask({"a": FloatDistribution(0, 1)}), 0.0)
    found = [trial.params["a"] for trial in trials(tmp_path / "sweep")][1:]
    assert found == [trial.params["a"] for trial in drawn.trials][1:]


def test_a_search_ends_when_there_is_nothing_left_to_try(launch, tmp_path):
    everything = {"_target_": "optuna.samplers.BruteForceSampler", "seed": 0}
    launcher = launch("model.beta=range(1,4)", sampler=everything, n_trials=9)
    launcher.first()
    launcher.run()
    assert states(tmp_path / "sweep") == ["COMPLETE"] * 3
    assert launcher.study.jobs_to_come() == 0
    again = launch("model.beta=range(1,4)", sampler=everything, n_trials=9)
    assert len(again.first()) == 3
    assert again.ask() == []
    other = launch("model.beta=range(1,4)", n_trials=9)
    other.first()
    assert len(other.ask()) == 1


def test_a_sampler_that_cannot_search_the_space_is_one_line(launch):
    launcher = launch(sampler={"_target_": "optuna.samplers.BruteForceSampler"})
    launcher.first()
    with pytest.raises(UserError, match=r"hydra\.sweeper\.sampler: FloatDistribution\.step must"):
        launcher.ask()


def test_folders_are_named_after_what_is_searched_and_for():
    assert naming.short_number("2.3184012") == "2.318"
    assert naming.short_number("1e-05") == "1e-05"
    assert naming.short_number("123456") == "123456"
    assert naming.short_number("-7") == "-7"
    assert naming.short_number("[8,16]") == "[8,16]"
    optuna_here = ["hydra/sweeper=optuna"]
    plain = naming.sweep_name([BETA], optuna_here)
    assert naming.sweep_name([BETA], [*optuna_here, "hydra.sweeper.n_trials=9"]) == plain
    assert naming.sweep_name([BETA], [*optuna_here, "hydra.sweeper.objectives={a: b}"]) != plain
    assert naming.sweep_name([BETA], []) != plain


@pytest.mark.parametrize(
    ("overrides", "settings", "said"),
    [
        (["model.beta=interval(0.5,4)"], {}, "model.beta=interval(0.5,8), not interval(0.5,4)"),
        ([BETA, "a=1,2"], {}, "with a=None, not 1,2"),
        ([BETA], {"objectives": BOTH}, "hydra.sweeper.objectives"),
        ([BETA, "trainer.max_epochs=3"], {}, "with trainer.max_epochs=None, not 3"),
    ],
)
def test_another_search_in_the_folder_is_refused(launch, overrides, settings, said):
    launch().first()
    with pytest.raises(UserError, match="holds a search with") as error:
        launch(*overrides, **settings).first()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


MASS, DENSITY = ("MNIST", "binary pixels", "mass"), ("MNIST", "grey pixels", "density")


@pytest.mark.parametrize("objective", ["val/elbo", "test/distortion", "nll"])
def test_a_search_among_what_has_no_common_scale_is_refused(launch, objective):
    keys = {"bernoulli": MASS, "gaussian": DENSITY}
    launcher = launch(BETA, "likelihood=bernoulli,gaussian", objectives={objective: "maximize"})
    plan = launcher.plan

    def told(overrides, **settings):
        job = plan(overrides, **settings)
        (job.compared,) = (key for name, key in keys.items() if f"likelihood={name}" in overrides)
        return job

    launcher.plan = told
    said = f"{objective} has no common scale for MNIST, binary pixels, mass and for MNIST, grey"
    with pytest.raises(UserError, match=said):
        launcher.first()


def test_what_does_not_change_the_trials_may_change(launch):
    launch().first()
    random = {"_target_": "optuna.samplers.RandomSampler", "seed": 3}
    launch("model.beta=interval(0.5, 8)", "logger=none", sampler=random, pruner=MEDIAN).first()


@pytest.mark.parametrize(
    ("overrides", "settings", "said"),
    [
        (["seed=1"], {}, "nothing to search"),
        ([BETA, "rerun=true"], {}, "rerun=true is for runs"),
        ([BETA], {"n_trials": 0}, "hydra.sweeper.n_trials=0: should be greater than 0"),
        ([BETA], {"objectives": {"mig": "up"}}, "should be 'maximize' or 'minimize'"),
        ([BETA], {"objectives": {}}, "at least 1"),
        ([BETA], {"objectives": BOTH, "pruner": MEDIAN}, "only a search with one objective"),
        (
            [BETA],
            {"objectives": {"mig": "maximize"}, "pruner": MEDIAN},
            "mig is not measured during training",
        ),
        ([BETA], {"pruner": {"_target_": "optuna.pruners.None"}}, "cannot be imported"),
        ([BETA], {"pruner": MEDIAN | {"n": 1}}, "MedianPruner has no such setting"),
        ([BETA], {"sampler": {"_target_": "optuna.pruners.NopPruner"}}, "is no sampler"),
        ([BETA], {"pruner": TPE}, "TPESampler is no pruner"),
        ([BETA], {"sampler": None}, "is no sampler"),
    ],
)
def test_settings_of_a_search_are_checked(launch, tmp_path, overrides, settings, said):
    with pytest.raises(UserError) as error:
        launch(*overrides, **settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_the_ends_of_the_space_are_checked_before_anything_starts(launch, tmp_path):
    for refused in ("model.beta=0.5", "model.beta=8.0", "model=vae"):
        with pytest.raises(UserError, match=refused):
            launch(BETA, "model=beta_vae,cvae,vae", refused=lambda o, r=refused: o == r).first()
    assert not (tmp_path / "sweep").exists()


def test_a_trial_that_cannot_start_has_failed_and_the_others_go_on(launch, tmp_path):
    launcher = launch(n_trials=3, refused=lambda o: o.partition("=")[2] not in ("0.5", "8.0"))
    launcher.first()
    (job,) = launcher.ask()
    assert job.state == "failed"
    assert job.error.endswith("refused")
    launcher.refused = lambda override: False
    assert len(launcher.run()) == 2
    assert states(tmp_path / "sweep") == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_trial_without_parameters_is_forgotten(launch, tmp_path):
    launcher = launch(n_trials=2)
    launcher.first()
    launcher.study.study.ask()  # and killed before it had any
    again = launch(n_trials=2)
    assert again.first() == []
    assert len(again.run()) == 2
    assert states(tmp_path / "sweep") == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [job.state for job in launch(n_trials=2).first()] == ["done", "done"]


def test_half_a_line_at_the_end_of_the_journal_is_mended(launch, tmp_path):
    launcher = launch(n_trials=2)
    launcher.first()
    launcher.run(launcher.ask())
    path = tmp_path / "sweep" / journal.FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    again = launch(n_trials=2)
    assert len(again.first()) == 1
    again.run()
    assert states(tmp_path / "sweep") == ["COMPLETE", "COMPLETE"]


def test_a_damaged_journal_is_one_line(launch, tmp_path):
    launch().first()
    path = tmp_path / "sweep" / journal.FILE
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(UserError, match=r"study\.journal: damaged"):
        launch().first()


def test_without_optuna_it_says_how_to_get_it(launch, monkeypatch):
    for name in ("study", "journal", "objectives", "space"):
        monkeypatch.delitem(sys.modules, f"vaelab.sweeps.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delattr("vaelab.sweeps.study", raising=False)
    monkeypatch.delattr("vaelab.sweeps.journal", raising=False)
    with pytest.raises(UserError, match=r'needs optuna.*: pip install -e "\.\[optuna\]"'):
        launch()


def splits() -> Splits:
    import torch

    images = torch.randint(256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    images = images.to(torch.uint8)
    return Splits(images, labels, images[:0], labels[:0], num_classes=3)


@pytest.fixture
def fit(build, tmp_path):
    """(*callbacks, **trainer options) -> the trainer, after three epochs of five batches."""

    def run(*callbacks, ckpt_path=None, **options):
        small = ["model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"]
        model = build(*small, x_shape=(1, 8, 8), num_classes=3)
        trainer = Trainer(
            **{"max_epochs": 3, "accelerator": "cpu", "log_every_n_steps": 5} | options,
            callbacks=list(callbacks),
            logger=False,
            default_root_dir=tmp_path,
            enable_model_summary=False,
            enable_progress_bar=False,
            enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        )
        data = Images(source=splits, batch_size=10, val_size=5, test_size=5, pixels="binary")
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return run


@pytest.fixture
def trial(launch, tmp_path) -> Callable[..., str]:
    """(pruner) -> what a job is told of its trial."""

    def ask(pruner: dict[str, Any] = MEDIAN) -> str:
        launcher = launch(pruner=pruner)
        launcher.first()
        (job,) = launcher.ask()
        return job.environment[journal.TRIAL]

    return ask


BELOW = {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.0}
"""Ends every trial whose bound is negative, as all are."""


def test_a_run_tells_of_each_epoch(fit, trial, tmp_path):
    callback = Pruning.of(trial())
    trainer = fit(callback)
    elbo = float(trainer.callback_metrics["val/elbo"])
    trainer.validate(trainer.lightning_module, trainer.datamodule, verbose=False)
    (found,) = trials(tmp_path / "sweep")
    assert list(found.intermediate_values) == [0, 1, 2]
    assert found.intermediate_values[2] == pytest.approx(elbo)
    assert not callback.pruned


def test_a_hopeless_run_ends_in_good_order(fit, trial, tmp_path, capsys):
    callback = Pruning.of(trial(BELOW | {"n_warmup_steps": 1}))
    trainer = fit(callback, Checkpoint(str(tmp_path)), max_epochs=5)
    assert trainer.global_step == 10
    assert callback.pruned
    assert trainer.state.finished
    assert (tmp_path / "last.ckpt").exists()
    assert "pruned in epoch 2" in capsys.readouterr().out


def test_a_run_that_ended_early_does_not_go_on(fit, trial, tmp_path):
    given = trial(BELOW)
    fit(Pruning.of(given), Checkpoint(str(tmp_path)))
    callback = Pruning.of(given)
    trainer = fit(callback, ckpt_path=tmp_path / "last.ckpt")
    assert trainer.global_step == 5
    assert callback.pruned
    (found,) = trials(tmp_path / "sweep")
    assert list(found.intermediate_values) == [0]


def test_a_run_that_goes_on_tells_no_epoch_twice(fit, trial, tmp_path, recwarn):
    given = trial()
    fit(Pruning.of(given), Checkpoint(str(tmp_path)), max_epochs=2)
    before = trials(tmp_path / "sweep")[0].intermediate_values
    fit(Pruning.of(given), max_epochs=3)  # from the beginning
    after = trials(tmp_path / "sweep")[0].intermediate_values
    assert list(after) == [0, 1, 2]
    assert {epoch: after[epoch] for epoch in before} == before
    assert not [warning for warning in recwarn if "already reported" in str(warning.message)]


@pytest.mark.parametrize("options", [{"max_epochs": 1}, {"max_epochs": -1, "max_steps": 5}])
def test_a_run_at_its_end_is_not_pruned(fit, trial, options):
    callback = Pruning.of(trial(BELOW))
    fit(callback, **options)
    assert not callback.pruned


def test_an_objective_that_is_not_validated_is_refused(fit, launch):
    launcher = launch(objectives={"val/elbbo": "maximize"}, pruner=MEDIAN)
    launcher.first()
    (job,) = launcher.ask()
    with pytest.raises(UserError, match=r"does not measure val/elbbo; did you mean val/elbo\?"):
        fit(Pruning.of(job.environment[journal.TRIAL]))


def test_only_the_first_process_talks_to_the_study_and_all_stop(tmp_path):
    asked = []

    def decide(flag: bool, all: bool) -> bool:  # noqa: A002
        asked.append((flag, all))
        return True

    strategy = SimpleNamespace(reduce_boolean_decision=decide)
    trainer = SimpleNamespace(is_global_zero=False, strategy=strategy, current_epoch=0)
    callback = Pruning(tmp_path / "nowhere", 0)
    trainer.state = SimpleNamespace(fn=TrainerFn.FITTING)
    trainer.sanity_checking = False
    callback.on_train_start(trainer, None)
    callback.on_validation_end(trainer, None)
    assert asked == [(False, False)] * 2
    assert trainer.should_stop
    assert callback.pruned


def test_a_run_that_is_no_trial_has_no_such_callback(compose, monkeypatch):
    monkeypatch.delenv(journal.TRIAL, raising=False)
    assert instantiate(compose().callbacks.pruning) is None
    monkeypatch.setenv(journal.TRIAL, "3:/a/study.journal")
    callback = instantiate(compose().callbacks.pruning)
    assert (callback.number, callback.journal) == (3, Path("/a/study.journal"))


TASK = '''
"""A task that ends at once, or waits in those trials that are after the first."""

import json
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from vaelab.commands import cli


@cli.task("train")
def main(cfg):
    folder = Path(HydraConfig.get().runtime.output_dir)
    with open("ledger", "a") as ledger:
        ledger.write(f"{folder.name}\\n")
    if Path("slow").exists() and not folder.name.startswith("trial-0"):
        time.sleep(60)
    beta = cfg.model.beta
    results = {"val/elbo": -((beta - 2) ** 2), "test/rate": 10 - beta}
    (folder / "results.json").write_text(json.dumps(results))


main()
'''


@pytest.mark.slow
def test_a_search_with_two_objectives_is_killed_and_goes_on(tmp_path):
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "slow").touch()
    command = [sys.executable, "task.py", "-m", "hydra/sweeper=optuna", "model=beta_vae", BETA]
    command += ["hydra.launcher.n_jobs=2", f"hydra.sweep.dir={tmp_path}/sweep"]
    command += ["hydra.sweeper.n_trials=4"]
    command += ["hydra.sweeper.objectives={val/elbo: maximize, test/rate: minimize}"]

    def began() -> list[str]:
        path = tmp_path / "ledger"
        return path.read_text().split() if path.exists() else []

    launcher = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    for seconds in range(60):
        if len(began()) >= 3:
            break
        time.sleep(0.5)
        assert seconds < 59, "three jobs never began"
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    interrupted = set(began()) - {began()[0]}
    assert len(states(tmp_path / "sweep")) == 3
    (tmp_path / "slow").unlink()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert states(tmp_path / "sweep") == ["COMPLETE"] * 4
    assert began().count(next(name for name in began() if name.startswith("trial-0"))) == 1
    assert all(began().count(name) >= 1 for name in interrupted)
    assert "4 of 4 done" in done.stdout
    assert "Pareto front" in done.stdout
    index = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert len(index["jobs"]) == 4
    assert all(set(job["overrides"]) == {"model.beta"} for job in index["jobs"])
