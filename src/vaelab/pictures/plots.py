"""Pictures of signals and vectors: plots in rows and columns, and pairs of columns.

Shapes: R rows and C' columns of cells, N cells, S series in each; x is a signal [C, L] or a vector
[C].
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaelab.files.atomic import write_text
from vaelab.observations import Units
from vaelab.pictures.legends import shortened
from vaelab.pictures.picture import Grid, Picture, column_count

SHOWN = 4  # columns of a pair plot, at most
DRAWN = 1000  # points of each kind in it, at most
NAMED = 12  # bars whose names are in the note, at most
MARGIN = 0.06  # of a cell, on every side
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#e377c2")
STYLES = ("solid", "dashed", "dotted")
OF_X = ("images", "means", "nearest", "x")
"""Arrays of a picture that hold x, and are restored to the units of the file."""


@dataclass(frozen=True, kw_only=True)
class NumberPicture(Picture):
    """The base of pictures of numbers, whose arrays are in the units of the file.

    Attributes:
        units: Names and units of the numbers.
        axes: The number of axes of x: 2 for signals, 1 for vectors.
        captions: The label of each of the arrays' `images`, or none.
        told: What the model was told of each of the arrays' `images`, by name, or nothing.
    """

    units: Units
    axes: int
    captions: Sequence[str] = ()
    told: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def in_units(self) -> Self:
        """Returns a copy whose arrays, which were in the units of the model, are as in the file."""
        restored = {
            name: self.units.restore(values, self.axes) if name in OF_X else values
            for name, values in self.arrays.items()
        }
        return replace(self, arrays=restored)

    def save(self, stem: Path, settings: Mapping[str, Any]) -> list[Path]:
        """Writes PNG, NPZ and, only of vectors, the array `images` as CSV; returns the paths."""
        paths = super().save(stem, settings)
        if self.axes == 1:
            paths.append(stem.with_name(f"{stem.name}.csv"))
            rows = self.arrays["images"].flatten(0, -2)
            labels = {"label": self.captions} if len(self.captions) == len(rows) else {}
            write_text(paths[-1], table_text(self.units.names, rows, self.told or labels))
        return paths


@dataclass(frozen=True, kw_only=True)
class Plots(NumberPicture):
    """A picture of small plots in rows and columns: lines of signals, or bars of vectors.

    All have one scale, so that they can be compared. Their numbers are in the units of the model.

    Attributes:
        cells: [R, C', S, *x] of R rows and C' columns, or [N, S, *x] to arrange.
        series: Names of the S series that are drawn over each other, or none.
        rows: A name for each row, or none.
        heads: A name for each column, or none.
        note: A line below all, or an empty text.
    """

    cells: Tensor
    series: Sequence[str] = ()
    rows: Sequence[str] = ()
    heads: Sequence[str] = ()
    note: str = ""

    @classmethod
    def from_grid(cls, grid: Grid, axes: int, units: Units) -> "Plots":
        """Returns plots of what a grid would show as images; without its film."""
        return cls(
            arrays=grid.arrays,
            units=units,
            axes=axes,
            cells=grid.cells.unsqueeze(-1 - axes),
            rows=grid.rows,
            heads=grid.heads,
            captions=grid.captions,
            note=grid.note,
        )

    def image(self, card: bool = False) -> Image.Image:
        """Renders all plots on one pair of axes, which is much faster than one for each."""
        cells = self.cells.detach().cpu().double()
        if cells.dim() == self.axes + 2:
            cells = arranged(cells, column_count(len(cells)))
        rows, columns = cells.shape[:2]
        low, high = (float(end) for end in cells[cells.isfinite()].aminmax())
        if self.axes == 1:  # bars begin at zero
            low, high = min(low, 0.0), max(high, 0.0)
        reach = high - low or 1.0
        turn = torch.arange(1, rows + 1).view(-1, *[1] * (cells.dim() - 1))
        heights = turn - MARGIN - (1 - 2 * MARGIN) * (cells - low) / reach  # downwards
        wide, tall = (2.0, 1.1) if columns <= 4 else (1.2, 0.8)
        figure, axes = blank_figure(min(14, 2 + wide * columns), min(18, 1.2 + tall * rows), card)
        axes.set(xlim=(0, columns), ylim=(rows, 0))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, labelsize=9)
        axes.xaxis.tick_top()
        heads, names = centred(self.heads), centred(self.rows)
        axes.set_xticks([*heads], [*heads.values()])
        axes.set_yticks([*names], [*names.values()])
        draw = draw_lines if self.axes == 2 else draw_bars
        zero = 1 - MARGIN + (1 - 2 * MARGIN) * low / reach
        draw(axes, heights.numpy(), zero, self.series, self.units.names)
        for i, caption in enumerate(() if card else self.captions):
            place = i % columns + 0.5, i // columns + MARGIN
            axes.text(*place, escaped(caption), fontsize=7, ha="center", va="bottom")
        lines = [self.note, f"each plot is from {self.range_text(low, high)}"]
        if self.axes == 1 and len(self.units.names) <= NAMED:
            lines.append(f"bars: {', '.join(map(shortened, self.units.names))}")
        axes.set_xlabel("\n".join(map(escaped, filter(None, lines))), fontsize=9)
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        return rendered(figure)

    def range_text(self, low: float, high: float) -> str:
        """Returns the range of the plots in words, in the units of the file if all have the same.

        Otherwise it is in standard deviations.
        """
        scales = set(zip(self.units.mean, self.units.scale, strict=True))
        if len(scales) > 1:
            return f"{low:.3g} to {high:.3g} standard deviations from the mean of each"
        ((mean, scale),) = scales
        return f"{low * scale + mean:.4g} to {high * scale + mean:.4g}"


@dataclass(frozen=True, kw_only=True)
class PairPlot(NumberPicture):
    """A picture of vectors: a few columns against each other, data beside samples.

    Data are above the diagonal and samples below. Shown are the columns of the largest variance,
    four at most. The arrays, in the units of the file, are `images`, the samples [N, C], and `x`,
    data [M, C], perhaps none.

    Attributes:
        note: A line below all, or an empty text.
    """

    note: str = ""

    def image(self, card: bool = False) -> Image.Image:
        """Renders scatter plots of the columns, and on the diagonal histograms of both."""
        named = {"data": self.arrays["x"], "samples": self.arrays["images"]}
        drawn = {name: values[:DRAWN].numpy() for name, values in named.items() if len(values)}
        spread = next(iter(drawn.values())).var(0)
        shown = np.sort(np.argsort(-spread, kind="stable")[:SHOWN])
        all_drawn = np.concatenate([*drawn.values()])
        low, high = all_drawn.min(0), all_drawn.max(0)
        low, high = low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9
        side = 2.2 * max(2, len(shown))
        figure, _ = blank_figure(side + 1, side, card, empty=True)
        grid = figure.subplots(len(shown), len(shown), squeeze=False)
        for row, column in np.ndindex(grid.shape):
            axes, up, across = grid[row, column], shown[row], shown[column]
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=7)
            axes.set_xlim(low[across], high[across])
            for number, (name, values) in enumerate(drawn.items()):
                look: dict[str, Any] = {"color": COLOURS[number]}
                if row == column:
                    bins = np.linspace(low[up], high[up], 25)
                    look |= {"histtype": "step", "density": True}
                    axes.hist(values[:, up], bins, label=name if row == 0 else None, **look)
                elif (row < column) == (name == "data"):
                    axes.set_ylim(low[up], high[up])
                    axes.scatter(values[:, across], values[:, up], s=5, linewidths=0, **look)
            if row == len(shown) - 1:
                axes.set_xlabel(escaped(shortened(self.units.names[across])), fontsize=9)
            if column == 0:
                name = "density" if row == column else shortened(self.units.names[up])
                axes.set_ylabel(escaped(name), fontsize=9)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9)
        note = "data above the diagonal, samples below" if len(drawn) == 2 else "samples"
        if len(shown) < len(self.units.names):
            note += f"; {len(shown)} of {len(self.units.names)} columns, of the largest variance"
        lines = [*filter(None, [self.note, note])]
        figure.supxlabel("\n".join(map(escaped, lines)), fontsize=9)
        return rendered(figure)


def draw_lines(
    axes: Any, heights: np.ndarray, _: float, series: Sequence[str], channels: Sequence[str]
) -> None:
    """Adds a line for each channel of each series in each cell to the axes.

    A single channel has a colour for each series; several have their own, and the series dashes.

    Args:
        axes: The axes of matplotlib.
        heights: Places on the axes [R, C', S, C, L].
        series: Names of the series, for the legend, or none.
        channels: Names of the channels, for the legend if there are several.
    """
    from matplotlib.collections import LineCollection  # slow to import

    rows, columns, count, several, steps = heights.shape
    start = np.arange(columns)[None, :, None] + MARGIN
    across = np.broadcast_to(
        start + (1 - 2 * MARGIN) * np.linspace(0, 1, steps), (rows, columns, steps)
    )
    draw_frames(axes, rows, columns)
    for number, channel in np.ndindex(count, several):
        lines = np.stack([across, heights[:, :, number, channel]], -1).reshape(-1, steps, 2)
        colour = COLOURS[(channel if several > 1 else number) % len(COLOURS)]
        style = STYLES[number % len(STYLES)] if several > 1 else "solid"
        words = [series[number]] if series else []
        if 1 < several <= len(COLOURS):
            words.append(shortened(channels[channel]))
        label = escaped(" ".join(words)) or None
        look: dict[str, Any] = {"colors": colour, "linestyles": style, "linewidths": 1.1}
        axes.add_collection(LineCollection([*lines], label=label, **look))


def draw_bars(
    axes: Any, heights: np.ndarray, zero: float, series: Sequence[str], _: Sequence[str]
) -> None:
    """Adds a bar for each number of each series in each cell to the axes.

    Args:
        axes: The axes of matplotlib.
        heights: Places on the axes of the ends of the bars [R, C', S, C].
        zero: Place in a cell where the bars begin, from 0 at its top to 1.
        series: Names of the series, for the legend, or none.
    """
    from matplotlib.collections import PolyCollection  # slow to import

    rows, columns, count, numbers = heights.shape
    draw_frames(axes, rows, columns)
    width = (1 - 2 * MARGIN) / numbers
    bottom = np.broadcast_to(np.arange(rows)[:, None, None] + zero, (rows, columns, numbers))
    for number in range(count):
        left = np.arange(numbers) * width + (0.1 + 0.8 * number / count) * width + MARGIN
        left = np.broadcast_to(np.arange(columns)[None, :, None] + left, bottom.shape)
        right, top = left + 0.8 * width / count, heights[:, :, number]
        corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
        bars = np.stack([np.stack(corner, -1) for corner in corners], -2).reshape(-1, 4, 2)
        label = escaped(series[number]) if series else None
        look: dict[str, Any] = {"facecolors": COLOURS[number % len(COLOURS)], "linewidths": 0}
        axes.add_collection(PolyCollection([*bars], label=label, **look))


def draw_frames(axes: Any, rows: int, columns: int) -> None:
    """Adds a pale background for each cell to the axes."""
    from matplotlib.collections import PolyCollection

    near, far = MARGIN / 2, 1 - MARGIN / 2
    corners = np.array([(near, near), (near, far), (far, far), (far, near)])
    boxes = [corners + np.array([column, row]) for row, column in np.ndindex(rows, columns)]
    axes.add_collection(PolyCollection(boxes, facecolors="#f4f4f4", linewidths=0, zorder=0))


def arranged(cells: Tensor, columns: int) -> Tensor:
    """Returns cells [N, ...] as [R, columns, ...]; NaN where N does not fill them."""
    rows = -(-len(cells) // columns)
    found = cells.new_full((rows * columns, *cells.shape[1:]), torch.nan)
    found[: len(cells)] = cells
    return found.unflatten(0, (rows, columns))


def centred(names: Sequence[str]) -> dict[float, str]:
    """Returns names by the middles of the cells that they stand beside; omits empty ones."""
    return {i + 0.5: escaped(shortened(name)) for i, name in enumerate(names) if name}


def escaped(text: str) -> str:
    """Returns a text in which matplotlib reads no formula."""
    return text.replace("$", r"\$")


def blank_figure(width: float, height: float, card: bool, empty: bool = False) -> tuple[Any, Any]:
    """Returns a new figure of a size in inches and its axes; None for these if `empty`.

    Args:
        width: In inches.
        height: In inches.
        card: Whether it is for a card of TensorBoard, where letters have to be larger.
        empty: Whether to add no axes.
    """
    from matplotlib.figure import Figure  # slow to import

    factor = 0.7 if card else 1.0
    size = (width * factor, height * factor)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    return figure, None if empty else figure.add_subplot()


def rendered(figure: Any) -> Image.Image:
    """Returns a figure of matplotlib as an image in RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def table_text(names: Sequence[str], rows: Tensor, told: Mapping[str, Sequence[str]]) -> str:
    """Returns rows [N, C] as CSV below the names; what is told of each [N] are the last columns."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*names, *told])
    for row, *others in zip(rows.tolist(), *told.values(), strict=True):
        writer.writerow([*(f"{value:.12g}" for value in row), *others])
    return file.getvalue()
