"""What `import vaelab` does to the program that imports it: nothing."""

import subprocess
import sys

import pytest

GLOBAL = """
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
def test_import_changes_nothing_outside():
    done = subprocess.run([sys.executable, "-c", GLOBAL], capture_output=True, text=True)
    assert not done.returncode, done.stderr
