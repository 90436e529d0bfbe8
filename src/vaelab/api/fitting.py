"""`fit`: training by one call, with the settings of `python train.py`."""

import os
import random
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import numpy as np
import torch
from torch.distributions import Distribution
from torch.utils.data import Dataset

from vaelab.api import arrays as given
from vaelab.api.composition import ARRAYS, composed
from vaelab.api.overrides import all_overrides
from vaelab.api.run import Run
from vaelab.commands import train, training
from vaelab.commands.error_messages import user_message
from vaelab.commands.quiet import quieten
from vaelab.commands.run_folder import RunFolder
from vaelab.data import Images
from vaelab.data.items import DatasetItems
from vaelab.errors import UserError
from vaelab.files.atomic import explain_write_errors, make_folder
from vaelab.runs import naming, validation
from vaelab.training.stop_signals import stop_signals


def fit(
    images: Any = None,
    labels: Any = None,
    *,
    model: str | None = None,
    like: str | Path | Run | None = None,
    folder: str | Path | None = None,
    overrides: Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Trains and tests a model, as `python train.py` does, and returns its run.

    The same call with `folder` goes on with a run that was stopped, and returns a finished one at
    once. Images and labels that are not in a file yet are kept in one in the folder of data sets,
    by their digest, so that the run can be measured later. Ctrl-C ends training in a checkpoint.
    Torch's, NumPy's and Python's random states are as before after it.

    Args:
        images: An array, tensor or list of images [N, C, H, W], [N, H, W] or [N, H, W, C], with
            `data="vectors"` of vectors [N, D], with `data="signals"` of signals [N, C, L]; a torch
            Dataset of images or of (image, label); a pandas DataFrame of vectors; a dictionary of
            arrays, such as `train_images` and `test_images`; the path of a file or folder; the name
            of a data set, such as `mnist`; or vaelab's data module. Default: those of `like`.
        labels: Classes [N] as whole numbers or names, or one-hot [N, classes].
        model: The name of a variant; `python train.py --help` lists them. Default: that of `like`,
            or `vae`.
        like: A run, or its folder, whose settings are taken over, but for those given here.
        folder: The run folder; default: a new one in `outputs`.
        overrides: Further settings as on the command line, such as `trainer.precision=bf16`.
        settings: `epochs` and `batch_size`; groups by name (`network="conv"`,
            `likelihood="gaussian"`) or with settings (`trainer={"devices": 1}`,
            `scheduler={"name": "cosine", "warmup": 100}`); settings outside groups (`seed=1`,
            `evaluate=["likelihood"]`); settings of the model (`latent_dim=8`).

    Raises:
        UserError: If data or settings are wrong.
    """
    for name, path in (("folder", folder), ("like", like)):
        if not isinstance(path, str | os.PathLike | None):
            raise UserError(f"{name}: a {type(path).__name__} is no path of a run folder")
    words = all_overrides(model, settings, overrides)
    data = next((word.removeprefix("data=") for word in words if word[:5] == "data="), None)
    kept, chosen = choose_data(images, labels, data, has_earlier=like is not None)
    words = [*chosen, *words]
    if like is not None:
        words = [f"from={naming.quote(os.fspath(like))}", *words]
    if folder is not None:
        words.append(f"hydra.run.dir={naming.quote(str(Path(folder).absolute()))}")
    with (
        warnings.catch_warnings(),
        composed(words, keywords=settings) as (cfg, hydra_cfg),
        unchanged_process(),
    ):
        quieten()
        validation.check_config(cfg, train.settings_schema)
        file = Path(cfg.data.source.path) if kept else None
        is_new_file = file is not None and given.write_kept(file, kept)
        where = Path(hydra_cfg.runtime.output_dir)
        is_new = not where.exists()
        with explain_write_errors(where):
            make_folder(where)
        run = RunFolder(cfg, hydra_cfg, ["vaelab", "train"], is_new=is_new)
        try:
            with stoppable():
                training.fit_run(run)
        except Exception as error:
            if is_new:
                with suppress(OSError):  # something is in it already
                    where.rmdir()
            told = user_message(error, "train", words) or ""
            if kept and told.endswith("needs labels, and the images have none"):
                raise UserError(f"{told}; give them, as in vaelab.fit(images, labels)") from None
            if isinstance(error, UserError) and str(error).startswith(f"{file}: "):
                if is_new_file and file:
                    file.unlink(missing_ok=True)  # nothing can be trained on it
                told = str(error).replace(f"{file}: ", "images: ", 1)
                raise UserError(told) from None
            raise
    return Run(run.path)


def choose_data(
    images: Any, labels: Any, data: str | None, has_earlier: bool
) -> tuple[given.Arrays | given.ParquetFile, list[str]]:
    """Returns what is to be kept in a file of images that are in none, and overrides for the data.

    Args:
        images: See `fit`.
        labels: See `fit`.
        data: The choice of data that was given, or None.
        has_earlier: Whether the settings of an earlier run are taken over.

    Raises:
        UserError: If they are no images, or contradict labels or the choice.
    """
    if images is None:
        if not has_earlier:
            raise UserError('images: give them, as in vaelab.fit(images) or vaelab.fit("mnist")')
        given.refuse_labels(labels, "the data of the earlier run instead")
        return {}, []
    if isinstance(images, (str, Path)):
        given.refuse_labels(labels, "the file or data set")
        chosen, *place = given.named_data_overrides(images)
        given.check_choice(data, bool(place), repr(str(images)))
        return {}, [*([] if data else [chosen]), *place]
    kept: given.Arrays | given.ParquetFile
    if isinstance(images, Images):
        given.refuse_labels(labels, "the data module")
        given.check_choice(data, False, "the data module")
        kept, own = given.module_arrays(images), given.module_settings(images)
    elif isinstance(images, Dataset):
        given.refuse_labels(labels, "the data set")
        given.check_choice(data, False, "the data set")
        splits = DatasetItems(images)()
        kept, own = given.split_arrays(splits), [ARRAYS, given.range_override(splits)]
    elif given.is_table(images):
        given.check_choice(data, data == "vectors", "a DataFrame")
        kept, own = given.table_file(images, labels)
    else:
        given.check_choice(data, data in ("arrays", *given.NUMBERS), "an array")
        kept, own = given.collect_arrays(images, labels, data), []
        if data is None:
            given.check_pictures(kept)
            own = [ARRAYS]
        if data not in given.NUMBERS:
            own += given.float_range(kept) or ["data.source.range=null"] * has_earlier
    return kept, [*own, f"data.source.path=${{paths.data}}/{given.file_name(kept)}"]


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Context manager that restores random states, and turns torch.distributions' checks on."""
    states = (random.getstate(), np.random.get_state())  # noqa: NPY002, it is the one that is seeded
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            Distribution.set_default_validate_args(__debug__)


@contextmanager
def stoppable() -> Iterator[None]:
    """Context manager: Ctrl-C in training is a KeyboardInterrupt after a checkpoint of that step.

    A second Ctrl-C, and one outside of training, is a KeyboardInterrupt at once. Does nothing in
    other threads than the main one.
    """
    if current_thread() is not main_thread():
        yield
        return

    def note(number: int, _: Any) -> None:
        """Notes the signal for the end of the step, if training looks for it."""
        if not stop_signals.deferred or stop_signals.noted:
            raise KeyboardInterrupt
        stop_signals.noted = number

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    except SystemExit as error:  # Lightning's way to stop
        raise KeyboardInterrupt from error
    finally:
        stop_signals.deferred, stop_signals.noted = False, 0
        signal.signal(signal.SIGINT, before)
