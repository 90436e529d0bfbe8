"""Runs the code cells of a notebook without Jupyter: python run_notebook.py NOTEBOOK.

The value of a cell's last expression is printed as text, and made HTML where Jupyter would. A line
`!command {name}` is run by the shell, and ends all if it fails.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_cell(source: str, names: dict[str, Any]) -> None:
    """Runs a code cell in the namespace `names`; prints the value of its last expression."""
    lines = re.sub(r"^!(.*)$", lambda found: f"run_shell({found[1]!r})", source, flags=re.M)
    names["run_shell"] = lambda command: run_shell(command, names)
    body = ast.parse(lines).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
    if last is None:
        return
    value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    if value is not None:
        print(repr(value))
        getattr(value, "_repr_html_", str)()


def run_shell(command: str, names: dict[str, Any]) -> None:
    """Runs a shell command in which `{name}` is the text of a variable, as in IPython."""
    sys.stdout.flush()
    words = re.sub(r"\{(\w+)\}", lambda found: str(names[found[1]]), command)
    subprocess.run(words, shell=True, check=True)


def main() -> None:
    """Runs all code cells of the notebook that is named on the command line, in order."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            run_cell("".join(cell["source"]), names)


if __name__ == "__main__":
    main()
