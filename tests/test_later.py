"""What Lightning imports in passing is imported when someone uses it, and whole."""

import subprocess
import sys

import pytest

USES = {
    "module": "import scipy.signal\nfound = scipy.signal.convolve([1, 2], [3, 4])",
    "name": "from scipy.signal import convolve\nfound = convolve([1, 2], [3, 4])",
    "everything": "from scipy.signal import *\nfound = convolve([1, 2], [3, 4])",
    "submodule": "import scipy.signal.windows as w\nfound = w.boxcar(3) * [3, 10, 8]",
    "name of one": "from scipy.signal.windows import boxcar\nfound = boxcar(3) * [3, 10, 8]",
    "alias": "import scipy.signal as signal\nfound = signal.convolve([1, 2], [3, 4])",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_it_is_there_when_it_is_used(use):
    program = f"""
import sys
import vaelab.elbo
assert "scipy.linalg" not in sys.modules
{use}
assert found.tolist() == [3, 10, 8]
assert "scipy.linalg" in sys.modules
assert type(sys.modules["scipy.signal"]) is type(sys)
assert not hasattr(sys.modules["scipy.signal"], "no_such_name")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_compiling_does_not_use_it():
    program = """
import sys
import vaelab.elbo
import torch
torch.compile(lambda x: x.sin())(torch.ones(3))
assert "scipy.linalg" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_metric_can_be_plotted():
    program = """
import sys
import vaelab.elbo
from torchmetrics import MeanMetric
from torchmetrics.utilities.plot import plot_single_or_multi_val as as_imported
assert "matplotlib" not in sys.modules
metric = MeanMetric()
metric.update(3.0)
figure, axes = metric.plot()
assert axes.lines[0].get_ydata().tolist() == [3.0]
from matplotlib.figure import Figure
from torchmetrics.utilities.plot import plot_single_or_multi_val
assert isinstance(figure, Figure)
assert plot_single_or_multi_val is not as_imported
assert isinstance(as_imported(metric.compute())[0], Figure)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_there_already_stays():
    program = """
import scipy
import vaelab
import sys
assert "scipy.signal" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
