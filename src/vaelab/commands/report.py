"""One page, figures and tables of a sweep: python report.py sweep=outputs/sweeps/..."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig

from vaelab.commands import cli

if TYPE_CHECKING:
    from pydantic import NonNegativeInt


def settings(
    *,
    sweep: str,
    to: str,
    metric: str,
    direction: Literal["auto", "higher", "lower"],
    best: NonNegativeInt,
) -> None:
    """The settings, for the check."""


@cli.task("report", settings)
def main(cfg: DictConfig) -> None:
    """Writes the report of a sweep, finished or not, and says where each file is."""
    # Here and not above, so that --help and --cfg answer at once.
    from pathlib import Path

    from vaelab import report
    from vaelab.runs.screen import pasted

    sweep = report.read(Path(cfg.sweep))
    print(sweep.counts())
    ranking = report.Ranking(cfg.metric, cfg.direction)
    for path in report.write(sweep, Path(cfg.to), ranking, cfg.best):
        print(pasted(path))
