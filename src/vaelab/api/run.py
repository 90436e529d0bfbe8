"""`Run`: a run folder with its model, numbers and pictures."""

import base64
import io
import os
from collections.abc import Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from torch.distributions import Distribution

from vaelab.api.composition import composed
from vaelab.api.overrides import dotted_overrides, override_value
from vaelab.commands import evaluate
from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import UserError
from vaelab.evaluation import Plan, evaluation_table
from vaelab.evaluation.record import displayed_estimates
from vaelab.runs import finished, validation
from vaelab.runs.screen import printable
from vaelab.training.json_files import read_json


class Figures(dict[str, Image.Image]):
    """Pictures by name, which a notebook shows."""

    def _repr_html_(self) -> str:
        """Called by Jupyter to show them: an HTML figure for each, with its name."""
        parts = []
        for name, image in self.items():
            file = io.BytesIO()
            image.save(file, "PNG")
            data = base64.b64encode(file.getvalue()).decode()
            shown = f'<img src="data:image/png;base64,{data}" alt="{escape(name)}">'
            parts.append(f"<figure>{shown}<figcaption>{escape(name)}</figcaption></figure>")
        return "".join(parts)


class Run:
    """A run folder: its model, data, results, evaluation and pictures.

    Its code is trusted, see `vaelab.load`: it is for runs of one's own.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: str | Path) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise UserError(f"a {type(folder).__name__} is no run folder; give its path")
        self.folder = Path(folder)
        if not finished.is_run(self.folder):
            raise UserError(f"{folder} is no run folder")

    def __fspath__(self) -> str:
        """The folder, so that a run stands for its path, as in `vaelab.load(run)`."""
        return str(self.folder)

    def __repr__(self) -> str:
        """The folder, as Python writes it."""
        return f"vaelab.Run({str(self.folder)!r})"

    @cached_property
    def model(self) -> ELBO:
        """The model of the best checkpoint, in evaluation mode; loaded on first use."""
        return self._loaded[0]

    @cached_property
    def data(self) -> Images:
        """The data module; loaded on first use."""
        return self._loaded[1]

    @cached_property
    def _loaded(self) -> tuple[ELBO, Images]:
        return finished.load_run(self.folder, trust=True)

    @property
    def results(self) -> dict[str, Any]:
        """The contents of results.json: final metrics, seed, speed; empty if not finished."""
        return read_json(self.folder / "results.json")

    def evaluate(self, *what: str | Sequence[str], **settings: Any) -> dict[str, Any]:
        """Measures the best checkpoint on the test images, as `python evaluate.py`; prints a table.

        Args:
            what: Names of metrics, such as `likelihood`, or a list of them; default: all that
                `evaluate.py` takes.
            settings: `num_samples`, `seed`, `device`, `rerun`, and settings of metrics, such as
                `metrics={"samples": {"count": 2000}}`.

        Returns:
            All estimates of the run by name: `value`, its standard error `se`, or the `reason` why
            there is none.

        Raises:
            UserError: If a metric or setting is unknown, or no metric is applicable.
        """
        if len(what) == 1 and isinstance(what[0], (list, tuple)):
            what = tuple(what[0])
        if not all(isinstance(name, str) for name in what):
            raise UserError('evaluate: give names, as in run.evaluate("likelihood", "latents")')
        words = [word for name, value in settings.items() for word in dotted_overrides(name, value)]
        if what:
            words.append(f"what={override_value('what', list(what))}")
        run = f"run={override_value('run', str(self.folder))}"
        console = Console(highlight=False, soft_wrap=True, markup=False)
        with (
            composed([run, *words], "evaluate", keywords=settings) as (cfg, _),
            torch.random.fork_rng(),
        ):
            validation.check_config(cfg, evaluate.settings_schema)
            Distribution.set_default_validate_args(False)
            try:
                plan = Plan(
                    *(cfg.metrics, list(cfg.what), cfg.seed, cfg.rerun, f"vaelab evaluate {run}"),
                    say=lambda text: console.print(printable(text)),
                )
                device = finished.select_device(cfg.device)
                record = plan.evaluate_run(self.folder, device, Path(cfg.paths.data), trust=True)
            finally:
                Distribution.set_default_validate_args(__debug__)
        console.print(evaluation_table({self.folder: record}))
        return displayed_estimates(record.content)

    def figures(self) -> Figures:
        """The pictures that the run drew at its end, by name; none if it is not finished."""
        found = Figures()
        for path in sorted((self.folder / "figures").glob("*.png")):
            with Image.open(path) as image:
                found[path.stem] = image.copy()
        return found
