"""Measure finished runs on their test images: python evaluate.py run=outputs/..."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from vaelab.commands import cli

if TYPE_CHECKING:
    from pydantic import NonNegativeInt


def settings(
    *,
    run: list[str] | str,
    what: list[str] | str,
    metrics: Any,
    sampler: Any,
    num_samples: Any,
    device: str,
    seed: NonNegativeInt,
    rerun: bool,
    paths: dict[str, str],
) -> None:
    """The settings, for the check."""


@cli.task("evaluate", settings, lists=["run", "what"])
def main(cfg: DictConfig) -> None:
    """Writes evaluation.json in each run folder and shows a table."""
    # Here and not above, so that --help and --cfg answer at once.
    from pathlib import Path

    import torch
    from rich.console import Console

    from vaelab import evaluation
    from vaelab.commands.quiet import quieten
    from vaelab.errors import UserError
    from vaelab.runs import finished

    quieten()
    torch.distributions.Distribution.set_default_validate_args(False)
    console = Console(highlight=False, soft_wrap=True)
    what = [*cfg.metrics] if "all" in (asked := cli.names(cfg.what)) else asked
    plan = evaluation.Plan(cfg.metrics, what, cfg.seed, cfg.rerun, cli.command(), console.print)
    folders = finished.under(cli.names(cfg.run))
    measured, failures = {}, []
    for folder in folders:
        try:
            measured[folder] = plan.carry_out(
                folder, finished.device(cfg.device), Path(cfg.paths.data)
            )
        except UserError as error:
            failures.append(f"{folder}: {error}" if len(folders) > 1 else str(error))
    if measured:
        console.print(evaluation.table(measured))
    if failures:
        raise UserError("\n".join(failures))
