"""Measure finished runs on their test images: python evaluate.py run=outputs/..."""

from __future__ import annotations

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

    Turns off argument validation of torch.distributions for the whole process.
    """
    # Imported here, so that --help and --cfg answer without these slow imports.
    from pathlib import Path

    import torch
    from rich.console import Console

    from vaelab import evaluation
    from vaelab.commands.quiet import quieten
    from vaelab.errors import UserError
    from vaelab.runs import finished
    from vaelab.runs.screen import printable

    quieten()
    torch.distributions.Distribution.set_default_validate_args(False)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    what = [*cfg.metrics] if "all" in (asked := cli.as_list(cfg.what)) else asked
    plan = evaluation.Plan(
        *(cfg.metrics, what, cfg.seed, cfg.rerun, command_lines.typed_command()),
        say=lambda text: console.print(printable(text)),
    )
    folders = finished.find_runs(cli.as_list(cfg.run))
    device = finished.select_device(cfg.device)
    measured, failures = {}, []
    for folder in folders:
        try:
            measured[folder] = plan.evaluate_run(
                folder, device, Path(cfg.paths.data), trust=cfg.trust
            )
        except UserError as error:
            failures.append(f"{folder}: {error}" if len(folders) > 1 else str(error))
    if measured:
        console.print(evaluation.evaluation_table(measured))
    if failures:
        raise UserError("\n".join(failures))
