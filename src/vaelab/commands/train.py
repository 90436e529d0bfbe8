"""Fit one model and keep what came of it: python train.py model=beta_vae model.beta=4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig

from vaelab.commands import cli

if TYPE_CHECKING:
    from pydantic import NonNegativeInt


def settings(
    *,
    model: Any,
    data: Any,
    annealing: Any,
    callbacks: Any,
    trainer: Any,
    logger: Any,
    paths: dict[str, str],
    seed: NonNegativeInt,
    ckpt: str | None,
    rerun: bool,
    evaluate: list[str] | str,
    metrics: Any,
    precision: Literal[32, "bf16"],
    compile: bool,  # noqa: A002
) -> None:
    """The top-level settings, for the check."""


@cli.task("train", settings)
def main(cfg: DictConfig) -> float:
    """Trains, tests the best checkpoint, and returns its ELBO on the validation images."""
    # Here and not above, so that --help and --cfg answer at once.
    import os
    import shlex
    from time import monotonic

    import torch
    from lightning import Trainer, seed_everything

    from vaelab.acceleration.compilation import compiled
    from vaelab.commands import introduction, preflight, results
    from vaelab.commands.quiet import quieten
    from vaelab.commands.run_folder import RunFolder
    from vaelab.data import Images
    from vaelab.elbo import ELBO
    from vaelab.evaluation import Plan

    began = monotonic()
    quieten()
    run = RunFolder(cfg)
    command = shlex.join([*cli.program(), *run.overrides])
    plan = Plan(cfg.metrics, cli.names(cfg.evaluate), cfg.seed, cfg.rerun, command, run.say)
    if (found := results.earlier(run, plan)) is not None:
        return found
    # Lightning sets this to 1, and then every optimizer step looks for a driver's library on disk.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
    seed_everything(cfg.seed, verbose=False)
    torch.distributions.Distribution.set_default_validate_args(False)

    data = preflight.instantiate_as(Images, "data", cfg.data)
    model = preflight.instantiate_as(ELBO, "model", cfg.model, **data.shapes)
    callbacks = preflight.instantiate_callbacks(cfg.callbacks)
    trainer = preflight.instantiate_as(Trainer, "trainer", cfg.trainer, callbacks=callbacks)
    if cfg.compile and model.can_compile:
        model.loss = compiled(model.loss)  # type: ignore[assignment,method-assign]
    elif cfg.compile:
        run.say("compile=true: not done, for torch.compile gets this objective's gradient wrong")

    preflight.check(cfg, plan, model, data, trainer)
    run.occupy()
    if (found := results.earlier(run, plan)) is not None:  # of a start that was at work until now
        return found
    ckpt = run.checkpoint_to_resume(model)
    run.record()
    introduction.introduce(run, model, data, trainer)
    introduction.log_settings(run, trainer)
    with results.explained_end(run, model):
        trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
    if "val/elbo" not in trainer.callback_metrics:  # stopped before its first validation
        trainer.validate(model, data, verbose=False)
    best = run.best if run.best.exists() else None  # None: the weights as they are
    last = float(trainer.callback_metrics["val/elbo"])
    elbo = getattr(trainer.checkpoint_callback, "best_elbo", last) if best else last
    (metrics,) = trainer.test(model, data, ckpt_path=best, weights_only=True, verbose=False)
    metrics = {"val/elbo": elbo, **metrics}
    results.finish(run, plan, model, trainer, metrics, monotonic() - began)
    return elbo
