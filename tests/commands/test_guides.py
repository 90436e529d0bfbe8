"""Tests that the pages for users name settings and commands that there are.

`tests/slow/test_guides.py` runs them.
"""

import ast
import re
import sys

import pytest
from support.guide_pages import (
    PAGES,
    Block,
    blocks_of,
    command_name,
    inline_options,
    is_known_option,
    own_options,
    shorten,
    split_flags,
)

from vaelab.commands import arguments, config_folders, report, reproduce, train
from vaelab.runs import validation

PLACEHOLDER = re.compile(r"\bmine\.[A-Z]\w*|^mine$")
"""A class or folder of configurations of the reader's own."""


LISTS = ("run", "what", "images", "label")
"""Settings of commands other than train in which commas make a list."""


@pytest.fixture
def written_files(tmp_path, monkeypatch):
    """Returns a function that writes the files of a page's marked blocks, and can import them."""
    monkeypatch.syspath_prepend(tmp_path)
    others = set(sys.modules)

    def write(page):
        for block in blocks_of(page):
            if block.file:
                path = tmp_path / block.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text + "\n", encoding="utf-8")
        return tmp_path

    yield write
    for name in ("mine", "noise", "powers"):
        if name not in others:
            sys.modules.pop(name, None)


def check_command(words, compose, folder):
    """Raises an error if a command's settings do not compose or fit; skips classes not written."""
    name = command_name(words)
    flags, settings = split_flags(words)
    if name != "train":
        rewritten = {"reproduce": reproduce.named_words, "report": report.named_words}
        settings = rewritten.get(name, list)(settings)
        settings = [arguments.quote_argument(word, LISTS) for word in settings]
        config_folders.compose_config([config_folders.CONF], name, settings)
        return
    settings = [w for w in settings if not w.startswith(("from=", "ckpt="))]
    assert "-m" in flags or not any(map(arguments.is_swept, settings)), "needs -m"
    ranges = [w for w in settings if arguments.is_swept(w) and "(" in w]
    assert all(is_known_option(*w.split("=", 1)) for w in ranges), ranges
    settings = [w for w in settings if w not in ranges]
    settings = [w.split(",")[0] if arguments.is_swept(w) else w for w in settings]
    own = [f"{folder}/{flags[flags.index('--config-dir') + 1]}"] if "--config-dir" in flags else []
    search = [f"hydra.searchpath=[file://{each}]" for each in own]
    cfg = compose(*search, *settings)
    cfg.logger = None  # its folder is an interpolation that needs Hydra's runtime
    validation.check_config(cfg, train.settings_schema)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_has_valid_settings(page, compose, written_files):
    folder = written_files(page)
    for block in blocks_of(page):
        for words in block.commands:
            if not (folder / "mine.py").exists() and any(PLACEHOLDER.search(w) for w in words):
                continue  # README only speaks of them
            try:
                check_command(words, compose, folder)
            except Exception as error:
                raise AssertionError(f"{page.name}:{block.line}: {' '.join(words)}") from error


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_in_prose_exists(page):
    own = own_options(page)
    named = inline_options(page)
    unknown = [f"{key}={value}" for key, value in named if not is_known_option(key, value, own)]
    assert not unknown, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python_blocks_are_python_and_markers_say_why(page):
    for block in blocks_of(page):
        assert block.language in ("bash", "python", "text", "yaml", "bibtex"), block
        assert re.match(r"(not run|file): \S|$", block.marker), block
        if block.language == "python":
            ast.parse(block.text)


@pytest.mark.parametrize(
    ("command", "short"),
    [
        ("python train.py data=mnist trainer.max_epochs=20", "data=mnist_5k trainer.max_epochs=1"),
        ("vaelab train -m seed=1,2,3 model.beta=1,2", "train -m seed=1,2 model.beta=1"),
        ("vaelab train -m model.encoder.hidden=[8,9] seed=1,2,3", "hidden=[8,9] seed=1,2"),
        ("PYTHONPATH=. python evaluate.py run=a", "PYTHONPATH=. vaelab evaluate run=a num_samples"),
        ("vaelab evaluate run=a num_samples=5000", "run=a num_samples=4"),
    ],
)
def test_shorten_keeps_what_a_command_does(command, short):
    assert short in " ".join(shorten(command.split()))


@pytest.mark.parametrize("line", ["vaelab generate given={a:b,c:d}", "ls photos"])
def test_unquoted_braces_and_other_programs_are_found(line):
    with pytest.raises(ValueError, match="line 1"):
        _ = Block(1, "bash", line, "").commands


def test_unknown_option_and_choice_are_found():
    assert is_known_option("model.beta", "4")
    assert is_known_option("network", "conv")
    assert not is_known_option("model.betta", "4")
    assert not is_known_option("network", "convolution")
