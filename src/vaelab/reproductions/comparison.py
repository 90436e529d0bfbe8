"""Comparison of reproduced figures with the published ones."""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vaelab.errors import DamagedFileError
from vaelab.report.directions import BETTER
from vaelab.report.units import UNITS, plain_name, unit
from vaelab.reproductions.protocol import (
    Figure,
    Protocol,
    further_settings,
    protocol_names,
    read_protocol,
)
from vaelab.reproductions.records import FORMS, Form, read_record, read_record_or_nothing
from vaelab.training.json_files import number_or_none


@dataclass(frozen=True)
class Comparison:
    """A published figure beside ours.

    Attributes:
        protocol: The name of the protocol.
        form: Whether of the whole protocol or of its short form.
        figure: The published figure.
        ours: The mean over seeds; NaN if the metric was not measured, or is none of one number.
        error: Standard error of `ours`: over seeds if there are several, else over test images.
        seeds: The number of seeds.
        seconds: Time of all runs that it needs.
        command: The commands that its records were made by, which may have further settings.
        is_current: Whether the protocol still has the settings that they were made with.
        has_further: Whether they were made with settings beside the protocol's, so that it is not
            the protocol's figure.
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
    has_further: bool

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

    Skips differences of two runs that were not made with the same further settings, and records
    that are damaged, which `damaged_records` names.

    Args:
        kept: The folder of the records.
        name: The name of the protocol.
        protocol: The protocol.
        form: Figures of the whole protocol, or of its short form those that have a gate.
        runs: Only figures that need one of these; default: all.
    """
    records = {run: read_record_or_nothing(kept, name, run, form) for run in protocol.runs}
    found = []
    for figure in chosen_figures(protocol, form, runs):
        further = [further_settings(records[run].get("further", ())) for run in figure.runs]
        if all(records[run] for run in figure.runs) and all(each == further[0] for each in further):
            current = [is_of_protocol(records[run], protocol, run, form) for run in figure.runs]
            found.append(compare(name, form, figure, records, all(current)))
    return found


def chosen_figures(
    protocol: Protocol, form: Form, runs: Iterable[str] | None = None
) -> list[Figure]:
    """Returns the figures of a form, in the short form those with a gate, that need given runs."""
    return [
        figure
        for figure in protocol.figures
        if (runs is None or figure.runs & {*runs}) and (form == "full" or figure.short is not None)
    ]


def nothing_text(name: str, protocol: Protocol, form: Form, runs: Iterable[str]) -> str:
    """Returns a line on why runs that are on record have no comparison."""
    made = list(runs)
    figures = chosen_figures(protocol, form, made)
    needed = {run for figure in figures for run in figure.runs} - {*made}
    others = [run for run in protocol.runs if run in needed]
    if not figures:
        whole = "whole" if form == "full" else "short"
        return f"nothing to compare: no figure of the {whole} form is of {', '.join(made)}"
    return (
        f"nothing to compare yet: each figure of {', '.join(made)} needs another run, of "
        f"{', '.join(f'{name}/{run}' for run in others)}, with the same further settings if any"
    )


def damaged_records(kept: Path, protocols: Path, names: Iterable[str] | None = None) -> list[str]:
    """Returns a line for each damaged record, which says how to write it anew.

    Args:
        kept: The folder of the records.
        protocols: The folder of the protocols.
        names: Their names; default: all.
    """
    found = []
    for name in protocol_names(protocols) if names is None else names:
        for run in read_protocol(protocols, name).runs:
            for form in FORMS:
                try:
                    read_record(kept, name, run, form)
                except DamagedFileError as error:
                    found.append(str(error))
    return found


def unknown_metrics(protocol: Protocol) -> list[str]:
    """Returns a line for each metric of a figure that vaelab has not, with a similar one if any.

    An own evaluation may measure it; else it is misspelt, which would show after the training. What
    stands in front of a metric's name, `val/` or `test/`, is not looked at.
    """
    known = UNITS.keys() | BETTER.keys()
    names = {figure.metric for figure in protocol.figures}
    names |= {figure.minus_metric for figure in protocol.figures if figure.minus_metric}
    found = []
    for name in sorted(names):
        if unit(name) or plain_name(name) in known:
            continue
        part, slash, last = name.rpartition("/")
        close = get_close_matches(last, known, n=1)
        hint = f"; did you mean {part}{slash}{close[0]}?" if close else ""
        found.append(f"{name}: vaelab has no such metric{hint}")
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
        value, error = number_or_none(entry.get("value")), number_or_none(entry.get("se"))
        if figure.minus or figure.minus_metric:
            less = other[seed]["metrics"].get(figure.minus_metric or figure.metric, {})
            subtracted = number_or_none(less.get("value"))
            value = None if value is None or subtracted is None else value - subtracted
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
    return Comparison(
        protocol=name,
        form=form,
        figure=figure,
        ours=ours,
        error=error,
        seeds=len(values),
        seconds=seconds,
        command=command,
        is_current=is_current,
        has_further=bool(further_settings(records[figure.of].get("further", ()))),
    )
