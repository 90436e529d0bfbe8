"""A search by Optuna: each free place gets a trial that is proposed by those before it."""

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
from vaelab.runs import comparability, naming
from vaelab.runs.screen import here
from vaelab.sweeps import journal
from vaelab.sweeps.claims import alone
from vaelab.sweeps.job import Job
from vaelab.sweeps.objectives import Direction, best, values
from vaelab.sweeps.sources import Plan
from vaelab.sweeps.space import Axis, axis
from vaelab.training.json_files import read_json

FIRST, FOLDER = "first", "folder"
"""Attributes of a trial: the number of the one that it tries once more; its run, in the sweep."""
LOOK = 1.0
"""Seconds between two looks at a study in which there was nothing to do."""
SHOWN = 10
"""Best trials that are shown at the end."""
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Study:
    """The trials of a search, which a study in the folder of the sweep remembers.

    A trial holds one of `n_trials` places until it has come to an end: one that was interrupted
    goes on, one that failed is tried once more each time the command is given.

    Args:
        folder: Of the sweep.
        overrides: Of the command line, those that are searched among them.
        n_trials: How many there are to be in the end; a larger number goes on.
        objectives: Names in `results.json` or `evaluation.json`, and where they are to go.
        sampler: What to instantiate for proposals; a `seed` is made another one for each trial.
        pruner: What to instantiate to end trials early, or none.
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
        self.axes = {key: axis(o) for key, o in latest.items() if o.is_sweep_override()}
        self.fixed = {
            key: f"{key}={o.get_value_element_as_str()}" if o.value_type else key
            for key, o in latest.items()
            if key not in self.axes
        }
        self.given = list(latest)
        self.jobs: dict[int, Job] = {}  # by the numbers of their trials
        self.quiet_until = 0.0
        self.places_taken = 0
        self.check()

    def check(self) -> None:
        """Raises a UserError if this is no search that could be made."""
        if not self.axes:
            raise UserError(
                "hydra/sweeper=optuna has nothing to search; give it for example "
                "'model.beta=interval(0.5,8)'"
            )
        if self.fixed.get("rerun", "").lower().endswith("=true"):
            raise UserError("rerun=true is for runs; a search begins anew in another folder")
        journal.quieten()
        for name, made, kind in (
            ("sampler", journal.made(self.sampler), optuna.samplers.BaseSampler),
            ("pruner", journal.made(self.pruner), optuna.pruners.BasePruner),
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

    def first(self, plan: Plan) -> list[Job]:
        self.plan = plan
        self.check_scale([plan(overrides, name="check") for overrides in self.corners()])
        self.folder.mkdir(parents=True, exist_ok=True)
        journal.mend(self.path)
        self.storage = journal.storage(self.path)
        with alone(self.folder):
            self.open()
            for last in self.places().values():
                if last.state == TrialState.FAIL:
                    self.once_more(last)
            trials = self.places().values()
        return [self.adopt(trial) for trial in trials]

    def check_scale(self, corners: Sequence[Job]) -> None:
        """Raises a UserError if an objective has no common scale for all trials."""
        groups = comparability.labels([job.compared for job in corners])
        for name in self.objectives:
            if len(groups) > 1 and name.rpartition("/")[2] in comparability.SCALED:
                first, second, *_ = groups.values()
                raise UserError(
                    f"hydra.sweeper.objectives: {name} has no common scale for {first} and for "
                    f"{second}; search them apart, or by another objective"
                )

    def corners(self) -> Iterator[list[str]]:
        """Overrides of the ends of every interval and of every choice, to be checked."""
        ends = [list(a.texts) or [a.text(x) for x in bounds(a)] for a in self.axes.values()]
        for i in range(max(map(len, ends))):
            texts = [texts[min(i, len(texts) - 1)] for texts in ends]
            yield self.overrides(dict(zip(self.axes, texts, strict=True)))

    def open(self) -> None:
        """Begins the study, or checks that the one in the folder is this one.

        Raises:
            UserError: With the first setting that is another.
        """
        pruner = journal.made(self.pruner) or optuna.pruners.NopPruner()
        self.study = optuna.create_study(
            study_name=journal.STUDY,
            storage=self.storage,
            directions=list(self.objectives.values()),
            sampler=journal.sampler(self.sampler, 0),
            pruner=pruner,
            load_if_exists=True,
        )
        self.study.stop = self.exhaust  # type: ignore[method-assign]  # Optuna's is for its own loop
        known = self.study.user_attrs
        before, now = known.get("settings"), self.settings()
        if before is None:
            self.study.set_user_attr("objectives", self.objectives)
            self.study.set_user_attr("settings", now)
        else:
            for name in sorted(before.keys() | now.keys()):
                if before.get(name) != now.get(name):
                    raise UserError(
                        f"{here(self.folder)} holds a search with {name}={before.get(name)}, not "
                        f"{now.get(name)}; hydra.sweep.dir=FOLDER names another folder"
                    )
            self.objectives = known["objectives"]  # in their order
        if known.get("pruner") != self.pruner or before is None:
            self.study.set_user_attr("pruner", self.pruner)

    def settings(self) -> dict[str, str]:
        """What makes a search this one."""
        fixed = {
            key: override.partition("=")[2]
            for key, override in self.fixed.items()
            if not naming.is_free(naming.key(key))
        }
        searched = {key: axis.given.replace(" ", "") for key, axis in self.axes.items()}
        objectives = json.dumps(self.objectives, sort_keys=True)
        return fixed | searched | {"hydra.sweeper.objectives": objectives}

    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def withdraw(self) -> None:
        """Forgets trials whose launcher was killed while it asked for them."""
        for trial in self.trials():
            if trial.state == TrialState.RUNNING and not self.whole(trial):
                self.tell(trial.number, TrialState.FAIL)

    def whole(self, trial: FrozenTrial) -> bool:
        return len(trial.params) == len(self.axes)

    def places(self) -> dict[int, FrozenTrial]:
        """The last try of every trial, by the number of its first."""
        found = {
            trial.user_attrs.get(FIRST, trial.number): trial
            for trial in self.trials()
            if self.whole(trial)
        }
        self.places_taken = len(found)
        return found

    def once_more(self, failed: FrozenTrial) -> None:
        """Has a trial that failed tried again, in the same folder."""
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
        """The job of a trial, whoever asked for it."""
        job = self.job(trial)
        self.jobs[trial.number] = job
        if trial.state == TrialState.RUNNING and job.state != "waiting":  # but nobody said so
            self.ended(job)
        return job

    def job(self, trial: FrozenTrial) -> Job:
        texts = {key: axis.text(trial.params[axis.name]) for key, axis in self.axes.items()}
        overrides = self.overrides(texts)
        number = trial.user_attrs.get(FIRST, trial.number)
        told = naming.label(f"{key}={naming.short(text)}" for key, text in texts.items())
        name = f"trial-{number}_{told[:80]}"
        folder = self.folder / trial.user_attrs.get(FOLDER, name)
        if trial.state.is_finished():
            failed = trial.state == TrialState.FAIL
            return Job(overrides, texts, folder, state="failed" if failed else "done")
        pruning = {journal.TRIAL: f"{trial.number}:{self.path.absolute()}"} if self.pruner else {}
        try:
            job = self.plan(overrides, environment=pruning, name=name)
        except (UserError, HydraException) as error:  # what no corner showed
            return Job(overrides, texts, folder, state="failed", error=first_line(error))
        if FOLDER not in trial.user_attrs:
            self.remember(trial, FOLDER, os.path.relpath(job.folder, self.folder))
        return job

    def overrides(self, texts: Mapping[str, str]) -> list[str]:
        """Those of a job, in the order in which they were given."""
        return [f"{key}={texts[key]}" if key in texts else self.fixed[key] for key in self.given]

    def remember(self, trial: FrozenTrial, name: str, value: str) -> None:
        with suppress(UpdateFinishedTrialError):
            number = journal.trial_id(self.storage, trial.number)
            self.storage.set_trial_user_attr(number, name, value)

    def more(self, free: int) -> list[Job]:
        """What others have asked for, to take it up if they leave it; or else a new trial."""
        if monotonic() < self.quiet_until:
            return []
        others = [t for t in self.places().values() if t.number not in self.jobs]
        if others:
            return [self.adopt(trial) for trial in others]
        if (trial := self.ask()) is None:
            self.quiet_until = monotonic() + LOOK
            return []
        return [self.adopt(trial)]

    def ask(self) -> FrozenTrial | None:
        """A new trial, unless all places are taken."""
        with alone(self.folder):
            self.withdraw()
            if len(self.places()) >= self.n_trials or self.exhausted:
                return None
            self.study.sampler = journal.sampler(self.sampler, len(self.trials()))
            spaces = {axis.name: axis.distribution for axis in self.axes.values()}
            try:
                number = self.study.ask(spaces).number
            except (ValueError, ImportError) as error:
                raise UserError(f"hydra.sweeper.sampler: {first_line(error)}") from error
            self.places_taken += 1
            return self.trials()[number]

    def exhaust(self) -> None:
        """Notes that the sampler has tried all that it can."""
        self.study.set_user_attr("exhausted", self.sampler)

    @property
    def exhausted(self) -> bool:
        return bool(self.study.user_attrs.get("exhausted") == self.sampler)

    def to_come(self) -> int:
        return 0 if self.exhausted else max(0, self.n_trials - self.places_taken)

    def ended(self, job: Job) -> None:
        self.quiet_until = 0.0
        number = next(number for number, known in self.jobs.items() if known is job)
        if job.state == "done":
            try:
                if read_json(job.folder / "results.json").get("pruned"):
                    job.error = "pruned"
                    return self.tell(number, TrialState.PRUNED)
                return self.tell(number, TrialState.COMPLETE, values(job.folder, self.objectives))
            except UserError as error:
                job.state, job.error = "failed", str(error)
        if job.state == "failed":
            self.tell(number, TrialState.FAIL)
        return None

    def tell(self, number: int, state: TrialState, values: list[float] | None = None) -> None:
        with suppress(UpdateFinishedTrialError):  # another launcher was first
            self.study.tell(number, values, state=state, skip_if_finished=True)

    def summary(self) -> list[str]:
        """How many trials came to what, and the best of them."""
        trials = self.places().values()
        states = [STATES.get(trial.state, "open") for trial in trials]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        lines = [f"study      {counts}  {here(self.path)}"]
        if (complete := states.count("complete")) == 0:
            return lines
        axes = list(self.axes.values())
        rows = [[*self.objectives, *(axis.name for axis in axes), "folder"]]
        found = best(self.study, self.objectives)
        for trial in found[:SHOWN]:
            texts = [naming.short(axis.text(trial.params[axis.name])) for axis in axes]
            folder = here(self.folder / trial.user_attrs.get(FOLDER, ""))
            rows.append([*(f"{value:.4f}" for value in trial.values), *texts, str(folder)])
        title = (
            f"Pareto front, {len(found)} of {complete}:" if len(self.objectives) > 1 else "best:"
        )
        more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
        return [*lines, title, *aligned(rows), *more]


def bounds(axis: Axis) -> tuple[Any, Any]:
    low, high = axis.distribution.low, axis.distribution.high  # type: ignore[attr-defined]
    return low, high


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in plain text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)] for row in rows)
    return [f"  {'  '.join(cells).rstrip()}" for cells in padded]
