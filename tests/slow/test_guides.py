"""Tests that the commands and Python blocks of the pages for users run, in their shortest form."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.guide_pages import GUIDE, PAGES
from support.image_folders import save_folder

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
BOOKS = [
    *([page] for page in PAGES if page not in GUIDE),
    sorted(GUIDE, key=lambda page: (page.stem != "settings", page.stem)),
]
"""Pages that are run in one folder: each alone, but the guide, whose settings come first."""
OWN_VARIANT = """\
from vaelab.models import VAE


class Squared(VAE):
    def objective(self, terms):
        return (terms.distortion + self.beta * terms.rate.square()).mean()
"""
OWN_EXPERIMENT = """\
# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      seed: 1,2
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The folder of prepared data, which all pages share."""
    return tmp_path_factory.mktemp("data")


def write_files_of_reader(folder):
    """Writes what README and the guide take for granted: photos, a variant, a configuration."""
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(40)]
    save_folder(folder / "photos", *names, shape=(28, 28))
    (folder / "mine.py").write_text(OWN_VARIANT)
    (folder / "mine" / "experiment").mkdir(parents=True)
    (folder / "mine" / "experiment" / "ours.yaml").write_text(OWN_EXPERIMENT)


@pytest.mark.parametrize("pages", BOOKS, ids=lambda pages: pages[0].parent.name + pages[0].stem)
def test_pages_run_in_a_new_folder(pages, tmp_path, data):
    if pages[0].parent.name not in ("tutorials", "howto"):  # which have the reader write all
        write_files_of_reader(tmp_path)
    environment = os.environ | {
        "VAELAB_DATA": str(data),
        "MPLBACKEND": "Agg",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
    }
    script = ROOT / "tests" / "support" / "run_page.py"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, pages)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-5000:]}"
