"""The notebooks of examples/ as pages."""

import json

LANGUAGE = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
"""What a notebook that has been run says of its cells, which may be commands."""


def copy_notebooks(to, examples):
    """Copies the notebooks into a folder of the documentation, unless they are there."""
    to.mkdir(exist_ok=True)
    for path in sorted(examples.glob("*.ipynb")):
        content = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(content | {"metadata": content["metadata"] | LANGUAGE})
        copied = to / path.name
        if not copied.exists() or copied.read_text(encoding="utf-8") != text:
            copied.write_text(text, encoding="utf-8")
