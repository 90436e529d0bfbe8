"""A training run from its composed configuration to its results: `fit_run`."""

import os
import shlex
from math import isnan, nan
from time import monotonic

import torch
from lightning import Trainer, seed_everything

from vaelab.acceleration.compilation import compile_loss
from vaelab.commands import cli, introduction, preflight, results, resumption, stopping
from vaelab.commands.ending import read_ending
from vaelab.commands.run_folder import RunFolder
from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.evaluation import Plan
from vaelab.runs.folder import check_links
from vaelab.training.callbacks.checkpoint import Checkpoint


def fit_run(run: RunFolder) -> float:
    """Trains and tests a model, or takes up its finished run; returns the best val/elbo.

    Seeds all generators, sets an environment variable and turns off argument validation of
    torch.distributions for the whole process. Locks the run folder.
    """
    began, cfg = monotonic(), run.cfg
    check_links(run.folder, run.folder)
    command = shlex.join([*run.program, *run.overrides])
    plan = Plan(cfg.metrics, cli.as_list(cfg.evaluate), cfg.seed, cfg.rerun, command, run.say)
    if (found := results.reuse_finished_run(run, plan)) is not None:
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
        model.loss = compile_loss(model.loss)  # type: ignore[assignment,method-assign]
    elif cfg.compile:
        run.say("compile=true: not done, for torch.compile gets this objective's gradient wrong")

    preflight.check_training(cfg, plan, model, data, trainer)
    run.acquire_lock()
    # Again, for another process may have finished the run while this one waited for the lock.
    if (found := results.reuse_finished_run(run, plan)) is not None:
        return found
    with results.explain_write_error(run), run.discard_if_refused(trainer):
        ckpt, keeps_best = resumption.find_start(run, model, data)
        run.write_config(anew=ckpt is None, keeps_best=keeps_best or ckpt == run.best)
        if isinstance(trainer.checkpoint_callback, Checkpoint):
            trainer.checkpoint_callback.forgets_best = not keeps_best
        introduction.introduce(run, model, data, trainer)
        introduction.log_settings(run, trainer)
        stopping.watch.watch_processes(trainer)
        with results.explain_failure(run, model):
            trainer.fit(model, data, ckpt_path=ckpt, weights_only=True)
        ending = read_ending(cfg, trainer)
        best = run.best if run.best.exists() else None  # None: the weights as they are
        elbo = getattr(trainer.checkpoint_callback, "best_elbo", nan) if best else nan
        if isnan(elbo):  # no best checkpoint, or none that this run or an earlier start of it saved
            if "val/elbo" not in trainer.callback_metrics:  # stopped before its first validation
                trainer.validate(model, data, verbose=False)
            if "val/elbo" not in trainer.callback_metrics:
                name = type(model).__name__
                raise UserError(
                    f"{name}.validation_step logs no val/elbo, by which runs are compared"
                )
            elbo = float(trainer.callback_metrics["val/elbo"])
        (metrics,) = trainer.test(model, data, ckpt_path=best, weights_only=True, verbose=False)
        metrics = {"val/elbo": elbo, **metrics}
        seconds = monotonic() - began
        results.finish_run(run, plan, model, trainer, ending, metrics, seconds)
    return elbo
