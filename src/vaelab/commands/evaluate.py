"""Measure finished runs on their test images: python evaluate.py run=outputs/...

A folder of runs, such as a sweep, is measured in one process, which reads the same data once.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig

from vaelab.commands import cli, command_lines
from vaelab.commands.cli import Node

if TYPE_CHECKING:
    from pydantic import NonNegativeInt, PositiveInt


def settings_schema(
    *,
    run: list[str] | str,
    what: list[str] | str,
    metrics: dict[str, Node],
    sampler: Node,
    num_samples: PositiveInt | Literal["auto"],
    device: str,
    seed: NonNegativeInt,
    rerun: bool,
    trust: bool,
    paths: dict[str, str],
) -> None:
    """Declares the settings of `evaluate` and their types, for validation; is never called."""


@cli.task("evaluate", settings_schema, lists=["run", "what"], ends_on_signals=True)
def main(cfg: DictConfig) -> None:
    """Evaluates each run into its evaluation.json, prints a table, then raises what failed.

    Of several runs it prints a line as each ends. Runs with the same data follow each other, for
    these are read once. A run that was found in a folder is refused if it is not finished. Turns
    off argument validation of torch.distributions for the whole process.
    """
    # Imported here, so that --help and --cfg answer without these slow imports.
    import torch
    from rich.console import Console

    from vaelab import evaluation
    from vaelab.commands.many_runs import Failures
    from vaelab.commands.quiet import quieten
    from vaelab.errors import UserError
    from vaelab.runs import finished, loading
    from vaelab.runs.screen import printable

    quieten()
    torch.distributions.Distribution.set_default_validate_args(False)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    what = [*cfg.metrics] if "all" in (asked := cli.as_list(cfg.what)) else asked
    plan = evaluation.Plan(
        *(cfg.metrics, what, cfg.seed, cfg.rerun, command_lines.typed_command()),
        say=lambda text: console.print(printable(text)),
    )
    given = cli.as_list(cfg.run)
    folders = finished.find_runs(given)
    named = {loading.find_model_folder(Path(folder)) for folder in given}
    device = finished.select_device(cfg.device)
    measured, failures = {}, Failures("evaluate", len(folders))
    labels = run_labels(folders) if len(folders) > 1 else {folders[0]: ""}
    for number, (folder, label) in enumerate(labels.items(), 1):
        figures = ""
        with failures.of(folder):
            if folder not in named and (how_far := finished.unfinished_progress(folder)):
                raise UserError(f"not finished, {how_far}; run={folder} measures it as it is")
            measured[folder] = plan.evaluate_run(
                folder, device, Path(cfg.paths.data), trust=cfg.trust
            )
            figures = evaluation.main_figures(measured[folder], plan.main_estimates())
        if message := failures.messages.get(folder):
            figures = f"failed: {message}"
        if len(folders) > 1:
            line = f"{number:>{len(str(len(folders)))}}/{len(folders)}  {label}  {figures}"
            console.print(printable(line))
    if measured:
        # In the order in which they were given, not that of their data
        table = {folder: measured[folder] for folder in folders if folder in measured}
        console.print(evaluation.evaluation_table(table))
        if note := incomparable_note([*table]):
            console.print(printable(note))
    failures.raise_kept()


def run_labels(folders: Sequence[Path]) -> dict[Path, str]:
    """Returns texts of equal length by run: its path, and the settings that differ between runs.

    Runs with the same data follow each other; otherwise they are in the order of `folders`. Reads
    the configurations.
    """
    from vaelab.report import differences
    from vaelab.runs.shared_data import TRAINING_ONLY

    found = differences.differing_settings(folders)
    settings = differences.sorted_settings([*dict.fromkeys(name for row in found for name in row)])
    short = differences.short_names(settings)
    paths = [os.path.relpath(folder, common_folder(folders)) for folder in folders]
    texts, groups = [], dict[object, list[int]]()
    for i, row in enumerate(found):
        values = {short[n]: differences.parsed_value(row[n]) for n in settings if n in row}
        texts.append(" ".join(f"{n}={differences.value_text(v)}" for n, v in values.items()))
        of_data = (
            (name, value)
            for name, value in row.items()
            if name.split(".")[0] == "data" and name.split(".")[-1] not in TRAINING_ONLY
        )
        groups.setdefault(tuple(of_data), []).append(i)
    widths = max(map(len, paths)), max(map(len, texts))
    return {
        folders[i]: f"{paths[i]:<{widths[0]}}  {texts[i]:<{widths[1]}}"
        for group in groups.values()
        for i in group
    }


def incomparable_note(folders: Sequence[Path]) -> str | None:
    """Returns a line with the groups of runs whose nats compare; None for one group.

    Reads the configurations; a run whose configuration is damaged is in no group.
    """
    from vaelab.report.sweep import comparable_groups

    found = comparable_groups(folders, [{}] * len(folders), common_folder(folders))
    counts = Counter(name for name in found if name)
    if len(counts) < 2:
        return None
    groups = [f"{name} ({n} run{'s' * (n > 1)})" for name, n in counts.items()]
    return f"nats compare only within each of: {'; '.join(groups)}"


def common_folder(folders: Sequence[Path]) -> Path:
    """Returns the folder, absolute, that all runs are below."""
    return Path(os.path.commonpath([folder.absolute().parent for folder in folders]))
