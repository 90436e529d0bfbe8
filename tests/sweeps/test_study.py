"""Tests of Optuna searches: search space, study, journal, pruning callback and restarts.

Most tests call `Study` through a stub of the launcher. It runs no jobs and writes results that are
known functions of beta. The pruning callback is tested in trainings of three epochs.
"""

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
from vaelab.data.splits import Splits
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

BETA_AXIS = "model.beta=interval(0.5,8)"
TPE_SAMPLER = {"_target_": "optuna.samplers.TPESampler", "seed": 0}
MEDIAN_PRUNER = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1}
TWO_OBJECTIVES = {"val/elbo": "maximize", "test/rate": "minimize"}


def parse_text(given: str) -> Axis:
    """Returns the axis of an override such as `a=interval(0,1)`."""
    return parse_axis(OverridesParser.create().parse_override(given))


DISTRIBUTIONS = {
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


@pytest.mark.parametrize("given", DISTRIBUTIONS)
def test_parse_axis_returns_optuna_distribution(given):
    found = parse_text(given)
    assert found.distribution == DISTRIBUTIONS[given]
    assert found.given == given.partition("=")[2]
    for number in range(len(getattr(found.distribution, "choices", ""))):
        value = found.distribution.choices[number]
        again = OverridesParser.create().parse_override(f"a={found.text(value)}").value()
        assert again == value or found.text(value) == value


def test_axis_key_name_and_text_of_values():
    assert parse_text("+m.a=1,2").key == "+m.a"
    assert parse_text("+m.a=1,2").name == "m.a"
    assert parse_text("a=interval(0,1)").text(0.1 + 0.2) == "0.30000000000000004"
    assert parse_text("a=range(0,1,0.1)").text(0.1 + 0.2) == "0.3"
    assert parse_text("a=range(0,8)").text(3) == "3"
    assert parse_text("a='x, y',z").text("x, y") == "'x, y'"
    assert parse_text("a=null,1").text(None) == "null"


@pytest.mark.parametrize(
    ("given", "message"),
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
def test_parse_axis_refuses_impossible_distributions(given, message):
    with pytest.raises(UserError, match=message) as error:
        parse_text(given)
    assert str(error.value).startswith(given)
    assert "\n" not in str(error.value)


class StubLauncher:
    """Launcher that runs no jobs: `finish_jobs` writes their results.

    Each instance stands for one start of the command.

    Args:
        folder: The sweep folder.
        overrides: Overrides of the command line; default: `BETA_AXIS`.
        refused: True for an override that makes `plan` raise UserError; default: for none.
        settings: Settings of the study; default: 4 trials, val/elbo, TPE and no pruner.
    """

    def __init__(
        self, folder: Path, *overrides: str, refused: Callable[[str], bool] = bool, **settings: Any
    ) -> None:
        self.folder = folder
        self.refused = refused if refused is not bool else lambda override: False
        parsed = OverridesParser.create().parse_overrides(list(overrides or [BETA_AXIS]))
        given = {
            "n_trials": 4,
            "objectives": None,
            "sampler": TPE_SAMPLER,
            "pruner": None,
        } | settings
        study = build_search(folder, parsed, given)
        assert isinstance(study, Study)
        self.study = study

    def plan(
        self, overrides: list[str], environment: dict[str, str] | None = None, name: str = ""
    ) -> Job:
        """Stands for a `Planner`: returns a job, done if it has results; may raise UserError."""
        for override in filter(self.refused, overrides):
            raise UserError(f"{override}: refused")
        swept = dict(override.split("=") for override in overrides)
        job = Job(overrides, swept, self.folder / name, environment=environment or {})
        if (job.folder / "results.json").exists():
            job.state = "done"
        return job

    def first_jobs(self) -> list[Job]:
        """Opens the study and returns the jobs of its earlier trials."""
        return self.study.first_jobs(self.plan)

    def next_jobs(self) -> list[Job]:
        """Returns the next job, or jobs of other launchers, without the usual wait."""
        self.study.quiet_until = 0.0
        return self.study.next_jobs(1)

    def finish_jobs(self, jobs: list[Job] | None = None, **results: Any) -> list[Job]:
        """Finishes and records the waiting jobs of a list, or all next jobs; returns them."""
        ran = []
        while waiting := [job for job in jobs or self.next_jobs() if job.state == "waiting"]:
            for job in waiting:
                finish_job(job, **results)
                self.study.record_end(job)
                ran.append(job)
            if jobs is not None:
                break
        return ran

    def fail_job(self, job: Job, error: str = "trouble") -> None:
        """Marks a job as failed and records its end."""
        job.state, job.error = "failed", error
        self.study.record_end(job)


def finish_job(job: Job, **results: Any) -> None:
    """Writes `results.json` of a job and marks it as done.

    By default val/elbo is -(beta - 2)^2 and test/rate is 10 - beta.
    """
    beta = float(job.swept.get("model.beta", 1))
    job.folder.mkdir(parents=True, exist_ok=True)
    content = {"val/elbo": -((beta - 2) ** 2), "test/rate": 10 - beta, "pruned": False}
    (job.folder / "results.json").write_text(json.dumps(content | results))
    job.state = "done"


def load_trials(folder: Path) -> list[Any]:
    """Loads all trials of the study in a sweep folder."""
    store = journal.open_storage(folder / journal.FILE)
    return optuna.load_study(study_name=journal.STUDY, storage=store).trials


def trial_states(folder: Path) -> list[str]:
    return [trial.state.name for trial in load_trials(folder)]


@pytest.fixture
def launch(tmp_path) -> Callable[..., StubLauncher]:
    """(*overrides, **settings) -> a new `StubLauncher` in the folder `sweep` of the test."""
    return lambda *overrides, **settings: StubLauncher(tmp_path / "sweep", *overrides, **settings)


def test_study_proposes_n_trials_and_records_objectives(launch, tmp_path):
    launcher = launch("model=beta_vae", BETA_AXIS, "model.latent_dim=2,8", "logger=none")
    assert launcher.first_jobs() == []
    assert launcher.study.jobs_to_come() == 4
    (one,), (two,) = launcher.next_jobs(), launcher.next_jobs()
    assert launcher.study.jobs_to_come() == 2
    assert one.overrides[0] == "model=beta_vae"
    assert one.overrides[1] == f"model.beta={one.swept['model.beta']}"
    assert one.overrides[3] == "logger=none"
    assert set(one.swept) >= {"model.beta", "model.latent_dim"}
    assert one.name.startswith("trial-0_beta-")
    assert two.name.startswith("trial-1_beta-")
    assert len(one.name) < 100
    assert one.environment == {}
    launcher.finish_jobs([one, two])
    assert len(launcher.finish_jobs()) == 2
    assert launcher.next_jobs() == []
    assert launcher.study.jobs_to_come() == 0
    found = load_trials(tmp_path / "sweep")
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 4
    beta = float(one.swept["model.beta"])
    assert found[0].params["model.beta"] == beta
    assert found[0].values == [-((beta - 2) ** 2)]


def test_restart_resumes_interrupted_trials(launch, tmp_path):
    launcher = launch()
    launcher.first_jobs()
    launcher.finish_jobs(launcher.next_jobs())
    (killed,), (stopped,) = launcher.next_jobs(), launcher.next_jobs()
    stopped.state = "stopped"
    launcher.study.record_end(stopped)
    assert trial_states(tmp_path / "sweep") == ["COMPLETE", "RUNNING", "RUNNING"]
    again = launch()
    done, *open_ = again.first_jobs()
    assert done.state == "done"
    assert [job.folder for job in open_] == [killed.folder, stopped.folder]
    assert [job.overrides for job in open_] == [killed.overrides, stopped.overrides]
    assert again.study.jobs_to_come() == 1
    again.finish_jobs(open_)
    assert len(again.finish_jobs()) == 1
    assert trial_states(tmp_path / "sweep") == ["COMPLETE"] * 4


def test_restart_records_finished_run_of_open_trial(launch, tmp_path):
    launcher = launch()
    launcher.first_jobs()
    (job,) = launcher.next_jobs()
    finish_job(job)
    (found,) = launch().first_jobs()
    assert found.state == "done"
    assert trial_states(tmp_path / "sweep") == ["COMPLETE"]


def test_restart_retries_failed_trial_once(launch, tmp_path):
    launcher = launch(n_trials=2)
    launcher.first_jobs()
    (job,) = launcher.next_jobs()
    launcher.fail_job(job)
    # the failed trial keeps its place, so that no other trial replaces it
    assert len(launcher.finish_jobs()) == 1
    again = launch(n_trials=2)
    tried, done = again.first_jobs()
    assert (tried.state, done.state) == ("waiting", "done")
    assert tried.folder == job.folder
    assert tried.overrides == job.overrides
    again.fail_job(tried)
    assert again.next_jobs() == []
    once_more = launch(n_trials=2)
    tried, _ = once_more.first_jobs()
    assert tried.folder == job.folder
    once_more.finish_jobs([tried])
    assert once_more.next_jobs() == []
    assert trial_states(tmp_path / "sweep") == ["FAIL", "COMPLETE", "FAIL", "COMPLETE"]
    assert [job.state for job in launch(n_trials=2).first_jobs()] == ["done", "done"]


def test_retried_trial_keeps_intermediate_values(launch, tmp_path):
    launcher = launch(pruner=MEDIAN_PRUNER)
    launcher.first_jobs()
    (job,) = launcher.next_jobs()
    number, _, path = job.environment[journal.TRIAL].partition(":")
    journal.load_trial(Path(path), int(number)).report(-3.0, 0)
    launcher.fail_job(job)
    (tried,) = launch(pruner=MEDIAN_PRUNER).first_jobs()
    assert tried.environment[journal.TRIAL] == f"1:{path}"
    assert load_trials(tmp_path / "sweep")[1].intermediate_values == {0: -3.0}


def test_larger_n_trials_continues_and_smaller_stops_search(launch, tmp_path):
    launcher = launch(n_trials=2)
    launcher.first_jobs()
    launcher.finish_jobs()
    more = launch(n_trials=3)
    assert len(more.first_jobs()) == 2
    assert len(more.finish_jobs()) == 1
    less = launch(n_trials=1)
    assert len(less.first_jobs()) == 3
    assert less.study.jobs_to_come() == 0
    assert less.next_jobs() == []


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"mig": 0.1}, "migg was not measured; did you mean mig?"),
        ({"migg": float("nan")}, "migg is not a number"),
        ({"migg": [1.0]}, "migg was not measured"),
    ],
)
def test_run_without_valid_objective_fails(launch, tmp_path, results, message):
    launcher = launch(objectives={"migg": "maximize"})
    launcher.first_jobs()
    (job,) = launcher.finish_jobs(launcher.next_jobs(), **results)
    assert job.state == "failed"
    assert message in job.error
    assert trial_states(tmp_path / "sweep") == ["FAIL"]


