"""The checkpoint that a training goes on from, and what is said of checkpoints that are left."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_warn
from omegaconf import DictConfig

from vaelab.commands.earlier_settings import settings_today
from vaelab.commands.run_folder import RunFolder
from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import DamagedFileError, UserError
from vaelab.runs import resume
from vaelab.runs.folder import COMPOSED, read_plain_config
from vaelab.runs.screen import shell_path
from vaelab.runs.targets import implied_names
from vaelab.training.callbacks.checkpoint import checkpoints_beside, is_whole, load_checkpoint
from vaelab.training.callbacks.ema import KEY as TRAINED
from vaelab.training.checkpoint_format import KEY, check_architecture


class Start(NamedTuple):
    """The checkpoint to go on from, and whether `best.ckpt` in the folder is the best of its run.

    It is not if the checkpoint is from elsewhere, or the best is chosen by another loss now.
    """

    checkpoint: Path | None
    keeps_best: bool = True


def find_start(run: RunFolder, model: ELBO, data: Images) -> Start:
    """Returns the checkpoint to go on from, by `ckpt` or as left here; with None to start anew.

    Without `ckpt` it is the last of an earlier start in this folder, unless rerun=true. Says so
    then; with `ckpt` warns of settings that make its images or its loss others.

    Raises:
        UserError: If the checkpoint does not exist, is of another architecture, or already at
            the requested length; or if the folder holds a run with other settings.
    """
    ckpt = run.cfg.ckpt
    if ckpt is None:
        if run.cfg.rerun or not run.last.exists():
            if run.best.exists() and not run.cfg.rerun:
                run.say(f"{run.path} has no last.ckpt; ckpt=best would go on from best.ckpt")
            return Start(None)
        run.check_same_run()
        state = load_to_resume(run, run.last)
        check_architecture(model.state_dict(), state["state_dict"])
        run.say(f"going on from step {state['global_step']:,} of {run.path}")
        return Start(run.last)
    path = Path(ckpt)
    if ckpt in ("last", "best"):
        path = run.last.with_name(f"{ckpt}.ckpt")
        if not path.exists():
            raise UserError(
                f"ckpt={ckpt}: there is no {path.name} in {run.path}; name the run that goes "
                "on with hydra.run.dir=FOLDER, or the file with ckpt=PATH"
            )
    if path.is_dir():
        path = path / "checkpoints" / "last.ckpt"
    if path.exists():
        own = (each for each in (run.last, run.best) if each.exists())
        path = next((each for each in own if each.samefile(path)), path)
    is_here = path.resolve().is_relative_to(run.folder.resolve())
    if run.cfg.rerun and is_here:
        raise UserError(
            f"ckpt={ckpt} goes on with the run in {run.path}, and rerun=true starts it over; "
            "give one of them"
        )
    state = load_to_resume(run, path)
    check_architecture(model.state_dict(), state["state_dict"])
    is_same = not warn_of_other_settings(run.cfg, path)
    is_same &= model.data_warning(data, state[KEY]) is None  # of which it warns later
    if TRAINED in state and run.cfg.ema is None:
        rank_zero_warn(
            f"{path} has averaged weights, and with ema=none training goes on from the averages; "
            "ema=default goes on with both"
        )
    done = state["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    for name, count in (("max_epochs", done), ("max_steps", state["global_step"])):
        limit = run.cfg.trainer[name]
        if limit == count and path == run.last and not run.results.exists():
            continue  # it was stopped after its last step: the test is to be done
        if 0 < limit <= count:
            raise UserError(
                f"{path} is of {count:,} {name[4:]} already; "
                f"give a larger trainer.{name} than {limit:,}"
            )
    return Start(path, is_here and is_same)


def load_to_resume(run: RunFolder, path: Path) -> dict[str, Any]:
    """Loads a checkpoint; if it is damaged, the error says what else the run can go on from."""
    try:
        return load_checkpoint(path)
    except DamagedFileError as error:
        other = next(filter(is_whole, checkpoints_beside(path)), None)
        instead = f"ckpt={shell_path(other)} goes on from that, " if other else ""
        if path.parent == run.last.parent and other:
            instead = f"ckpt={other.stem} goes on from it, "
        raise DamagedFileError(f"{error}; {instead}rerun=true starts over") from error


def warn_of_other_settings(cfg: DictConfig, checkpoint: Path) -> list[str]:
    """Warns if a checkpoint's run divided its images otherwise, or had a loss of another scale.

    Skips a checkpoint outside runs. Warns, too, if the configuration of its run is damaged.

    Returns:
        The settings that give the loss another scale, as `name=value`.

    Raises:
        UserError: If the weights would stand for another model, by a setting that is newer than
            the run, see `targets.IMPLIED`.
    """
    earlier = checkpoint.absolute().parent.parent
    if not (earlier / COMPOSED).exists():
        return []
    try:
        found = read_plain_config(earlier)
    except DamagedFileError as error:
        rank_zero_warn(f"{error}; that it divides the images in the same way is not known")
        return []
    present = resume.plain_settings(cfg)

    def changed_settings(chosen: Callable[[Mapping[str, Any]], dict[str, object]]) -> list[str]:
        """Returns the chosen settings that are other than those of the earlier run."""
        before, now = chosen(found), chosen(present)
        before |= resume.new_settings(found, now, lambda: chosen(settings_today(earlier)))
        other = [name for name in (*now, *before) if now.get(name) != before.get(name)]
        for name in other:
            if name in implied:
                raise UserError(
                    f"{checkpoint} is of {name}={before.get(name, 'nothing')}, not "
                    f"{now.get(name, 'nothing')}; "
                    f"{resume.earlier_words(before, now, present)} goes on with it"
                )
        return [f"{name}={now.get(name, 'null')}" for name in dict.fromkeys(other)]

    implied = {*implied_names(present)}
    if changed := changed_settings(resume.split_settings):
        rank_zero_warn(
            f"{' '.join(changed)} divides the images in another way than the checkpoint's run; "
            "what is tested may have been trained on"
        )
    if changed := changed_settings(resume.loss_settings):
        rank_zero_warn(
            f"{' '.join(changed)} makes the loss another than in the checkpoint's run; the best "
            "checkpoint is chosen anew"
        )
    return changed


def checkpoint_note(run: RunFolder) -> str:
    """Returns words on the checkpoint to go on from: its name and step, or that there is none.

    It is the last, or the best if the last cannot be loaded.
    """
    for path in (run.last, run.best):
        with suppress(UserError):
            step = load_checkpoint(path)["global_step"]
            return f"the checkpoint of step {step:,} is kept, {path.name}"
    return "there is no checkpoint yet"
