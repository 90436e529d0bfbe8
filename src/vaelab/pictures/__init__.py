"""Pictures of a model, with the arrays that they show."""

from vaelab.pictures.drawing import KINDS, draw, obstacle, overview
from vaelab.pictures.picture import Grid, Picture
from vaelab.pictures.request import Request
from vaelab.pictures.scatter import Scatter

__all__ = ["KINDS", "Grid", "Picture", "Request", "Scatter", "draw", "obstacle", "overview"]
