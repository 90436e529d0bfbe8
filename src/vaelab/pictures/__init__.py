"""Pictures of a trained model: what can be drawn, drawing, and files with the arrays shown."""

from vaelab.pictures.drawing import KINDS, draw, draw_overview, obstacle
from vaelab.pictures.picture import Grid, Picture
from vaelab.pictures.request import Request
from vaelab.pictures.scatter import Scatter

__all__ = ["KINDS", "Grid", "Picture", "Request", "Scatter", "draw", "draw_overview", "obstacle"]
