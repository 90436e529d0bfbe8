"""Fit one model and keep what came of it: python train.py model=beta_vae model.beta=4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig

from vaelab.commands import cli
from vaelab.commands.cli import Node

if TYPE_CHECKING:
    from pydantic import NonNegativeInt


def settings_schema(
    *,
    model: Node,
    data: Node,
    annealing: Node | None,
    early_stopping: Node | None,
    ema: Node | None,
    callbacks: dict[str, Node | None],
    trainer: Node,
    logger: Node | list[Node] | bool | None,
    paths: dict[str, str],
    seed: NonNegativeInt,
    ckpt: str | None,
    rerun: bool,
    evaluate: list[str] | str,
    metrics: dict[str, Node],
    precision: Literal[32, "bf16"],
    compile: bool,  # noqa: A002
) -> None:
    """Declares the settings of `train` and their types, for validation; is never called."""


@cli.task("train", settings_schema, ends_on_signals=True)
def main(cfg: DictConfig) -> float:
    """Trains and tests a model, or takes up its finished run; returns the best val/elbo.

    Sets logs and warnings of the whole process. See `vaelab.commands.training`.
    """
    # Imported here, so that --help and --cfg answer without these slow imports.
    from vaelab.commands import stopping, training
    from vaelab.commands.quiet import quieten
    from vaelab.commands.run_folder import RunFolder

    quieten()
    run = RunFolder.of_command(cfg)
    stopping.watch.command = run.continuing_command
    return training.fit_run(run)
