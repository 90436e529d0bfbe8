"""`import vaelab` changes no global state of the program and imports no heavy package."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, warnings

def seen():
    return list(sys.meta_path), dict(os.environ), list(warnings.filters), warnings.showwarning

before, modules = seen(), set(sys.modules)
import vaelab
assert seen() == before
brought = {name.partition(".")[0] for name in set(sys.modules) - modules}
assert not brought & {"torch", "lightning", "hydra", "omegaconf"}, brought

import lightning, torch, hydra, omegaconf, zuko, sklearn, torchvision  # whatever these do
before = seen()
resolvers = omegaconf.OmegaConf.has_resolver("run_name")
import vaelab.runs.loading, vaelab.models, vaelab.evaluation, vaelab.pictures
assert seen() == before
assert omegaconf.OmegaConf.has_resolver("run_name") == resolvers
"""


@pytest.mark.slow
def test_import_vaelab_changes_no_global_state():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert not done.returncode, done.stderr
