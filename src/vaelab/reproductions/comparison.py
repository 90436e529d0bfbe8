"""Comparison of reproduced figures with the published ones."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaelab.reproductions.protocol import Figure, Protocol, protocol_names, read_protocol
from vaelab.reproductions.records import FORMS, Form, read_record


@dataclass(frozen=True)
class Comparison:
    """A published figure beside ours.

    Attributes:
        protocol: The name of the protocol.
        form: Whether of the whole protocol or of its short form.
        figure: The published figure.
        ours: The mean over seeds.
        error: Standard error of `ours`: over seeds if there are several, else over test images.
        seeds: The number of seeds.
        seconds: Time of all runs that it needs.
        command: The commands that its records were made by, which may have further settings.
        is_current: Whether the protocol still has the settings that they were made with.
    """

    protocol: str
    form: Form
    figure: Figure
    ours: float
    error: float | None
    seeds: int
    seconds: float
    command: str
    is_current: bool

    @property
    def gap(self) -> float:
        """Ours minus the published figure."""
        return self.ours - self.figure.published

    @property
    def is_reached(self) -> bool:
        """Whether ours is within the tolerance, or in the short form not worse than its gate."""
        figure, gate = self.figure, self.figure.short if self.form == "short" else None
        if figure.better == "equal":
            return abs(self.gap) <= (figure.tolerance if gate is None else gate)
        sign = 1 if figure.better == "lower" else -1
        worst = figure.published + sign * figure.tolerance if gate is None else gate
        return sign * (self.ours - worst) <= 0


def compare_protocol(
    kept: Path, name: str, protocol: Protocol, form: Form, runs: Iterable[str] | None = None
) -> list[Comparison]:
    """Returns the comparisons of a protocol's figures whose runs are on record.

    Args:
        kept: The folder of the records.
        name: The name of the protocol.
        protocol: The protocol.
        form: Figures of the whole protocol, or of its short form those that have a gate.
        runs: Only figures that need one of these; default: all.
    """
    records = {run: read_record(kept, name, run, form) for run in protocol.runs}
    found = []
    for figure in protocol.figures:
        wanted = runs is None or figure.runs & {*runs}
        gated = form == "full" or figure.short is not None
        if wanted and gated and all(records[run] for run in figure.runs):
            current = [is_of_protocol(records[run], protocol, run, form) for run in figure.runs]
            found.append(compare(name, form, figure, records, all(current)))
    return found


def is_of_protocol(record: Mapping[str, Any], protocol: Protocol, run: str, form: Form) -> bool:
    """Returns whether a run on record was made with the settings that the protocol has now."""
    now = protocol.overrides(run, form == "short", record.get("further", ()))
    return bool(record.get("settings") == now)


def compare_all(kept: Path, protocols: Path) -> list[Comparison]:
    """Returns the comparisons of all records in a folder, by protocol, the full form first.

    Args:
        kept: The folder of the records.
        protocols: The folder of the protocols.
    """
    return [
        row
        for name in protocol_names(protocols)
        for form in FORMS
        for row in compare_protocol(kept, name, read_protocol(protocols, name), form)
    ]


def compare(
    name: str,
    form: Form,
    figure: Figure,
    records: Mapping[str, dict[str, Any]],
    is_current: bool,
) -> Comparison:
    """Returns the comparison of one figure with the records of its runs."""
    own = records[figure.of]["seeds"]
    other = records[figure.minus or figure.of]["seeds"]
    seeds = [seed for seed in own if seed in other]
    values, errors = [], []
    for seed in seeds:
        entry = own[seed]["metrics"].get(figure.metric, {})
        value, error = entry.get("value"), entry.get("se")
        if figure.minus or figure.minus_metric:
            less = other[seed]["metrics"].get(figure.minus_metric or figure.metric, {})
            value = None if None in (value, less.get("value")) else value - less["value"]
            error = None
        values.append(math.nan if value is None else float(value))
        errors.append(error)
    error = errors[0] if errors else None
    if len(values) > 1:
        error = statistics.stdev(values) / math.sqrt(len(values))
    seconds = sum(
        found["seconds"] for run in figure.runs for found in records[run]["seeds"].values()
    )
    needed = dict.fromkeys((figure.of, figure.minus or figure.of))
    command = "; ".join(records[run]["command"] for run in needed)
    ours = statistics.fmean(values) if values else math.nan
    return Comparison(name, form, figure, ours, error, len(values), seconds, command, is_current)
