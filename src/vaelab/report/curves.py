"""Training curves, straight from the files that loggers write.

TensorBoard's own reader takes a second for a run; this one reads the scalars and steps over
pictures.
"""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vaelab.report.sweep import Sweep

LENGTH = struct.Struct("<Q")
LARGEST = 4096
"""Bytes of a record that may hold a scalar, which takes some 50; a picture takes thousands."""
APART = ("hp/", "evaluation/", "test/", "epoch")
"""Tags that are single numbers, or no metric."""
FIRST = ("val/elbo", "val/rate", "val/distortion", "val/active_units", "val/loss", "train/loss")

Curves = dict[str, pd.Series]
"""By tag: values with optimizer steps, in rising order, as their index."""


def of_jobs(sweep: Sweep) -> dict[int, Curves]:
    """The curves of those jobs that have any, by their row in the table."""
    found = {i: read(sweep.folder / path) for i, path in enumerate(sweep.jobs["folder"])}
    return {i: curves for i, curves in found.items() if curves}


def read(run: Path) -> Curves:
    """The curves of a run folder; none where nothing was logged.

    A run that was resumed has several event files; for the same step the later one counts.
    """
    points: dict[str, dict[int, float]] = {}
    for path in sorted(run.glob("events.out.tfevents.*"), key=age):
        for tag, step, value in scalars(path):
            points.setdefault(tag, {})[step] = value
    curves = {tag: pd.Series(found).sort_index() for tag, found in points.items()}
    return curves or from_csv(run / "metrics.csv")


def age(path: Path) -> tuple[int, ...]:
    """A key to sort event files by: the second and the number in `events.out.tfevents.S.host.N`."""
    return tuple(int(part) for part in path.name.split(".")[3:] if part.isdecimal())


def scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """(tag, step, value) of an event file, in the order in which they were written."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    for record in records(path):
        try:
            event = Event.FromString(record)
        except DecodeError:
            return
        for value in event.summary.value:
            if value.HasField("simple_value") and not value.tag.startswith(APART):
                yield value.tag, event.step, value.simple_value


def records(path: Path) -> Iterator[bytes]:
    """The small records of a file, up to its end or to where it is being written.

    A record is its length (8 bytes), a checksum (4), the bytes, and a checksum (4).
    """
    content = path.read_bytes()
    start = 0
    while start + 12 <= len(content):
        (length,) = LENGTH.unpack_from(content, start)
        end = start + 12 + length
        if end + 4 > len(content):
            return
        if length <= LARGEST:
            yield content[start + 12 : end]
        start = end + 4


def from_csv(path: Path) -> Curves:
    """The same from what Lightning's CSV logger writes."""
    if not path.exists() or not path.stat().st_size:
        return {}
    table = pd.read_csv(path)
    if "step" not in table:
        return {}
    known = table.set_index("step").select_dtypes("number")
    tags = [tag for tag in known if not tag.startswith(APART)]
    last = {tag: known[tag].dropna() for tag in tags}
    return {tag: c[~c.index.duplicated(keep="last")].sort_index() for tag, c in last.items()}


def average(curves: Sequence[pd.Series]) -> pd.DataFrame:
    """Mean and standard deviation of the curves of some seeds.

    Returns:
        A row for each step: `mean` over those that have it, `sd` with n - 1, NaN for one.
    """
    first = curves[0].index
    if all(curve.index.equals(first) for curve in curves):
        columns = np.stack([curve.to_numpy() for curve in curves], axis=1)
        together = pd.DataFrame(columns, index=first)
    else:
        together = pd.concat(curves, axis=1).sort_index()
    together = together.where(np.isfinite(together))
    return pd.DataFrame({"mean": together.mean(axis=1), "sd": together.std(axis=1, ddof=1)})


def thinned(table: pd.DataFrame, points: int) -> pd.DataFrame:
    """About so many rows of a longer table, evenly, with the first and the last."""
    if len(table) <= points:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, max(points, 2)).round().astype(int)]


def ordered(tags: Sequence[str]) -> list[str]:
    """Tags in the order of the menu."""
    rest = sorted(set(tags) - set(FIRST), key=lambda tag: (not tag.startswith("val/"), tag))
    return [tag for tag in FIRST if tag in tags] + rest
