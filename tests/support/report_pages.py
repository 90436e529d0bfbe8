"""Rendering and writing the report of a sweep folder, and reading the figures in its page."""

import base64
import json
import re

import numpy as np
import plotly.graph_objects as go

from vaelab import report as reports
from vaelab.report import mean_curves, page


def render_report(folder, metric="val/elbo", direction="auto", best=4):
    """Returns the report page of a sweep folder as HTML; checks eight figures of each plot."""
    found, ranking = reports.read_sweep(folder), reports.Ranking(metric, direction)
    means = {g: mean_curves.read_mean_curves(part, ranking) for g, part in found.parts.items()}
    html = page.render_page(found, ranking, means, best, folder / "report")
    for figures in page_figures(html).values():
        for figure in list(figures.values())[:8]:
            go.Figure(figure)  # checks every name and value
    return html


def write_report_files(folder):
    """Writes the report of a sweep folder into its folder `report`, and returns that folder."""
    paths = reports.write_report(
        reports.read_sweep(folder), folder / "report", reports.Ranking(), 4
    )
    assert all(path.stat().st_size for path in paths)
    return folder / "report"


def page_figures(html):
    """Returns the figures in a page, by plot and by the choice in its menu."""
    found = re.findall(
        r'type="application/json" id="([a-z0-9-]+)-figures">(.*?)</script>', html, re.S
    )
    return {key: json.loads(text) for key, text in found}


def unpack_array(array):
    """Returns the numbers in an array of plotly.js that is packed as base64."""
    return np.frombuffer(base64.b64decode(array["bdata"]), array["dtype"]).tolist()
