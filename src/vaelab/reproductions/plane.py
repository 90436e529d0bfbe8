"""Rate against distortion of a protocol's runs, as a picture beside their records."""

from pathlib import Path
from typing import Any, get_args

from vaelab.files.atomic import atomic_file
from vaelab.report.colours import INK, colour_sequence
from vaelab.report.figures import MARKERS
from vaelab.report.matplotlib_axes import blank_figure, escaped_mathtext
from vaelab.reproductions.protocol import (
    Protocol,
    further_settings,
    protocol_names,
    read_protocol,
)
from vaelab.reproductions.records import Form, read_record_or_nothing
from vaelab.training.json_files import number_or_none


def write_planes(kept: Path, protocols: Path) -> list[Path]:
    """Draws the plane of each protocol and form that asks for one and has two runs on record.

    Args:
        kept: The folder of the records, in which the pictures are written.
        protocols: The folder of the protocols.
    """
    paths = []
    for name in protocol_names(protocols):
        protocol = read_protocol(protocols, name)
        for form in get_args(Form) if protocol.plane else ():
            points = plane_points(kept, name, protocol, form)
            if len(points) > 1:
                end = "" if form == "full" else "_short"
                paths.append(kept / name / f"rate_distortion{end}.png")
                with atomic_file(paths[-1]) as file:
                    draw_plane(points).savefig(file, format="png")
    return paths


def plane_points(
    kept: Path, name: str, protocol: Protocol, form: Form
) -> dict[str, tuple[float, float]]:
    """Returns (rate, distortion) of the test images by run, of those on record; its first seed.

    Skips runs with further settings beside the protocol's.
    """
    points = {}
    for run in protocol.runs:
        record = read_record_or_nothing(kept, name, run, form)
        if not record or further_settings(record.get("further", ())):
            continue
        metrics = next(iter(record["seeds"].values()))["metrics"]
        rate, distortion = (
            number_or_none(metrics.get(name, {}).get("value"))
            for name in ("test/rate", "test/distortion")
        )
        if rate is not None and distortion is not None:
            points[run] = rate, distortion
    return points


def draw_plane(points: dict[str, tuple[float, float]]) -> Any:
    """Returns a matplotlib figure of named points and the line D + R of the least of them."""
    figure, axes = blank_figure(7, 5)
    axes.set(xlabel="rate R, nats per image", ylabel="distortion D, nats per image")
    colours = colour_sequence(len(points))
    for i, (run, point) in enumerate(points.items()):
        style: dict[str, Any] = {"marker": MARKERS[i % len(MARKERS)], "edgecolors": "white"}
        label = escaped_mathtext(run)
        axes.scatter(*point, s=60, color=colours[i], linewidths=0.6, zorder=3, label=label, **style)
    limits = axes.get_xlim(), axes.get_ylim()
    least = min(map(sum, points.values()))
    label = f"D + R = {least:.1f} nats"
    axes.axline((0, least), slope=-1, color=INK, linestyle="--", linewidth=1.2, label=label)
    axes.set(xlim=limits[0], ylim=limits[1])
    figure.legend(loc="outside right upper", frameon=False)
    return figure
