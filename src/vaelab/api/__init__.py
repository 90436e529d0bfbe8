"""vaelab from Python: training, parts and results, with the defaults of the files in conf/.

`vaelab.fit`, `vaelab.build`, `vaelab.compose` and `vaelab.show` are here.
"""

from vaelab.api.composition import Experiment, build, compose
from vaelab.api.display import show
from vaelab.api.fitting import fit
from vaelab.api.run import Figures, Run

__all__ = ["Experiment", "Figures", "Run", "build", "compose", "fit", "show"]
