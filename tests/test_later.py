"""What Lightning imports in passing is imported when someone uses it, and whole."""

import subprocess
import sys
from importlib.util import find_spec
from os import environ
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

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


@pytest.mark.parametrize("compiled", ["true", "false"])
def test_training_brings_little(tmp_path, compiled):
    grey = np.random.default_rng(0).integers(256, size=(200, 1, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", train_images=grey)
    program = """
import runpy
import sys
runpy.run_path("train.py", run_name="__main__")
assert "tensorboard" in sys.modules
unused = ["torchvision", "matplotlib", "scipy.linalg", "pandas", "sklearn"]
if not sys.modules["torch"].cuda.device_count():
    unused.append("triton")
for name in unused:
    assert name not in sys.modules, name
"""
    overrides = [
        *("data=arrays", f"data.source.path={tmp_path}/images.npz", "data.val_size=50"),
        *("data.test_size=50", "data.batch_size=50", "trainer=cpu", "trainer.max_epochs=1"),
        *(f"compile={compiled}", f"hydra.run.dir={tmp_path}/run"),
    ]
    anew = environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "kept")}
    subprocess.run([sys.executable, "-c", program, *overrides], check=True, cwd=ROOT, env=anew)


@pytest.mark.skipif(find_spec("triton") is None, reason="there is no Triton to bring")
@pytest.mark.parametrize("gpus", [0, 1])
def test_a_gpu_brings_triton(gpus):
    """A GPU that is pretended, or not there."""
    program = f"""
import sys
import torch
torch.cuda.device_count = lambda: {gpus}
torch.xpu.device_count = lambda: 0
import vaelab.elbo
assert ("triton" in sys.modules) == {gpus}
import triton.language
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_metric_finds_its_network():
    program = """
import sys
import torch
import vaelab.elbo
from torchmetrics.functional.image import deep_image_structure_and_texture_similarity
from torchmetrics.image.arniqa import ARNIQA
assert "torchvision" not in sys.modules
import torchvision
class Asked(Exception):
    pass
def ask(*args, **options):
    raise Asked
torchvision.models.resnet50 = torchvision.models.vgg16 = ask
x = torch.rand(1, 3, 16, 16)
for use in (ARNIQA, lambda: deep_image_structure_and_texture_similarity(x, x)):
    try:
        use()
    except Asked:
        continue
    raise AssertionError
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
