"""One page, figures and tables of a sweep: python report.py sweep=outputs/sweeps/..."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig

from vaelab.commands import cli
from vaelab.commands.config_folders import CONF

if TYPE_CHECKING:
    from pydantic import NonNegativeInt

PROTOCOLS = CONF / "reproduce"


def settings_schema(
    *,
    sweep: str,
    to: str,
    metric: str,
    direction: Literal["auto", "higher", "lower"],
    best: NonNegativeInt,
) -> None:
    """Declares the settings of `report` and their types, for validation; is never called."""


def named_words(words: Sequence[str]) -> list[str]:
    """Returns the words of the command as settings: `reproductions` is the folder of these."""
    kept = "sweep=results/reproductions"
    return [kept if word == "reproductions" else word for word in words]


@cli.task("report", settings_schema, ends_on_signals=True, rewrite=named_words)
def main(cfg: DictConfig) -> None:
    """Writes the report of a sweep, finished or not, and prints the path of each file.

    Of a folder of reproductions it prints and writes the table instead, there or alone into `to`,
    without records that are damaged, of which it prints a line each on stderr.
    """
    # Imported here, so that --help and --cfg answer without these slow imports.
    from pathlib import Path

    from vaelab import report, reproductions
    from vaelab.runs.folder import check_links
    from vaelab.runs.screen import printable, shell_path

    if reproductions.has_records(Path(cfg.sweep), PROTOCOLS):
        rows = reproductions.compare_all(Path(cfg.sweep), PROTOCOLS)
        reproductions.print_table(rows)
        is_own = Path(cfg.to) == Path(cfg.sweep) / "report"  # the default
        table = (Path(cfg.sweep) if is_own else Path(cfg.to)) / "README.md"
        reproductions.write_table(table, rows)
        for line in reproductions.damaged_records(Path(cfg.sweep), PROTOCOLS):
            print(printable(line), file=sys.stderr)
        pictures = reproductions.write_planes(Path(cfg.sweep), PROTOCOLS) if is_own else []
        for path in [table, *pictures]:
            print(shell_path(path))
        return
    sweep = report.read_sweep(Path(cfg.sweep))
    check_links(Path(cfg.to), sweep.folder)
    print(sweep.counts())
    ranking = report.Ranking(cfg.metric, cfg.direction)
    for path in report.write_report(sweep, Path(cfg.to), ranking, cfg.best):
        print(shell_path(path))
