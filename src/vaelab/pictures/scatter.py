"""`Scatter`: a picture of points in a plane, coloured by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vaelab.pictures.picture import Picture


@dataclass(frozen=True)
class Scatter(Picture):
    """A scatter plot of the arrays' `points` [N, 2], coloured by their `labels` [N].

    Attributes:
        across: Name of the horizontal axis.
        up: Name of the vertical axis.
        names: Names of the classes, for the legend.
    """

    across: str
    up: str
    names: Sequence[str] = ()

    def image(self, card: bool = False) -> Image.Image:
        """Renders the plot, with a legend for two classes or more; ignores `card`."""
        from matplotlib import colormaps  # slow to import
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        points, labels = (self.arrays[name].numpy() for name in ("points", "labels"))
        classes = np.unique(labels)
        colours = colormaps["tab10" if classes[-1] < 10 else "tab20"]
        if classes[-1] >= 20:
            colours = colormaps["turbo"].resampled(classes[-1] + 1)
        figure = Figure(figsize=(7, 6), dpi=150, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot(xlabel=self.across, ylabel=self.up)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_aspect("equal", "datalim")
        axes.scatter(points[:, 0], points[:, 1], s=6, linewidths=0, c=colours(labels))
        if len(classes) > 1:
            for label in classes:
                axes.scatter(
                    [], [], s=30, linewidths=0, color=colours(label), label=self.names[label]
                )
            columns = -(-len(classes) // 25)
            figure.legend(loc="outside right center", frameon=False, title="class", ncols=columns)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
