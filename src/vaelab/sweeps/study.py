"""The Optuna search of a sweep: each free place gets a trial, proposed from earlier trials."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import optuna
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial
from pydantic import Field, PositiveInt

from vaelab.errors import UserError, first_line
from vaelab.files.atomic import make_folder
from vaelab.files.locks import file_lock
from vaelab.runs import comparability, naming
from vaelab.runs.screen import relative_path
from vaelab.sweeps import journal
from vaelab.sweeps.job import LOCK, Job
from vaelab.sweeps.objectives import Direction, best_trials, read_objectives
from vaelab.sweeps.sources import Plan
from vaelab.sweeps.space import Axis, parse_axis
from vaelab.training.json_files import read_json

FIRST, FOLDER = "first", "folder"
"""Attributes of a trial: number of the trial that it retries; its run folder in the sweep."""
LOOK = 1.0
"""Seconds before a study that had no new trial is read again."""
SHOWN = 10
"""Largest number of best trials printed at the end."""
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Study:
    """Source of jobs that Optuna proposes; their trials are kept in a file in the sweep folder.

    There are `n_trials` places, and a trial keeps its place. When the command is given again,
    interrupted trials continue, and failed trials are tried once more in the same place.

    Args:
        folder: The sweep folder.
        overrides: Overrides of the command line, including those that are searched.
        n_trials: Number of places; a larger number continues an earlier search.
        objectives: Names in `results.json` or `evaluation.json`, with their directions.
        params: Not used here: the sweeper has added them to `overrides`.
        sampler: Settings of an Optuna sampler; its `seed` is changed for each trial.
        pruner: Settings of an Optuna pruner, or None for no pruning.
    """

    def __init__(
        self,
        folder: Path,
        overrides: Sequence[Override],
        *,
        n_trials: PositiveInt,
        objectives: Annotated[dict[str, Direction], Field(min_length=1)] | None,
        params: dict[str, Any] | None = None,
        sampler: Any,
        pruner: Any = None,
    ) -> None:
        self.folder = folder
        self.path = folder / journal.FILE
        self.n_trials = n_trials
        self.objectives: dict[str, Direction] = objectives or {"val/elbo": "maximize"}
        self.sampler, self.pruner = sampler, pruner
        latest = {override.get_key_element(): override for override in overrides}
        self.axes = {key: parse_axis(o) for key, o in latest.items() if o.is_sweep_override()}
        self.fixed = {
            key: f"{key}={o.get_value_element_as_str()}" if o.value_type else key
            for key, o in latest.items()
            if key not in self.axes
        }
        self.given = list(latest)
        self.jobs: dict[int, Job] = {}  # by trial number
        self.quiet_until = 0.0
        self.places_taken = 0
        self.check_settings()

    def check_settings(self) -> None:
        """Raises UserError if the settings make no search; silences Optuna in this process."""
        if not self.axes:
            raise UserError(
                "hydra/sweeper=optuna has nothing to search; give it for example "
                "'model.beta=interval(0.5,8)'"
            )
        if self.fixed.get("rerun", "").lower().endswith("=true"):
            raise UserError("rerun=true is for runs; a search begins anew in another folder")
        journal.silence_optuna()
        for name, made, kind in (
            ("sampler", journal.build_from_settings(self.sampler), optuna.samplers.BaseSampler),
            ("pruner", journal.build_from_settings(self.pruner), optuna.pruners.BasePruner),
        ):
            if not isinstance(made, (kind, type(None))) or (name == "sampler" and made is None):
                raise UserError(f"hydra.sweeper.{name}: {type(made).__name__} is no {name}")
        if self.pruner and len(self.objectives) > 1:
            raise UserError("hydra.sweeper.pruner: only a search with one objective can prune")
        name, *_ = self.objectives
        if self.pruner and not name.startswith("val/"):
            raise UserError(
                f"hydra.sweeper.pruner: {name} is not measured during training, as val/elbo is"
            )

    def first_jobs(self, plan: Plan) -> list[Job]:
        """Opens or creates the study under a lock, retries failed trials, returns trials' jobs.

        First composes and checks jobs at the ends of every axis. Creates the folder, drops a
        partial line of the study's file, and tells the study of runs that ended while their trials
        were open. The jobs are those of `latest_trials`.

        Raises:
            UserError: If such a job is wrong, or the folder holds another search.
        """
        self.plan = plan
        self.check_scale([plan(overrides, name="check") for overrides in self.corner_overrides()])
        make_folder(self.folder)
        journal.drop_partial_line(self.path)
        journal.check_not_emptied(self.path)
        self.storage = journal.open_storage(self.path)
        with file_lock(self.folder / LOCK):
            self.open_study()
            for last in self.latest_trials().values():
                if last.state == TrialState.FAIL:
                    self.retry(last)
            trials = self.latest_trials().values()
        return [self.adopt(trial) for trial in trials]

    def check_scale(self, corners: Sequence[Job]) -> None:
        """Raises UserError if an objective has no scale that these jobs share."""
        groups = comparability.key_labels([job.compared for job in corners])
        for name in self.objectives:
            if len(groups) > 1 and name.rpartition("/")[2] in comparability.SCALED:
                first, second, *_ = groups.values()
                raise UserError(
                    f"hydra.sweeper.objectives: {name} has no common scale for {first} and for "
                    f"{second}; search them apart, or by another objective"
                )

    def corner_overrides(self) -> Iterator[list[str]]:
        """Yields overrides of jobs that cover all choices and both ends of all intervals."""
        ends = [list(a.texts) or [a.text(x) for x in bounds(a)] for a in self.axes.values()]
        for i in range(max(map(len, ends))):
            texts = [texts[min(i, len(texts) - 1)] for texts in ends]
            yield self.job_overrides(dict(zip(self.axes, texts, strict=True)))

    def open_study(self) -> None:
        """Creates the study in the storage and stores its settings, or opens it and checks them.

        Stores objectives and pruner, too; those objectives that are stored replace the given ones.
        The study's `stop`, which samplers call, is replaced by `mark_exhausted`.

        Raises:
            UserError: With the first setting that differs.
        """
        pruner = journal.build_from_settings(self.pruner) or optuna.pruners.NopPruner()
        self.study = optuna.create_study(
            study_name=journal.STUDY,
            storage=self.storage,
            directions=list(self.objectives.values()),
            sampler=journal.build_sampler(self.sampler, 0),
            pruner=pruner,
            load_if_exists=True,
        )
        # Optuna's own stop works only in its own loop, study.optimize
        self.study.stop = self.mark_exhausted  # type: ignore[method-assign]
        known = self.study.user_attrs
        before, now = known.get("settings"), self.identity_settings()
        if before is None:
            self.study.set_user_attr("objectives", self.objectives)
            self.study.set_user_attr("settings", now)
        else:
            for name in sorted(before.keys() | now.keys()):
                if before.get(name) != now.get(name):
                    raise UserError(
                        f"{relative_path(self.folder)} holds a search with "
                        f"{name}={before.get(name)}, not "
                        f"{now.get(name)}; hydra.sweep.dir=FOLDER names another folder"
                    )
            self.objectives = known["objectives"]  # in the order of the study's directions
        if known.get("pruner") != self.pruner or before is None:
            self.study.set_user_attr("pruner", self.pruner)

    def identity_settings(self) -> dict[str, str]:
        """Returns the settings that a continued search must have unchanged, as texts."""
        fixed = {
            key: override.partition("=")[2]
            for key, override in self.fixed.items()
            if not naming.is_free(naming.setting_name(key))
        }
        searched = {key: axis.given.replace(" ", "") for key, axis in self.axes.items()}
        objectives = json.dumps(self.objectives, sort_keys=True)
        return fixed | searched | {"hydra.sweeper.objectives": objectives}

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials of the study, read from its file; not copied."""
        return self.study.get_trials(deepcopy=False)

    def fail_abandoned_trials(self) -> None:
        """Marks as failed in the study all running trials that lack parameters.

        Their launcher was killed before they had all.
        """
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and not self.has_all_params(trial):
                self.tell(trial.number, TrialState.FAIL)

    def has_all_params(self, trial: FrozenTrial) -> bool:
        """True if the trial has a value for each axis."""
        return len(trial.params) == len(self.axes)

    def latest_trials(self) -> dict[int, FrozenTrial]:
        """Returns the latest trial of each place, by its first trial's number; sets `places_taken`.

        Skips trials that do not have all parameters.
        """
        found = {
            trial.user_attrs.get(FIRST, trial.number): trial
            for trial in self.trials()
            if self.has_all_params(trial)
        }
        self.places_taken = len(found)
        return found

    def retry(self, failed: FrozenTrial) -> None:
        """Adds a running trial with the same parameters and place as a failed one to the study."""
        first = failed.user_attrs.get(FIRST, failed.number)
        self.study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=failed.params,
                distributions=failed.distributions,
                intermediate_values=failed.intermediate_values,
                user_attrs={**failed.user_attrs, FIRST: first},
            )
        )

    def adopt(self, trial: FrozenTrial) -> Job:
        """Builds, stores and returns a trial's job; if its run has ended, tells the study.

        The trial may be of any launcher.
        """
        job = self.build_job(trial)
        self.jobs[trial.number] = job
        if trial.state == TrialState.RUNNING and job.state != "waiting":  # its launcher was killed
            self.record_end(job)
        return job

    def build_job(self, trial: FrozenTrial) -> Job:
        """Builds a trial's job, failed if it cannot be composed; stores an open trial's folder.

        A folder that is stored there is kept. The job of a trial that has ended is not composed.
        """
        texts = {key: axis.text(trial.params[axis.name]) for key, axis in self.axes.items()}
        overrides = self.job_overrides(texts)
        number = trial.user_attrs.get(FIRST, trial.number)
        told = naming.overrides_label(
            f"{key}={naming.short_number(text)}" for key, text in texts.items()
        )
        name = f"trial-{number}_{told[:80]}"
        folder = self.folder / trial.user_attrs.get(FOLDER, name)
        if trial.state.is_finished():
            failed = trial.state == TrialState.FAIL
            return Job(overrides, texts, folder, state="failed" if failed else "done")
        pruning = {journal.TRIAL: f"{trial.number}:{self.path.absolute()}"} if self.pruner else {}
        try:
            job = self.plan(overrides, environment=pruning, name=name)
        except (UserError, HydraException) as error:  # first_jobs checked the ends of axes only
            return Job(overrides, texts, folder, state="failed", error=first_line(error))
        if FOLDER not in trial.user_attrs:
            self.set_trial_attribute(trial, FOLDER, os.path.relpath(job.folder, self.folder))
        return job

    def job_overrides(self, texts: Mapping[str, str]) -> list[str]:
        """Returns all overrides of a job, in the order of the command line."""
        return [f"{key}={texts[key]}" if key in texts else self.fixed[key] for key in self.given]

    def set_trial_attribute(self, trial: FrozenTrial, name: str, value: str) -> None:
        """Stores an attribute of a trial in the study; skips a trial that has ended."""
        with suppress(UpdateFinishedTrialError):
            number = journal.trial_id(self.storage, trial.number)
            self.storage.set_trial_user_attr(number, name, value)

    def next_jobs(self, free: int) -> list[Job]:
        """Returns jobs of other launchers' new trials, else asks for one new trial; or no jobs.

        Whatever `free` is, at most one new trial is asked for. If there is none, the study is not
        read again for LOOK seconds.
        """
        if monotonic() < self.quiet_until:
            return []
        others = [t for t in self.latest_trials().values() if t.number not in self.jobs]
        if others:
            return [self.adopt(trial) for trial in others]
        if (trial := self.ask_for_trial()) is None:
            self.quiet_until = monotonic() + LOOK
            return []
        return [self.adopt(trial)]

    def ask_for_trial(self) -> FrozenTrial | None:
        """Marks abandoned trials failed, asks Optuna for a new one; None if no place is left.

        Holds a file lock. None, too, if the sampler has tried all that it can.

        Raises:
            UserError: If the sampler cannot propose one.
        """
        with file_lock(self.folder / LOCK):
            self.fail_abandoned_trials()
            if len(self.latest_trials()) >= self.n_trials or self.is_exhausted:
                return None
            self.study.sampler = journal.build_sampler(self.sampler, len(self.trials()))
            spaces = {axis.name: axis.distribution for axis in self.axes.values()}
            try:
                number = self.study.ask(spaces).number
            except (ValueError, ImportError) as error:
                raise UserError(f"hydra.sweeper.sampler: {first_line(error)}") from error
            self.places_taken += 1
            return self.trials()[number]

    def mark_exhausted(self) -> None:
        """Called by a sampler as `study.stop`: stores in the study that it has tried all it can."""
        self.study.set_user_attr("exhausted", self.sampler)

    @property
    def is_exhausted(self) -> bool:
        """True if the study says that this sampler has tried all that it can."""
        return bool(self.study.user_attrs.get("exhausted") == self.sampler)

    @property
    def most_jobs(self) -> int:
        """The number of trials."""
        return self.n_trials

    def jobs_to_come(self) -> int:
        """Returns how many places have no trial yet; 0 if the sampler is exhausted."""
        return 0 if self.is_exhausted else max(0, self.n_trials - self.places_taken)

    def record_end(self, job: Job) -> None:
        """Tells the study how a job ended; a done job without its objectives becomes failed.

        A job that was stopped leaves its trial open. A pruned one stays done, with the error
        `pruned`.
        """
        self.quiet_until = 0.0
        number = next(number for number, known in self.jobs.items() if known is job)
        if job.state == "done":
            try:
                if read_json(job.folder / "results.json").get("pruned"):
                    job.error = "pruned"
                    return self.tell(number, TrialState.PRUNED)
                return self.tell(
                    number, TrialState.COMPLETE, read_objectives(job.folder, self.objectives)
                )
            except UserError as error:
                job.state, job.error = "failed", str(error)
        if job.state == "failed":
            self.tell(number, TrialState.FAIL)
        return None

    def tell(self, number: int, state: TrialState, values: list[float] | None = None) -> None:
        """Tells Optuna the state and objectives of a trial; skips a trial that has ended."""
        with suppress(UpdateFinishedTrialError):  # another launcher was first
            self.study.tell(number, values, state=state, skip_if_finished=True)

    def summary_lines(self) -> list[str]:
        """Returns lines with the numbers of trials by state and the best trials, at most SHOWN."""
        trials = self.latest_trials().values()
        states = [STATES.get(trial.state, "open") for trial in trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        lines = [f"study      {counts}  {relative_path(self.path)}"]
        if (complete := states.count("complete")) == 0:
            return lines
        axes = list(self.axes.values())
        rows = [[*self.objectives, *(axis.name for axis in axes), "folder"]]
        found = best_trials(self.study, self.objectives)
        for trial in found[:SHOWN]:
            texts = [naming.short_number(axis.text(trial.params[axis.name])) for axis in axes]
            folder = relative_path(self.folder / trial.user_attrs.get(FOLDER, ""))
            rows.append([*(f"{value:.4f}" for value in trial.values), *texts, str(folder)])
        title = (
            f"Pareto front, {len(found)} of {complete}:" if len(self.objectives) > 1 else "best:"
        )
        more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return [*lines, title, *aligned_lines(rows), *more]


def bounds(axis: Axis) -> tuple[Any, Any]:
    """Returns the lowest and the highest value of an axis that is an interval or a range."""
    low, high = axis.distribution.low, axis.distribution.high  # type: ignore[attr-defined]
    return low, high


def aligned_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table as indented lines of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)] for row in rows)
    return [f"  {'  '.join(cells).rstrip()}" for cells in padded]
