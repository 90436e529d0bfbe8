"""The launcher and sweepers of vaelab, in the package where Hydra looks for plugins.

Hydra imports this module at every start, so it imports `vaelab.sweeps` only when used.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Jobs(Launcher):
    """Hydra launcher that runs every job as its own process, by the engine that is named.

    Args:
        engine: The dotted name of an engine's class, `vaelab.sweeps.engines.local.Local`.
        grace: Seconds a job may take to write its checkpoint and stop, before it is killed.
        settings: The engine's settings.
    """

    def __init__(self, engine: str, grace: float, **settings: Any) -> None:
        self.engine = engine
        self.grace = grace
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keeps what Hydra passes; called by Hydra once, before the sweep."""
        self.loader = hydra_context.config_loader
        self.task = task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs jobs to their end and returns their results; for sweepers other than vaelab's.

        Those of vaelab call `run`. Takes no account of `initial_job_idx`.
        """
        from vaelab.sweeps import FixedJobs

        grid = FixedJobs(job_overrides)
        self.run(grid)
        return [job.hydra_result() for job in grid.jobs]

    def run(self, source: Any) -> int:
        """Runs the jobs of a `vaelab.sweeps.Source` to their end; returns the exit code."""
        from vaelab import sweeps

        planner = sweeps.Planner(self.config, self.loader, self.task)
        engine = sweeps.build_engine(self.engine, self.settings)
        return sweeps.SweepRunner(planner, engine, self.grace).run(source)


class OwnSweeper(Sweeper):
    """Base of the sweepers: keeps what Hydra passes, and makes the launcher.

    Args:
        params: Settings and values of the sweep, beside those of the command line.
    """

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        self.params = params or {}

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Creates the launcher and keeps the sweep folder; called by Hydra before the sweep."""
        self.loader = hydra_context.config_loader
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def parse(self, arguments: list[str]) -> list[Override]:
        """Returns the overrides of `params` and then of the command line."""
        given = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        return OverridesParser.create(config_loader=self.loader).parse_overrides(given)


class Grid(OwnSweeper):
    """Sweeper over all combinations of values, given with commas or by `range` and `choice`."""

    def sweep(self, arguments: list[str]) -> None:
        """Runs all combinations as one batch; called by Hydra; exits unless all jobs succeed."""
        from vaelab import sweeps

        run_sweep(self.launcher, sweeps.FixedJobs(sweeps.combinations(self.parse(arguments))))


class Optuna(OwnSweeper):
    """Sweeper that searches settings by Optuna, see `vaelab.sweeps.study.Study`.

    Args:
        params: The search space, beside that of the command line.
        settings: The study's settings.
    """

    def __init__(self, params: dict[str, Any] | None = None, **settings: Any) -> None:
        super().__init__(params)
        self.settings = settings

    def sweep(self, arguments: list[str]) -> None:
        """Runs a search, kept in the sweep folder; for Hydra; exits unless all went well."""
        from vaelab import sweeps

        parsed = self.parse(arguments)
        run_sweep(self.launcher, sweeps.build_search(self.folder, parsed, self.settings))


def run_sweep(launcher: Launcher | None, source: Any) -> None:
    """Runs a sweep to its end; raises SystemExit unless its code is 0, UserError without `Jobs`."""
    from vaelab.errors import UserError

    if not isinstance(launcher, Jobs):
        raise UserError("this sweeper needs a launcher of vaelab: hydra/launcher=local")
    if code := launcher.run(source):
        raise SystemExit(code)
