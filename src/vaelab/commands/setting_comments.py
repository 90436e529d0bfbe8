"""What each setting means, in the words behind it in the YAML file that it is from; no torch."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

COMMENT = re.compile(r"\s+#\s*(.*\S)")


def meanings(
    folders: Sequence[Path], name: str, choices: Mapping[str, str | None]
) -> dict[str, str]:
    """The comments behind settings, by the dotted name of each setting.

    Args:
        folders: Those of configurations; the first that has a file is asked.
        name: Of the command's file.
        choices: The file that is chosen in each group.
    """
    found = dict(in_file(folders, name, ""))
    for group, choice in choices.items():
        if choice:
            found |= dict(in_file(folders, f"{group}/{choice}", group.replace("/", ".")))
    return found


def in_file(folders: Sequence[Path], file: str, package: str) -> Iterator[tuple[str, str]]:
    """The settings and comments of a file, after those of the files that it begins from."""
    path = next(filter(Path.is_file, (folder / f"{file}.yaml" for folder in folders)), None)
    if path is None:
        return
    text = path.read_text()
    if given := re.match(r"#\s*@package\s+(\S+)", text):
        package = "" if given[1] == "_global_" else given[1]
    for entry in (yaml.safe_load(text) or {}).get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            before, _, place = entry.partition("@")
            yield from in_file(folders, str(Path(file).with_name(before)), place or package)
    root = yaml.compose(text)
    if isinstance(root, yaml.MappingNode):
        yield from in_node(root, package, text.splitlines())


def in_node(node: yaml.MappingNode, path: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The settings in a node and the comments behind them, with the lines that go on from these."""
    for key, value in node.value:
        name = f"{path}.{key.value}".lstrip(".")
        flat = isinstance(value, yaml.ScalarNode) or value.flow_style
        mark = (value if flat else key).end_mark
        here = COMMENT.fullmatch(lines[mark.line][mark.column :].removeprefix(":"))
        words = [here[1]] if here else []
        words += further(lines[mark.line + 1 :], key.start_mark.column)
        if words:
            yield name, " ".join(words)
        if isinstance(value, yaml.MappingNode) and not flat:
            yield from in_node(value, name, lines)


def further(lines: Sequence[str], column: int) -> Iterator[str]:
    """The comments of lines that hold nothing else, as long as they are further to the right."""
    for line in lines:
        words = COMMENT.fullmatch(line)
        if not words or line.index("#") <= column:
            return
        yield words[1]
