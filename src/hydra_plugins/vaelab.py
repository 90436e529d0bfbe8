"""Vaelab's launchers and sweepers, where Hydra looks for them.

Hydra imports this at every start, so it holds no more than what hands over to `vaelab.sweeps`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Jobs(Launcher):
    """Runs every job as a process of its own, wherever `engine` says.

    Args:
        engine: The class of `vaelab.sweeps.engines` that does.
        grace: Seconds a job may take to write its checkpoint and stop, before it is killed.
        settings: Of the engine.
    """

    def __init__(self, engine: str, grace: float, **settings: Any) -> None:
        self.engine = engine
        self.grace = grace
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.loader = hydra_context.config_loader
        self.task = task_function
        self.config = config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """What Hydra and the sweepers of others call; ours call `run`."""
        from vaelab.sweeps import Grid

        grid = Grid(job_overrides)
        self.run(grid)
        return [job.returned() for job in grid.jobs]

    def run(self, source: Any) -> int:
        """Runs what a `vaelab.sweeps.Source` asks for; the exit code."""
        from vaelab import sweeps

        planner = sweeps.Planner(self.config, self.loader, self.task)
        engine = sweeps.engine(self.engine, self.settings)
        return sweeps.Sweep(planner, engine, self.grace).run(source)


class Grid(BasicSweeper):
    """All combinations of the values given with commas between them, or by `range` and `choice`."""

    def __init__(self, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> None:
        from vaelab import sweeps

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides([*self._parse_config(), *arguments])
        (jobs,) = self.split_arguments(parsed, None)
        finish(self.launcher, sweeps.Grid(jobs))


class Optuna(Sweeper):
    """A search by Optuna, see `vaelab.sweeps.study.Study`.

    Args:
        params: What is searched, beside what the command line says.
        settings: Of the study.
    """

    def __init__(self, params: dict[str, Any] | None = None, **settings: Any) -> None:
        self.params = params or {}
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.loader = hydra_context.config_loader
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        from vaelab import sweeps

        given = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides(given)
        finish(self.launcher, sweeps.search(self.folder, parsed, self.settings))


def finish(launcher: Launcher | None, source: Any) -> None:
    """Runs a sweep to its end and exits unless all went well."""
    from vaelab.errors import UserError

    if not isinstance(launcher, Jobs):
        raise UserError("this sweeper needs a launcher of vaelab: hydra/launcher=local")
    if code := launcher.run(source):
        raise SystemExit(code)
