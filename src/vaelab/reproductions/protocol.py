"""`Protocol`: a published experiment as command lines of `train`, with the published figures."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vaelab.errors import UserError, spelling_hint
from vaelab.runs import naming

Better = Literal["lower", "higher", "equal"]
Words = Sequence[str]
"""Settings as on the command line of `train`, `name=value` each; later ones count."""
Seeds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
RUN_NAME = re.compile(r"[a-z0-9_]+")
MACHINE = (
    *("trainer.accelerator", "trainer.devices", "trainer.strategy", "compile", "hydra"),
    *("paths", "logger", "rerun", "data.in_memory", "callbacks.progress", "callbacks.board"),
)
"""Settings of where and how a run is made, which leave its figures as they are but for rounding."""


class Strict(BaseModel):
    """A pydantic model that refuses unknown names and does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(Strict):
    """A published number, and what it is compared with.

    Attributes:
        of: The run that it is of.
        metric: Its name in the run's `evaluation.json` or `results.json`.
        minus: A run whose metric is subtracted; default: none.
        minus_metric: The metric that is subtracted (default: `metric`), of `minus` or else of `of`.
        published: The figure in the paper, or a bound that holds by mathematics.
        source: Where it stands: table, page, or how it is known.
        tolerance: How far ours may be on the worse side; with `equal`, on either side.
        better: Which side is no gap: lower, higher, or equal for neither.
        short: The worst figure of the short form that passes, with `equal` the largest gap;
            default: not compared in that form.
        why: Why ours is not as good, where it was measured and is not.
    """

    of: str
    metric: str
    minus: str | None = None
    minus_metric: str | None = None
    published: float
    source: str
    tolerance: Annotated[float, Field(ge=0)]
    better: Better = "lower"
    short: float | None = None
    why: str | None = None

    @property
    def name(self) -> str:
        """The figure in words, `nll` or `nll of vae - nll`."""
        if self.minus is None and self.minus_metric is None:
            return self.metric
        other = self.minus_metric or self.metric
        return f"{self.metric} - {other}{f' of {self.minus}' if self.minus else ''}"

    @property
    def runs(self) -> set[str]:
        """The runs that it needs."""
        return {self.of, self.minus or self.of}


class Short(Strict):
    """The short form of a protocol, for two processor cores and an hour.

    Attributes:
        settings: Settings after those of the whole protocol.
        seeds: Its seeds; default: the first of the whole protocol alone.
    """

    settings: Words
    seeds: Seeds | None = None


class Protocol(Strict):
    """A published experiment: runs, seeds, figures, and a short form.

    Attributes:
        paper: Authors, year, title and where to find it.
        about: What is compared, and where ours is not as published.
        settings: Settings of all runs.
        runs: Settings of each run by its name, after those of all.
        seeds: The seed of each repetition.
        figures: What was published.
        short: The short form.
        plane: Whether rate against distortion of the runs is drawn.
    """

    paper: str
    about: str
    settings: Words
    runs: Annotated[dict[str, Words], Field(min_length=1)]
    seeds: Seeds
    figures: Annotated[list[Figure], Field(min_length=1)]
    short: Short
    plane: bool = False

    @model_validator(mode="after")
    def check_names(self) -> "Protocol":
        """Called by pydantic: raises ValueError for a figure of no run, or no name or setting."""
        of_runs = [(f"runs.{name}", words) for name, words in self.runs.items()]
        settings = [("settings", self.settings), ("short.settings", self.short.settings)]
        for where, words in (*settings, *of_runs):
            if wrong := [word for word in words if not re.match("[^=]+=", word)]:
                raise ValueError(f"{where}: {wrong[0]} is no name=value")
        for name in self.runs:
            if not RUN_NAME.fullmatch(name):
                raise ValueError(f"runs.{name}: small letters, digits and _ make a name")
        for figure in self.figures:
            if unknown := sorted(figure.runs - self.runs.keys()):
                raise ValueError(f"figures: there is no run {unknown[0]}")
        return self

    @property
    def title(self) -> str:
        """The paper without its authors, year and address, which the protocol's name stands for."""
        return re.sub(r"^.*?\b\d{4}, |;.*| \([^)]*\)", "", self.paper)

    def repetitions(self, is_short: bool, further: Words = ()) -> list[int]:
        """Returns the seeds of the form; with a further `seed=5` that one alone.

        Raises:
            UserError: If the further seed is no whole number.
        """
        seed = settings_by_name(further).get("seed")
        if seed is None:
            return (self.short.seeds or self.seeds[:1]) if is_short else self.seeds
        if not re.fullmatch(r"[0-9]+", seed):
            raise UserError(f"seed={seed}: is one whole number, in place of the protocol's seeds")
        return [int(seed)]

    def overrides(
        self, run: str, is_short: bool, further: Words = (), seed: int | None = None
    ) -> Words:
        """Returns the command line of one repetition of a run, each setting once.

        Args:
            run: The name of the run.
            is_short: Whether in the short form.
            further: Settings after all others.
            seed: The seed of the repetition; None to leave it out.
        """
        words = [*self.settings, *self.runs[run], *(self.short.settings if is_short else [])]
        words += [*([] if seed is None else [f"seed={seed}"]), *further]
        settings = dict(word.split("=", 1) for word in words)
        return [f"{name}={value}" for name, value in settings.items()]


def protocol_names(folder: Path) -> list[str]:
    """Returns the names of the protocols in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_protocol(folder: Path, name: str) -> Protocol:
    """Reads a protocol by its name.

    Raises:
        UserError: If there is none of this name, or its file holds none.
    """
    path = folder / f"{name}.yaml"
    names = protocol_names(folder)
    if name not in names:
        raise UserError(f"{name}: there is no such reproduction; {spelling_hint(name, names)}")
    try:
        return Protocol.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: no YAML") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{place}." for place in first["loc"])[:-1]
        raise UserError(f"{path}: {f'{where}: ' * bool(where)}{first['msg']}") from error


def settings_by_name(words: Words) -> dict[str, str]:
    """Returns the values of settings by name, without `+`; of a setting given twice the last."""
    return {naming.setting_name(word): word.partition("=")[2] for word in words}


def further_settings(words: Words) -> dict[str, str]:
    """Returns the values of settings by name, without those of `MACHINE`.

    A figure of a run with such settings, beside those of its protocol, is not the protocol's.
    """
    return {
        name: value
        for name, value in settings_by_name(words).items()
        if not any(name == each or name.startswith(f"{each}.") for each in MACHINE)
    }


def split_name(name: str) -> tuple[str, str | None]:
    """Splits `burda2016/iwae_k5` into protocol and run; the run is None without a slash."""
    protocol, slash, run = name.partition("/")
    return protocol, run if slash else None


def chosen_runs(protocol: Protocol, name: str, run: str | None) -> Sequence[str]:
    """Returns the names of the runs to make, by default all; UserError if there is no such run."""
    if run is None:
        return [*protocol.runs]
    if run not in protocol.runs:
        raise UserError(f"{name}/{run}: there is no such run; {spelling_hint(run, protocol.runs)}")
    return [run]
