"""Which numbers to measure of a run, and measuring those that are not there yet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_method, instantiate
from omegaconf import OmegaConf

from vaelab.data import Images
from vaelab.elbo import ELBO
from vaelab.errors import NotApplicable, UserError, nearest
from vaelab.evaluation.record import Record
from vaelab.evaluation.subject import Subject
from vaelab.randomness import stream
from vaelab.runs import finished


@dataclass(frozen=True)
class Plan:
    """What to measure of any number of runs.

    Attributes:
        metrics: Configurations of the functions in this package, by name.
        what: Names of those to measure.
        seed: Of all that is drawn.
        rerun: Whether to measure again what is on record.
        command: The command line, to be kept beside the numbers.
        say: Tells the user, in one line.
    """

    metrics: Mapping[str, Any]
    what: Sequence[str]
    seed: int
    rerun: bool
    command: str
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        for name in self.what:
            if name not in self.metrics:
                raise UserError(f"{name}: there is no such metric; {nearest(name, self.metrics)}")

    def check(self, model: ELBO, data: Images) -> None:
        """Raises UserError if nothing asked for will make sense for a model and data."""
        targets = {name: get_method(self.metrics[name]["_target_"]) for name in self.what}
        lacks = {n: t.lack(model, data) for n, t in targets.items() if hasattr(t, "lack")}
        self.refuse({name: reason for name, reason in lacks.items() if reason})

    def refuse(self, absent: Mapping[str, str]) -> None:
        """Raises UserError if that is all there was to measure."""
        if absent and len(absent) == len(self.what):
            raise UserError("; ".join(f"{name}: {reason}" for name, reason in absent.items()))

    def carry_out(self, folder: Path, device: torch.device, cache: Path) -> Record:
        """The record of a run, with everything that was to be measured and can be.

        Raises:
            UserError: If the run cannot be loaded, or nothing asked for makes sense for it.
        """
        model, data = finished.load(folder)
        if how_far := finished.unfinished(folder):
            self.say(f"{folder}: not finished, {how_far}")
        data.device = device
        subject = Subject(model.to(device), data, cache, self.seed)
        record = Record(folder, getattr(model, "step", 0))
        absent, failed = {}, []
        for name in self.what:
            settings = plain(self.metrics[name]) | {"seed": self.seed}
            if not self.rerun and record.has(name, settings):
                continue
            torch.manual_seed(stream(f"evaluate {name}", self.seed))
            try:
                results = instantiate(self.metrics[name], _convert_="all")(subject)
            except NotApplicable as error:
                absent[name] = str(error)
                continue
            except UserError as error:
                failed.append(f"{name}: {error}")
                continue
            record.add(name, settings, results, self.command)
        self.refuse(absent)
        for name, reason in absent.items():
            self.say(f"{folder}: {name} left out: {reason}")
        for reason, names in record.reasons().items():
            self.say(f"{folder}: {', '.join(names)} n/a: {reason}")
        if failed:
            raise UserError("; ".join(failed))
        return record


def plain(metric: Any) -> dict[str, Any]:
    """The settings of a metric, as plain values."""
    resolved: Any = (
        OmegaConf.to_container(metric, resolve=True) if OmegaConf.is_config(metric) else metric
    )
    return {name: value for name, value in resolved.items() if not name.startswith("_")}
