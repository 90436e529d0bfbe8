"""The comments on settings in the YAML files, for --help and completion.

Does not import torch.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

COMMENT = re.compile(r"\s+#\s*(.*\S)")


def setting_meanings(
    folders: Sequence[Path], name: str, choices: Mapping[str, str | None]
) -> dict[str, str]:
    """Returns the comments on settings in the chosen YAML files, by dotted names.

    Args:
        folders: The folders of configurations; a file is read from the first that has it.
        name: The command's file, without `.yaml`.
        choices: The chosen file of each group.
    """
    found = dict(file_comments(folders, name, ""))
    for group, choice in choices.items():
        if choice:
            found |= dict(file_comments(folders, f"{group}/{choice}", group.replace("/", ".")))
    return found


def file_comments(folders: Sequence[Path], file: str, package: str) -> Iterator[tuple[str, str]]:
    """Yields (dotted name, comment) of a YAML file's settings, bases first; none without a file."""
    path = next(filter(Path.is_file, (folder / f"{file}.yaml" for folder in folders)), None)
    if path is None:
        return
    text = path.read_text()
    if given := re.match(r"#\s*@package\s+(\S+)", text):
        package = "" if given[1] == "_global_" else given[1]
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            before, _, place = entry.partition("@")
            yield from file_comments(folders, str(Path(file).with_name(before)), place or package)
    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        yield from node_comments(root, package, text.splitlines())


def node_comments(
    node: yaml.MappingNode, path: str, lines: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yields (dotted name, comment) of each commented setting in a YAML node, at any depth."""
    for key, value in node.value:
        name = f"{path}.{key.value}".lstrip(".")
        flat = isinstance(value, yaml.ScalarNode) or value.flow_style
        mark = (value if flat else key).end_mark
        here = COMMENT.fullmatch(lines[mark.line][mark.column :].removeprefix(":"))
        words = [here[1]] if here else []
        words += continuation_comments(lines[mark.line + 1 :], key.start_mark.column)
        if words:
            yield name, " ".join(words)
        if isinstance(value, yaml.MappingNode) and not flat:
            yield from node_comments(value, name, lines)


def continuation_comments(lines: Sequence[str], column: int) -> Iterator[str]:
    """Yields comments of the leading comment lines beyond a column; stops at any other line."""
    for line in lines:
        words = COMMENT.fullmatch(line)
        if not words or line.index("#") <= column:
            return
        yield words[1]
