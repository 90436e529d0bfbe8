"""Tests of the scripts in docs/ that make pages from conf/, docstrings and signatures."""

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt

from vaelab.commands.config_folders import CONF
from vaelab.errors import UserError
from vaelab.models import BetaVAE

DOCS = Path(__file__).parents[2] / "docs"
VARIANTS = sorted(path.stem for path in CONF.glob("model/[!_]*.yaml"))


@pytest.fixture(autouse=True)
def docs_on_path(monkeypatch):
    """Adds docs/ to `sys.path`, where its scripts find each other."""
    monkeypatch.syspath_prepend(str(DOCS))


def test_every_group_of_conf_has_a_page_in_the_reference(monkeypatch):
    import settings

    settings.check_groups()
    pages = re.findall(r"^settings/(\w+)$", (DOCS / "reference" / "index.md").read_text(), re.M)
    assert pages == [settings.file_name(group) for group in settings.GROUPS]
    monkeypatch.delitem(settings.GROUPS, "ema")
    with pytest.raises(UserError, match="conf/ema has no page"):
        settings.check_groups()


def test_every_command_has_a_page_in_the_reference():
    import settings

    assert {f"{name}.yaml" for name in settings.COMMANDS} == {
        path.name for path in CONF.glob("*.yaml") if path.name != "command.yaml"
    }


def test_page_of_a_group_has_defaults_types_and_comments():
    import settings

    page = "\n".join(settings.group_page("ema", "Averages."))
    row = "| `ema.decay` | `0.999` | number >= 0, < 1 | weight of the last average in the next"
    assert row in page.partition("`ema=default`")[2]


@pytest.mark.parametrize("name", VARIANTS)
def test_docstring_of_every_variant_has_its_loss_and_paper(name):
    import gallery

    text = gallery.docstring_of(name)
    assert "distortion" in gallery.loss_of(text) or "log" in gallery.loss_of(text)
    assert gallery.loss_of(text) != gallery.title_of(text)
    assert re.search(r"[A-Z]\w+.*, \d{4}", gallery.paper_of(name))


def test_links_of_pages_are_of_files_in_git():
    """Pages that are made at build time are not there for who reads the files on GitHub."""
    root = DOCS.parent
    ignored = (root / ".gitignore").read_text(encoding="utf-8").splitlines()
    made = [root / line for line in ignored if line.startswith("docs/")]
    assert root / "docs" / "gallery" in made
    pages = [root / "README.md", root / "CONTRIBUTING.md", *DOCS.glob("*.md"), *DOCS.glob("*/*.md")]
    for page in pages:
        if any(page.is_relative_to(folder) for folder in made):
            continue
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?:|#)([^)\s#]+)[^)]*\)", text):
            target = (page.parent / link).resolve()
            assert target.exists(), f"{page}: {link}"
            assert not any(target.is_relative_to(folder) for folder in made), f"{page}: {link}"


def test_page_of_a_variant_shows_kept_figures_and_copies_pictures(tmp_path):
    import gallery

    kept = tmp_path / "vae"
    kept.mkdir()
    (kept / "samples.png").write_bytes(b"a picture")
    seeds = '{"0": {"metrics": {"nll": {"value": 91.25, "se": 0.5}, "test/rate": {"value": null}}}}'
    (kept / "record.json").write_text(f'{{"command": "python train.py", "seeds": {seeds}}}')
    page = "\n".join(gallery.variant_page("vae", tmp_path, kept))
    assert "| nll | 91.250 | 0.500 |" in page
    assert "test/rate" not in page
    assert (tmp_path / "vae_samples.png").read_bytes() == b"a picture"


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (PositiveInt, "whole number > 0"),
        (Annotated[float, Field(ge=0, le=1)], "number >= 0, <= 1"),
        (Literal["means", "codes"], "`means`, `codes`"),
        (list[PositiveInt] | None, "list of whole number > 0 or null"),
        (BetaVAE, ""),
    ],
)
def test_annotation_in_words(annotation, words):
    from type_words import type_text

    assert type_text(annotation) == words


@pytest.mark.parametrize(
    ("plain", "rest"),
    [
        ("gamma * |rate - C|", r"gamma \* \|rate - C\|"),
        ("`free_bits` of sum_k w_k", r"``free_bits`` of sum\_k w\_k"),
        (":param K: K. One sample", r":param K: K\. One sample"),
        (
            "see arXiv:1312.6114, eq. 10",
            "see `arXiv:1312.6114 <https://arxiv.org/abs/1312.6114>`__, eq. 10",
        ),
    ],
)
def test_plain_docstring_becomes_rest(plain, rest):
    from docstrings import to_rest

    assert to_rest([plain])[0] == rest


@pytest.mark.parametrize(
    ("plain", "quoted"),
    [
        ("large batches: data.batch_size=1024.", "large batches: `data.batch_size=1024`."),
        ("II is a.b=codes c=10", "II is `a.b=codes c=10`"),
        ("By python train.py x --short.", "By `python train.py x --short`."),
        ("has hidden=[256,256] in both", "has `hidden=[256,256]` in both"),
        ("loss = D + R", "loss = D + R"),
    ],
)
def test_commands_in_comments_are_quoted(plain, quoted):
    from docstrings import quote_commands

    assert quote_commands(plain) == quoted