def test_read_numbers_merges_results_and_evaluation(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"val/elbo": -1, "pruned": True, "a": "b"}))
    entries = {"mig": {"value": 0.25, "se": 0.1}, "step": 3, "rates": {"value": [1.0], "se": None}}
    (tmp_path / "evaluation.json").write_text(json.dumps(entries))
    assert read_numbers(tmp_path) == {"val/elbo": -1.0, "mig": 0.25}


def test_pruned_run_counts_as_pruned_trial(launch, tmp_path):
    launcher = launch(n_trials=2, pruner=MEDIAN_PRUNER)
    launcher.first_jobs()
    (job,) = launcher.finish_jobs(launcher.next_jobs(), pruned=True)
    assert (job.state, job.error) == ("done", "pruned")
    assert len(launcher.finish_jobs()) == 1
    assert trial_states(tmp_path / "sweep") == ["PRUNED", "COMPLETE"]
    assert all(job.state == "done" for job in launch(n_trials=2, pruner=MEDIAN_PRUNER).first_jobs())


def test_reordered_objectives_keep_their_directions(launch):
    launcher = launch(objectives=TWO_OBJECTIVES)
    launcher.first_jobs()
    launcher.finish_jobs()
    assert [d.name for d in launcher.study.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    other = launch(objectives=dict(reversed(TWO_OBJECTIVES.items())), n_trials=5)
    other.first_jobs()
    (job,) = other.finish_jobs()
    elbo, rate = other.study.trials()[-1].values
    beta = float(job.swept["model.beta"])
    assert (elbo, rate) == (-((beta - 2) ** 2), 10 - beta)


def test_summary_lines_name_best_trial_or_pareto_front(launch, tmp_path):
    alone = StubLauncher(tmp_path / "one", n_trials=6)
    alone.first_jobs()
    ran = alone.finish_jobs()
    best = min(ran, key=lambda job: abs(float(job.swept["model.beta"]) - 2))
    lines = alone.study.summary_lines()
    assert lines[0].startswith("study      6 complete")
    assert best.name in lines[-1]
    assert len(lines) == 4
    launcher = launch(objectives=TWO_OBJECTIVES, n_trials=8)
    assert launcher.first_jobs() == []
    assert len(launcher.study.summary_lines()) == 1
    ran = launcher.finish_jobs()
    pairs = [(float(job.swept["model.beta"]), job.name) for job in ran]
    front = [
        name
        for beta, name in pairs
        if not any(abs(b - 2) <= abs(beta - 2) and b > beta for b, _ in pairs)
    ]
    lines = launcher.study.summary_lines()
    assert lines[1] == f"Pareto front, {len(front)} of 8:"
    assert lines[2].split() == ["val/elbo", "test/rate", "model.beta", "folder"]
    assert {line.rpartition("/")[2] for line in lines[3:]} == set(front)
    elbos = [float(line.split()[0]) for line in lines[3:]]
    assert elbos == sorted(elbos, reverse=True)


def test_two_launchers_share_n_trials(launch, tmp_path):
    here, there = launch(n_trials=3), launch(n_trials=3)
    here.first_jobs()
    there.first_jobs()
    (mine,) = here.next_jobs()
    (followed,) = there.next_jobs()  # jobs of another launcher come first
    assert followed.folder == mine.folder
    (theirs,) = there.next_jobs()
    assert theirs.folder != mine.folder
    (followed,) = here.next_jobs()
    assert followed.folder == theirs.folder
    (last,) = here.next_jobs()
    assert here.next_jobs() == []
    assert [job.folder for job in there.next_jobs()] == [last.folder]
    assert there.next_jobs() == []
    finish_job(mine)
    here.study.record_end(mine)
    mine_there = there.study.jobs[0]
    mine_there.state = "failed"
    there.study.record_end(mine_there)  # ignored: the trial has ended
    assert trial_states(tmp_path / "sweep") == ["COMPLETE", "RUNNING", "RUNNING"]


def test_concurrent_launchers_do_not_exceed_n_trials(launch, tmp_path):
    launchers = [launch(n_trials=6) for _ in range(3)]
    for launcher in launchers:
        launcher.first_jobs()

    def ask_repeatedly(launcher: StubLauncher) -> None:
        for _ in range(12):
            launcher.next_jobs()

    threads = [Thread(target=ask_repeatedly, args=[launcher]) for launcher in launchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trial_states(tmp_path / "sweep") == ["RUNNING"] * 6
    assert all(len(launcher.study.jobs) == 6 for launcher in launchers)


def test_launcher_counts_ended_trials_of_another_launcher(launch):
    here, there = launch(n_trials=2), launch(n_trials=2)
    here.first_jobs()
    there.first_jobs()
    there.finish_jobs(there.next_jobs())
    there.fail_job(*there.next_jobs())
    assert [job.state for job in here.next_jobs()] == ["done", "failed"]
    assert here.next_jobs() == []


def test_proposals_depend_on_seed_and_continue_after_restart(launch, tmp_path):
    def proposed_values(folder: Path, seed: int, starts: int) -> list[str]:
        """Runs a search of six trials in so many starts and returns the values of beta."""
        sampler = TPE_SAMPLER | {"seed": seed}
        for number in range(starts):
            launcher = StubLauncher(folder, n_trials=6 * (number + 1) // starts, sampler=sampler)
            launcher.first_jobs()
            launcher.finish_jobs()
        return [trial.params["model.beta"] for trial in load_trials(folder)]

    at_once = proposed_values(tmp_path / "a", 0, 1)
    assert proposed_values(tmp_path / "b", 0, 3) == at_once
    assert len(set(at_once)) == 6
    assert not set(proposed_values(tmp_path / "c", 1, 1)) & set(at_once)


def test_qmc_sampler_continues_its_sequence_after_restart(launch, tmp_path):
    halton = {"_target_": "optuna.samplers.QMCSampler", "seed": 0, "scramble": True}
    launch("a=interval(0,1)", sampler=halton, n_trials=3).first_jobs()
    for n_trials in (1, 2, 3):
        launcher = launch("a=interval(0,1)", sampler=halton, n_trials=n_trials)
        launcher.first_jobs()
        launcher.finish_jobs()
    drawn = optuna.create_study(sampler=instantiate(halton), direction="maximize")
    for _ in range(3):
        drawn.tell(drawn.ask({"a": FloatDistribution(0, 1)}), 0.0)
    found = [trial.params["a"] for trial in load_trials(tmp_path / "sweep")][1:]
    assert found == [trial.params["a"] for trial in drawn.trials][1:]


def test_exhausted_brute_force_sampler_ends_search(launch, tmp_path):
    everything = {"_target_": "optuna.samplers.BruteForceSampler", "seed": 0}
    launcher = launch("model.beta=range(1,4)", sampler=everything, n_trials=9)
    launcher.first_jobs()
    launcher.finish_jobs()
    assert trial_states(tmp_path / "sweep") == ["COMPLETE"] * 3
    assert launcher.study.jobs_to_come() == 0
    again = launch("model.beta=range(1,4)", sampler=everything, n_trials=9)
    assert len(again.first_jobs()) == 3
    assert again.next_jobs() == []
    other = launch("model.beta=range(1,4)", n_trials=9)
    other.first_jobs()
    assert len(other.next_jobs()) == 1


def test_sampler_incompatible_with_space_is_refused(launch):
    launcher = launch(sampler={"_target_": "optuna.samplers.BruteForceSampler"})
    launcher.first_jobs()
    with pytest.raises(UserError, match=r"hydra\.sweeper\.sampler: FloatDistribution\.step must"):
        launcher.next_jobs()


def test_short_number_and_sweep_name_of_search():
    assert naming.short_number("2.3184012") == "2.318"
    assert naming.short_number("1e-05") == "1e-05"
    assert naming.short_number("123456") == "123456"
    assert naming.short_number("-7") == "-7"
    assert naming.short_number("[8,16]") == "[8,16]"
    optuna_here = ["hydra/sweeper=optuna"]
    plain = naming.sweep_name([BETA_AXIS], optuna_here)
    assert naming.sweep_name([BETA_AXIS], [*optuna_here, "hydra.sweeper.n_trials=9"]) == plain
    assert (
        naming.sweep_name([BETA_AXIS], [*optuna_here, "hydra.sweeper.objectives={a: b}"]) != plain
    )
    assert naming.sweep_name([BETA_AXIS], []) != plain


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        (["model.beta=interval(0.5,4)"], {}, "model.beta=interval(0.5,8), not interval(0.5,4)"),
        ([BETA_AXIS, "a=1,2"], {}, "with a=None, not 1,2"),
        ([BETA_AXIS], {"objectives": TWO_OBJECTIVES}, "hydra.sweeper.objectives"),
        ([BETA_AXIS, "trainer.max_epochs=3"], {}, "with trainer.max_epochs=None, not 3"),
    ],
)
def test_folder_with_another_search_is_refused(launch, overrides, settings, message):
    launch().first_jobs()
    with pytest.raises(UserError, match="holds a search with") as error:
        launch(*overrides, **settings).first_jobs()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


MASS_KEY, DENSITY_KEY = ("MNIST", "binary pixels", "mass"), ("MNIST", "grey pixels", "density")


@pytest.mark.parametrize("objective", ["val/elbo", "test/distortion", "nll"])
def test_objective_without_common_scale_is_refused(launch, objective):
    keys = {"bernoulli": MASS_KEY, "gaussian": DENSITY_KEY}
    launcher = launch(
        BETA_AXIS, "likelihood=bernoulli,gaussian", objectives={objective: "maximize"}
    )
    plan = launcher.plan

    def plan_with_scale(overrides, **settings):
        """Plans a job and sets the key of its scale by its likelihood."""
        job = plan(overrides, **settings)
        (job.compared,) = (key for name, key in keys.items() if f"likelihood={name}" in overrides)
        return job

    launcher.plan = plan_with_scale
    message = f"{objective} has no common scale for MNIST, binary pixels, mass and for MNIST, grey"
    with pytest.raises(UserError, match=message):
        launcher.first_jobs()


def test_sampler_pruner_and_logger_may_change_at_restart(launch):
    launch().first_jobs()
    random = {"_target_": "optuna.samplers.RandomSampler", "seed": 3}
    launch(
        "model.beta=interval(0.5, 8)", "logger=none", sampler=random, pruner=MEDIAN_PRUNER
    ).first_jobs()


@pytest.mark.parametrize(
    ("overrides", "settings", "message"),
    [
        (["seed=1"], {}, "nothing to search"),
        ([BETA_AXIS, "rerun=true"], {}, "rerun=true is for runs"),
        ([BETA_AXIS], {"n_trials": 0}, "hydra.sweeper.n_trials=0: should be greater than 0"),
        ([BETA_AXIS], {"objectives": {"mig": "up"}}, "should be 'maximize' or 'minimize'"),
        ([BETA_AXIS], {"objectives": {}}, "at least 1"),
        (
            [BETA_AXIS],
            {"objectives": TWO_OBJECTIVES, "pruner": MEDIAN_PRUNER},
            "only a search with one objective",
        ),
        (
            [BETA_AXIS],
            {"objectives": {"mig": "maximize"}, "pruner": MEDIAN_PRUNER},
            "mig is not measured during training",
        ),
        ([BETA_AXIS], {"pruner": {"_target_": "optuna.pruners.None"}}, "cannot be imported"),
        ([BETA_AXIS], {"pruner": MEDIAN_PRUNER | {"n": 1}}, "MedianPruner has no such setting"),
        ([BETA_AXIS], {"sampler": {"_target_": "optuna.pruners.NopPruner"}}, "is no sampler"),
        ([BETA_AXIS], {"pruner": TPE_SAMPLER}, "TPESampler is no pruner"),
        ([BETA_AXIS], {"sampler": None}, "is no sampler"),
    ],
)
def test_study_refuses_invalid_settings(launch, tmp_path, overrides, settings, message):
    with pytest.raises(UserError) as error:
        launch(*overrides, **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sweep").exists()


def test_first_jobs_checks_ends_of_search_space(launch, tmp_path):
    for refused in ("model.beta=0.5", "model.beta=8.0", "model=vae"):
        with pytest.raises(UserError, match=refused):
            launch(
                BETA_AXIS, "model=beta_vae,cvae,vae", refused=lambda o, r=refused: o == r
            ).first_jobs()
    assert not (tmp_path / "sweep").exists()


def test_trial_with_invalid_configuration_fails_and_search_continues(launch, tmp_path):
    launcher = launch(n_trials=3, refused=lambda o: o.partition("=")[2] not in ("0.5", "8.0"))
    launcher.first_jobs()
    (job,) = launcher.next_jobs()
    assert job.state == "failed"
    assert job.error.endswith("refused")
    launcher.refused = lambda override: False
    assert len(launcher.finish_jobs()) == 2
    assert trial_states(tmp_path / "sweep") == ["FAIL", "COMPLETE", "COMPLETE"]


def test_abandoned_trial_without_parameters_is_replaced(launch, tmp_path):
    launcher = launch(n_trials=2)
    launcher.first_jobs()
    launcher.study.study.ask()  # as if killed before the trial had parameters
    again = launch(n_trials=2)
    assert again.first_jobs() == []
    assert len(again.finish_jobs()) == 2
    assert trial_states(tmp_path / "sweep") == ["FAIL", "COMPLETE", "COMPLETE"]
    assert [job.state for job in launch(n_trials=2).first_jobs()] == ["done", "done"]


def test_partial_last_line_of_journal_is_dropped(launch, tmp_path):
    launcher = launch(n_trials=2)
    launcher.first_jobs()
    launcher.finish_jobs(launcher.next_jobs())
    path = tmp_path / "sweep" / journal.FILE
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    again = launch(n_trials=2)
    assert len(again.first_jobs()) == 1
    again.finish_jobs()
    assert trial_states(tmp_path / "sweep") == ["COMPLETE", "COMPLETE"]


def test_damaged_journal_is_refused(launch, tmp_path):
    launch().first_jobs()
    path = tmp_path / "sweep" / journal.FILE
    path.write_bytes(b"nonsense\n" + path.read_bytes())
    with pytest.raises(UserError, match=r"study\.journal: damaged"):
        launch().first_jobs()


def test_build_search_without_optuna_names_install_command(launch, monkeypatch):
    for name in ("study", "journal", "objectives", "space"):
        monkeypatch.delitem(sys.modules, f"vaelab.sweeps.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delattr("vaelab.sweeps.study", raising=False)
    monkeypatch.delattr("vaelab.sweeps.journal", raising=False)
    with pytest.raises(UserError, match=r'needs optuna.*: pip install -e "\.\[optuna\]"'):
        launch()


def random_splits() -> Splits:
    """Returns 60 random uint8 images [60, 1, 8, 8] of 3 classes, and no test images."""
    import torch

    images = torch.randint(256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    images = images.to(torch.uint8)
    return Splits(images, labels, images[:0], labels[:0], num_classes=3)


@pytest.fixture
def fit_small(build, tmp_path):
    """(*callbacks, **trainer options) -> the trainer, after 3 epochs of 5 batches by default."""

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
        data = Images(source=random_splits, batch_size=10, val_size=5, test_size=5, pixels="binary")
        trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return run


@pytest.fixture
def start_trial(launch, tmp_path) -> Callable[..., str]:
    """(pruner) -> the `NUMBER:FILE` of a new trial, as its job gets it in VAELAB_TRIAL."""

    def ask(pruner: dict[str, Any] = MEDIAN_PRUNER) -> str:
        launcher = launch(pruner=pruner)
        launcher.first_jobs()
        (job,) = launcher.next_jobs()
        return job.environment[journal.TRIAL]

    return ask


PRUNE_NEGATIVE = {"_target_": "optuna.pruners.ThresholdPruner", "lower": 0.0}
"""Prunes every trial with a negative val/elbo, that is every trial."""


def test_pruning_reports_objective_of_each_epoch(fit_small, start_trial, tmp_path):
    callback = Pruning.of(start_trial())
    trainer = fit_small(callback)
    elbo = float(trainer.callback_metrics["val/elbo"])
    trainer.validate(trainer.lightning_module, trainer.datamodule, verbose=False)
    (found,) = load_trials(tmp_path / "sweep")
    assert list(found.intermediate_values) == [0, 1, 2]
    assert found.intermediate_values[2] == pytest.approx(elbo)
    assert not callback.pruned


def test_pruned_run_stops_and_saves_checkpoint(fit_small, start_trial, tmp_path, capsys):
    callback = Pruning.of(start_trial(PRUNE_NEGATIVE | {"n_warmup_steps": 1}))
    trainer = fit_small(callback, Checkpoint(str(tmp_path)), max_epochs=5)
    assert trainer.global_step == 10
    assert callback.pruned
    assert trainer.state.finished
    assert (tmp_path / "last.ckpt").exists()
    assert "pruned in epoch 2" in capsys.readouterr().out


def test_pruned_run_stops_again_when_resumed(fit_small, start_trial, tmp_path):
    given = start_trial(PRUNE_NEGATIVE)
    fit_small(Pruning.of(given), Checkpoint(str(tmp_path)))
    callback = Pruning.of(given)
    trainer = fit_small(callback, ckpt_path=tmp_path / "last.ckpt")
    assert trainer.global_step == 5
    assert callback.pruned
    (found,) = load_trials(tmp_path / "sweep")
    assert list(found.intermediate_values) == [0]


def test_restarted_run_does_not_report_epochs_twice(fit_small, start_trial, tmp_path, recwarn):
    given = start_trial()
    fit_small(Pruning.of(given), Checkpoint(str(tmp_path)), max_epochs=2)
    before = load_trials(tmp_path / "sweep")[0].intermediate_values
    fit_small(Pruning.of(given), max_epochs=3)  # without a checkpoint, from the first epoch
    after = load_trials(tmp_path / "sweep")[0].intermediate_values
    assert list(after) == [0, 1, 2]
    assert {epoch: after[epoch] for epoch in before} == before
    assert not [warning for warning in recwarn if "already reported" in str(warning.message)]


@pytest.mark.parametrize(
    "options",
    [{"max_epochs": 1}, {"max_epochs": -1, "max_steps": 5}],
    ids=["max_epochs", "max_steps"],
)
def test_run_is_not_pruned_in_last_epoch(fit_small, start_trial, options):
    callback = Pruning.of(start_trial(PRUNE_NEGATIVE))
    fit_small(callback, **options)
    assert not callback.pruned


def test_pruning_refuses_objective_missing_from_validation(fit_small, launch):
    launcher = launch(objectives={"val/elbbo": "maximize"}, pruner=MEDIAN_PRUNER)
    launcher.first_jobs()
    (job,) = launcher.next_jobs()
    with pytest.raises(UserError, match=r"does not measure val/elbbo; did you mean val/elbo\?"):
        fit_small(Pruning.of(job.environment[journal.TRIAL]))


def test_pruning_on_nonzero_rank_only_follows_stop(tmp_path):
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


def test_pruning_callback_requires_vaelab_trial_variable(compose, monkeypatch):
    monkeypatch.delenv(journal.TRIAL, raising=False)
    assert instantiate(compose().callbacks.pruning) is None
    monkeypatch.setenv(journal.TRIAL, "3:/a/study.journal")
    callback = instantiate(compose().callbacks.pruning)
    assert (callback.number, callback.journal) == (3, Path("/a/study.journal"))


TASK_SCRIPT = '''
"""A task that ends at once, or, if the file `slow` exists, sleeps in all trials but the first."""

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
def test_killed_search_with_two_objectives_resumes(tmp_path):
    (tmp_path / "task.py").write_text(TASK_SCRIPT)
    (tmp_path / "slow").touch()
    command = [sys.executable, "task.py", "-m", "hydra/sweeper=optuna", "model=beta_vae", BETA_AXIS]
    command += ["hydra.launcher.n_jobs=2", f"hydra.sweep.dir={tmp_path}/sweep"]
    command += ["hydra.sweeper.n_trials=4"]
    command += ["hydra.sweeper.objectives={val/elbo: maximize, test/rate: minimize}"]

    def started_jobs() -> list[str]:
        """Returns the name of each job that has started, once for each start."""
        path = tmp_path / "ledger"
        return path.read_text().split() if path.exists() else []

    launcher = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    for seconds in range(60):
        if len(started_jobs()) >= 3:
            break
        time.sleep(0.5)
        assert seconds < 59, "three jobs never began"
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    interrupted = set(started_jobs()) - {started_jobs()[0]}
    assert len(trial_states(tmp_path / "sweep")) == 3
    (tmp_path / "slow").unlink()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert trial_states(tmp_path / "sweep") == ["COMPLETE"] * 4
    assert (
        started_jobs().count(next(name for name in started_jobs() if name.startswith("trial-0")))
        == 1
    )
    assert all(started_jobs().count(name) >= 1 for name in interrupted)
    assert "4 of 4 done" in done.stdout
    assert "Pareto front" in done.stdout
    index = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert len(index["jobs"]) == 4
    assert all(set(job["overrides"]) == {"model.beta"} for job in index["jobs"])
