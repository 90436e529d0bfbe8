"""Training curves, read from the files that loggers write.

TensorBoard's own reader takes a second for a run; this reader skips pictures.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vaelab.report.sweep import Sweep
from vaelab.runs.folder import is_inside

EVENTS, TABLE = "events.out.tfevents.*", "metrics.csv"
"""Files of TensorBoard's logger, and that of the CSV logger."""
LENGTH = struct.Struct("<Q")
LARGEST = 4096
"""Largest bytes of a record that is read: a scalar takes some 50, a picture thousands."""
APART = ("hp/", "evaluation/", "test/", "epoch")
"""Tags that are not curves: single numbers, or no metric."""
RESUMED = ""
"""In place of a tag: the mark that a run was resumed, see `vaelab.training.rewinding`."""
FIRST = ("val/elbo", "val/rate", "val/distortion", "val/active_units", "val/loss", "train/loss")

Curves = dict[str, pd.Series]
"""Values of each tag, indexed by optimizer step in rising order."""


def rows_with_curves(sweep: Sweep) -> list[int]:
    """Returns the rows of the jobs whose folder, inside that of the sweep, has a file of curves."""
    runs = {row: sweep.folder / path for row, path in sweep.jobs["folder"].items()}
    return [row for row, run in runs.items() if is_inside(run, sweep.folder) and has_curves(run)]


def has_curves(run: Path) -> bool:
    """Returns whether a run folder has a file that curves are read from; opens none of them."""
    return (run / TABLE).exists() or next(run.glob(EVENTS), None) is not None


def read_curves(run: Path) -> Curves:
    """Reads a run's curves from event files, else from `metrics.csv`; skips APART tags; maybe {}.

    A resumed run has several event files; for the same step the later file counts. Its start voids
    what was logged from its first step on. Links to files outside of the run folder are skipped.
    """
    points: dict[str, dict[int, float]] = {}
    files = [path for path in run.glob(EVENTS) if is_inside(path, run)]
    for path in sorted(files, key=event_file_order):
        for tag, step, value in read_scalars(path):
            if tag != RESUMED:
                points.setdefault(tag, {})[step] = value
                continue
            points = {t: {s: v for s, v in p.items() if s < step} for t, p in points.items()}
    curves = {tag: pd.Series(found).sort_index() for tag, found in points.items() if found}
    table = run / TABLE
    return curves or (read_csv_curves(table) if is_inside(table, run) else {})


def event_file_order(path: Path) -> tuple[int, ...]:
    """Returns the sort key of an event file: the numbers in its name, creation time first."""
    return tuple(int(part) for part in path.name.split(".")[3:] if part.isdecimal())


def read_scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """Yields (tag, step, value) of an event file; skips APART tags; ends silently at damage.

    Large records are skipped, too, as in `read_small_records`. Where a run was resumed it yields
    the tag RESUMED, the first step to come and NaN.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    for record in read_small_records(path):
        try:
            event = Event.FromString(record)
        except DecodeError:
            return
        if event.session_log.status == SessionLog.START:
            yield RESUMED, event.step, math.nan
        for value in event.summary.value:
            if value.HasField("simple_value") and not value.tag.startswith(APART):
                yield value.tag, event.step, value.simple_value


def read_small_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a file that are at most LARGEST bytes; ends at an incomplete record.

    A record is its length (8 bytes), a checksum (4), the bytes, and a checksum (4). The checksums
    are not verified. Larger records are passed over without reading them.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(12)) == 12:
            (length,) = LENGTH.unpack_from(head)
            end = file.tell() + length + 4
            if end > size:
                return
            if length <= LARGEST:
                yield file.read(length + 4)[:length]
            else:
                file.seek(end)


def read_csv_curves(path: Path) -> Curves:
    """Reads the curves in a file of Lightning's CSV logger; skips APART tags; {} without steps.

    {}, too, if the file is missing, empty or damaged. The last value of a step counts.
    """
    if not path.exists() or not path.stat().st_size:
        return {}
    try:
        table = pd.read_csv(path)
    except ValueError:  # pandas' parser errors, and text that is no UTF-8
        return {}
    if "step" not in table:
        return {}
    table["step"] = pd.to_numeric(table["step"], errors="coerce")
    table = table.dropna(subset="step").astype({"step": "int64"})
    known = table.set_index("step").select_dtypes("number")
    tags = [tag for tag in known if not tag.startswith(APART)]
    last = {tag: known[tag].dropna() for tag in tags}
    return {tag: c[~c.index.duplicated(keep="last")].sort_index() for tag, c in last.items()}


def mean_curve(curves: Sequence[pd.Series]) -> pd.DataFrame:
    """Returns the mean and standard deviation of several seeds' curves, ignoring infinite values.

    Returns:
        A row for each step: `mean` of the curves that have it, `sd` with n - 1, NaN for one.
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
    """Returns at most max(points, 2) rows of a table, evenly spaced, with first and last."""
    if len(table) <= points:
        return table
    return table.iloc[np.linspace(0, len(table) - 1, max(points, 2)).round().astype(int)]


def menu_order(tags: Sequence[str]) -> list[str]:
    """Returns tags in menu order: FIRST, other `val/` tags, then all others, each sorted."""
    rest = sorted(set(tags) - set(FIRST), key=lambda tag: (not tag.startswith("val/"), tag))
    return [tag for tag in FIRST if tag in tags] + rest
