"""Settings of Sphinx: `sphinx-build -W --keep-going -n docs build/docs` writes the pages.

Before it reads the pages it writes those of the gallery and of the settings, from conf/*.yaml and
the docstrings, and copies the notebooks of examples/; none of these is in git.
"""

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from docstrings import escape_docstring, hide_colons  # noqa: E402
from gallery import write_gallery  # noqa: E402
from notebooks import copy_notebooks  # noqa: E402
from settings import write_settings  # noqa: E402

from vaelab.version import __version__  # noqa: E402

project = "vaelab"
author = copyright = "the vaelab authors"  # noqa: A001
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["**.ipynb_checkpoints"]
nitpick_ignore_regex = [("py:.*", r"(?!vaelab\.).*")]  # names of other packages are not looked up

# Pages in Markdown, and notebooks, which are run where their code has changed since the last build;
# `-D nb_execution_mode=off` leaves that out, and VAELAB_EXAMPLE_EPOCHS=1 makes it short.
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 1800

# The reference of Python, from docstrings in plain text.
default_role = "literal"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # `escape_docstring` adds them in words
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_use_rtype = False
viewcode_line_numbers = True

html_theme = "furo"
html_title = f"vaelab {release}"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_theme_options = {"source_directory": "docs/"}
copybutton_exclude = ".linenos, .gp, .go"


def setup(app):
    """Called by Sphinx at its start: connects what makes pages and reads docstrings."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", leave_out_empty_globs)
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", escape_docstring, priority=600)  # napoleon's is 500


def write_pages(app):
    """Called by Sphinx before it reads the pages: writes those that are made at build time."""
    write_settings(HERE / "reference" / "settings")
    write_gallery(HERE / "gallery", HERE.parent / "results" / "gallery")
    copy_notebooks(HERE / "notebooks", HERE.parent / "examples")


def leave_out_empty_globs(app, docname, source):
    """Called by Sphinx for each page it reads: drops `folder/*` without such pages."""
    lines = source[0].split("\n")
    source[0] = "\n".join(
        line for line in lines if not re.fullmatch(r"\w+/\*", line) or any(HERE.glob(line))
    )
